import { isIP } from 'node:net'
import { datagramFramings } from '../../framing/framings.ts'
import { canOpenOnStreams } from '../../internals/ws-internals.ts'
import { isLoopback, parseHostPort, type HostPort } from '../../util/host-port.ts'
import type { ClientProtocol, ConnectOptions, DatagramOptions, TlsOptions } from '../options/connect-options.ts'
import { planConnect } from '../options/connect-plan.ts'
import { clientOptionError } from '../options/client-option-error.ts'
import { quotedFramings } from '../options/protocol-options.ts'
import type { SidecarProtocol } from './protocol-choice.ts'

/** Where a sidecar listens by default. */
export const DEFAULT_LISTEN = '127.0.0.1:51821'

/** A token, or a function that returns one for each attempt. */
export type TokenSource = string | (() => string | undefined | Promise<string | undefined>)

/** TLS options, or a function that returns them for each attempt, for certificates that are renewed on disk. */
export type TlsSource = TlsOptions | (() => TlsOptions | undefined | Promise<TlsOptions | undefined>)

/** Options of a sidecar: all of `connect` for datagrams, except that `close()` takes the place of `signal`. */
export interface SidecarOptions extends Omit<DatagramOptions, 'token' | 'tls' | 'protocol' | 'signal'> {
  /** The relay's URL, `http:` or `https:`; for `protocol: 'websocket'` also `ws:` or `wss:`. */
  url: string | URL
  /** Sent as `Authorization: Bearer …`. A function is called before each attempt; if it fails, the attempt fails. */
  token?: TokenSource
  /** As in `connect`. A function is called before each attempt; if it fails, the attempt fails. */
  tls?: TlsSource
  /**
   * As in `connect`, or `'auto'`: `spanza`, and in the same attempt a WebSocket where the answer shows that something on the
   * path did not let the upgrade through. A WebSocket that worked is tried first for an hour, or until it fails once.
   * Default: `'spanza'`.
   */
  protocol?: SidecarProtocol
  /** The local UDP address and port, such as `127.0.0.1:51821` (the default) or `[::1]:0`; port 0 takes a free one. */
  listen?: string
  /**
   * Where datagrams from the relay go, as `host:port`. Without it they go to the last sender on this machine. Required when
   * `listen` is not a loopback address. A name is looked up in `start()`, and again, at most every 10 s, when datagrams go
   * there and none come back.
   */
  forward?: string
  /** Connect again also when another device with the same identity took the place. Default: false. */
  retryReplaced?: boolean
}

/** @throws FST_RELAY_CLIENT_OPTION */
export function checkSidecarOptions (options: SidecarOptions): { url: string, listen: HostPort, forward: HostPort | undefined } {
  const { url, token, tls, protocol = 'spanza' } = options
  if (token !== undefined && typeof token !== 'function' && typeof token !== 'string') {
    throw clientOptionError('token', 'a string, or a function that gives one', typeof token)
  }
  if (protocol === 'auto' && options.keyless !== undefined) throw clientOptionError('keyless', "absent with protocol 'auto'", options.keyless)
  const given = {
    ...options,
    token: typeof token === 'function' ? undefined : token,
    // Checks that TLS options are allowed here; the function's own come later.
    tls: typeof tls === 'function' ? {} : tls
  }
  const protocols: ClientProtocol[] = protocol !== 'auto' ? [protocol] : canOpenOnStreams ? ['spanza', 'websocket'] : ['spanza']
  const plans = protocols.map((name) => planConnect(url, attemptOptions(given, name)))
  const { href, framings } = plans[0]!
  if (framings === 'raw') throw clientOptionError('framings', `a list of ${quotedFramings}: a sidecar carries datagrams`, framings)
  if (options.retryReplaced !== undefined && typeof options.retryReplaced !== 'boolean') {
    throw clientOptionError('retryReplaced', 'true or false', options.retryReplaced)
  }
  const listen = parseHostPort(options.listen ?? DEFAULT_LISTEN)
  if (listen === undefined || isIP(listen.host) === 0) {
    throw clientOptionError('listen', 'an address and a port, such as 127.0.0.1:51821 or [::1]:51821', options.listen)
  }
  if (options.forward === undefined) {
    if (!isLoopback(listen.host)) throw clientOptionError('forward', `given when listen (${options.listen}) is not a loopback address`, undefined)
    return { url: href, listen, forward: undefined }
  }
  const forward = parseHostPort(options.forward)
  if (forward === undefined || forward.port === 0) throw clientOptionError('forward', 'a host and a port, such as 127.0.0.1:51820', options.forward)
  if (isIP(forward.host) !== 0 && isIP(forward.host) !== isIP(listen.host)) {
    throw clientOptionError('forward', `an IPv${isIP(listen.host)} address like listen`, options.forward)
  }
  return { url: href, listen, forward }
}

/** The options of one attempt. */
export function attemptOptions (
  { framings = datagramFramings, token, tls, ...options }: Omit<SidecarOptions, 'token' | 'tls'> & { token: string | undefined, tls: TlsOptions | undefined },
  protocol: ClientProtocol
): ConnectOptions {
  const isWebSocket = protocol === 'websocket' && options.keyless !== true
  return {
    ...options,
    protocol,
    // A WebSocket has no framings. `connect` rejects given ones, unless they are meant for the other protocol.
    ...(isWebSocket && (framings === datagramFramings || options.protocol === 'auto') ? {} : { framings }),
    ...(token === undefined ? {} : { token }),
    ...(tls === undefined ? {} : { tls })
  } as ConnectOptions
}
