import t from 'tap'
import { Identity } from '../../../lib/hub/packet/identity.ts'
import { mac1Key } from '../../../lib/hub/packet/mac1.ts'
import { publicKey } from '../../helpers/wireguard-messages.ts'

function identity (name = 'x', key?: Buffer): Identity {
  return new Identity(name, true, key)
}

/** How many of `tries` succeed. */
function count (tries: number, attempt: () => boolean): number {
  let successes = 0
  for (let i = 0; i < tries; i++) if (attempt()) successes++
  return successes
}

t.test('it may send 250 initiations at once, then 50 a second', async (t) => {
  const a = identity()
  t.equal(count(1000, () => a.mayInitiate(0)), 250)
  t.equal(count(1000, () => a.mayInitiate(1000)), 50)
})

t.test('to one other it may send 5 at once, then 1 a second', async (t) => {
  const [a, b, c] = [identity(), identity(), identity()]
  t.equal(count(100, () => a.mayInitiateTo(b, 0)), 5)
  t.equal(count(100, () => a.mayInitiateTo(c, 0)), 5)
  t.equal(count(100, () => a.mayInitiateTo(b, 2000)), 2)
  a.sweep(2000)
  t.equal(count(100, () => a.mayInitiateTo(b, 2000)), 0, 'sweeping forgets no rate that is in use')
})

t.test('its key of mac1 comes from its public key', async (t) => {
  const key = publicKey()
  t.same(identity('a', key).mac1Key, mac1Key(key))
  const a = identity('a', key)
  t.equal(a.mac1Key, a.mac1Key, 'made once')
  t.equal(identity().mac1Key, undefined)
})

t.test('it remembers the four partners it met last, the newest first', async (t) => {
  const a = identity()
  const [b, c, d, e, f] = ['b', 'c', 'd', 'e', 'f'].map((name) => identity(name))
  for (const each of [b!, c!, d!, e!, b!, f!, f!]) a.met(each)
  t.same(a.partners.map(({ id }) => id), ['f', 'b', 'e', 'd'])
})

t.test('an index belongs to whom a session or a pending initiation leads', async (t) => {
  const [a, b, c] = [identity(), identity(), identity()]
  a.sessions.install(1, b, 0)
  a.pending.add(2, c, 0)
  t.equal(a.ownerOf(1, 1), b)
  t.equal(a.ownerOf(2, 1), c)
  t.equal(a.ownerOf(3, 1), undefined)
  t.equal(a.ownerOf(2, 15_000), undefined)
  t.equal(a.ownerOf(1, 240_000), undefined)
})

t.test('to ask whose an index is does not count as a use of it', async (t) => {
  const [a, b] = [identity(), identity()]
  for (let index = 0; index < 8; index++) a.sessions.install(index, b, 0)
  t.equal(a.ownerOf(0, 1), b)
  a.sessions.install(8, b, 1)
  t.equal(a.ownerOf(0, 1), undefined)
})

t.test('one that has left holds on to nobody', async (t) => {
  const [a, b] = [identity(), identity()]
  a.sessions.install(1, b, 0)
  a.pending.add(2, b, 0)
  b.pending.add(3, a, 0)
  a.met(b)
  a.remove()
  t.equal(a.isRemoved, true)
  t.same(a.partners, [])
  t.equal(a.sessions.size, 0)
  t.equal(a.pending.senderOf(2, 0), undefined)
  t.equal(b.pending.senderOf(3, 0), undefined)
})
