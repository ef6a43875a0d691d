import type { DatagramOptions, TransportOptions } from './connect-options.ts'
import { clientOptionError, integerOption } from './client-option-error.ts'

/** The longest delay that Node's timers take, in milliseconds. */
export const MAX_TIMER_MS = 0x7fffffff

const DEFAULT_HANDSHAKE_TIMEOUT_MS = 10_000
const DEFAULT_KEEPALIVE_INTERVAL_MS = 25_000
const DEFAULT_KEEPALIVE_TIMEOUT_MS = 75_000

export function checkHandshakeTimeout ({ handshakeTimeout }: TransportOptions): number {
  return integerOption('handshakeTimeout', handshakeTimeout, DEFAULT_HANDSHAKE_TIMEOUT_MS, 1, MAX_TIMER_MS)
}

export function checkKeepalive (options: DatagramOptions): { keepaliveInterval: number, keepaliveTimeout: number } {
  const keepaliveInterval = integerOption('keepaliveInterval', options.keepaliveInterval, DEFAULT_KEEPALIVE_INTERVAL_MS, 1, MAX_TIMER_MS)
  const keepaliveTimeout = integerOption('keepaliveTimeout', options.keepaliveTimeout, DEFAULT_KEEPALIVE_TIMEOUT_MS, 1, MAX_TIMER_MS)
  if (keepaliveTimeout <= keepaliveInterval) {
    throw clientOptionError('keepaliveTimeout', `more than keepaliveInterval (${keepaliveInterval})`, keepaliveTimeout)
  }
  return { keepaliveInterval, keepaliveTimeout }
}
