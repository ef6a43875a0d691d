import { EventEmitter, once } from 'node:events'
import { isIP, type AddressInfo } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { datagramFramings } from '../../framing/framings.ts'
import { Backoff, BACKOFF_MAX_MS, type RetryKind } from './backoff.ts'
import { Bridge } from './bridge.ts'
import { connect } from '../connect.ts'
import { errors } from '../../errors.ts'
import { connectError, describeError } from '../describe-error.ts'
import { watchNetwork } from '../connection/network-watch.ts'
import { MAX_TIMER_MS, optionError, planConnect, quotedFramings, type ClientProtocol, type ConnectOptions, type DatagramOptions, type TlsOptions } from '../connect-options.ts'
import { ProtocolChoice, type SidecarProtocol } from './protocol-choice.ts'
import type { RelayRefusedError } from '../refusal.ts'
import { findRouteLoop, type LoopInfo } from './route-loop.ts'
import {
  noConnectionStats,
  type ConnectionDropReason, type ConnectionEnd, type ConnectionEndReason, type ConnectionNotice, type ConnectionStats,
  type RelayConnection
} from '../connection/relay-connection.ts'
import { kindOfEnd, kindOfFailure } from './retry-kind.ts'
import { SilentCuts } from './silent-cuts.ts'
import { isLoopback, parseHostPort, type HostPort } from '../../util/host-port.ts'
import { UdpPort, type UdpDropReason } from './udp-port.ts'

/** A connection that lasted this long makes the next wait a short one again, in milliseconds. */
const LASTING_MS = 10_000
/** The longest Retry-After that is honoured, in seconds. */
const MAX_RETRY_AFTER_S = 300
/** The relay's wish to connect anew is followed within this part of its time, so that not all come at once. */
const DRAIN_JITTER = 0.2
/** An attempt may take this long although this machine's addresses have changed meanwhile, in milliseconds. */
const CHANGED_ATTEMPT_MS = 1500
/** A relay's answers below 500 after which another attempt makes sense. */
const RETRIED_STATUSES = [408, 425, 429]
/** The shortest wait after an answer that is not the relay's and that no load explains, in milliseconds. */
const BETWEEN_MIN_MS = 2000

const DEFAULT_LISTEN = '127.0.0.1:51821'

/** How a connection ended that was closed because the relay asked to connect anew. */
const DRAINED = { reason: 'drained', text: 'the relay asked to connect anew', retry: true } as const

/** A token, or a function that gives one anew for each attempt. */
export type TokenSource = string | (() => string | undefined | Promise<string | undefined>)

/** TLS options, or a function that gives them anew for each attempt, for certificates that are renewed on disk. */
export type TlsSource = TlsOptions | (() => TlsOptions | undefined | Promise<TlsOptions | undefined>)

/** Options of a sidecar: all of `connect` for datagrams, except that `close()` takes the place of `signal`. */
export interface SidecarOptions extends Omit<DatagramOptions, 'token' | 'tls' | 'protocol' | 'signal'> {
  /** The relay's URL, `http:` or `https:`; for `protocol: 'websocket'` also `ws:` or `wss:`. */
  url: string | URL
  /** Sent as `Authorization: Bearer …`. A function is called before each attempt; if it fails, that attempt failed. */
  token?: TokenSource
  /** As in `connect`. A function is called before each attempt; if it fails, that attempt failed. */
  tls?: TlsSource
  /**
   * As in `connect`, or `'auto'`: `spanza`, and in the same attempt a WebSocket where the answer shows that something in
   * between did not let the upgrade through. A WebSocket that worked is tried first for an hour, or until it fails once.
   * Default: `'spanza'`.
   */
  protocol?: SidecarProtocol
  /** The local UDP address and port, such as `127.0.0.1:51821` (the default) or `[::1]:0`; port 0 takes a free one. */
  listen?: string
  /**
   * Where datagrams from the relay go, as `host:port`. Without it they go to whoever on this machine sent the
   * last one. Needed when `listen` is not a loopback address. A name is looked up in `start()`, and again, at most every
   * 10 s, when datagrams go there and none come back.
   */
  forward?: string
  /** Connect again also when another device with the same identity took the place. Default: false. */
  retryReplaced?: boolean
}

/** Why a datagram went nowhere; `outage`: there was no connection, and not soon enough one again. */
export type SidecarDropReason = ConnectionDropReason | UdpDropReason | 'outage'

/** Why a connection is over; `drained`: the relay asked to connect anew. */
export type SidecarEndReason = ConnectionEndReason | 'drained'

/** Counters over all connections; `In` is what came from the relay, `Out` what went there. Bytes are those of the datagrams, without framing. */
export interface SidecarStats {
  /** Whether there is a connection now. */
  connected: boolean
  /** Connections that were made. */
  connections: number
  /** How they ended. */
  ended: Partial<Record<SidecarEndReason, number>>
  /** Attempts that made no connection, by the status that was answered, else by the error's code. */
  failed: Record<string, number>
  datagramsIn: number
  datagramsOut: number
  bytesIn: number
  bytesOut: number
  /** Datagrams taken from the local side, and sent there. */
  udpDatagramsIn: number
  udpDatagramsOut: number
  drops: Record<SidecarDropReason, number>
}

type SidecarCounters = Omit<SidecarStats, 'connected'>

/** Why a sidecar gave up: what the relay said when closing, or the error of the last attempt. */
export interface SidecarStop {
  /** For people. */
  text: string
  reason?: ConnectionEndReason
  error?: Error
}

export interface SidecarEvents {
  /** The UDP port is bound. */
  listening: [address: AddressInfo]
  /** Connected to the relay. */
  connect: [info: { framing: RelayConnection['framing'], url: string }]
  /** Under `protocol: 'auto'`, something in between lets only WebSockets through; `error` is what it answered before. */
  fallback: [info: { protocol: 'websocket', text: string, error: Error }]
  /** The first datagram on this connection that is larger than the relay takes, in bytes; such are dropped. */
  oversized: [info: { size: number, limit: number }]
  /**
   * A connection ended, and there will be another attempt in so many ms; `drained`: the relay asked for it. With
   * `cutAfterSilence`, the last three were cut when nothing had passed for so many ms: a shorter `keepaliveInterval` helps.
   */
  lost: [info: { reason: SidecarEndReason, text: string, retryIn: number, cutAfterSilence?: number }]
  /** An attempt failed, and there will be another in so many ms. */
  retry: [info: { error: Error, text: string, retryIn: number }]
  /** The relay asks to connect anew after so many ms; the sidecar does. */
  drain: [info: { afterMs: number }]
  /** The route to the relay, or to the proxy before it, leads into a WireGuard interface. If that uses this sidecar, it cannot connect. */
  loop: [info: LoopInfo]
  /** The relay tells something about WireGuard's handshakes. */
  notice: [notice: ConnectionNotice]
  /** There will be no further attempt, and the UDP port is closed. Not emitted for `close()`. */
  stop: [info: SidecarStop]
}

/**
 * Stands next to WireGuard: takes its datagrams on a local UDP port, brings them to a relay and back, connects
 * again when the connection is lost, and bridges a moment's outage.
 *
 * It connects again after network errors, after answers that are not the relay's, after the relay's 408, 425, 429 and 5xx,
 * and after close reasons that allow it. Any other answer of the relay is final, and so are the other reasons, among
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
  /** Of which an oversized datagram has been told. */
  #toldOversized: RelayConnection | undefined
  #opening: Promise<AddressInfo> | undefined
  #running: Promise<void> | undefined
  /** What a change of this machine's addresses puts an end to. */
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
   * Binds the UDP port, resolves with its address, and begins to connect. Once for each sidecar.
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
    // It may have been sent from an address, or to a network, that is not there any more.
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
        (protocol) => connect(this.#url, { ...connectOptions({ ...options, ...given }, protocol), signal }),
        (error) => this.emit('fallback', { protocol: 'websocket', text: describeError(error), error })
      )
    } finally {
      clearTimeout(timer)
      this.#stopping.signal.removeEventListener('abort', onStop)
      this.#onNetworkChange = () => {}
    }
  }

  /** Tells once of each interface. */
  async #checkRoute (): Promise<void> {
    if (this.#options.createConnection !== undefined) return
    const { token, tls, protocol = 'spanza', ...options } = this.#options
    // Where it leads is the same with either protocol.
    const { proxy, hostname, port, localAddress } = planConnect(
      this.#url, connectOptions({ ...options, token: undefined, tls: undefined }, protocol === 'auto' ? 'spanza' : protocol))
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
      // The first one counts: a relay that asks again and again must not be able to keep this side busy.
      if (drainTimer !== undefined) return
      drainTimer = setTimeout(() => {
        drained = true
        // Not both at a time: with the same identity, the new connection would replace the old one.
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
    if (error instanceof errors.FST_RELAY_REFUSED) {
      const { retryAfter = 0 } = error as unknown as RelayRefusedError
      retryIn += Math.min(retryAfter, MAX_RETRY_AFTER_S) * 1000
    }
    this.emit('retry', { error, text, retryIn })
    await this.#wait(retryIn, kind)
  }

  /** Ends early with `close()`, and when this machine's addresses change, unless the relay is there and wants the wait. */
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

function noSidecarCounters (): SidecarCounters {
  const { drops, ...traffic } = noConnectionStats()
  return {
    connections: 0,
    ended: {},
    // Without a prototype: the codes come from errors of any kind.
    failed: Object.create(null),
    ...traffic,
    udpDatagramsIn: 0,
    udpDatagramsOut: 0,
    drops: {
      ...drops,
      'not-loopback': 0,
      'no-return-address': 0,
      'udp-too-large': 0,
      'udp-queue-full': 0,
      'udp-error': 0,
      outage: 0
    }
  }
}

/** @throws FST_RELAY_CLIENT_OPTION */
function checkSidecarOptions (options: SidecarOptions): { url: string, listen: HostPort, forward: HostPort | undefined } {
  const { url, token, tls, protocol = 'spanza' } = options
  if (token !== undefined && typeof token !== 'function' && typeof token !== 'string') {
    throw optionError('token', 'a string, or a function that gives one', typeof token)
  }
  if (protocol === 'auto' && options.keyless !== undefined) throw optionError('keyless', "absent with protocol 'auto'", options.keyless)
  const given = {
    ...options,
    token: typeof token === 'function' ? undefined : token,
    // Whether there can be any.
    tls: typeof tls === 'function' ? {} : tls
  }
  const protocols: ClientProtocol[] = protocol === 'auto' ? ['spanza', 'websocket'] : [protocol]
  const plans = protocols.map((name) => planConnect(url, connectOptions(given, name)))
  const { href, framings } = plans[0]!
  if (framings === 'raw') throw optionError('framings', `a list of ${quotedFramings}: a sidecar carries datagrams`, framings)
  if (options.retryReplaced !== undefined && typeof options.retryReplaced !== 'boolean') {
    throw optionError('retryReplaced', 'true or false', options.retryReplaced)
  }
  const listen = parseHostPort(options.listen ?? DEFAULT_LISTEN)
  if (listen === undefined || isIP(listen.host) === 0) {
    throw optionError('listen', 'an address and a port, such as 127.0.0.1:51821 or [::1]:51821', options.listen)
  }
  if (options.forward === undefined) {
    if (!isLoopback(listen.host)) throw optionError('forward', `given when listen (${options.listen}) is not a loopback address`, undefined)
    return { url: href, listen, forward: undefined }
  }
  const forward = parseHostPort(options.forward)
  if (forward === undefined || forward.port === 0) throw optionError('forward', 'a host and a port, such as 127.0.0.1:51820', options.forward)
  if (isIP(forward.host) !== 0 && isIP(forward.host) !== isIP(listen.host)) {
    throw optionError('forward', `an IPv${isIP(listen.host)} address like listen`, options.forward)
  }
  return { url: href, listen, forward }
}

/** The options of one attempt. */
function connectOptions (
  { framings = datagramFramings, token, tls, ...options }: Omit<SidecarOptions, 'token' | 'tls'> & { token: string | undefined, tls: TlsOptions | undefined },
  protocol: ClientProtocol
): ConnectOptions {
  const isWebSocket = protocol === 'websocket' && options.keyless !== true
  return {
    ...options,
    protocol,
    // A WebSocket has no framings; if some are given with one, `connect` says so, unless they are for the other protocol.
    ...(isWebSocket && (framings === datagramFramings || options.protocol === 'auto') ? {} : { framings }),
    ...(token === undefined ? {} : { token }),
    ...(tls === undefined ? {} : { tls })
  } as ConnectOptions
}

function addStats (total: SidecarCounters, stats: ConnectionStats): void {
  total.datagramsIn += stats.datagramsIn
  total.datagramsOut += stats.datagramsOut
  total.bytesIn += stats.bytesIn
  total.bytesOut += stats.bytesOut
  for (const [reason, count] of Object.entries(stats.drops)) total.drops[reason as ConnectionDropReason] += count
}

/** Whether the relay itself refused, and would again. What something in between answers may be gone at the next attempt. */
function isFinal (error: Error): boolean {
  if (!(error instanceof errors.FST_RELAY_REFUSED)) return false
  const { statusCode, answeredBy } = error as unknown as RelayRefusedError
  return answeredBy === 'relay' && isFinalStatus(statusCode)
}

/** Whether an answer came that is not the relay's, other than that the relay cannot be reached at the moment. */
function isFromBetween (error: Error): boolean {
  if (error instanceof errors.FST_RELAY_ANSWER || error instanceof errors.FST_RELAY_HTTP2) return true
  if (!(error instanceof errors.FST_RELAY_REFUSED)) return false
  const { statusCode, answeredBy } = error as unknown as RelayRefusedError
  return answeredBy === 'between' && isFinalStatus(statusCode)
}

function isFinalStatus (statusCode: number): boolean {
  return statusCode < 500 && !RETRIED_STATUSES.includes(statusCode)
}

function failureCode (error: Error): string {
  const { code = error.name, statusCode } = error as Partial<RelayRefusedError> & Error
  return String(error instanceof errors.FST_RELAY_REFUSED ? statusCode : code)
}

/** What the function gives, or a rejection as soon as the signal is aborted. */
function abortable<T> (give: () => T | Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const given = Promise.resolve(give())
    const onAbort = () => reject(signal.reason)
    signal.addEventListener('abort', onAbort)
    given.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort))
  })
}
