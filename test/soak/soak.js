import { setTimeout as sleep } from 'node:timers/promises'
import { auditCounters, auditTables } from './audit.js'
import { RelayProcess } from './relay-process.js'
import { RestProber } from './rest-prober.js'
import { until, World } from './world.js'

/** Enough to make the hub's time pass five minutes in each of its ticks. */
const FAST_CLOCK = 300
const PROGRESS_MS = 20_000
const LEAST_CYCLES = 2
const LET_GO_MS = 30_000
const REST_MS = 15_000
/** What is in no table is swept, and collected, a little later. */
const OBJECTS_MS = 5000
const CLOSING_LOAD_MS = 1500
const CLOSE_MS = 20_000
/** How much the heap may grow from the end of the first cycle to that of the last. */
const HEAP_TOLERANCE = 3 * 1024 * 1024

/**
 * Puts a relay under load in cycles; at the end of each everybody leaves, and the relay must be as it was.
 * @param settings { seconds, seed, tunnels, deeds, clock, plant? }
 * @param print takes lines of text
 * @returns the number of things that were wrong
 */
export async function soak (settings, print) {
  const { seconds, seed, tunnels, deeds, clock, plant } = settings
  print(`soak: ${seconds} s, ${tunnels} tunnels, ${deeds} deeds a second, hub's time ${clock} times as fast, Node ${process.version}, seed ${seed}`)
  const relay = await RelayProcess.start({ clock, plant })
  const cycleMs = Math.min(60_000, seconds * 1000 / 4)
  const world = new World(relay, { seed, tunnels, deeds, roomLife: [cycleMs / 20, cycleMs / 3], print })
  const { ledger, dialer } = world
  const prober = new RestProber(relay.port, (error) => ledger.violation('a REST route beside the relay', { error: error.message }))
  relay.onDeath = (why) => ledger.violation(why, {})

  let started = Date.now()
  const elapsed = () => Math.round((Date.now() - started) / 1000)
  let cpuBefore = 0
  let first
  try {
    await warmUp(prober)
    const before = await relay.ask('tables')
    const objectsBefore = (await relay.ask('memory')).objects
    started = Date.now()
    for (let cycle = 1; (cycle <= LEAST_CYCLES || elapsed() < seconds) && !relay.hasEnded; cycle++) {
      await relay.ask('clock', { rate: clock })
      await relay.ask('load')
      prober.start()
      world.start()
      const loadEnds = Date.now() + cycleMs
      let nextProgress = Date.now() + PROGRESS_MS
      let mostPeers = 0
      let longestDelay = 0
      await until(async () => {
        const load = await relay.ask('load')
        mostPeers = Math.max(mostPeers, load.peers)
        longestDelay = Math.max(longestDelay, load.longestDelay)
        if (Date.now() > nextProgress) {
          nextProgress += PROGRESS_MS
          print(`  ${elapsed()} s: ${load.peers} peers, ${ledger.tunnelsMade} tunnels made, ${ledger.datagramsChecked} datagrams checked, rss ${mib(load.rss)}, ${ledger.violations} wrong`)
        }
        return Date.now() > loadEnds
      }, cycleMs + 10_000)
      await world.letGo(LET_GO_MS)
      await prober.stop()
      const rest = prober.takeTimes()

      await relay.ask('clock', { rate: FAST_CLOCK })
      let tables
      const isAtRest = await until(async () => {
        tables = await relay.ask('tables')
        return auditTables(tables, before).length === 0
      }, REST_MS)
      if (!isAtRest) ledger.violation('what everybody has left behind', { cycle, more: auditTables(tables, before) })
      let memory
      let moreObjects
      await until(async () => {
        memory = await relay.ask('memory')
        moreObjects = auditTables(memory.objects, objectsBefore)
        return moreObjects.length === 0
      }, OBJECTS_MS)
      if (moreObjects.length > 0) ledger.violation('objects that nobody needs any more', { cycle, more: moreObjects })
      for (const line of auditCounters(await relay.ask('stats'), dialer)) ledger.violation('counters', { cycle, line })

      const load = await relay.ask('load')
      first ??= memory
      print(`cycle ${cycle}, ${elapsed()} s: ` + [
        `heap ${mib(memory.heapUsed)}`, `external ${mib(memory.external)}`, `rss ${mib(memory.rss)}`,
        `fds ${tables.fds}`, `handles ${resourceCount(tables)}`, `channels ${tables.channels}`, `most peers ${mostPeers}`,
        `tunnels ${ledger.tunnelsMade}`, `refused ${Object.values(dialer.refused).reduce((a, b) => a + b, 0)}`,
        `datagrams ${ledger.datagramsSent} sent ${ledger.datagramsChecked} checked`, `streams ${mib(ledger.streamBytesChecked)}`,
        `REST p50 ${rest.p50.toFixed(1)} p99 ${rest.p99.toFixed(1)} max ${rest.longest.toFixed(0)} ms`, `loop delay max ${longestDelay.toFixed(0)} ms`,
        `CPU ${(load.cpu - cpuBefore).toFixed(1)} s`, `wrong ${ledger.violations}`
      ].join(', '))
      cpuBefore = load.cpu
      const growth = memory.heapUsed + memory.external - first.heapUsed - first.external
      if (!isAtRest) break // it would only wait in vain again
      if (growth > HEAP_TOLERANCE) ledger.violation('the heap has grown since the first cycle', { cycle, growth: mib(growth) })
    }
    if (!relay.hasEnded) await closeUnderLoad(relay, clock, world)
  } catch (error) {
    ledger.violation('the soak could not go on', { error: error.message })
  } finally {
    world.stop()
    await prober.stop()
    relay.kill()
    for (const socket of dialer.sockets) socket.destroy()
  }

  print(`REST: ${prober.answered} answered with 200`)
  print(`refusals seen: ${JSON.stringify(dialer.refused)}, ${dialer.abandoned} handshakes abandoned`)
  print(`streams cut by a reset that looked like an end: ${ledger.resetsTakenForEnds}`)
  print(`soak: ${elapsed()} s, ${ledger.tunnelsMade} tunnels, ${ledger.datagramsChecked} datagrams and ${mib(ledger.streamBytesChecked)} of streams checked, ` +
    `${ledger.violations} wrong, seed ${seed}`)
  return ledger.violations
}

/** What every process opens at its first request is there from the start. */
async function warmUp (prober) {
  prober.start()
  await until(() => prober.answered >= 20, 10_000)
  await prober.stop()
  prober.takeTimes()
  await sleep(200)
}

/** The app is closed while tunnels are open: all must end, and nothing may keep the process alive. */
async function closeUnderLoad (relay, clock, world) {
  await relay.ask('clock', { rate: clock })
  world.start()
  await sleep(CLOSING_LOAD_MS)
  world.stop()
  await until(() => world.dialer.unanswered.size === 0, 10_000)
  const exitCode = await relay.close(CLOSE_MS)
  if (exitCode !== 0) world.ledger.violation('the process did not end by itself after app.close()', { exitCode })
  await world.letGo(LET_GO_MS)
}

function resourceCount ({ resources }) {
  return Object.values(resources).reduce((total, count) => total + count, 0)
}

function mib (bytes) {
  return `${(bytes / 1024 / 1024).toFixed(1)} MiB`
}
