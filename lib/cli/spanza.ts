#!/usr/bin/env node
import { createRequire } from 'node:module'
import { describeError } from '../client/describe-error.ts'
import { UdpSidecar } from '../client/sidecar/sidecar.ts'
import type { SidecarStop } from '../client/sidecar/sidecar-events.ts'
import { DEFAULT_LISTEN } from '../client/sidecar/sidecar-options.ts'
import { errors } from '../errors.ts'
import { formatHostPort } from '../util/host-port.ts'
import { UsageError, parseCommand, type Command } from './arguments.ts'
import { exitCodeOf, exitCodes } from './exit-codes.ts'
import { help } from './help.ts'
import { LiveLine } from './live-line.ts'
import { serveMetrics, type MetricsServer } from './metrics-server.ts'
import { portError } from './port-fault.ts'
import { jsonLine, reportJson, reportText, stopText, type WriteLine } from './report.ts'
import { sidecarMetrics } from './sidecar-metrics.ts'
import { watchSilence } from './silence.ts'
import { liveText, trafficText, watchTraffic } from './traffic.ts'

/** How often traffic is reported, in milliseconds: on a terminal, and elsewhere. */
const LIVE_MS = 1000
const LOG_MS = 60_000
/** After how much silence of WireGuard's from the beginning something is said, in milliseconds. */
const SILENCE_MS = 30_000

// The reader of the lines may exit; the tunnel stays.
process.stdout.on('error', () => {})
process.stderr.on('error', () => {})

const out = (line: string) => { process.stdout.write(`${line}\n`) }
const complain = (text: string) => { process.stderr.write(`spanza: ${text}\n`) }

// Not process.exit(), which could cut off the last lines. When everything is closed, the process ends by itself.
process.exitCode = await main().catch((error: unknown) => {
  const usage = error instanceof UsageError || error instanceof errors.FST_RELAY_CLIENT_OPTION
  complain(describeError(error))
  if (usage) complain('see spanza --help')
  return usage ? exitCodes.usage : exitCodes.unexpected
})

async function main (): Promise<number> {
  const command = parseCommand(process.argv.slice(2), process.env)
  if (command.name === 'connect') return runConnect(command)
  if (command.name === 'help') process.stdout.write(help)
  else out(version())
  return exitCodes.stopped
}

async function runConnect ({ options, json, metrics, warnings }: Command & { name: 'connect' }): Promise<number> {
  const sidecar = new UdpSidecar({ proxy: 'env', ...options })
  for (const warning of warnings) complain(warning)
  const output = openOutput(sidecar, json)
  const hasToken = options.token !== undefined
  if (json) reportJson(sidecar, output.write)
  else reportText(sidecar, String(options.url), output.write, hasToken)
  const endSilence = json ? () => {} : watchSilence(sidecar, SILENCE_MS, output.write)
  let server: MetricsServer | undefined
  let outcome
  try {
    const stopped = new Promise<SidecarStop>((resolve) => sidecar.on('stop', resolve))
    const signalled = new Promise<'signalled'>((resolve) => {
      for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve('signalled'))
    })
    if (metrics !== undefined) {
      server = await serveMetrics(metrics, () => sidecarMetrics(sidecar.stats)).catch((error) => {
        throw portError(error, { flag: '--metrics', value: formatHostPort(metrics), takenBy: 'another sidecar' })
      })
      const { url } = server
      output.write(json ? jsonLine('metrics', { url }) : `Metrics at ${url}`)
    }
    const started = sidecar.start().catch((error) => {
      throw portError(error, { flag: '--listen', value: options.listen ?? DEFAULT_LISTEN, takenBy: 'another sidecar, or by WireGuard as its ListenPort' })
    })
    outcome = await Promise.race([started.then(() => stopped), signalled])
  } finally {
    await Promise.all([sidecar.close(), server?.close()])
    endSilence()
    output.end()
  }
  if (outcome === 'signalled') return exitCodes.stopped
  complain(stopText(outcome, hasToken))
  return exitCodeOf(outcome)
}

interface Output {
  write: WriteLine
  end: () => void
}

/** Where the lines go. Lines for people come with traffic: live on a terminal, elsewhere a line once a minute. */
function openOutput (sidecar: UdpSidecar, json: boolean): Output {
  const { stdout } = process
  if (json) return { write: out, end () {} }
  if (stdout.isTTY && process.env['TERM'] !== 'dumb') {
    const live = new LiveLine(stdout)
    const stop = watchTraffic(sidecar, LIVE_MS, (passed, stats) => live.show(liveText(passed, stats)))
    return { write: (line) => live.writeAbove(line), end () { stop(); live.end() } }
  }
  const end = watchTraffic(sidecar, LOG_MS, (passed) => {
    const text = trafficText(passed)
    if (text !== undefined) out(text)
  })
  return { write: out, end }
}

function version (): string {
  return createRequire(import.meta.url)('../../package.json').version
}
