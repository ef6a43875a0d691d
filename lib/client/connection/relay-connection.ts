import { EventEmitter } from 'node:events'
import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { closeReasonOf, closeReasons, type CloseReason } from '../../tunnel/close-reasons.ts'
import type { Decoder } from '../../framing/framing.ts'
import { noticeNameOf, type NoticeName } from '../../framing/notices.ts'
import { CLOSING, DRAIN, NOTICE, PING, PONG, pong, readClosing, readDrain, readNotice } from '../../framing/wg.ts'
import { endAndLinger } from '../../tunnel/linger.ts'
import { describeError } from '../../util/describe-error.ts'
import { TokenBucket } from '../../util/token-bucket.ts'
import { clearReserved } from '../../framing/wireguard.ts'
import { Http2Tunnel } from '../transport/http2-tunnel.ts'
import type { ConnectionEnd } from './connection-end.ts'
import type { ConnectionFraming, ConnectionSink } from './connection-framing.ts'
import { noConnectionStats, type ConnectionDropReason, type ConnectionStats } from './connection-stats.ts'
import { Liveness } from './liveness.ts'
import { watchAddress } from './network-watch.ts'
import { Sender } from './sender.ts'

/** A relay sends one in 5 s at most. What another one sends beyond that must not fill a terminal. */
const NOTICES_PER_SECOND = 0.2
const NOTICES_AT_ONCE = 5

/** What the relay tells about WireGuard's handshakes. */
export interface ConnectionNotice {
  code: number
  /** What the code means; undefined for one that this version does not know. */
  name: NoticeName | undefined
  /** The relay's words, for people: at most 512 bytes, without control characters. Show them as what the relay says. */
  text: string
}

export interface RelayConnectionEvents {
  /** One datagram. It is a view of received memory that nothing else uses; keep a copy if it is kept for long. */
  message: [datagram: Buffer]
  /** The relay asks to connect anew after so many milliseconds. */
  draining: [afterMs: number]
  /** The relay tells something about WireGuard's handshakes. At most 5 at once, and one in 5 s: more are ignored. */
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
 * A tunnel of datagrams to a relay, made by `connect`. What the relay sends is read from the turn of the event
 * loop after `connect` has resolved, so listeners added right then miss nothing.
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
   * Memory read by a socket is ours alone, and so are the parts of it that Node gives to the streams of HTTP/2; a stream
   * that someone else made may pass on shared memory.
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
    // That of an HTTP/2 connection is its session's affair.
    this.#unwatch = watchAddress(tunnel, (text) => this.#abandon(text))
    this.#sender = new Sender(tunnel, framing, {
      onSent: (bytes) => {
        this.#stats.datagramsOut++
        this.#stats.bytesOut += bytes
      },
      onOverflow: (count) => { this.#stats.drops['queue-full'] += count },
      // A ping asks for a sign of life, so it is due when none has come; a len16 keepalive only gives one.
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

  /** Whether nothing can be sent any more: `close` has been emitted, or soon will be. */
  get closed (): boolean {
    return this.#end !== undefined
  }

  /**
   * For how many milliseconds nothing had passed, there or back, when the other side or something in between cut the
   * connection; undefined if nobody did.
   */
  get cutAfterSilence (): number | undefined {
    return this.#cutAfter
  }

  /** A copy of the counters. */
  get stats (): ConnectionStats {
    return { ...this.#stats, drops: { ...this.#stats.drops } }
  }

  /**
   * Sends a datagram of 1 to `maxPacketSize` bytes, which is copied: the buffer can be used again. Those sent
   * in one turn of the event loop leave together.
   * @returns false if it was dropped, which `stats.drops` counts by reason
   * @throws TypeError when it is no Uint8Array
   */
  send (datagram: Uint8Array): boolean {
    if (!(datagram instanceof Uint8Array)) throw new TypeError(`A datagram must be a Uint8Array, not ${typeof datagram}`)
    if (this.#end !== undefined) return this.#drop('closed')
    if (datagram.length === 0) return this.#drop('empty')
    if (datagram.length > this.maxPacketSize) return this.#drop('too-large')
    return this.#sender.send(Buffer.from(datagram.buffer, datagram.byteOffset, datagram.length))
  }

  /** Sends what is staged and ends the connection; `close` follows, within about 1 s whatever the relay does. */
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
    // A frame's payload are its last bytes.
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

  /** Ends the connection for a reason of this side, and tells the relay where the framing can. */
  #fail (reason: CloseReason, text: string): void {
    const { code, retry } = closeReasons[reason]
    this.#finish({ reason, text, retry, code }, this.#framing.closing(code, text))
  }

  /** Ends a connection on which nothing can be said any more. */
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

  /** Ends a connection that the other side has cut, or something in between. */
  #cut (text: string): void {
    if (this.#end === undefined) this.#cutAfter = this.#liveness.silence
    this.#finish({ reason: 'lost', text, retry: true })
  }

  #closed (): void {
    this.#cut(this.#error === undefined ? 'the connection was cut' : describeError(this.#error))
    // Not sooner than reading begins: whoever has just been given this connection must be able to hear it.
    setImmediate(() => this.emit('close', this.#end!))
  }

  #drop (reason: ConnectionDropReason): false {
    this.#stats.drops[reason]++
    return false
  }
}
