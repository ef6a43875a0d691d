import { setTimeout as sleep } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { hubOptionNames } from '../../lib/hub/hub-options.ts'
import type { DetachInfo, HubOptions, RelayErrorCode } from '../../lib/index.ts'
import { fronts, type Asked, type Front, type FrontClient } from '../helpers/fronts.ts'
import { refusalsOf, startApp } from '../helpers/relay-app.ts'
import { until } from '../helpers/tunnel.ts'
import { closeFrame } from '../conformance/websocket-frames.ts'

// Every limit of the table of options, attacked from one address, over HTTP/2 by one connection: what goes beyond it is refused or closed
// as the documentation says, and counted, and another address is none the worse for it. writeTimeout is in test/handshake/slow-clients.test.ts
// and test/hub/packet-peer.test.ts, keepaliveInterval takes nothing from anybody.

const ATTACKER = '127.0.0.2'
const OTHER = '127.0.0.3'
/** Nothing but the limit that is attacked. */
const roomy = { handshakesPerSecond: 10_000, channelHandshakesPerSecond: 10_000, clientHandshakesPerSecond: 10_000 }

interface Besieged {
  app: FastifyInstance
  /** How often the hook of /slow, which never ends, has run. */
  slow: () => number
  attacker: FrontClient
  other: FrontClient
}

async function besiege (t: Test, { client, server }: Front, relay: HubOptions): Promise<Besieged> {
  let slow = 0
  const app = await startApp(t, (app) => {
    app.get('/rest', async () => 'rest')
    app.relay('/relay/:network', {
      identify: ({ headers }) => ({ publicKey: headers['x-key'] as string | undefined })
    })
    app.relay('/slow/:network', {
      onRequest: async () => {
        slow++
        await new Promise(() => {})
      }
    })
  }, { server, relay: { closeGrace: 200, ...roomy, ...relay } })
  // By now the limits are tested before hooks.
  await app.inject('/rest')
  return { app, slow: () => slow, attacker: await client(t, app, ATTACKER), other: await client(t, app, OTHER) }
}

interface RefusalRow {
  relay: HubOptions
  refused: { status: number, code: RelayErrorCode }
  /** What comes before those that are refused: so many tunnels, handshakes in a slow hook, or none: what goes beyond a rate. */
  tunnels?: number
  unfinished?: number
  /** Where the attack goes to; default: a channel for each. */
  path?: string
  /** What another address asks for meanwhile, and gets; default: a channel that the attack has left alone. */
  otherKey?: string
  /** A limit of all clients together keeps others out until there is room. */
  isOfAll?: boolean
}

const refusals: Partial<Record<keyof HubOptions, RefusalRow>> = {
  maxPeers: { relay: { maxPeers: 2 }, tunnels: 2, refused: { status: 503, code: 'FST_RELAY_HUB_FULL' }, isOfAll: true },
  maxClientPeers: { relay: { maxClientPeers: 2, maxPeers: 3 }, tunnels: 2, refused: { status: 429, code: 'FST_RELAY_CLIENT_FULL' } },
  maxChannelPeers: { relay: { maxChannelPeers: 2 }, tunnels: 2, path: '/relay/full', refused: { status: 503, code: 'FST_RELAY_CHANNEL_FULL' } },
  maxKeylessPeers: {
    relay: { maxKeylessPeers: 2 }, tunnels: 2, path: '/relay/home', refused: { status: 503, code: 'FST_RELAY_KEYLESS_FULL' }, otherKey: Buffer.alloc(32, 1).toString('base64')
  },
  maxUnfinishedHandshakes: { relay: { maxUnfinishedHandshakes: 2 }, unfinished: 2, refused: { status: 503, code: 'FST_RELAY_HUB_UNFINISHED' }, isOfAll: true },
  maxClientUnfinishedHandshakes: {
    relay: { maxClientUnfinishedHandshakes: 2, maxUnfinishedHandshakes: 3 }, unfinished: 2, refused: { status: 429, code: 'FST_RELAY_CLIENT_UNFINISHED' }
  },
  handshakesPerSecond: { relay: { handshakesPerSecond: 3 }, refused: { status: 503, code: 'FST_RELAY_HUB_RATE' }, isOfAll: true },
  channelHandshakesPerSecond: {
    relay: { channelHandshakesPerSecond: 1 }, path: '/relay/busy', refused: { status: 503, code: 'FST_RELAY_CHANNEL_RATE' }
  },
  clientHandshakesPerSecond: {
    relay: { clientHandshakesPerSecond: 1, handshakesPerSecond: 3 }, refused: { status: 429, code: 'FST_RELAY_CLIENT_RATE' }
  },
  handshakeTimeout: { relay: { handshakeTimeout: 300 }, path: '/slow/x', refused: { status: 503, code: 'FST_RELAY_HANDSHAKE_TIMEOUT' } }
}

/** The second is above the burst that each rate of the table allows. */
const FLOOD = 12
const FLOOD_OF_A_RATE = 30

for (const [limit, { relay, refused, tunnels = 0, unfinished = 0, path, otherKey, isOfAll = false }] of Object.entries(refusals)) {
  t.test(limit, async (t) => {
    for (const front of fronts) {
      await t.test(front.name, async (t) => {
        const { app, slow, attacker, other } = await besiege(t, front, relay)
        const told = refusalsOf(app)
        const held: Asked[] = []
        for (let i = 0; i < tunnels; i++) {
          held.push(await attacker.ask(path ?? `/relay/${i}`))
          t.same(await held[i]!.answer(), { status: front.opened })
        }
        for (let i = 0; i < unfinished; i++) held.push(await attacker.ask(path ?? `/slow/${i}`))
        await until(() => slow() === unfinished)

        const isRate = limit.endsWith('PerSecond')
        const asked = await Promise.all(Array.from({ length: isRate ? FLOOD_OF_A_RATE : FLOOD }, async (_, i) => await attacker.ask(path ?? `/relay/more${i}`)))
        const answers = await Promise.all(asked.map(async (each) => await each.answer()))
        const through = answers.filter(({ status }) => status === front.opened)
        // Time gives some of a rate back.
        t.ok(through.length <= (isRate ? FLOOD_OF_A_RATE - 1 : 0), `${through.length} get through`)
        const others = answers.filter(({ status }) => status !== front.opened)
        t.same(others, others.map(() => refused), 'each other is refused, and why')
        t.equal(app.relayHub.stats().refused[refused.code], others.length, 'counted')
        t.same(told.map(({ code, address }) => [code, address]), others.map(() => [refused.code, ATTACKER]), 'told')

        t.equal(await other.get('/rest'), 200, 'REST is served')
        const ask = async (): Promise<number> => await (await other.ask('/relay/home', 'datagrams', otherKey === undefined ? {} : { 'x-key': otherKey })).answer().then(({ status }) => status)
        if (isOfAll) {
          held[0]?.break()
          let status = 0
          while (status !== front.opened) status = await ask()
        } else {
          t.equal(await ask(), front.opened, 'another address gets its tunnel')
        }
      })
    }
  })
}

interface ClosingRow {
  relay: HubOptions
  fronts?: (front: Front) => boolean
  /** Attacks. @returns the tunnels that are to be closed */
  attack: (attacker: FrontClient, front: Front) => Promise<Asked[]>
  /** What is told of each; undefined where a WebSocket has another way to end. */
  reason?: { reason: DetachInfo['reason'], text: string }
  /** What a datagram tunnel is closed with. */
  wg?: number
  webSocket?: number
}

async function opened (client: FrontClient, path: string, carries?: 'datagrams' | 'bytes'): Promise<Asked> {
  const asked = await client.ask(path, carries)
  const { status, code } = await asked.answer()
  if (code !== undefined) throw new Error(`refused: ${status} ${code}`)
  return asked
}

async function openPair (client: FrontClient): Promise<Asked[]> {
  return [await opened(client, '/relay/pair', 'bytes'), await opened(client, '/relay/pair', 'bytes')]
}

const closings: Partial<Record<keyof HubOptions, ClosingRow>> = {
  pairTimeout: {
    relay: { pairTimeout: 400 },
    attack: async (attacker) => [await opened(attacker, '/relay/alone', 'bytes')],
    reason: { reason: 'pair-timeout', text: 'no second tunnel connected within 400 ms' },
    webSocket: 1013
  },
  halfClosedTimeout: {
    relay: { halfClosedTimeout: 400 },
    attack: async (attacker, { protocol }) => {
      const [a, b] = await openPair(attacker)
      if (protocol === 'spanza') a!.end()
      // The other one gets it and does not answer.
      else await a!.send(closeFrame(1000))
      return [b!]
    },
    reason: { reason: 'idle', text: 'half-open for 400 ms' }
  },
  keepaliveTimeout: {
    relay: { keepaliveInterval: 300, keepaliveTimeout: 900 },
    attack: async (attacker) => [await opened(attacker, '/relay/silent')],
    reason: { reason: 'idle', text: 'nothing received for 900 ms' },
    wg: 4,
    webSocket: 4004
  },
  idleTimeout: {
    relay: { idleTimeout: 400 },
    // A WebSocket has pings.
    fronts: ({ protocol }) => protocol === 'spanza',
    attack: openPair,
    reason: { reason: 'idle', text: 'nothing received for 400 ms' }
  }
}

for (const [limit, { relay, attack, reason, wg, webSocket, ...row }] of Object.entries(closings)) {
  t.test(limit, async (t) => {
    await Promise.all(fronts.filter(row.fronts ?? (() => true)).map(async (front) => {
      const { app, attacker, other } = await besiege(t, front, relay)
      const detached: Array<[string | undefined, DetachInfo]> = []
      app.relayHub.on('detach', ({ address }, info) => detached.push([address, info]))
      const [a, b] = [await opened(other, '/relay/home'), await opened(other, '/relay/home')]
      const over = new AbortController()
      const chat = (async () => {
        // Both give signs of life.
        while (!over.signal.aborted) {
          for (const [from, to] of [[a, b], [b, a]] as const) {
            await from.sendDatagram(Buffer.from('alive'))
            t.equal((await to.readDatagram()).toString(), 'alive')
          }
          await sleep(30)
        }
      })()
      const tunnels = await attack(attacker, front)
      await until(() => app.relayHub.stats().peers === 2)
      const ofAttacker = detached.filter(([address]) => address === ATTACKER).map(([, info]) => info)
      if (reason !== undefined && (front.protocol === 'spanza' || limit !== 'halfClosedTimeout')) {
        // The other one of a pair goes with it.
        t.match(ofAttacker, ofAttacker.map((_, i) => i === 0 ? reason : { reason: 'partner-lost' }), `${front.name}: why`)
        t.equal(app.relayHub.stats().detached[reason.reason], 1, `${front.name}: counted`)
      }
      for (const tunnel of tunnels) {
        if (front.protocol === 'websocket' && webSocket !== undefined) t.equal(await tunnel.closeCode(), webSocket, `${front.name}: told`)
        if (front.protocol === 'spanza' && wg !== undefined) t.equal(await tunnel.closeCode(), wg, `${front.name}: told`)
        await tunnel.ended()
      }
      over.abort()
      await chat
      t.equal(detached.length, ofAttacker.length, `${front.name}: nobody else is closed`)
      t.equal(await other.get('/rest'), 200)
    }))
  })
}

t.test('maxPacketSize', async (t) => {
  for (const front of fronts) {
    await t.test(front.name, async (t) => {
      const { app, attacker } = await besiege(t, front, { maxPacketSize: 100 })
      const [a, b] = [await opened(attacker, '/relay/home'), await opened(attacker, '/relay/home')]
      for (const length of [101, 1000, 65535]) await a.sendDatagram(Buffer.alloc(length, 1))
      await a.sendDatagram(Buffer.alloc(100, 2))
      t.same(await b.readDatagram(), Buffer.alloc(100, 2), 'what is too large does not arrive, and the next one does')
      t.match(app.relayHub.stats(), { peers: 2, drops: { 'too-large': 3 } }, 'counted, and nobody is closed')
    })
  }
})

t.test('closeGrace', async (t) => {
  await Promise.all(fronts.map(async (front) => {
    const { app, attacker, other } = await besiege(t, front, { closeGrace: 300, handshakeTimeout: 600_000 })
    // It keeps its side open, whatever it is told.
    await opened(attacker, '/relay/home')
    await openPair(attacker)
    await attacker.ask('/slow/x')
    await opened(other, '/relay/home')
    await app.close()
    t.match(app.relayHub.stats(), { peers: 0 }, `${front.name}: closed`)
  }))
})

t.test('each limit of the table is among these', async (t) => {
  const elsewhere = ['maxPacketSize', 'closeGrace', 'writeTimeout', 'keepaliveInterval']
  t.same([...Object.keys(refusals), ...Object.keys(closings), ...elsewhere].sort(), [...hubOptionNames].sort())
})
