import type { IncomingHttpHeaders } from 'node:http'
import { errors } from '../errors.ts'
import type { Framing } from '../framing/framing.ts'
import { len16 } from '../framing/len16.ts'
import { wg } from '../framing/wg.ts'
import { printable } from '../printable.ts'
import { MAX_DATAGRAM_SIZE } from '../wireguard.ts'
import type { ConnectPlan, DatagramFraming } from './options.ts'

const framingTable: Record<DatagramFraming, Framing> = { wg, len16 }

/** What both sides have agreed on for a tunnel of datagrams. */
export interface Agreement {
  framing: Framing
  /** Limits of both directions, in bytes. */
  maxPacketSize: { send: number, receive: number }
}

/**
 * Reads what was agreed on from the answer that opened a tunnel; undefined for a tunnel of bytes.
 * @throws FST_RELAY_ANSWER
 */
export function readAgreement ({ framings, maxPacketSize }: ConnectPlan, headers: IncomingHttpHeaders): Agreement | undefined {
  if (framings === 'raw') return
  const answered = headers['spanza-framing']
  if (answered === undefined) throw errors.FST_RELAY_ANSWER('a proxy removed Spanza-Framing, or the server is older')
  const chosen = framings.find((name) => name === String(answered).toLowerCase())
  if (chosen === undefined) throw errors.FST_RELAY_ANSWER(`it chose the framing "${shown(answered)}", which was not asked for`)
  return {
    framing: framingTable[chosen],
    maxPacketSize: { send: readMaxPacket(headers['spanza-max-packet']), receive: maxPacketSize }
  }
}

/** A header's value for a message: without control characters, and not too long. */
export function shown (value: string | string[] | undefined): string {
  return printable(String(value), 100)
}

function readMaxPacket (value: string | string[] | undefined): number {
  if (value === undefined) return MAX_DATAGRAM_SIZE
  const bytes = /^\d{1,5}$/.test(String(value)) ? Number(value) : 0
  if (bytes < 1 || bytes > MAX_DATAGRAM_SIZE) throw errors.FST_RELAY_ANSWER(`"Spanza-Max-Packet: ${shown(value)}"`)
  return bytes
}
