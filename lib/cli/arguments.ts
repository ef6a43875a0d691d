import { isIP } from 'node:net'
import { parseArgs, type ParseArgsConfig } from 'node:util'
import { describeError } from '../client/describe-error.ts'
import type { DatagramFraming } from '../framing/framing.ts'
import type { SidecarProtocol } from '../client/sidecar/protocol-choice.ts'
import type { SidecarOptions } from '../client/sidecar/sidecar-options.ts'
import { isLoopback, parseHostPort, type HostPort } from '../util/host-port.ts'
import { checkTlsFiles, readTlsFiles } from './tls-files.ts'
import { checkTokenFile, tokenFrom, tokenOfEnvironment } from './token.ts'

const MAX_KEEPALIVE_S = 3600

/** The command line is wrong. */
export class UsageError extends Error {}

/** A command line that has been read. */
export type Command =
  { name: 'help' } |
  { name: 'version' } |
  { name: 'connect', options: SidecarOptions, json: boolean, metrics?: HostPort, warnings: string[] }

const flags = {
  listen: { type: 'string' },
  forward: { type: 'string' },
  'token-file': { type: 'string' },
  token: { type: 'string' },
  header: { type: 'string', multiple: true },
  framing: { type: 'string' },
  protocol: { type: 'string' },
  keyless: { type: 'boolean' },
  http2: { type: 'boolean' },
  host: { type: 'string' },
  servername: { type: 'string' },
  ca: { type: 'string' },
  cert: { type: 'string' },
  key: { type: 'string' },
  insecure: { type: 'boolean' },
  proxy: { type: 'string' },
  'local-address': { type: 'string' },
  keepalive: { type: 'string' },
  'retry-replaced': { type: 'boolean' },
  metrics: { type: 'string' },
  json: { type: 'boolean' },
  version: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' }
} as const satisfies ParseArgsConfig['options']

const sidecarProtocols: readonly SidecarProtocol[] = ['auto', 'spanza', 'websocket']

function isProtocol (name: string): name is SidecarProtocol {
  return (sidecarProtocols as readonly string[]).includes(name)
}

/**
 * Reads the command line. It also reads the files named there once, to check them; they are read again before each attempt. The
 * sidecar itself checks the values of its options.
 * @param args without node and script
 * @throws UsageError
 */
export function parseCommand (args: string[], env: NodeJS.ProcessEnv): Command {
  const { values, positionals } = parse(args)
  if (values.help === true) return { name: 'help' }
  if (values.version === true) return { name: 'version' }
  const [command, url, ...more] = positionals
  if (command === undefined) throw new UsageError('a command is missing: spanza connect <url>')
  if (command !== 'connect') throw new UsageError(`there is no command "${command}", only connect`)
  if (url === undefined) throw new UsageError('the URL of the relay is missing: spanza connect <url>')
  if (more.length > 0) throw new UsageError(`connect takes one URL, not "${more[0]}" as well`)
  if (values.token !== undefined) {
    throw new UsageError('a token on the command line can be read by every user of this machine: ' +
      'use --token-file, or the environment variable SPANZA_TOKEN')
  }
  const options: SidecarOptions = { url }
  if (values.proxy !== undefined) options.proxy = values.proxy === 'none' ? false : values.proxy
  if (values['local-address'] !== undefined) options.localAddress = values['local-address']
  if (values.listen !== undefined) options.listen = values.listen
  if (values.forward !== undefined) options.forward = values.forward
  if (values.host !== undefined) options.host = values.host
  if (values.servername !== undefined) options.servername = values.servername
  if (values.framing !== undefined) options.framings = values.framing.split(',').map((name) => name.trim()) as DatagramFraming[]
  if (values.protocol !== undefined && !isProtocol(values.protocol)) {
    throw new UsageError(`--protocol must be ${sidecarProtocols.join(', ')}, not ${values.protocol}`)
  }
  if (values.keyless === true) {
    if (values.protocol !== 'websocket') throw new UsageError('--keyless goes with --protocol websocket only')
    options.keyless = true
  }
  options.protocol = values.protocol ?? 'auto'
  if (values.http2 === true) options.httpVersion = 2
  if (values.header !== undefined) options.headers = parseHeaders(values.header)
  if (values.keepalive !== undefined) Object.assign(options, parseKeepalive(values.keepalive))
  if (values['retry-replaced'] === true) options.retryReplaced = true
  const warnings: string[] = []
  const tokenFile = values['token-file']
  if (tokenFile !== undefined) {
    usage(() => checkTokenFile(tokenFile), '--token-file cannot be read: ')
    options.token = tokenFrom(tokenFile)
  } else {
    const token = usage(() => tokenOfEnvironment(env['SPANZA_TOKEN']))
    if (token !== undefined) options.token = token
  }
  const { ca, cert, key, insecure = false } = values
  checkTlsFlags(url, { ca, cert, key, insecure: insecure || undefined })
  if (ca !== undefined || cert !== undefined || key !== undefined) {
    usage(() => checkTlsFiles({ ca, cert, key }))
    options.tls = () => ({ ...readTlsFiles({ ca, cert, key }), ...(insecure ? { rejectUnauthorized: false } : {}) })
  } else if (insecure) {
    options.tls = { rejectUnauthorized: false }
  }
  if (insecure) warnings.push('--insecure: the relay’s certificate is not checked, so the token could be sent to an impostor')
  if (showsToken(url, options)) warnings.push(`${new URL(url).protocol} is not encrypted: anyone on the path can read the token; use ${url.startsWith('ws') ? 'wss' : 'https'}:`)
  if (values.proxy?.includes('@') === true) {
    warnings.push('--proxy: a password on the command line can be read by every user of this machine; use the environment variable ALL_PROXY')
  }
  const metrics = values.metrics === undefined ? {} : { metrics: parseMetrics(values.metrics) }
  return { name: 'connect', options, json: values.json === true, ...metrics, warnings }
}

function parse (args: string[]) {
  try {
    return parseArgs({ args, options: flags, allowPositionals: true })
  } catch (error) {
    // Only Node's first sentence; the rest explains "--" and positional arguments.
    throw new UsageError((error as Error).message.split('. ')[0])
  }
}

/** The sidecar calls all of them its option tls. */
function checkTlsFlags (url: string, flags: Record<string, unknown>): void {
  if (!URL.canParse(url)) return
  const { protocol } = new URL(url)
  if (protocol !== 'http:' && protocol !== 'ws:') return
  const given = Object.keys(flags).filter((name) => flags[name] !== undefined).map((name) => `--${name}`).join(', ')
  if (given === '') return
  const secure = protocol === 'ws:' ? 'wss:' : 'https:'
  throw new UsageError(`${given}: for ${secure} URLs only, and this one begins with ${protocol}//; write ${secure}//, or leave ${given} out`)
}

/** Whether a token or an Authorization header would leave this machine unencrypted. */
function showsToken (url: string, { token, headers = {} }: SidecarOptions): boolean {
  if (!URL.canParse(url)) return false
  const { protocol, hostname } = new URL(url)
  if (protocol !== 'http:' && protocol !== 'ws:') return false
  if (hostname === 'localhost' || isLoopback(hostname.replace(/^\[|\]$/g, ''))) return false
  return token !== undefined || Object.keys(headers).some((name) => name.toLowerCase() === 'authorization')
}

function parseHeaders (lines: string[]): Record<string, string[]> {
  // Without a prototype: the names come from the command line.
  const headers: Record<string, string[]> = Object.create(null)
  for (const line of lines) {
    const colon = line.indexOf(':')
    // The line is not shown: it may hold a secret.
    if (colon < 1) throw new UsageError('--header takes a name and a value, as in --header \'Name: value\'')
    const name = line.slice(0, colon).trim()
    const values = headers[name] ??= []
    values.push(line.slice(colon + 1).trim())
  }
  return headers
}

/** A relay sends something every 25 s, so a shorter interval does not shorten the timeout. */
function parseKeepalive (value: string): Pick<SidecarOptions, 'keepaliveInterval' | 'keepaliveTimeout'> {
  const seconds = /^\d{1,4}$/.test(value) ? Number(value) : 0
  if (seconds < 1 || seconds > MAX_KEEPALIVE_S) {
    throw new UsageError(`--keepalive takes whole seconds from 1 to ${MAX_KEEPALIVE_S}, such as 10, not ${value}`)
  }
  return { keepaliveInterval: seconds * 1000, keepaliveTimeout: Math.max(75_000, seconds * 3000) }
}

function parseMetrics (value: string): HostPort {
  const address = parseHostPort(value)
  if (address === undefined || isIP(address.host) === 0) {
    throw new UsageError(`--metrics takes an address and a port, such as 127.0.0.1:9101 or [::1]:9101, not ${value}`)
  }
  if (!isLoopback(address.host)) {
    throw new UsageError(`--metrics must be a loopback address, such as 127.0.0.1:9101, not ${value}: the metrics need no credentials`)
  }
  return address
}

/** Reads something that the command line names, and turns errors into a `UsageError`. */
function usage<T> (read: () => T, systemPrefix = ''): T {
  try {
    return read()
  } catch (error) {
    const isSystems = (error as NodeJS.ErrnoException).syscall !== undefined
    throw new UsageError(`${isSystems ? systemPrefix : ''}${describeError(error)}`)
  }
}
