import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { missingForNamespaces, Namespace } from '../helpers/namespace.ts'
import { exampleIn, readPage, replaceAll } from '../helpers/markdown.ts'
import { DEADLINE, SPANZA } from '../helpers/spanza.ts'
import { wgKeys, wgQuickUp } from '../helpers/wg-quick.ts'

// What the README says under "Mount the relay" and "Connect two devices", on three machines. Only keys and addresses differ.

const readme = readPage('README.md')
const missing = missingForNamespaces(['wireguard-go', 'wg', 'wg-quick', 'ping'])

t.setTimeout(120_000)

t.test('two devices reach each other as the README says', { skip: missing ?? false }, async (t) => {
  const relay = await Namespace.create('relay')
  t.teardown(() => relay.close())
  const laptop = await device('laptop', 1)
  const nas = await device('nas', 2)

  const [laptopKey, nasKey] = [publicKeyOf('laptop'), publicKeyOf('nas')]
  const keys = { [laptopKey]: laptop.publicKey, [nasKey]: nas.publicKey }
  const app = join(t.testdir({}), 'app.mjs')
  writeFileSync(app, replaceAll(exampleIn(readme, 'app.mjs'), { ...keys, "host: '127.0.0.1'": "host: '0.0.0.0'" }))
  const program = relay.start(process.execPath, [app], { env: { PORT: '3000' } })
  await program.line((line) => line.includes('Server listening'), DEADLINE)

  const [laptopConfig, nasConfig] = [exampleIn(readme, 'laptop wg0.conf'), exampleIn(readme, 'nas wg0.conf')]
  const commands = [...readme.matchAll(/^SPANZA_TOKEN=(\S+) npx -p fastify-spanza-relay spanza (connect .*)$/gm)]
  t.equal(commands.length, 2)
  for (const [index, { namespace, relayAddress }] of [laptop, nas].entries()) {
    const [, token, line] = commands[index]!
    const args = replaceAll(line!, { 'https://relay.example.com': `http://${relayAddress}:3000` }).split(' ')
    const sidecar = namespace.start(process.execPath, [SPANZA, ...args], { env: { SPANZA_TOKEN: token!, NO_PROXY: '*' } })
    await sidecar.line((text) => text.startsWith('Connected to '), DEADLINE)
  }
  await wgQuickUp(laptop.namespace, replaceAll(laptopConfig, { CONTENTS_OF_PRIVATE_KEY_ON_THE_LAPTOP: laptop.privateKey, [nasKey]: nas.publicKey }))
  await wgQuickUp(nas.namespace, replaceAll(nasConfig, { CONTENTS_OF_PRIVATE_KEY_ON_THE_NAS: nas.privateKey, [laptopKey]: laptop.publicKey }))

  const ping = laptop.namespace.start('ping', ['-n', '10.9.0.2'])
  await ping.line((line) => line.includes('bytes from 10.9.0.2'), DEADLINE)
  const large = await nas.namespace.run('ping', ['-n', '-c', '1', '-W', '6', '-M', 'do', '-s', '1352', '10.9.0.1'])
  t.match(large, / 1 received/, 'and the largest packet that the MTU allows passes')

  async function device (name: string, number: number) {
    const namespace = await Namespace.create(name)
    t.teardown(() => namespace.close())
    const relayAddress = `10.98.${number}.1`
    await namespace.link('uplink', `10.98.${number}.2/30`, relay, `to-${name}`, `${relayAddress}/30`)
    return { namespace, relayAddress, ...await wgKeys(namespace) }
  }

  /** The example key of a device in the README's list. */
  function publicKeyOf (id: string): string {
    return new RegExp(`id: '${id}'[^}]*publicKey: '([^']+)'`).exec(readme)![1]!
  }
})
