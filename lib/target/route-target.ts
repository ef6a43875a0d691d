import { inspect } from 'node:util'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { clientAddress } from '../admission/client-address.ts'
import { errors } from '../errors.ts'
import type { FramingName } from '../framing/framings.ts'
import type { ConnectedTarget } from '../hub/admitted.ts'
import { optionError } from '../util/option-error.ts'
import { encodeProxyHeader, type ProxyProtocolVersion } from '../util/proxy-header.ts'
import { connectStream } from '../tunnel/socket/connect-stream.ts'
import { parseTarget, type Target } from './target.ts'
import { UdpTarget } from './udp-target.ts'

/** Of the time that a handshake may take, connecting to a target gets at most so many milliseconds. */
const MAX_CONNECT_MS = 5000

type TargetOption = string | ((this: FastifyInstance, request: FastifyRequest) => string | Promise<string>)

/** The target of a relay route, fixed or chosen for each request. */
export class RouteTarget {
  /** Throws FST_RELAY_TARGET, and what the app's function throws. */
  readonly choose: (request: FastifyRequest) => Promise<Target>
  readonly #proxyProtocol: ProxyProtocolVersion | undefined

  /** @throws FST_RELAY_OPTION */
  constructor (fastify: FastifyInstance, target: TargetOption, proxyProtocol: ProxyProtocolVersion | undefined) {
    this.#proxyProtocol = proxyProtocol
    if (typeof target === 'function') {
      this.choose = async (request) => {
        const chosen = await target.call(fastify, request)
        const parsed = parseTarget(chosen)
        if (parsed === undefined || (parsed.protocol === 'udp' && proxyProtocol !== undefined)) {
          // Not in the answer: it may say what is behind the server.
          throw new errors.FST_RELAY_TARGET({ cause: new Error(`target() returned ${inspect(chosen)}, proxyProtocol is ${proxyProtocol}`) })
        }
        return parsed
      }
      return
    }
    const parsed = parseTarget(target)
    if (parsed === undefined) throw optionError('target', 'udp://host:port, tcp://host:port, unix:/path, or a function', target)
    if (parsed.protocol === 'udp' && proxyProtocol !== undefined) throw optionError('proxyProtocol', 'left out for a udp:// target', proxyProtocol)
    this.choose = async () => parsed
  }

  /**
   * @param handshakeTimeout milliseconds that the whole handshake may take
   * @throws FST_RELAY_TARGET_UNREACHABLE, FST_RELAY_TARGET_TIMEOUT
   */
  async connect (target: Target, request: FastifyRequest, handshakeTimeout: number): Promise<ConnectedTarget> {
    const timeout = Math.min(MAX_CONNECT_MS, Math.ceil(handshakeTimeout / 2))
    if (target.protocol === 'udp') return await UdpTarget.open(target, timeout)
    const header = this.#proxyProtocol && encodeProxyHeader(this.#proxyProtocol, addressesOf(request))
    const tunnel = await connectStream(target, timeout)
    if (header !== undefined) tunnel.write(header)
    return { carries: 'stream', tunnel, close: () => tunnel.destroy() }
  }
}

/** Of `framings`, those that a target can be reached by: datagrams for UDP, a bare stream for anything else. */
export function framingsFor (target: Target, framings: readonly FramingName[]): FramingName[] {
  return framings.filter((name) => (name === 'raw') !== (target.protocol === 'udp'))
}

/** Both ends of a client's connection, as far as they are known: a port belongs to an address that no proxy has told. */
function addressesOf (request: FastifyRequest) {
  const { remotePort, localAddress, localPort } = request.raw.socket
  const address = clientAddress(request.ip)
  if (address === undefined || localAddress === undefined) return undefined
  const isDirect = address === clientAddress(request.raw.socket.remoteAddress)
  return {
    source: { address, port: isDirect ? remotePort ?? 0 : 0 },
    destination: { address: clientAddress(localAddress)!, port: localPort ?? 0 }
  }
}
