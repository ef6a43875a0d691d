import { MAX_DATAGRAM_SIZE } from '../framing/wireguard.ts'
import { optionError } from '../util/option-error.ts'

/** Hub-wide limits and defaults. All values are integers. Times are in milliseconds. */
export interface HubOptions {
  /** Larger datagrams are dropped. In bytes, 1 to 65535; default 2048. */
  maxPacketSize?: number
  /** Maximum peers in all channels together, 1 to 1e9; default 10,000. */
  maxPeers?: number
  /** Maximum peers in one packet channel, 2 to 1e9; default 256. */
  maxChannelPeers?: number
  /** Maximum peers per client address (IPv6: per /64) in all channels together, 1 to 1e9; default 256. */
  maxClientPeers?: number
  /**
   * Maximum peers without a public key in one packet channel, 0 to 1e9; default 16.
   * A handshake initiation that matches no known key goes to all of them.
   */
  maxKeylessPeers?: number
  /** Maximum time from the request to the 101, including the app's hooks, 1 to 2147483647; default 10 s. */
  handshakeTimeout?: number
  /** Maximum unfinished handshakes of all clients together, 1 to 1e9; default 1000. */
  maxUnfinishedHandshakes?: number
  /** Maximum unfinished handshakes per client address, 1 to 1e9; default 32. */
  maxClientUnfinishedHandshakes?: number
  /** Average handshakes per second of all clients together, 1 to 1e9; default 500. Bursts may be five times as large. */
  handshakesPerSecond?: number
  /** Average handshakes per second to one channel, 1 to 1e9; default 50. Bursts may be five times as large. */
  channelHandshakesPerSecond?: number
  /** Average handshakes per second per client address, 1 to 1e9; default 20. Bursts may be five times as large. */
  clientHandshakesPerSecond?: number
  /** How long a tunnel in a stream channel waits for the second one, 1 to 2147483647; default 60 s. */
  pairTimeout?: number
  /** How long a half-open pair may live, 1 to 2147483647; default 10 min. */
  halfClosedTimeout?: number
  /** The relay sends a keepalive after this much silence, ±10 %. 1 to 2147483647; default 25 s. */
  keepaliveInterval?: number
  /** The relay closes a tunnel with keepalives after this much silence. Above `keepaliveInterval`; default 75 s. */
  keepaliveTimeout?: number
  /**
   * The relay closes a tunnel without keepalives (`raw`, `UoTLV/1`) after this much silence.
   * 0 to 2147483647; default 0: never.
   */
  idleTimeout?: number
  /** The relay closes a peer whose socket accepts no data for this long, 1 to 2147483647; default 30 s. */
  writeTimeout?: number
  /** How long `fastify.close()` waits for tunnels to end, 0 to 2147483647; default 5 s. */
  closeGrace?: number
}

const MAX_COUNT = 1e9
const MAX_TIME = 2 ** 31 - 1

/** Default, minimum and maximum of each option. All are integers. */
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

/** The names of the hub-wide options set in `options`. */
export function hubOptionsIn (options: object): Array<keyof HubOptions> {
  return hubOptionNames.filter((name) => (options as HubOptions)[name] !== undefined)
}

/**
 * Validates the hub-wide options and fills in defaults.
 * @throws FST_RELAY_OPTION with the name and value of an invalid option
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
