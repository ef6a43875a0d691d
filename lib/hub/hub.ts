import { errors } from '../errors.ts'
import { readHubOptions, type HubOptions } from './hub-options.ts'
import { printable } from '../util/printable.ts'
import { rateLimit, type TokenBucket } from '../util/token-bucket.ts'
import { Clock } from './clock.ts'
import { countUp, createCounters, type Counters } from './counters.ts'
import type { HandshakeFaultInfo } from './packet/handshake-record.ts'
import { faultText } from './packet/handshake-words.ts'
import { Mac1Budget } from './packet/mac1-budget.ts'
import { PacketChannel } from './packet/packet-channel.ts'
import { PacketPeer } from './packet/packet-peer.ts'
import { StreamChannel } from './stream/stream-channel.ts'
import { TargetChannel } from './target/target-channel.ts'
import type { DetachReason } from '../tunnel/close-reasons.ts'
import type { Tunnel } from '../tunnel/tunnel.ts'
import type { Admitted } from './admitted.ts'
import type { ChannelInfo, ChannelKey, DetachInfo, PeerInfo, PeerSelector, TrafficStats, TunnelCount } from './hub-info.ts'
import type { HubContext, Peer } from './peer.ts'

const MAX_TICK_MS = 1000
/** The shortest deadline spans at least this many ticks. */
const TICKS_PER_DEADLINE = 5
/** For all peers together. Each peer also has its own limits. */
const HANDSHAKE_LINES_PER_SECOND = 2

/** The part of a pino logger that the hub uses. */
export interface HubLog {
  info: (fields: object, message: string) => void
  warn: (fields: object, message: string) => void
  error: (fields: object, message: string) => void
}

interface Channel {
  key: ChannelKey
  members: PacketChannel | StreamChannel | TargetChannel
  handshakes: TokenBucket
}

/** Receives the events of a hub. Must not throw. */
export interface HubListener {
  attached: (peer: PeerInfo) => void
  detached: (peer: PeerInfo, info: DetachInfo) => void
}

/** All channels of one Fastify server. The hub knows tunnels and peers, but not HTTP. */
export class Hub {
  readonly #options: Required<HubOptions>
  readonly #log: HubLog
  readonly #requestIdLabel: string
  readonly #listener: HubListener
  readonly #context: HubContext
  readonly #channels = new Map<string, Channel>()
  /** Peer count per client, by `Admitted.client`. */
  readonly #peersByClient = new Map<string, number>()
  readonly #mac1Budget: Mac1Budget
  readonly #handshakeLines: TokenBucket
  #suppressedHandshakeLines = 0
  readonly #clock: Clock
  readonly #counters = createCounters()
  readonly #timer: NodeJS.Timeout
  readonly #tunnels = new Map<string, TunnelCount>()
  #peerCount = 0
  #isClosing = false

  /**
   * @param requestIdLabel the log field for the request id
   * @throws FST_RELAY_OPTION
   */
  constructor (options: HubOptions, log: HubLog, listener: HubListener, requestIdLabel = 'reqId') {
    this.#options = readHubOptions(options)
    this.#log = log
    this.#requestIdLabel = requestIdLabel
    this.#listener = listener
    this.#clock = new Clock(tickLength(this.#options))
    this.#mac1Budget = new Mac1Budget(this.#clock.now)
    this.#handshakeLines = rateLimit(HANDSHAKE_LINES_PER_SECOND, this.#clock.now)
    this.#context = {
      options: this.#options,
      clock: this.#clock,
      counters: this.#counters,
      detached: (peer, reason, text) => this.#detached(peer, reason, text),
      handshakesFail: (peer, fault) => this.#handshakesFail(peer, fault),
      handshakesSucceed: (peer, by) => this.#handshakesSucceed(peer, by)
    }
    this.#timer = setInterval(() => this.#sweep(), this.#clock.tickLength)
    this.#timer.unref()
  }

  get options (): Readonly<Required<HubOptions>> {
    return this.#options
  }

  /** True once the server starts closing. The hub then refuses new tunnels. */
  get isClosing (): boolean {
    return this.#isClosing
  }

  /** All peers, in no particular order. */
  peers (): PeerInfo[] {
    return this.#allPeers().map((peer) => peer.info())
  }

  channels (): ChannelInfo[] {
    return [...this.#channels.values()]
      .filter(({ members }) => !members.isEmpty)
      .map(({ key, members }) => ({ ...key, peers: members.peers.length }))
  }

  /** A copy of the counters, including live tunnels. */
  stats (): TrafficStats {
    const stats: TrafficStats = {
      ...structuredClone(this.#counters),
      peers: this.#peerCount,
      channels: this.channels().length,
      tunnels: [...this.#tunnels.values()].map((count) => ({ ...count })),
      sessions: 0,
      waiting: 0
    }
    for (const { members } of this.#channels.values()) {
      if (members instanceof PacketChannel) stats.sessions += members.sessions
    }
    for (const peer of this.#allPeers()) {
      addTraffic(stats, peer)
      if (peer instanceof PacketPeer) stats.waiting += peer.queue.length
    }
    return stats
  }

  /**
   * Closes the tunnels of a peer. A spanza sidecar will not reconnect.
   * @param text the text sent to the peer
   * @returns the number of tunnels closed
   */
  disconnect (selector: PeerSelector, text = 'disconnected by the operator'): number {
    const peers = [...this.#channels.values()]
      .filter(({ key }) => key.name === selector.channel &&
        (selector.scope === undefined || key.scope === selector.scope) &&
        (selector.kind === undefined || key.kind === selector.kind))
      .flatMap(({ members }) => members.peers as Peer[])
      .filter((peer) => peer.id === selector.id)
    for (const peer of peers) peer.close('disconnected', text)
    return peers.length
  }

  /**
   * Checks that a tunnel can be attached now.
   * @param isAgain true on a repeated check of the same handshake, which must not count towards rates twice
   * @throws FST_RELAY_CLOSING, FST_RELAY_HUB_FULL, FST_RELAY_CLIENT_FULL, FST_RELAY_CHANNEL_FULL, FST_RELAY_KEYLESS_FULL,
   * FST_RELAY_CHANNEL_PAIRED, FST_RELAY_REPLACED_TOO_OFTEN or FST_RELAY_CHANNEL_RATE
   */
  checkRoom (admitted: Admitted, isAgain = false): void {
    if (this.#isClosing) throw new errors.FST_RELAY_CLOSING()
    const { maxPeers, maxClientPeers, channelHandshakesPerSecond } = this.#options
    const { members, handshakes } = this.#channelFor(admitted.channel)
    // A reconnecting device takes its old place, even when the hub is full.
    const replaced: Peer[] = members.replacedBy(admitted)
    if (this.#peerCount - replaced.length >= maxPeers) throw new errors.FST_RELAY_HUB_FULL(maxPeers)
    const { client } = admitted
    if (client !== undefined) {
      const replacedOfClient = replaced.filter((peer) => peer.admitted.client === client).length
      const peersOfClient = (this.#peersByClient.get(client) ?? 0) - replacedOfClient
      if (peersOfClient >= maxClientPeers) throw new errors.FST_RELAY_CLIENT_FULL(client, maxClientPeers)
    }
    members.checkRoom(admitted, isAgain)
    if (isAgain) return
    // Checked last, so that refused handshakes do not use up the rate. Targets have none: clients share no channel there.
    if (admitted.channel.kind !== 'target' && !handshakes.take(this.#clock.now)) throw new errors.FST_RELAY_CHANNEL_RATE(channelHandshakesPerSecond)
  }

  /** Attaches a tunnel. Call `checkRoom` first, in the same turn of the event loop. */
  attach (admitted: Admitted, tunnel: Tunnel): void {
    const peer = this.#channelFor(admitted.channel).members.attach(admitted, tunnel)
    this.#peerCount++
    this.#countOfClient(peer, 1)
    this.#counters.attached++
    const info = peer.info()
    const tunnels = this.#tunnelsLike(info)
    tunnels.attached++
    tunnels.peers++
    this.#log.info({ ...this.#logFields(peer), framing: info.framing, protocol: info.protocol, httpVersion: info.httpVersion }, 'relay peer attached')
    this.#listener.attached(info)
  }

  /**
   * Closes all tunnels and refuses new ones.
   * @returns a promise that resolves when the last tunnel is closed, or when `closeGrace` is over and the rest are destroyed
   */
  async close (): Promise<void> {
    if (this.#isClosing) return
    this.#isClosing = true
    const tunnels = this.#allPeers().map((peer) => {
      peer.shutDown()
      return peer.tunnel
    })
    await allClosed(tunnels, this.#options.closeGrace)
    for (const tunnel of tunnels) tunnel.destroy()
    clearInterval(this.#timer)
  }

  #logFields (peer: Peer): object {
    const { channel, address, requestId } = peer.admitted
    return {
      [this.#requestIdLabel]: requestId, peer: printable(peer.id), channel: printable(channel.name), scope: channel.scope, address
    }
  }

  #allPeers (): Peer[] {
    return [...this.#channels.values()].flatMap(({ members }) => members.peers as Peer[])
  }

  #channelFor (key: ChannelKey): Channel {
    const id = JSON.stringify([key.kind, key.scope, key.name])
    let channel = this.#channels.get(id)
    if (channel === undefined) {
      const members = this.#membersOf(key.kind)
      channel = { key, members, handshakes: rateLimit(this.#options.channelHandshakesPerSecond, this.#clock.now) }
      this.#channels.set(id, channel)
    }
    return channel
  }

  #membersOf (kind: ChannelKey['kind']): Channel['members'] {
    if (kind === 'packet') return new PacketChannel(this.#context, this.#mac1Budget)
    return kind === 'stream' ? new StreamChannel(this.#context) : new TargetChannel(this.#context)
  }

  #tunnelsLike ({ channel: { scope }, protocol, framing, httpVersion }: PeerInfo): TunnelCount {
    const key = JSON.stringify([scope, protocol, framing, httpVersion])
    let count = this.#tunnels.get(key)
    if (count === undefined) {
      count = { scope, protocol, framing, httpVersion, attached: 0, peers: 0 }
      this.#tunnels.set(key, count)
    }
    return count
  }

  #countOfClient (peer: Peer, change: 1 | -1): void {
    const { client } = peer.admitted
    if (client === undefined) return
    const count = (this.#peersByClient.get(client) ?? 0) + change
    if (count === 0) this.#peersByClient.delete(client)
    else this.#peersByClient.set(client, count)
  }

  #detached (peer: Peer, reason: DetachReason, text: string): void {
    this.#peerCount--
    this.#countOfClient(peer, -1)
    countUp(this.#counters.detached, reason)
    addTraffic(this.#counters, peer)
    const info = peer.info()
    this.#tunnelsLike(info).peers--
    const duration = Date.now() - peer.attachedAt
    this.#log.info({
      ...this.#logFields(peer), reason, text, duration, bytesIn: info.bytesIn, bytesOut: info.bytesOut, drops: info.drops
    }, 'relay peer detached')
    this.#listener.detached(info, { reason, text, duration })
  }

  #handshakesFail (peer: Peer, info: HandshakeFaultInfo): void {
    if (!this.#mayLogHandshakes()) return
    const { fault, id, asked, count, since } = info
    const { lastHandshake } = peer.info()
    this.#log.warn({
      ...this.#logFields(peer),
      fault,
      text: faultText(info),
      ...(id !== undefined && { to: printable(id) }),
      ...(fault === 'unanswered' && { asked }),
      count,
      since,
      lastHandshake: lastHandshake === undefined ? null : { ...lastHandshake, id: printable(lastHandshake.id) },
      suppressed: this.#takeSuppressedHandshakeLines()
    }, 'WireGuard handshakes of a relay peer fail')
  }

  #handshakesSucceed (peer: Peer, by: string): void {
    if (!this.#mayLogHandshakes()) return
    const suppressed = this.#takeSuppressedHandshakeLines()
    this.#log.info({ ...this.#logFields(peer), to: printable(by), suppressed }, 'WireGuard handshakes of a relay peer succeed again')
  }

  #mayLogHandshakes (): boolean {
    const mayLog = this.#handshakeLines.take(this.#clock.now)
    if (!mayLog) this.#suppressedHandshakeLines++
    return mayLog
  }

  #takeSuppressedHandshakeLines (): number {
    const suppressed = this.#suppressedHandshakeLines
    this.#suppressedHandshakeLines = 0
    return suppressed
  }

  #sweep (): void {
    this.#clock.tick()
    this.#mac1Budget.sweep(this.#clock.now)
    for (const [id, { members, handshakes }] of this.#channels) {
      members.sweep()
      // Keep an empty channel until its rate has recovered. Otherwise leaving and rejoining would reset the rate.
      if (members.isEmpty && handshakes.isFull(this.#clock.now)) this.#channels.delete(id)
    }
  }
}

/** Returns a tick short enough for the shortest deadline. */
function tickLength (options: Required<HubOptions>): number {
  const deadlines = [options.keepaliveInterval, options.writeTimeout, options.pairTimeout, options.halfClosedTimeout]
  if (options.idleTimeout > 0) deadlines.push(options.idleTimeout)
  return Math.max(1, Math.min(MAX_TICK_MS, ...deadlines.map((deadline) => Math.floor(deadline / TICKS_PER_DEADLINE))))
}

function addTraffic (total: Counters, peer: Peer): void {
  total.datagramsIn += peer.datagramsIn
  total.datagramsOut += peer.datagramsOut
  total.bytesIn += peer.bytesIn
  total.bytesOut += peer.bytesOut
}

/** Waits until all tunnels are closed, at most `grace` milliseconds. */
async function allClosed (tunnels: Tunnel[], grace: number): Promise<void> {
  // Skip closed tunnels: some have yet to emit the event.
  const open = new Set(tunnels.filter((tunnel) => !tunnel.isClosed))
  if (open.size === 0) return
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, grace)
    for (const tunnel of open) {
      tunnel.onClose(() => {
        open.delete(tunnel)
        if (open.size > 0) return
        clearTimeout(timer)
        resolve()
      })
    }
  })
}
