import { MAX_DATAGRAM_SIZE } from '../framing/wireguard.ts'
import { optionError } from '../util/option-error.ts'

/** Limits and defaults of a hub. Times are in milliseconds. */
export interface HubOptions {
  /** Datagrams above this many bytes are dropped; 1 to 65535, default 2048. */
  maxPacketSize?: number
  /** Peers of all channels together; default 10,000. */
  maxPeers?: number
  /** Peers of one packet channel; default 256. */
  maxChannelPeers?: number
  /** Peers of one client address (IPv6: of one /64), in all channels together; default 256. */
  maxClientPeers?: number
  /** Peers of one packet channel that gave no public key: each handshake initiation nobody else claims goes to all of them; default 16. */
  maxKeylessPeers?: number
  /** From the request to the 101, the app's hooks included; default 10 s. */
  handshakeTimeout?: number
  /** Handshakes that may be unfinished at once, of all clients together; default 1000. */
  maxUnfinishedHandshakes?: number
  /** Of these, handshakes of one client address; default 32. */
  maxClientUnfinishedHandshakes?: number
  /** Handshakes of all clients in a second, on average, five times as many in a burst; default 500. */
  handshakesPerSecond?: number
  /** The same of those that `identify` has sent to one channel; default 50. */
  channelHandshakesPerSecond?: number
  /** The same of one client address; default 20. */
  clientHandshakesPerSecond?: number
  /** How long a tunnel of a stream channel waits for the other one; default 60 s. */
  pairTimeout?: number
  /** How long a pair may live on after one direction has ended; default 10 min. */
  halfClosedTimeout?: number
  /** A tunnel with a keepalive gets one after this much silence, give or take a tenth; default 25 s. */
  keepaliveInterval?: number
  /** A tunnel with a keepalive is closed after this much silence; default 75 s. */
  keepaliveTimeout?: number
  /** A tunnel without a keepalive (`raw`, `UoTLV/1`) is closed after this much silence; default 0: never. */
  idleTimeout?: number
  /** A peer whose socket takes nothing more for this long is closed; default 30 s. */
  writeTimeout?: number
  /** How long `fastify.close()` waits for tunnels to end; default 5 s. */
  closeGrace?: number
}

const MAX_COUNT = 1e9
const MAX_TIME = 2 ** 31 - 1

/** Each option's default, smallest and largest value; all are whole numbers. */
const ranges: Record<keyof HubOptions, readonly [number, number, number]> = {
  maxPacketSize: [2048, 1, MAX_DATAGRAM_SIZE],
  maxPeers: [10_000, 1, MAX_COUNT],
  maxChannelPeers: [256, 2, MAX_COUNT],
  maxClientPeers: [256, 1, MAX_COUNT],
  maxKeylessPeers: [16, 0, MAX_COUNT],
  handshakeTimeout: [10_000, 1, MAX_TIME],
  maxUnfinishedHandshakes: [1000, 1, MAX_COUNT],
  maxClientUnfinishedHandshakes: [32, 1, MAX_COUNT],
  handshakesPerSecond: [500, 1, MAX_COUNT],
  channelHandshakesPerSecond: [50, 1, MAX_COUNT],
  clientHandshakesPerSecond: [20, 1, MAX_COUNT],
  pairTimeout: [60_000, 1, MAX_TIME],
  halfClosedTimeout: [600_000, 1, MAX_TIME],
  keepaliveInterval: [25_000, 1, MAX_TIME],
  keepaliveTimeout: [75_000, 1, MAX_TIME],
  idleTimeout: [0, 0, MAX_TIME],
  writeTimeout: [30_000, 1, MAX_TIME],
  closeGrace: [5000, 0, MAX_TIME]
}

export const hubOptionNames = Object.keys(ranges) as Array<keyof HubOptions>

/** The names of the hub-wide options that `options` has. */
export function hubOptionsIn (options: object): Array<keyof HubOptions> {
  return hubOptionNames.filter((name) => (options as HubOptions)[name] !== undefined)
}

/**
 * The hub-wide options with defaults filled in.
 * @throws FST_RELAY_OPTION with the name and the value of one that is not allowed
 */
export function readHubOptions (options: HubOptions): Required<HubOptions> {
  const read = {} as Required<HubOptions>
  for (const name of hubOptionNames) {
    const [fallback, smallest, largest] = ranges[name]
    const value = options[name] ?? fallback
    if (!Number.isInteger(value) || value < smallest || value > largest) {
      throw optionError(name, `a whole number from ${smallest} to ${largest}`, value)
    }
    read[name] = value
  }
  if (read.keepaliveTimeout <= read.keepaliveInterval) {
    throw optionError('keepaliveTimeout', `above keepaliveInterval (${read.keepaliveInterval})`, read.keepaliveTimeout)
  }
  return read
}
