import type { UdpSidecar } from '../client/sidecar/sidecar.ts'
import { formatHostPort } from '../util/host-port.ts'
import type { WriteLine } from './report.ts'

const WILDCARDS = ['0.0.0.0', '::']

/**
 * Says once that WireGuard has sent nothing, when a first connection is that old: its Endpoint may lead elsewhere.
 * @param after milliseconds
 * @returns ends it
 */
export function watchSilence (sidecar: UdpSidecar, after: number, write: WriteLine): () => void {
  let endpoint = ''
  let timer: NodeJS.Timeout | undefined
  sidecar.on('listening', ({ address, port }) => {
    endpoint = WILDCARDS.includes(address) ? `port ${port} of this machine as its Endpoint` : `Endpoint = ${formatHostPort({ host: address, port })}`
  })
  sidecar.on('connect', () => {
    timer ??= setTimeout(() => {
      const { udpDatagramsIn, drops } = sidecar.stats
      if (udpDatagramsIn === 0 && drops['not-loopback'] === 0) write(silenceText(endpoint))
    }, after)
  })
  return () => clearTimeout(timer)
}

function silenceText (endpoint: string): string {
  return `WireGuard has sent nothing so far: is it up, with ${endpoint}? ` +
    'Without traffic of its own it sends only with PersistentKeepalive = 25'
}
