import { BACKOFF_MAX_MS } from '../client/sidecar/backoff.ts'
import type { RelayRefusedError } from '../client/refusal.ts'
import type { ConnectionEndReason } from '../client/connection/connection-end.ts'
import type { SidecarEvents, SidecarStop } from '../client/sidecar/sidecar-events.ts'
import type { UdpSidecar } from '../client/sidecar/sidecar.ts'
import { formatHostPort } from '../util/host-port.ts'

/** Writes one line, given without its line end. */
export type WriteLine = (line: string) => void

/** Why a connection ended, in words. */
const endWords: Record<ConnectionEndReason, string> = {
  'protocol-error': 'one side could not read the other’s data',
  unstamped: 'transport data without its length was sent',
  replaced: 'another device with the same identity took the place',
  idle: 'nothing was heard for too long',
  'write-deadline': 'this side took no data from the relay for too long',
  disconnected: 'the relay’s operator ended it',
  shutdown: 'the relay is shutting down',
  'target-failed': 'the server behind the relay failed',
  limit: 'a limit of the relay was reached',
  closed: 'this side closed it',
  lost: 'the network connection broke',
  unknown: 'unknown'
}

function explain (reason: ConnectionEndReason, text: string): string {
  const said = endWords[reason]
  return text === '' ? said : `${said} (${text})`
}

function seconds (ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`
}

/** A WireGuard MTU that fits most paths to a relay, and what WireGuard adds to a packet, in bytes. */
const USUAL_MTU = 1380
const WIREGUARD_OVERHEAD = 32

function oversizedText ({ size, limit }: SidecarEvents['oversized'][0]): string {
  const mtu = Math.min(USUAL_MTU, limit - WIREGUARD_OVERHEAD)
  return `Dropped a datagram of ${size} bytes, and will drop all like it: the relay takes at most ${limit}; set MTU = ${mtu} in WireGuard's [Interface]`
}

/** Advice for users of this command, which follows the text of an error. */
function adviceFor (error: Error | undefined, hasToken: boolean): string {
  const { statusCode } = (error ?? {}) as Partial<RelayRefusedError>
  return statusCode === 401 && !hasToken ? '; no token was given: set SPANZA_TOKEN or --token-file' : ''
}

/** Writes a line for each event, for people. */
export function reportText (sidecar: UdpSidecar, url: string, write: WriteLine, hasToken = true): void {
  let lastFailure = ''
  let lastFailureAt = 0
  sidecar.on('listening', ({ address, port }) => write(`Listening on ${formatHostPort({ host: address, port })} (UDP), connecting to ${url}`))
  sidecar.on('connect', ({ framing }) => {
    lastFailure = ''
    write(`Connected to ${url} (framing ${framing})`)
  })
  sidecar.on('loop', ({ interface: name, address }) => write(
    `The route to the relay leads into ${name} (${address}), a WireGuard interface. If that is the tunnel which this sidecar carries, ` +
    'it loops: see "Full tunnels" in docs/wireguard.md'
  ))
  sidecar.on('fallback', ({ text }) => write(`Something on the way lets only WebSockets through, speaking that (without it: ${text})`))
  sidecar.on('oversized', (info) => write(oversizedText(info)))
  sidecar.on('drain', ({ afterMs }) => write(`The relay asks to connect anew in ${seconds(afterMs)}`))
  sidecar.on('lost', ({ reason, text, retryIn, cutAfterSilence }) => {
    if (reason === 'drained') write(`Disconnected as the relay asked; connecting anew in ${seconds(retryIn)}`)
    else write(`Connection lost: ${explain(reason, text)}; next attempt in ${seconds(retryIn)}`)
    if (cutAfterSilence !== undefined) {
      write(`The last three connections were cut after ${Math.round(cutAfterSilence / 1000)} s of silence: ` +
        `try --keepalive ${Math.max(1, Math.floor(cutAfterSilence * 2 / 3000))}`)
    }
  })
  // Marked as the relay's: its text must not pass for a line of ours.
  sidecar.on('notice', ({ text }) => write(`The relay says: ${text}`))
  sidecar.on('retry', ({ error, text: said, retryIn }) => {
    const text = said + adviceFor(error, hasToken)
    // Otherwise a relay that is down for hours would fill the log with the same line.
    const now = performance.now()
    if (text === lastFailure && now - lastFailureAt < BACKOFF_MAX_MS) return
    lastFailure = text
    lastFailureAt = now
    write(`${text}; next attempt in ${seconds(retryIn)}`)
  })
}

/** The line for an event, for programs. */
export function jsonLine (event: string, fields: object): string {
  return JSON.stringify({ event, time: new Date().toISOString(), ...fields })
}

/** Writes a JSON object for each event. */
export function reportJson (sidecar: UdpSidecar, write: WriteLine): void {
  const line = (event: keyof SidecarEvents, fields: object) => write(jsonLine(event, fields))
  sidecar.on('listening', ({ address, port }) => line('listening', { address, port }))
  sidecar.on('connect', (info) => line('connect', info))
  sidecar.on('loop', (info) => line('loop', info))
  sidecar.on('fallback', ({ error, ...info }) => line('fallback', { ...info, ...errorFields(error) }))
  sidecar.on('oversized', (info) => line('oversized', info))
  sidecar.on('drain', (info) => line('drain', info))
  sidecar.on('notice', (info) => line('notice', info))
  sidecar.on('lost', (info) => line('lost', info))
  sidecar.on('retry', ({ error, ...info }) => line('retry', { ...info, ...errorFields(error) }))
  sidecar.on('stop', ({ error, ...info }) => line('stop', { ...info, ...(error === undefined ? {} : errorFields(error)) }))
}

/** The final line, for people. */
export function stopText ({ reason, text, error }: SidecarStop, hasToken = true): string {
  if (reason === undefined) return text + adviceFor(error, hasToken)
  const advice = reason === 'replaced' ? '; give each device a token of its own, and run one sidecar for each token' : ''
  return `The connection was closed for good: ${explain(reason, text)}${advice}`
}

function errorFields (error: Error) {
  const { code, statusCode, answeredBy, relayCode, retryAfter } = error as Error & Record<string, unknown>
  return { code, ...(code === 'FST_RELAY_REFUSED' ? { statusCode, answeredBy, relayCode, retryAfter } : {}) }
}
