import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { missingForNamespaces, Namespace } from '../helpers/namespace.ts'
import { exampleIn, readPage, replaceAll } from '../helpers/markdown.ts'
import { DEADLINE, SPANZA } from '../helpers/spanza.ts'
import { wgKeys, wgQuickUp } from '../helpers/wg-quick.ts'

// What docs/wireguard.md says about phones: one reaches the hub by UDP, a device behind a firewall through the relay.

const page = readPage('docs/wireguard.md')
const missing = missingForNamespaces(['wireguard-go', 'wg', 'wg-quick', 'ping', 'sysctl'])

t.setTimeout(120_000)

t.test('a phone reaches a device behind a firewall through the hub', { skip: missing ?? false }, async (t) => {
  const hub = await create('hub')
  const phone = await create('phone')
  const nas = await create('nas')
  await phone.link('uplink', '10.98.2.2/30', hub, 'to-phone', '10.98.2.1/30')
  await nas.link('uplink', '10.98.3.2/30', hub, 'to-nas', '10.98.3.1/30')
  const keys = Object.fromEntries(await Promise.all(Object.entries({ HUB: hub, PHONE: phone, NAS: nas }).map(async ([name, namespace]) =>
    [name, await wgKeys(namespace)] as const)))
  const config = (name: string, changes: Record<string, string> = {}) => {
    const text = replaceAll(exampleIn(page, `${name} wg0.conf`), changes)
    return text.replace(/\b(PRIVATE|PUBLIC)_KEY_OF_THE_(\w+)/g, (_, kind, of) => keys[of]![kind === 'PRIVATE' ? 'privateKey' : 'publicKey'])
  }

  const [, command] = /^PostUp = (sysctl .*)$/m.exec(page)!
  await hub.run('sh', ['-c', command!])
  await wgQuickUp(hub, config('hub'))
  const file = join(t.testdir({}), 'hub.mjs')
  writeFileSync(file, replaceAll(exampleIn(page, 'hub.mjs'), { "host: '127.0.0.1'": "host: '0.0.0.0'" }))
  const app = hub.start(process.execPath, [file], { env: { TOKEN: 'token' } })
  await app.line((line) => line.includes('Server listening'), DEADLINE)

  const sidecar = nas.start(process.execPath, [SPANZA, 'connect', 'http://10.98.3.1:3000/wireguard'], { env: { SPANZA_TOKEN: 'token', NO_PROXY: '*' } })
  await sidecar.line((line) => line.startsWith('Connected to '), DEADLINE)
  await wgQuickUp(nas, config('spoke'))
  await wgQuickUp(phone, config('phone', { 'hub.example.com': '10.98.2.1' }))

  const ping = phone.start('ping', ['-n', '10.9.0.3'])
  await ping.line((line) => line.includes('bytes from 10.9.0.3'), DEADLINE)
  const large = await nas.run('ping', ['-n', '-c', '1', '-W', '6', '-M', 'do', '-s', '1352', '10.9.0.2'])
  t.match(large, / 1 received/, 'and back, with the largest packet')

  async function create (name: string) {
    const namespace = await Namespace.create(name)
    t.teardown(() => namespace.close())
    return namespace
  }
})
