import { EventEmitter, once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { abortable } from '../abortable.ts'
import { describeError } from '../describe-error.ts'
import { connect } from '../connect.ts'
import { connectError } from '../connect-error.ts'
import type { ConnectionEnd } from '../connection/connection-end.ts'
import { watchNetwork } from '../connection/network-watch.ts'
import type { RelayConnection } from '../connection/relay-connection.ts'
import { planConnect } from '../options/connect-plan.ts'
import { MAX_TIMER_MS } from '../options/time-options.ts'
import { failureCode, isFinal, isFromBetween, retryAfterOf } from './attempt-failure.ts'
import { Backoff, BACKOFF_MAX_MS, type RetryKind } from './backoff.ts'
import { Bridge } from './bridge.ts'
import { ProtocolChoice } from './protocol-choice.ts'
import { kindOfEnd, kindOfFailure } from './retry-kind.ts'
import { findRouteLoop } from './route-loop.ts'
import type { SidecarEvents, SidecarStop } from './sidecar-events.ts'
import { attemptOptions, checkSidecarOptions, type SidecarOptions } from './sidecar-options.ts'
import { addStats, noSidecarCounters, type SidecarStats } from './sidecar-stats.ts'
import { SilentCuts } from './silent-cuts.ts'
import { UdpPort } from './udp-port.ts'

/** A connection that lasted this long makes the next wait a short one again, in milliseconds. */
const LASTING_MS = 10_000
/** The longest Retry-After that is honoured, in seconds. */
const MAX_RETRY_AFTER_S = 300
/** The time of the relay's drain is varied by this part, so that not all clients connect at once. */
const DRAIN_JITTER = 0.2
/** How long an attempt may still take after this machine's addresses have changed, in milliseconds. */
const CHANGED_ATTEMPT_MS = 1500
/** The shortest wait after an answer that is not the relay's and that load does not explain, in milliseconds. */
const BETWEEN_MIN_MS = 2000

/** How a connection ended that was closed because the relay asked for a new one. */
const DRAINED = { reason: 'drained', text: 'the relay asked to connect anew', retry: true } as const

/**
 * Stands next to WireGuard: takes its datagrams on a local UDP port and carries them to a relay and back. It connects
 * again when the connection is lost, and bridges short outages.
 *
 * It connects again after network errors, after answers that are not the relay's, after the relay's 408, 425, 429 and 5xx,
 * and after close reasons that allow it. Any other answer of the relay is final. So are the other close reasons, among
 * them `replaced`.
 */
export class UdpSidecar extends EventEmitter<SidecarEvents> {
  readonly #options: SidecarOptions
  readonly #url: string
  readonly #udp: UdpPort
  readonly #bridge: Bridge
  readonly #backoff = new Backoff()
  readonly #protocol: ProtocolChoice
  readonly #silentCuts = new SilentCuts()
  readonly #stopping = new AbortController()
  readonly #counters = noSidecarCounters()
  #connection: RelayConnection | undefined
  #loop: string | undefined
  /** The connection for which `oversized` has been emitted. */
  #toldOversized: RelayConnection | undefined
  #opening: Promise<AddressInfo> | undefined
  #running: Promise<void> | undefined
  /** Called when this machine's addresses change: ends a wait, or an attempt. */
  #onNetworkChange = () => {}

  /** @throws FST_RELAY_CLIENT_OPTION naming the option and its value */
  constructor (options: SidecarOptions) {
    super()
    const { url, listen, forward } = checkSidecarOptions(options)
    this.#options = options
    this.#url = url
    this.#protocol = new ProtocolChoice(options.protocol ?? 'spanza')
    this.#bridge = new Bridge((count) => { this.#counters.drops.outage += count })
    this.#udp = new UdpPort({
      listen,
      forward,
      onDatagram: (datagram) => this.#fromLocal(datagram),
      onSent: () => { this.#counters.udpDatagramsOut++ },
      onDrop: (reason) => { this.#counters.drops[reason]++ }
    })
  }

  /** A copy of the counters. */
  get stats (): SidecarStats {
    const stats = { ...structuredClone(this.#counters), connected: this.#connection?.closed === false }
    if (this.#connection !== undefined) addStats(stats, this.#connection.stats)
    return stats
  }

  /**
   * Binds the UDP port, resolves with its address, and begins to connect. It can be called once for each sidecar.
   * @throws the system's error when the port cannot be bound or the name in `forward` is not found
   */
  async start (): Promise<AddressInfo> {
    this.#stopping.signal.throwIfAborted()
    if (this.#opening !== undefined) throw new Error('A sidecar can be started only once')
    this.#opening = this.#udp.open()
    const address = await this.#opening.catch(async (error) => {
      await this.#udp.close()
      throw error
    })
    this.#stopping.signal.throwIfAborted()
    this.emit('listening', address)
    this.#running = this.#run()
    return address
  }

  /** Ends the connection and frees the UDP port; resolves when that is done, within about 1 s. */
  async close (): Promise<void> {
    this.#stopping.abort()
    this.#connection?.close()
    await this.#opening?.catch(() => {}) // start() reports that one
    await this.#running
    await this.#udp.close()
  }

  async #run (): Promise<void> {
    const unwatch = watchNetwork({ changed: () => this.#onNetworkChange() })
    let stop
    while (stop === undefined && !this.#stopping.signal.aborted) stop = await this.#session()
    unwatch()
    this.#bridge.clear()
    await this.#udp.close()
    if (stop !== undefined) this.emit('stop', stop)
  }

  /** One attempt, the connection it makes, and the wait after it; returns why it was the last one, if it was. */
  async #session (): Promise<SidecarStop | undefined> {
    let connection
    let begin = performance.now()
    try {
      connection = await this.#connect().finally(() => { this.#checkRoute().catch(() => {}) })
    } catch (error) {
      return this.#stopping.signal.aborted ? undefined : this.#attemptFailed(error as Error, performance.now() - begin)
    }
    begin = performance.now()
    const end = await this.#use(connection)
    const lasted = performance.now() - begin >= LASTING_MS
    if (lasted) this.#backoff.reset()
    return this.#stopping.signal.aborted ? undefined : this.#connectionEnded(end, lasted, connection.cutAfterSilence)
  }

  async #connect (): Promise<RelayConnection> {
    const attempt = new AbortController()
    const { signal } = attempt
    const onStop = () => attempt.abort(this.#stopping.signal.reason)
    this.#stopping.signal.addEventListener('abort', onStop)
    const { token, tls, ...options } = this.#options
    const begin = performance.now()
    let timer: NodeJS.Timeout | undefined
    // The request may have left from an address, or into a network, that is gone.
    this.#onNetworkChange = () => {
      timer ??= setTimeout(() => attempt.abort(connectError('this machine’s addresses changed meanwhile')),
        Math.max(0, begin + CHANGED_ATTEMPT_MS - performance.now()))
    }
    try {
      const given = {
        token: typeof token === 'function' ? await abortable(token, signal) : token,
        tls: typeof tls === 'function' ? await abortable(tls, signal) : tls
      }
      return await this.#protocol.connect(
        (protocol) => connect(this.#url, { ...attemptOptions({ ...options, ...given }, protocol), signal }),
        (error) => this.emit('fallback', { protocol: 'websocket', text: describeError(error), error })
      )
    } finally {
      clearTimeout(timer)
      this.#stopping.signal.removeEventListener('abort', onStop)
      this.#onNetworkChange = () => {}
    }
  }

  /** Emits `loop`, once for each interface. */
  async #checkRoute (): Promise<void> {
    if (this.#options.createConnection !== undefined) return
    const { token, tls, protocol = 'spanza', ...options } = this.#options
    // Both protocols take the same route.
    const { proxy, hostname, port, localAddress } = planConnect(
      this.#url, attemptOptions({ ...options, token: undefined, tls: undefined }, protocol === 'auto' ? 'spanza' : protocol))
    const loop = await findRouteLoop({ ...(proxy ?? { hostname, port }), localAddress })
    const isNew = loop !== undefined && loop.interface !== this.#loop
    this.#loop = loop?.interface
    if (isNew && !this.#stopping.signal.aborted) this.emit('loop', loop)
  }

  /** Joins the connection to the UDP port until it ends. */
  async #use (connection: RelayConnection): Promise<ConnectionEnd | typeof DRAINED> {
    this.#connection = connection
    this.#counters.connections++
    let drainTimer: NodeJS.Timeout | undefined
    let drained = false
    connection.on('message', (datagram) => this.#udp.send(datagram))
    connection.on('notice', (notice) => this.emit('notice', notice))
    connection.on('draining', (afterMs) => {
      // Only the first one counts: a relay that asks again and again must not keep this side busy.
      if (drainTimer !== undefined) return
      drainTimer = setTimeout(() => {
        drained = true
        // Not two connections at a time: with the same identity, the new one would replace the old one.
        connection.close()
      }, Math.min(MAX_TIMER_MS, afterMs * (1 - DRAIN_JITTER + Math.random() * 2 * DRAIN_JITTER)))
      this.emit('drain', { afterMs })
    })
    const ended = once(connection, 'close') as Promise<[ConnectionEnd]>
    if (this.#stopping.signal.aborted) connection.close()
    else this.emit('connect', { framing: connection.framing, url: this.#url })
    for (const datagram of this.#bridge.take()) this.#send(connection, datagram)
    const [end] = await ended
    clearTimeout(drainTimer)
    this.#connection = undefined
    addStats(this.#counters, connection.stats)
    const outcome = drained && end.reason === 'closed' ? DRAINED : end
    this.#counters.ended[outcome.reason] = (this.#counters.ended[outcome.reason] ?? 0) + 1
    return outcome
  }

  async #connectionEnded (
    end: ConnectionEnd | typeof DRAINED, lasted: boolean, silence: number | undefined
  ): Promise<SidecarStop | undefined> {
    const { reason, text, retry } = end
    const again = reason === 'replaced' ? this.#options.retryReplaced === true : retry
    if (reason !== 'drained' && !again) return { reason, text }
    const kind = kindOfEnd(reason)
    let retryIn = reason === 'drained' && lasted ? 0 : this.#backoff.next(kind)
    if (reason === 'limit') retryIn += BACKOFF_MAX_MS
    this.emit('lost', { reason, text, retryIn, ...this.#silentCut(silence) })
    await this.#wait(retryIn, kind)
  }

  #silentCut (silence: number | undefined): { cutAfterSilence?: number } {
    if (silence === undefined) this.#silentCuts.reset()
    const cutAfterSilence = silence === undefined ? undefined : this.#silentCuts.note(silence)
    return cutAfterSilence === undefined ? {} : { cutAfterSilence }
  }

  async #attemptFailed (error: Error, taken: number): Promise<SidecarStop | undefined> {
    const text = describeError(error)
    const code = failureCode(error)
    this.#counters.failed[code] = (this.#counters.failed[code] ?? 0) + 1
    if (isFinal(error)) return { text, error }
    const kind = kindOfFailure(error)
    let retryIn = this.#backoff.next(kind, taken)
    if (isFromBetween(error)) retryIn = Math.max(retryIn, BETWEEN_MIN_MS)
    retryIn += Math.min(retryAfterOf(error), MAX_RETRY_AFTER_S) * 1000
    this.emit('retry', { error, text, retryIn })
    await this.#wait(retryIn, kind)
  }

  /** Ends early with `close()`. It also does when this machine's addresses change, unless the relay itself asked for the wait. */
  async #wait (ms: number, kind: RetryKind): Promise<void> {
    const waiting = new AbortController()
    const onStop = () => waiting.abort()
    this.#stopping.signal.addEventListener('abort', onStop)
    if (this.#stopping.signal.aborted) onStop()
    if (kind !== 'refusing') this.#onNetworkChange = onStop
    await delay(ms, undefined, { signal: waiting.signal }).catch(() => {})
    this.#stopping.signal.removeEventListener('abort', onStop)
    this.#onNetworkChange = () => {}
  }

  #fromLocal (datagram: Buffer): void {
    this.#counters.udpDatagramsIn++
    if (this.#connection === undefined || this.#connection.closed) this.#bridge.add(datagram)
    else this.#send(this.#connection, datagram)
  }

  #send (connection: RelayConnection, datagram: Buffer): void {
    if (connection.send(datagram) || datagram.length <= connection.maxPacketSize || this.#toldOversized === connection) return
    this.#toldOversized = connection
    this.emit('oversized', { size: datagram.length, limit: connection.maxPacketSize })
  }
}
