import { createHash, randomBytes } from 'node:crypto'
import t from 'tap'
import { isAddressedTo, mac1Key } from '../../../lib/hub/packet/mac1.ts'
import { initiation, publicKey } from '../../helpers/wireguard-messages.ts'

// A handshake initiation as wireguard-go sent it, and the public key of the peer it was for.
const responder = Buffer.from('BRt/+ZEJ+Uo11VILS76JNL0IvYkl4RKogEIKrmXV0Qo=', 'base64')
const recorded = Buffer.from(
  '01000000645d26d26fc3bb051a9d012997a0c170625095c1cfa739b6d216bc6f3398088314b1c014814478cc81c2997e706ccec98775e5ab46195b45' +
  '4ade22acd451a52daa9265cf1fcc2eba66588620866c4c54553b97c63a9c8b983dfc1c69279ee98bddf9af9654c79d968a3e172b48eec0cc8c9bf685' +
  '524e3b04f717f3e6dda234e900000000000000000000000000000000', 'hex')

t.test('the key is BLAKE2s-256 of the label and the public key', async (t) => {
  const expected = createHash('blake2s256').update('mac1----').update(responder).digest()
  t.same(Buffer.from(mac1Key(responder)), expected)
})

t.test('an initiation that WireGuard made is found to be for its responder, and for no one else', async (t) => {
  t.ok(isAddressedTo(mac1Key(responder), recorded, 0))
  t.notOk(isAddressedTo(mac1Key(publicKey()), recorded, 0))
})

t.test('an initiation is found wherever it stands in a chunk', async (t) => {
  const chunk = Buffer.concat([randomBytes(77), recorded, randomBytes(33)])
  t.ok(isAddressedTo(mac1Key(responder), chunk, 77))
  t.notOk(isAddressedTo(mac1Key(responder), chunk, 76))
})

t.test('a change of any covered byte, or of mac1, makes it nobody\'s; mac2 is not covered', async (t) => {
  const key = mac1Key(responder)
  for (let position = 0; position < recorded.length; position++) {
    const changed = Buffer.from(recorded)
    changed[position]! ^= 1
    if (isAddressedTo(key, changed, 0) !== (position >= 132)) t.fail(`byte ${position}`)
  }
  t.pass()
})

t.test('the initiations that the other tests make are what the relay expects', async (t) => {
  const [a, b] = [publicKey(), publicKey()]
  t.ok(isAddressedTo(mac1Key(a), initiation(1, a), 0))
  t.notOk(isAddressedTo(mac1Key(b), initiation(1, a), 0))
})
