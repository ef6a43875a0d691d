import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import t from 'tap'
import { closeReasons } from '../../lib/tunnel/close-reasons.ts'
import { wg } from '../../lib/framing/wg.ts'
import { fakeRelay } from '../helpers/fake-relay.ts'
import { Program } from '../helpers/program.ts'
import { DEADLINE, listen, SPANZA } from '../helpers/spanza.ts'

const hasScript = spawnSync('script', ['--version']).status === 0

t.test('on a terminal the last line shows what passes', { skip: hasScript ? false : 'needs script, of util-linux, for a terminal' }, async (t) => {
  const relay = await fakeRelay(t)
  const command = [process.execPath, SPANZA, 'connect', relay.url, ...listen].map((part) => `'${part}'`).join(' ')
  // Ends with the exit code of the command, and writes down nothing.
  const program = new Program('script', ['-q', '-e', '-c', command, '/dev/null'], { env: { SPANZA_TOKEN: '', TERM: 'xterm' }, name: 'spanza on a terminal' })
  t.teardown(() => program.stop('SIGKILL'))
  let output = ''
  const shows = async (text: RegExp): Promise<void> => {
    while (!text.test(output)) await once(program.child.stdout!, 'data')
  }
  program.child.stdout!.on('data', (chunk) => { output += String(chunk) })
  const tunnel = await relay.tunnels.next()
  const rates = String.raw`In [\d.]+ k?B\/s, \d+ datagrams\/s \| out 0 B\/s, 0 datagrams\/s`
  tunnel.send(Buffer.from('to nobody'))
  await shows(new RegExp(rates + String.raw` \| 1 dropped`))
  tunnel.socket.end(wg.closing(closeReasons.disconnected.code, '')!)
  t.equal(await program.end(DEADLINE), 5)
  const live = String.raw`(?:${rates}|Not connected) \| \d dropped`
  const erased = String.raw`\x1b\[1G\x1b\[2K`
  t.match(output, new RegExp(String.raw`Connected to [^\r]*\r\n(${live}${erased})+spanza: The connection was closed for good`), 'each is erased before what comes next')
})
