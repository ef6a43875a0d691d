import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { exampleIn, readPage, replaceAll } from '../helpers/markdown.ts'
import { freePort } from '../helpers/ports.ts'
import { plainEnvironment, Program } from '../helpers/program.ts'
import { DEADLINE } from '../helpers/spanza.ts'

// The relay of docs/getting-started.md, its list of devices, and the test with curl.

const page = readPage('docs/getting-started.md')

t.setTimeout(60_000)

t.test('the relay answers as the page says', async (t) => {
  const directory = t.testdir({})
  const [app, devices] = [join(directory, 'relay.mjs'), join(directory, 'devices.json')]
  writeFileSync(app, exampleIn(page, 'relay.mjs'))
  const key = (byte: number) => Buffer.alloc(32, byte).toString('base64')
  writeFileSync(devices, replaceAll(exampleIn(page, 'devices.json'), { PUBLIC_KEY_OF_THE_LAPTOP: key(1) }))
  const port = await freePort()
  const relay = new Program(process.execPath, [app], { env: { DEVICES: devices, PORT: String(port) } })
  t.teardown(() => relay.stop())
  await relay.line((line) => line.includes(`Server listening at http://127.0.0.1:${port}`), DEADLINE)

  t.equal(await ask(), 101)
  t.equal(await ask({ TOKEN_OF_THE_LAPTOP: 'unknown' }), 401)
  t.equal(await ask({ "--header 'Connection: Upgrade' --header 'Upgrade: spanza'": '' }), 426)
  t.equal(await ask({ TOKEN_OF_THE_LAPTOP: 'TOKEN_OF_THE_NAS' }), 500, 'whose publicKey is not one yet')

  relay.child.kill('SIGTERM')
  await relay.end(DEADLINE)
  t.equal(relay.child.exitCode, 0, 'and it ends when systemd stops it')

  /** The status that the page's curl gets. */
  async function ask (changes: Record<string, string> = {}): Promise<number> {
    const command = replaceAll(exampleIn(page, 'test with curl'), { 'https://relay.example.com': `http://127.0.0.1:${port}`, ...changes })
    const curl = spawn('sh', ['-c', `exec ${command}`], { env: { ...plainEnvironment, no_proxy: '*' } })
    t.teardown(() => curl.kill())
    let output = ''
    curl.stdout.setEncoding('latin1').on('data', (text: string) => { output += text })
    const ended = once(curl, 'close')
    while (!output.includes('\r\n\r\n') && curl.exitCode === null) await Promise.race([once(curl.stdout, 'data'), ended])
    return Number(/^HTTP\/1\.1 (\d+)/.exec(output)?.[1])
  }
})
