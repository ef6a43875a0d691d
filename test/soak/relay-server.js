// The relay under load, as a process of its own that its parent asks over IPC. Plain JavaScript over the built package.
// Its one argument is JSON: { clock, plant?, options? }

import { readdirSync } from 'node:fs'
import { Socket } from 'node:net'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import * as v8 from 'node:v8'
import Fastify from 'fastify'
import spanzaRelay from 'fastify-spanza-relay'
import { Handshake } from '../../dist/entrance/handshake.js'
import { Clock } from '../../dist/hub/clock.js'
import { Identity } from '../../dist/hub/packet/identity.js'
import { PacketChannel } from '../../dist/hub/packet/packet-channel.js'
import { Peer } from '../../dist/hub/peer.js'
import { SendQueue } from '../../dist/hub/packet/send-queue.js'
import { StreamChannel } from '../../dist/hub/stream/stream-channel.js'
import { plantBug } from './planted-bugs.js'

const settings = JSON.parse(process.argv[2])

// The hub's time runs faster than ours, so that what it remembers for minutes is forgotten within a short run.
let clockRate = settings.clock
const { tick } = Clock.prototype
Clock.prototype.tick = function () {
  const before = this.now
  tick.call(this)
  this.now += (this.now - before) * (clockRate - 1)
}

// An initiation may go to several receivers. How many is no counter of the hub, but its counters only add up with it:
// for each of them `ownerOf` is asked once, and for any other datagram at most once.
let ownersAsked = 0
let copies = 0
const { ownerOf } = Identity.prototype
Identity.prototype.ownerOf = function (...args) {
  ownersAsked++
  return ownerOf.apply(this, args)
}
const { route } = PacketChannel.prototype
PacketChannel.prototype.route = function (...args) {
  ownersAsked = 0
  route.apply(this, args)
  copies += Math.max(0, ownersAsked - 1)
}

if (settings.plant !== undefined) plantBug(settings.plant)

const app = Fastify({ logger: false })

await app.register(spanzaRelay, {
  maxChannelPeers: 24,
  maxKeylessPeers: 8,
  handshakeTimeout: 2000,
  maxClientPeers: 10_000,
  maxUnfinishedHandshakes: 10_000,
  maxClientUnfinishedHandshakes: 10_000,
  handshakesPerSecond: 10_000,
  channelHandshakesPerSecond: 10_000,
  clientHandshakesPerSecond: 10_000,
  pairTimeout: 30_000,
  halfClosedTimeout: 30_000,
  idleTimeout: 75_000,
  ...settings.options
})

async function hook ({ headers }) {
  if (headers['x-slow'] !== undefined) await sleep(Number(headers['x-slow']))
  if (headers['x-refuse'] !== undefined) throw Object.assign(new Error('refused'), { statusCode: Number(headers['x-refuse']) })
}

app.relay('/relay/:channel', {
  onRequest: hook,
  identify: ({ headers }) => ({ id: headers['x-id'], publicKey: headers['x-key'] })
})
app.relay('/open/:channel', { onRequest: hook })
app.get('/health', async () => ({ ok: true }))
app.post('/echo', async ({ body }) => body)

let eventLoopDelay = monitorEventLoopDelay({ resolution: 10 })
eventLoopDelay.enable()

/** Live objects by class, where this Node can count them. */
function countObjects () {
  if (typeof v8.queryObjects !== 'function') return {}
  const classes = { Peer, Identity, PacketChannel, StreamChannel, SendQueue, Handshake, Socket }
  return Object.fromEntries(Object.entries(classes).map(([name, of]) => [name, v8.queryObjects(of)]))
}

function countFileDescriptors () {
  try {
    return readdirSync('/proc/self/fd').length
  } catch {
    return 0 // no such thing outside of Linux
  }
}

function countResources () {
  const counts = {}
  for (const type of process.getActiveResourcesInfo()) counts[type] = (counts[type] ?? 0) + 1
  return counts
}

const questions = {
  stats: () => ({ ...app.relayHub.stats(), copies }),

  /** What is there now: only what must be back where it was when everybody has left. */
  tables: () => ({
    peers: app.relayHub.stats().peers,
    channels: app.relayHub.channels().length,
    fds: countFileDescriptors(),
    resources: countResources()
  }),

  async memory () {
    // Twice, with a turn between: what finalizers let go is only found by the second.
    for (let i = 0; i < 2; i++) {
      globalThis.gc()
      await sleep(20)
    }
    const objects = countObjects()
    globalThis.gc()
    return { ...process.memoryUsage(), objects }
  },

  load: () => {
    const { user, system } = process.cpuUsage()
    const longestDelay = eventLoopDelay.max / 1e6
    eventLoopDelay.disable()
    eventLoopDelay = monitorEventLoopDelay({ resolution: 10 })
    eventLoopDelay.enable()
    return { cpu: (user + system) / 1e6, longestDelay, rss: process.memoryUsage.rss(), peers: app.relayHub.stats().peers }
  },

  clock: ({ rate }) => { clockRate = rate },

  disconnect: ({ selector }) => app.relayHub.disconnect(selector),

  async close () {
    await app.close()
    // Nothing may be left that keeps the process alive.
    process.disconnect()
  }
}

process.on('message', async ({ number, question, ...rest }) => {
  try {
    const answer = await questions[question](rest)
    if (process.connected) process.send({ number, answer })
  } catch (error) {
    process.send({ number, error: error.stack })
  }
})

await app.listen({ port: 0, host: '127.0.0.1' })
process.send({ port: app.server.address().port })
