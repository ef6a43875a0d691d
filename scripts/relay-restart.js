// Stops a relay with many sidecars for 2 s and for 20 s, and tells how soon they are back and how they come:
// `node scripts/relay-restart.js [--sidecars 250] [--outages 2,20] [--crash]`. Needs the built package. With --crash the
// relay is killed and says nothing; else it says that it shuts down. Fails when a sidecar comes back too late.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { UdpSidecar } from 'fastify-spanza-relay/client'

const { values } = parseArgs({
  options: {
    sidecars: { type: 'string', default: '250' },
    outages: { type: 'string', default: '2,20' },
    crash: { type: 'boolean', default: false }
  }
})
const RELAY = fileURLToPath(new URL('../test/network/relay.js', import.meta.url))
const PORT = 18_080
const count = Number(values.sidecars)

/** A relay's process: when it listened, and when it saw each handshake. */
async function startRelay (at = 0) {
  const child = spawn(process.execPath, [RELAY, String(PORT), String(at)], { stdio: ['ignore', 'pipe', 'inherit'] })
  const handshakes = []
  const upSince = await new Promise((resolve) => {
    createInterface({ input: child.stdout }).on('line', (line) => {
      const [what, at] = line.split(' ')
      if (what === 'listening') resolve(Number(at))
      else handshakes.push(Number(at))
    })
  })
  return { child, handshakes, upSince }
}

async function stopRelay ({ child }) {
  const gone = once(child, 'exit')
  child.kill(values.crash ? 'SIGKILL' : 'SIGTERM')
  await gone
}

let relay = await startRelay()
let attempts = 0
const sidecars = []
for (let i = 0; i < count; i++) {
  const sidecar = new UdpSidecar({ url: `http://127.0.0.1:${PORT}/echo`, listen: '127.0.0.1:0' })
  sidecar.on('retry', () => { attempts++ })
  await sidecar.start()
  sidecars.push(sidecar)
}
while (sidecars.some(({ stats }) => !stats.connected)) await delay(100)
await delay(11_000) // connections that lasted

for (const outage of values.outages.split(',').map(Number)) {
  attempts = 0
  const back = []
  const stopping = stopRelay(relay)
  const waiting = sidecars.map((sidecar) => once(sidecar, 'connect').then(() => back.push(Date.now())))
  await stopping
  const stopped = Date.now()
  relay = await startRelay(stopped + outage * 1000)
  await Promise.all(waiting)
  const { upSince, handshakes } = relay
  const times = back.map((at) => at - upSince).sort((a, b) => a - b)
  const perSecond = new Map()
  for (const at of handshakes) {
    const slot = Math.floor((at - upSince) / 100)
    perSecond.set(slot, (perSecond.get(slot) ?? 0) + 1)
  }
  const limit = outage < 10 ? 1000 : 3000
  console.log(`away for ${((upSince - stopped) / 1000).toFixed(1)} s: of ${count} sidecars half are back after ${times[count >> 1]} ms, ` +
    `all after ${times.at(-1)} ms (at most ${limit}); ${handshakes.length} handshakes, at most ${Math.max(...perSecond.values())} in 100 ms; ` +
    `${(attempts / count).toFixed(1)} failed attempts each`)
  if (times.at(-1) > limit || handshakes.length > count) process.exitCode = 1
  await delay(11_000)
}
await Promise.all(sidecars.map((sidecar) => sidecar.close()))
await stopRelay(relay)
