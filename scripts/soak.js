// Puts a relay under load for a long time and checks all that it does: `npm run soak -- [--seconds 3600] [--seed N]
// [--tunnels N] [--deeds N] [--clock N] [--plant bug]`. Needs the built package, and enough file descriptors: a few
// more than tunnels (`ulimit -n`). `--plant` breaks the relay on purpose, to see that it is noticed.

import { parseArgs } from 'node:util'
import { plantedBugs } from '../test/soak/planted-bugs.js'
import { soak } from '../test/soak/soak.js'

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '300' },
    tunnels: { type: 'string', default: '2000' },
    deeds: { type: 'string' },
    seed: { type: 'string', default: String(Math.floor(Math.random() * 2 ** 32)) },
    clock: { type: 'string', default: '10' },
    plant: { type: 'string' }
  }
})
if (values.plant !== undefined && !plantedBugs.includes(values.plant)) throw new Error(`--plant: one of ${plantedBugs.join(', ')}`)

const tunnels = Number(values.tunnels)
const violations = await soak({
  seconds: Number(values.seconds),
  seed: Number(values.seed),
  tunnels,
  deeds: Number(values.deeds ?? Math.min(tunnels, 1500)),
  clock: Number(values.clock),
  plant: values.plant
}, console.log)
process.exitCode = violations === 0 ? 0 : 1
