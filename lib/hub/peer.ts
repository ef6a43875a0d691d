import { randomUUID } from 'node:crypto'
import type { Framing, FramingName } from '../framing/framing.ts'
import type { Clock } from './clock.ts'
import type { Counters, DropReason } from './counters.ts'
import type { HandshakeFaultInfo, HandshakeInfo } from './packet/handshake-record.ts'
import type { HubOptions } from './hub-options.ts'
import type { DetachReason } from '../tunnel/close-reasons.ts'
import type { MessageReader } from '../tunnel/message-reader.ts'
import type { Tunnel } from '../tunnel/tunnel.ts'
import type { UdpSendFault } from '../util/udp-socket.ts'

/** Keepalives of many peers that came at once are spread by this part of the interval. */
const JITTER = 0.1

/** What a channel is called; channels with different keys never meet. */
export interface ChannelKey {
  /** The URL pattern of the route, or what its option `scope` says. */
  scope: string
  name: string
  /** `packet`: any number of peers exchange datagrams; `stream`: two tunnels are spliced; `target`: each leads to its own target. */
  kind: 'packet' | 'stream' | 'target'
}

/** A target that takes datagrams and sends some. */
export interface DatagramTarget {
  readonly carries: 'datagrams'
  /** Begins to receive; `onError` is told what the network reports, which is not the end. */
  receive: (onDatagram: (datagram: Buffer) => void, onError: (code: string) => void) => void
  /** Sends a datagram, whose memory must not be written to again, and tells what became of it. */
  send: (datagram: Buffer, onSent: (fault: UdpSendFault | undefined) => void) => void
  close: () => void
}

/** A target that is a stream of bytes. */
export interface StreamTarget {
  readonly carries: 'stream'
  readonly tunnel: Tunnel
  close: () => void
}

/** Where a tunnel leads instead of to other peers: connected, and not read yet. */
export type ConnectedTarget = StreamTarget | DatagramTarget

/** What admission has found out about a tunnel. */
export interface Admitted {
  channel: ChannelKey
  /** A given id makes the identity outlive its tunnel; without one it is random. */
  id: string | undefined
  /** The WireGuard public key, 32 bytes. */
  publicKey: Buffer | undefined
  /** What `identify` has given for the app's own use. */
  context: unknown
  /** The client's address; undefined on a unix socket. */
  address: string | undefined
  /** What limits per client go by; undefined where there is no address. */
  client: string | undefined
  /** The id of the request that the tunnel came with, for the log. */
  requestId?: string | undefined
  /** The upgrade token; over HTTP/2, what `:protocol` says. */
  protocol: string
  httpVersion: HttpVersion
  /** Undefined for `raw`, and where datagrams are the messages of a WebSocket. */
  framing: Framing | undefined
  /** Whether the protocol lets the relay send keepalives, and expect some sign of life. */
  hasKeepalive: boolean
  /** Bytes towards the client wait until its first one has come, or a moment has passed: there are clients that lose what follows the 101 at once. */
  holdsOutput: boolean
  target?: ConnectedTarget | undefined
  /** What brings the datagrams out of the tunnel where no framing does. */
  messages?: MessageReader | undefined
}

/** The version of HTTP that a tunnel's handshake was made in. */
export type HttpVersion = '1.1' | '2.0'

/** A peer as the hub shows it. */
export interface PeerInfo {
  id: string
  channel: ChannelKey
  address: string | undefined
  protocol: string
  httpVersion: HttpVersion
  /** `websocket`: each message of a WebSocket is a datagram. */
  framing: FramingName | 'websocket'
  /** As `wg pubkey` prints it. */
  publicKey: string | undefined
  context: unknown
  attachedAt: Date
  datagramsIn: number
  datagramsOut: number
  /** Bytes of the tunnel, framing included. */
  bytesIn: number
  bytesOut: number
  /** Datagrams from or for this peer that went nowhere. */
  drops: number
  /** The same by reason; reasons that did not occur are left out. */
  dropsByReason: Partial<Record<DropReason, number>>
  /**
   * The peers of its channel that it has WireGuard sessions with, and how many bytes of transport data it has sent to each
   * of them: from the first session on, until the last has expired.
   */
  sentTo: Array<{ id: string, bytes: number }>
  /** The last WireGuard handshake that was answered, with whom and when; undefined for none. */
  lastHandshake: { id: string, at: Date } | undefined
  /** WireGuard handshakes with other peers of the channel, the newest first: the last 16 peers. */
  handshakes: HandshakeInfo[]
  /** Handshakes that it began, and that came to nothing at least 3 times in a row within the last 10 minutes. */
  handshakeFaults: HandshakeFaultInfo[]
}

/** What all peers of a hub share. */
export interface HubContext {
  readonly options: Required<HubOptions>
  readonly clock: Clock
  readonly counters: Counters
  detached: (peer: Peer, reason: DetachReason, text: string) => void
  /** Handshakes that the peer begins come to nothing again and again. */
  handshakesFail: (peer: Peer, fault: HandshakeFaultInfo) => void
  /** The peer with the id `by` answers again. */
  handshakesSucceed: (peer: Peer, by: string) => void
}

/** An admitted tunnel. */
export abstract class Peer {
  readonly id: string
  readonly admitted: Admitted
  readonly tunnel: Tunnel
  readonly hub: HubContext
  readonly attachedAt = Date.now()
  datagramsIn = 0
  datagramsOut = 0
  bytesIn = 0
  bytesOut = 0
  drops = 0
  /** When the last byte came, by the hub's clock. */
  receivedAt: number
  /** Whether the peer has left its channel; its socket may still be open for a moment. */
  isDetached = false
  #keepaliveAt: number
  #bytesOutAtKeepalive = 0

  constructor (admitted: Admitted, tunnel: Tunnel, hub: HubContext) {
    this.id = admitted.id ?? randomUUID()
    this.admitted = admitted
    this.tunnel = tunnel
    this.hub = hub
    this.receivedAt = hub.clock.now
    this.#keepaliveAt = this.#nextKeepalive()
    tunnel.onSign(() => { this.receivedAt = hub.clock.now })
  }

  /** Leaves the channel at once, tells the other side why where the framing can, and ends the tunnel. */
  abstract close (reason: DetachReason, text: string): void

  /** Called once per tick: deadlines and keepalives. */
  abstract sweep (): void

  /** Sends a sign of life. Called only where the protocol has one. */
  protected keepAlive (): void {
    this.tunnel.ping()
  }

  /**
   * Closes the tunnel after too much silence, and sends signs of life before.
   * @param receivedAt when there was some life in a tunnel without keepalives
   * @param idleTimeout milliseconds of silence that end such a tunnel, 0 for any
   */
  protected sweepSilence (receivedAt: number, idleTimeout: number): void {
    const { clock, options } = this.hub
    const { hasKeepalive } = this.admitted
    // Signs of life that are not read yet cannot be missed.
    if (hasKeepalive && this.tunnel.isPaused) this.receivedAt = clock.now
    const limit = hasKeepalive ? options.keepaliveTimeout : idleTimeout
    const silence = clock.now - (hasKeepalive ? this.receivedAt : receivedAt)
    if (limit > 0 && silence > limit) return this.close('idle', `nothing came for ${limit} ms`)
    if (!hasKeepalive || clock.now < this.#keepaliveAt) return
    // Not needed where bytes went both ways since the last time.
    const isBusy = this.bytesOut !== this.#bytesOutAtKeepalive && clock.now - this.receivedAt < options.keepaliveInterval
    if (!isBusy) this.keepAlive()
    this.#bytesOutAtKeepalive = this.bytesOut
    this.#keepaliveAt = this.#nextKeepalive()
  }

  #nextKeepalive (): number {
    const { clock, options } = this.hub
    return clock.now + options.keepaliveInterval * (1 - JITTER + 2 * JITTER * Math.random())
  }

  /** Takes note of bytes that came out of the tunnel. */
  protected count (length: number): void {
    this.bytesIn += length
    this.receivedAt = this.hub.clock.now
  }

  /** Asks the other side to come back later, and closes. */
  shutDown (): void {
    this.close('shutdown', 'the relay is shutting down')
  }

  info (): PeerInfo {
    const { channel, address, protocol, httpVersion, framing, messages, publicKey, context } = this.admitted
    return {
      id: this.id,
      channel,
      address,
      protocol,
      httpVersion,
      framing: messages === undefined ? framing?.name ?? 'raw' : 'websocket',
      publicKey: publicKey?.toString('base64'),
      context,
      attachedAt: new Date(this.attachedAt),
      datagramsIn: this.datagramsIn,
      datagramsOut: this.datagramsOut,
      bytesIn: this.bytesIn,
      bytesOut: this.bytesOut,
      drops: this.drops,
      dropsByReason: {},
      sentTo: [],
      lastHandshake: undefined,
      handshakes: [],
      handshakeFaults: []
    }
  }
}
