import { inspect } from 'node:util'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { clientAddress } from '../admission/client-address.ts'
import { errors } from '../errors.ts'
import type { FramingName } from '../framing/framing.ts'
import type { ConnectedTarget } from '../hub/admitted.ts'
import { optionError } from '../util/option-error.ts'
import { encodeProxyHeader, type ProxyProtocolVersion } from '../util/proxy-header.ts'
import { connectStream } from '../tunnel/socket/connect-stream.ts'
import { parseTarget, type Target } from './target.ts'
import { UdpTarget } from './udp-target.ts'

/** The most milliseconds that connecting to a target may take of the handshake timeout. */
const MAX_CONNECT_MS = 5000

type TargetOption = string | ((this: FastifyInstance, request: FastifyRequest) => string | Promise<string>)

/** The target of a relay route: fixed, or chosen for each request. */
export class RouteTarget {
  /** @throws FST_RELAY_TARGET, and any error that the app's function throws */
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
          // Only in `cause`: the response must not reveal what is behind the server.
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
   * Connects to the target, within half of `handshakeTimeout` and at most 5 s.
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

/** Returns those of `framings` that suit the target: all but `raw` for UDP, only `raw` for any other. */
export function framingsFor (target: Target, framings: readonly FramingName[]): FramingName[] {
  return framings.filter((name) => (name === 'raw') !== (target.protocol === 'udp'))
}

/** Returns both ends of a client's connection. The source port is 0 when the address comes from a proxy. */
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
