import dns, { type LookupAddress, type LookupOptions } from 'node:dns'
import { isIP, Socket, type LookupFunction } from 'node:net'
import type { Duplex } from 'node:stream'

/** If a lookup takes longer than this, the address that worked last is tried, in milliseconds. */
const SLOW_LOOKUP_MS = 1000
const MAX_HOSTS = 256

/** The address from which each host's relay answered last; the most recently used hosts are at the end. */
const worked = new Map<string, LookupAddress>()
/** The host that a socket was made for. */
const hosts = new WeakMap<Duplex, string>()
/** Unfinished lookups: libuv has few threads for them, and each may take long. */
const pending = new Map<string, Promise<LookupAddress[]>>()

/** Notes which host the socket connects to, for `rememberAddress`. */
export function dialled<T extends Duplex> (socket: T, host: string): T {
  if (isIP(host) === 0) hosts.set(socket, host)
  return socket
}

/** Call this when a relay has answered on this transport. Its address is tried again when the name cannot be resolved. */
export function rememberAddress (transport: Duplex): void {
  const host = hosts.get(transport)
  if (host === undefined || !(transport instanceof Socket) || transport.remoteAddress === undefined) return
  const address = transport.remoteAddress.replace(/%.*$/, '')
  worked.delete(host)
  worked.set(host, { address, family: isIP(address) })
  if (worked.size > MAX_HOSTS) worked.delete(worked.keys().next().value!)
}

/**
 * Node's `lookup`, with the address that worked last after those found. When the name is not found, or the resolver takes too
 * long, it is the only address: the resolver may be behind the very tunnel that is down.
 */
export const lookupRelay: LookupFunction = (host, options, callback) => {
  const last = worked.get(host)
  const fits = last !== undefined && (options.family === undefined || options.family === 0 || familyOf(options) === last.family)
  const fallback = fits ? last : undefined
  let timer: NodeJS.Timeout | undefined
  let isDone = false
  const done = (error: NodeJS.ErrnoException | null, found: LookupAddress[]) => {
    if (isDone) return
    isDone = true
    clearTimeout(timer)
    if (error !== null) return callback(error, options.all === true ? [] : '')
    if (options.all === true) callback(null, found)
    else callback(null, found[0]!.address, found[0]!.family)
  }
  if (fallback !== undefined) timer = setTimeout(() => done(null, [fallback]), SLOW_LOOKUP_MS)
  lookupOnce(host, options).then((found) => {
    const isNew = fallback !== undefined && found.every(({ address }) => address !== fallback.address)
    done(null, isNew ? [...found, fallback] : found)
  }, (error) => {
    if (fallback === undefined) done(error, [])
    else done(null, [fallback])
  })
}

/** Whether a lookup of the name is under way. */
export function isLookingUp (host: string): boolean {
  return [...pending.keys()].some((key) => key.startsWith(`${host} `))
}

function lookupOnce (host: string, options: LookupOptions): Promise<LookupAddress[]> {
  const key = `${host} ${options.family ?? 0} ${options.hints ?? 0}`
  const running = pending.get(key)
  if (running !== undefined) return running
  const started = new Promise<LookupAddress[]>((resolve, reject) => {
    dns.lookup(host, { ...options, all: true }, (error, found) => {
      pending.delete(key)
      if (error === null) resolve(found)
      else reject(error)
    })
  })
  pending.set(key, started)
  return started
}

function familyOf ({ family }: LookupOptions): number {
  return Number(String(family).replace('IPv', ''))
}
