import type { DatagramFraming, Framing, FramingName } from './framing.ts'
import { len16 } from './len16.ts'
import { wg } from './wg.ts'

/** The framings of datagrams, in the order in which the client offers them. A new framing is one more entry. */
export const framingsByName: Record<DatagramFraming, Framing> = { wg, len16 }

export const datagramFramings = Object.keys(framingsByName) as DatagramFraming[]

export const framingNames: FramingName[] = [...datagramFramings, 'raw']

/** The framing with this name; undefined for `raw`. */
export function framingOf (name: FramingName): Framing | undefined {
  return name === 'raw' ? undefined : framingsByName[name]
}
