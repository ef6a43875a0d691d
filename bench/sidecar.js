import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { contest } from './lib/contest.js'
import { spanza } from './lib/handshake.js'
import { load, NodeRelay, startProgram } from './lib/process.js'
import { plugin } from './lib/relays.js'
import { Report } from './lib/report.js'

const CLI = fileURLToPath(new URL('../dist/cli/spanza.js', import.meta.url))

const regimes = { '64 under way': { window: 64 }, '1 under way': { window: 1 } }

export default async function run () {
  const report = new Report('sidecar', 'datagrams of 64 to 1420 bytes that go through the UDP sidecar and come back by it')
  const relay = await plugin()()
  const udpPort = await freePort()
  const sidecar = startProgram([process.execPath, CLI, 'connect', `http://127.0.0.1:${relay.port}/relay/sidecar`, '--listen', `127.0.0.1:${udpPort}`], {
    env: { ...process.env, SPANZA_TOKEN: 'some-token' }
  })
  const echo = await NodeRelay.start('udp-echo.js')
  const contenders = {
    // What comes back is sent by the load generator, the relay's other peer. Only the sidecar's CPU counts.
    sidecar: [{ port: relay.port, pids: [sidecar.pid] }, { udpPort, handshake: spanza('sidecar', 'wg') }],
    'dgram echo': [echo, { udpPort: echo.port }]
  }
  const figures = {}
  for (const [regime, settings] of Object.entries(regimes)) {
    figures[regime] = await contest(Object.keys(contenders), async (name) => {
      const [process, where] = contenders[name]
      const { echoed, lost, seconds, cpu } = await load('echo', process, { ...where, ...settings })
      return { kpps: echoed / 1000 / seconds, cpu: cpu / echoed * 1e6, lost: lost / (echoed + lost) * 100 }
    })
  }
  sidecar.kill()
  await Promise.all([once(sidecar, 'exit'), relay.stop(), echo.stop()])

  for (const [regime, rows] of Object.entries(figures)) {
    report.ratio(`${regime}: CPU of a datagram against the echo`, 'cpu', rows.sidecar, rows['dgram echo'], { atMost: 2 })
  }
  for (const [regime, rows] of Object.entries(figures)) {
    report.table(regime, { kpps: ['kpps', 1], cpu: ['CPU µs there and back', 2], lost: ['lost %', 2] }, rows)
  }
  report.finish()
}

async function freePort () {
  const socket = createSocket('udp4').bind(0, '127.0.0.1')
  await once(socket, 'listening')
  const { port } = socket.address()
  socket.close()
  return port
}
