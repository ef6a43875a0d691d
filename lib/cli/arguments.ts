import { readFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { isIP } from 'node:net'
import { parseArgs, type ParseArgsConfig } from 'node:util'
import { describeError } from '../client/describe-error.ts'
import type { ClientProtocol, DatagramFraming, TlsOptions } from '../client/options.ts'
import type { SidecarOptions } from '../client/sidecar.ts'
import { isLoopback, parseHostPort, type HostPort } from '../host-port.ts'

/** The command line cannot be used as it is. */
export class UsageError extends Error {}

/** What the command line asks for. */
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
  http2: { type: 'boolean' },
  host: { type: 'string' },
  servername: { type: 'string' },
  ca: { type: 'string' },
  cert: { type: 'string' },
  key: { type: 'string' },
  insecure: { type: 'boolean' },
  proxy: { type: 'string' },
  'local-address': { type: 'string' },
  'retry-replaced': { type: 'boolean' },
  metrics: { type: 'string' },
  json: { type: 'boolean' },
  version: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' }
} as const satisfies ParseArgsConfig['options']

/**
 * Reads the command line and the files it names, except the token's, which is read before each attempt.
 * The options' values are checked by the sidecar itself.
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
  if (more.length > 0) throw new UsageError(`one URL, please: "${more[0]}" is too much`)
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
  if (values.protocol !== undefined) options.protocol = values.protocol as ClientProtocol
  if (values.protocol === 'websocket') options.keyless = true
  if (values.http2 === true) options.httpVersion = 2
  if (values.header !== undefined) options.headers = parseHeaders(values.header)
  if (values['retry-replaced'] === true) options.retryReplaced = true
  const tokenFile = values['token-file']
  if (tokenFile !== undefined) {
    read(tokenFile, '--token-file')
    options.token = async () => (await readFile(tokenFile, 'utf8')).trim()
  } else if (env['SPANZA_TOKEN'] !== undefined && env['SPANZA_TOKEN'] !== '') {
    options.token = env['SPANZA_TOKEN']
  }
  const tls: TlsOptions = {}
  if (values.ca !== undefined) tls.ca = read(values.ca, '--ca')
  if (values.cert !== undefined) tls.cert = read(values.cert, '--cert')
  if (values.key !== undefined) tls.key = read(values.key, '--key')
  if (values.insecure === true) tls.rejectUnauthorized = false
  if (Object.keys(tls).length > 0) options.tls = tls
  const warnings = values.insecure === true ? ['--insecure: the relay’s certificate is not checked, and the token could go to anybody'] : []
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
    // Only the first sentence; then Node goes on about "--" and positional arguments.
    throw new UsageError((error as Error).message.split('. ')[0])
  }
}

function parseHeaders (lines: string[]): Record<string, string[]> {
  const headers: Record<string, string[]> = {}
  for (const line of lines) {
    const colon = line.indexOf(':')
    // The line may hold a secret, so it is not shown.
    if (colon < 1) throw new UsageError('--header takes a name and a value, as in --header \'Name: value\'')
    const name = line.slice(0, colon).trim()
    const values = headers[name] ??= []
    values.push(line.slice(colon + 1).trim())
  }
  return headers
}

function parseMetrics (value: string): HostPort {
  const address = parseHostPort(value)
  if (address === undefined || isIP(address.host) === 0) {
    throw new UsageError(`--metrics takes an address and a port, such as 127.0.0.1:9101 or [::1]:9101, not ${value}`)
  }
  if (!isLoopback(address.host)) {
    throw new UsageError(`--metrics must be a loopback address, such as 127.0.0.1:9101, not ${value}: nothing guards the metrics from whoever can reach them`)
  }
  return address
}

function read (file: string, flag: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (error) {
    throw new UsageError(`${flag} cannot be read: ${describeError(error)}`)
  }
}
