import { Socket } from 'node:net'
import os from 'node:os'
import type { Duplex } from 'node:stream'
import { isLoopback } from '../../util/host-port.ts'

/** How often clocks and addresses are read, in milliseconds. `os.networkInterfaces()` takes 20 to 60 µs. */
export const TICK_MS = 1000
/** A tick that comes this late, by either clock, means that the process or the machine was suspended. */
const SUSPENDED_MS = 3000

/** Called from the watch's own timer. */
export interface NetworkWatcher {
  /** Once a second. */
  tick?: () => void
  /** The process or the machine was suspended for about so many milliseconds. */
  suspended?: (ms: number) => void
  /** This machine's addresses have changed. */
  changed?: (change: AddressChange) => void
}

export interface AddressChange {
  added: string[]
  removed: string[]
}

const watchers = new Set<NetworkWatcher>()
let timer: NodeJS.Timeout | undefined
let addresses = new Set<string>()
let monotonic = 0
let wall = 0

/**
 * Watches this machine's addresses and clocks until the returned function is called. All watchers share one timer, which
 * does not keep the process alive.
 */
export function watchNetwork (watcher: NetworkWatcher): () => void {
  watchers.add(watcher)
  if (timer === undefined) {
    addresses = readAddresses()
    readClocks()
    timer = setInterval(tick, TICK_MS).unref()
  }
  return () => {
    if (!watchers.delete(watcher) || watchers.size > 0) return
    clearInterval(timer)
    timer = undefined
  }
}

/**
 * Watches whether this machine still has the local address of a transport; `onGone` is called at most once. It does nothing
 * for a transport that is not a socket, for loopback addresses, and for addresses that no interface lists, such as those of
 * a range that routing makes local.
 */
export function watchAddress (transport: Duplex, onGone: (text: string) => void): () => void {
  const address = transport instanceof Socket ? transport.localAddress?.replace(/^::ffff:(?=\d+\.)|%.*$/g, '') : undefined
  if (address === undefined || isLoopback(address)) return () => {}
  const unwatch = watchNetwork({
    changed: ({ removed }) => {
      if (!removed.includes(address)) return
      unwatch()
      onGone(`this machine does not have the address ${address} any more`)
    }
  })
  if (!addresses.has(address)) update() // new since the last tick
  return unwatch
}

function tick (): void {
  const stoodStill = readClocks()
  if (stoodStill >= SUSPENDED_MS) tell((watcher) => watcher.suspended?.(stoodStill))
  update()
  tell((watcher) => watcher.tick?.())
}

/** How late this call is, in milliseconds. Linux and macOS stop the monotonic clock while the machine sleeps, so both clocks are read. */
function readClocks (): number {
  const [monotonicBefore, wallBefore] = [monotonic, wall]
  monotonic = performance.now()
  wall = Date.now()
  return Math.max(monotonic - monotonicBefore, wall - wallBefore) - TICK_MS
}

function update (): void {
  const before = addresses
  addresses = readAddresses()
  const added = [...addresses].filter((address) => !before.has(address))
  const removed = [...before].filter((address) => !addresses.has(address))
  if (added.length > 0 || removed.length > 0) tell((watcher) => watcher.changed?.({ added, removed }))
}

function tell (about: (watcher: NetworkWatcher) => void): void {
  for (const watcher of [...watchers]) {
    if (watchers.has(watcher)) about(watcher)
  }
}

/** The addresses of interfaces that are up; libuv leaves out the others. */
function readAddresses (): Set<string> {
  try {
    return new Set(Object.values(os.networkInterfaces()).flatMap((list) => list ?? []).map(({ address }) => address))
  } catch {
    return addresses // Android forbids reading them, so they never change there
  }
}
