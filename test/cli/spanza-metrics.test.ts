import { once } from 'node:events'
import { createServer } from 'node:net'
import t from 'tap'
import { fakeRelay } from '../helpers/fake-relay.ts'
import { DEADLINE, errorsOf, listen, spanza } from '../helpers/spanza.ts'
import { udpPeer } from '../helpers/udp-peer.ts'

t.test('--metrics serves what the sidecar counts, as long as it runs', async (t) => {
  const relay = await fakeRelay(t)
  const program = spanza(t, ['connect', relay.url, ...listen, '--metrics', '127.0.0.1:0'])
  const [, url] = /^Metrics at (http:\/\/127\.0\.0\.1:\d+\/metrics)$/.exec(await program.line((line) => line.startsWith('Metrics'), DEADLINE))!
  await program.line((line) => line.startsWith('Connected'), DEADLINE)
  const answer = await fetch(url!)
  t.match(await answer.text(), /^spanza_sidecar_connected 1\n/m)
  program.child.kill('SIGTERM')
  t.equal(await program.end(DEADLINE), 0)

  const json = spanza(t, ['connect', relay.url, ...listen, '--metrics', '127.0.0.1:0', '--json'])
  t.match(JSON.parse(await json.line((line) => line.includes('"metrics"'), DEADLINE)), { event: 'metrics', time: String, url: /\/metrics$/ })

  const { host } = new URL(url!)
  const taken = createServer().listen(Number(host.split(':')[1]), '127.0.0.1')
  t.teardown(() => taken.close())
  await once(taken, 'listening')
  const failing = spanza(t, ['connect', relay.url, ...listen, '--metrics', host])
  t.equal(await failing.end(DEADLINE), 1)
  t.match(errorsOf(failing), `spanza: --metrics ${host}: the port is taken, perhaps by another sidecar: stop that, or choose another port (listen EADDRINUSE`)
  const peer = await udpPeer(t)
  const unbound = spanza(t, ['connect', relay.url, '--listen', peer.address, '--metrics', '127.0.0.1:0'])
  t.equal(await unbound.end(DEADLINE), 1, 'nor does it stay for its metrics')
})
