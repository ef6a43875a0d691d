import type { DatagramFraming } from '../../framing/framing.ts'
import { datagramFramings } from '../../framing/framings.ts'
import { canOpenOnStreams } from '../../internals/ws-internals.ts'
import { httpVersionNumbers, type HttpVersionNumber } from '../../util/http-version.ts'
import type { AnyConnectOptions, ClientProtocol, RawConnectOptions, TransportOptions } from './connect-options.ts'
import { clientOptionError } from './client-option-error.ts'

/** Checks the options that say what to speak: HTTP version, protocol, framings and early data. */

/** The framings of datagrams, for messages. */
export const quotedFramings = datagramFramings.map((name) => `'${name}'`).join(' and ')

export function checkHttpVersion ({ httpVersion = 1, keyless }: TransportOptions): HttpVersionNumber {
  if (!httpVersionNumbers.includes(httpVersion)) throw clientOptionError('httpVersion', httpVersionNumbers.join(' or '), httpVersion)
  if (httpVersion === 2 && keyless === true) {
    throw clientOptionError('httpVersion', "1 with protocol 'websocket' and keyless: that transport is made of HTTP/1.1", httpVersion)
  }
  return httpVersion
}

export function checkProtocol ({ protocol = 'spanza', keyless }: TransportOptions): ClientProtocol {
  if (protocol !== 'spanza' && protocol !== 'websocket') throw clientOptionError('protocol', "'spanza' or 'websocket'", protocol)
  if (keyless !== undefined && typeof keyless !== 'boolean') throw clientOptionError('keyless', 'true or false', keyless)
  if (protocol === 'websocket' && keyless !== true && !canOpenOnStreams) {
    throw clientOptionError('protocol', "'spanza': WebSockets need ws as it is in version 8.23, and the installed one differs", protocol)
  }
  if (protocol !== 'websocket' && keyless === true) throw clientOptionError('keyless', "absent without protocol 'websocket'", keyless)
  return protocol
}

export function checkFramings ({ framings, keyless }: AnyConnectOptions, isWebSocket: boolean): 'raw' | readonly DatagramFraming[] {
  if (isWebSocket && framings !== undefined && framings !== 'raw') {
    throw clientOptionError('framings', "'raw' or absent with protocol 'websocket': its messages are datagrams (keyless: true takes framings)", framings)
  }
  const value: unknown = framings ?? (keyless === true ? 'raw' : datagramFramings)
  if (value === 'raw') return value
  const isValid = Array.isArray(value) && value.length > 0 && new Set(value).size === value.length &&
    value.every((name) => datagramFramings.includes(name))
  if (!isValid) throw clientOptionError('framings', `'raw', or a list of ${quotedFramings}, each at most once`, value)
  return [...value]
}

export function checkEarlyData (options: AnyConnectOptions, framings: unknown, httpVersion: HttpVersionNumber, isWebSocket: boolean): Uint8Array | undefined {
  const { earlyData } = options as RawConnectOptions
  if (earlyData === undefined) return
  if (!(earlyData instanceof Uint8Array)) throw clientOptionError('earlyData', 'a Buffer', typeof earlyData)
  if (framings !== 'raw') throw clientOptionError('earlyData', 'absent with framings: it is for a tunnel of bytes', 'given')
  if (httpVersion === 2) throw clientOptionError('earlyData', 'absent with httpVersion 2', 'given')
  if (isWebSocket) throw clientOptionError('earlyData', 'absent with a WebSocket: it is for bare tunnels', 'given')
  return earlyData
}
