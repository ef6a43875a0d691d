import { EventEmitter } from 'node:events'
import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { closeReasonOf, closeReasons, type CloseReason } from '../../tunnel/close-reasons.ts'
import type { Decoder } from '../../framing/framing.ts'
import { noticeNameOf, type NoticeName } from '../../framing/notices.ts'
import { CLOSING, DRAIN, NOTICE, PING, PONG, pong, readClosing, readDrain, readNotice } from '../../framing/wg.ts'
import { endAndLinger } from '../../tunnel/linger.ts'
import { describeError } from '../describe-error.ts'
import { TokenBucket } from '../../util/token-bucket.ts'
import { clearReserved } from '../../framing/wireguard.ts'
import { Http2Tunnel } from '../transport/http2-tunnel.ts'
import type { ConnectionEnd } from './connection-end.ts'
import type { ConnectionFraming, ConnectionSink } from './connection-framing.ts'
import { noConnectionStats, type ConnectionDropReason, type ConnectionStats } from './connection-stats.ts'
import { Liveness } from './liveness.ts'
import { watchAddress } from './network-watch.ts'
import { Sender } from './sender.ts'

/** Our relay sends at most one notice in 5 s. Another relay must not fill the terminal with more. */
const NOTICES_PER_SECOND = 0.2
const NOTICES_AT_ONCE = 5

/** A notice of the relay about WireGuard's handshakes. */
export interface ConnectionNotice {
  code: number
  /** The name of the code; undefined for a code that this version does not know. */
  name: NoticeName | undefined
  /** The relay's text for people: at most 512 bytes, without control characters. Show it as a quotation of the relay. */
  text: string
}

/** The events of a connection, with what their listeners get. */
export interface RelayConnectionEvents {
  /** One datagram: a view of received memory that nothing else uses. Copy it if you keep it for long. */
  message: [datagram: Buffer]
  /** The relay asks for a new connection after so many milliseconds. */
  draining: [afterMs: number]
  /** A notice of the relay about WireGuard's handshakes. At most 5 at once, then one in 5 s; more are ignored. */
  notice: [notice: ConnectionNotice]
  /** The connection has ended; exactly once. */
  close: [end: ConnectionEnd]
}

export interface RelayConnectionSettings {
  framing: ConnectionFraming
  /** Limits of both directions, in bytes. */
  maxPacketSize: { send: number, receive: number }
  keepaliveInterval: number
  keepaliveTimeout: number
}

/**
 * A tunnel of datagrams to a relay, made by `connect`. Reading begins in the turn of the event loop after `connect` has
 * resolved, so listeners that are added right away miss nothing.
 */
export class RelayConnection extends EventEmitter<RelayConnectionEvents> {
  /** How datagrams travel on this connection. */
  readonly framing: ConnectionFraming['name']
  /** The largest datagram that the relay takes, in bytes. */
  readonly maxPacketSize: number
  readonly #tunnel: Duplex
  readonly #framing: ConnectionFraming
  readonly #decoder: Decoder
  readonly #sender: Sender
  readonly #liveness: Liveness
  readonly #unwatch: () => void
  /**
   * Whether received chunks are ours alone. Those of a socket are, and so are the parts of them that Node gives to streams of
   * HTTP/2. A stream from `createConnection` may pass on shared memory.
   */
  readonly #ownsChunks: boolean
  readonly #stats = noConnectionStats()
  #notices: TokenBucket | undefined
  #end: ConnectionEnd | undefined
  #error: Error | undefined
  #cutAfter: number | undefined
  #lastPing: Buffer = Buffer.alloc(0)

  /** @param tunnel just upgraded, and not read from yet */
  constructor (tunnel: Duplex, { framing, maxPacketSize, keepaliveInterval, keepaliveTimeout }: RelayConnectionSettings) {
    super()
    this.framing = framing.name
    this.maxPacketSize = maxPacketSize.send
    this.#tunnel = tunnel
    this.#framing = framing
    this.#ownsChunks = tunnel instanceof Socket || tunnel instanceof Http2Tunnel
    this.#decoder = framing.createDecoder(this.#sink(), { maxPacketSize: maxPacketSize.receive })
    const liveness = new Liveness({
      interval: keepaliveInterval,
      timeout: keepaliveTimeout,
      isAnswered: framing.isKeepaliveAnswered,
      ask: () => {
        this.#lastPing = framing.keepalive()
        this.#sender.keepalive(this.#lastPing)
      },
      onDead: (text) => {
        if (text === undefined) this.#fail('idle', `nothing came from the relay for ${keepaliveTimeout} ms`)
        else this.#abandon(text)
      }
    })
    this.#liveness = liveness
    // Does nothing for a stream of HTTP/2: its session watches the address.
    this.#unwatch = watchAddress(tunnel, (text) => this.#abandon(text))
    this.#sender = new Sender(tunnel, framing, {
      onSent: (bytes) => {
        this.#stats.datagramsOut++
        this.#stats.bytesOut += bytes
      },
      onOverflow: (count) => { this.#stats.drops['queue-full'] += count },
      // A ping asks for a sign of life, so it is due when nothing was received. A len16 keepalive gives one, so it is due when
      // nothing was sent.
      onWrite: (bytes) => {
        liveness.sent(bytes)
        if (!framing.isKeepaliveAnswered) liveness.active()
      }
    })
    tunnel.on('drain', () => liveness.unblocked())
    tunnel.on('error', (error) => { this.#error ??= error })
    tunnel.on('close', () => this.#closed())
    tunnel.on('end', () => {
      const fault = this.#end === undefined ? this.#decoder.end() : undefined
      this.#cut(fault?.text ?? 'the relay ended the connection without a reason')
    })
    setImmediate(() => tunnel.on('data', (chunk: Buffer) => this.#receive(chunk)))
  }

  /** True when nothing can be sent any more: `close` has been emitted, or will be soon. */
  get closed (): boolean {
    return this.#end !== undefined
  }

  /**
   * How long nothing had passed in either direction when the relay, or something on the path, cut the connection, in
   * milliseconds; undefined if it was not cut.
   */
  get cutAfterSilence (): number | undefined {
    return this.#cutAfter
  }

  /** A copy of the counters. */
  get stats (): ConnectionStats {
    return { ...this.#stats, drops: { ...this.#stats.drops } }
  }

  /**
   * Sends a datagram of 1 to `maxPacketSize` bytes. It is copied, so the buffer can be used again. Datagrams sent in one turn
   * of the event loop leave together.
   * @returns false if it was dropped; `stats.drops` counts that by reason
   * @throws TypeError when it is not a Uint8Array
   */
  send (datagram: Uint8Array): boolean {
    if (!(datagram instanceof Uint8Array)) throw new TypeError(`A datagram must be a Uint8Array, not ${typeof datagram}`)
    if (this.#end !== undefined) return this.#drop('closed')
    if (datagram.length === 0) return this.#drop('empty')
    if (datagram.length > this.maxPacketSize) return this.#drop('too-large')
    return this.#sender.send(Buffer.from(datagram.buffer, datagram.byteOffset, datagram.length))
  }

  /** Sends staged datagrams and ends the connection. `close` follows within about 1 s, whatever the relay does. */
  close (): void {
    this.#finish({ reason: 'closed', text: '', retry: false }, this.#framing.ending?.())
  }

  #sink (): ConnectionSink {
    return {
      datagram: (chunk, _frame, start, end, stamped) => {
        if (this.#end !== undefined) return
        this.#stats.datagramsIn++
        this.#stats.bytesIn += end - start
        if (stamped) clearReserved(chunk, start)
        if (!this.emit('message', chunk.subarray(start, end))) this.#drop('no-listener')
      },
      tooLarge: () => this.#drop('received-too-large'),
      owePong: (frame) => { if (this.#end === undefined) this.#sender.pong(frame) },
      ponged: () => this.#liveness.answered(),
      ended: (end, finalBytes) => this.#finish(end, finalBytes),
      control: (type, chunk, start, end) => {
        if (this.#end !== undefined) return
        if (type === PING) this.#sender.pong(pong(chunk, start, end))
        else if (type === PONG) this.#takePong(chunk.subarray(start, end))
        else if (type === DRAIN) this.emit('draining', readDrain(chunk, start))
        else if (type === CLOSING) this.#closingFrame(readClosing(chunk, start, end))
        else if (type === NOTICE) this.#noticeFrame(chunk, start, end)
      }
    }
  }

  #receive (chunk: Buffer): void {
    if (this.#end !== undefined) return
    this.#liveness.heard()
    if (this.#framing.isKeepaliveAnswered) this.#liveness.active()
    const fault = this.#decoder.push(this.#ownsChunks ? chunk : Buffer.from(chunk))
    if (fault !== undefined) this.#fail(fault.reason, fault.text)
  }

  #takePong (payload: Buffer): void {
    // The payload is the end of the frame.
    if (this.#lastPing.length > 0 && payload.equals(this.#lastPing.subarray(-payload.length))) this.#liveness.answered()
  }

  #closingFrame ({ code, text }: { code: number, text: string }): void {
    const reason = closeReasonOf(code)
    if (reason === undefined) this.#finish({ reason: 'unknown', text, retry: true, code })
    else this.#finish({ reason, text, retry: closeReasons[reason].retry, code })
  }

  #noticeFrame (chunk: Buffer, start: number, end: number): void {
    const now = performance.now()
    this.#notices ??= new TokenBucket(NOTICES_PER_SECOND, NOTICES_AT_ONCE, now)
    if (!this.#notices.take(now)) return
    const notice = readNotice(chunk, start, end)
    if (notice !== undefined) this.emit('notice', { code: notice.code, name: noticeNameOf(notice.code), text: notice.text })
  }

  /** Ends the connection for a reason of this side, and tells the relay if the framing can. */
  #fail (reason: CloseReason, text: string): void {
    const { code, retry } = closeReasons[reason]
    this.#finish({ reason, text, retry, code }, this.#framing.closing(code, text))
  }

  /** Ends a connection that can carry no last words. */
  #abandon (text: string): void {
    this.#finish({ reason: 'lost', text, retry: true })
    this.#tunnel.destroy()
  }

  #finish (end: ConnectionEnd, finalBytes?: Buffer): void {
    if (this.#end !== undefined) return
    this.#end = end
    this.#liveness.stop()
    this.#unwatch()
    this.#stats.drops.closed += this.#sender.finish()
    endAndLinger(this.#tunnel, finalBytes)
  }

  /** Ends a connection that the relay, or something on the path, has cut. */
  #cut (text: string): void {
    if (this.#end === undefined) this.#cutAfter = this.#liveness.silence
    this.#finish({ reason: 'lost', text, retry: true })
  }

  #closed (): void {
    this.#cut(this.#error === undefined ? 'the connection was cut' : describeError(this.#error))
    // Not before reading begins, so that a caller who has just received this connection can add a listener.
    setImmediate(() => this.emit('close', this.#end!))
  }

  #drop (reason: ConnectionDropReason): false {
    this.#stats.drops[reason]++
    return false
  }
}
