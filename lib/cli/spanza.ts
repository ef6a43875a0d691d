#!/usr/bin/env node
import { createRequire } from 'node:module'
import { describeError } from '../client/describe-error.ts'
import { UdpSidecar, type SidecarStop } from '../client/sidecar.ts'
import { errors } from '../errors.ts'
import { UsageError, parseCommand, type Command } from './arguments.ts'
import { exitCodeOf, exitCodes } from './exit-codes.ts'
import { help } from './help.ts'
import { reportJson, reportText, stopText } from './report.ts'

// Who reads the lines may leave; the tunnel stays.
process.stdout.on('error', () => {})
process.stderr.on('error', () => {})

const out = (line: string) => { process.stdout.write(`${line}\n`) }
const complain = (text: string) => { process.stderr.write(`spanza: ${text}\n`) }

// Not process.exit(), which could cut off the last lines: when all is closed, the process ends by itself.
process.exitCode = await main().catch((error: unknown) => {
  const usage = error instanceof UsageError || error instanceof errors.FST_RELAY_CLIENT_OPTION
  complain(describeError(error))
  if (usage) complain('see spanza --help')
  return usage ? exitCodes.usage : exitCodes.unexpected
})

async function main (): Promise<number> {
  const command = parseCommand(process.argv.slice(2), process.env)
  if (command.name === 'connect') return connect(command)
  if (command.name === 'help') process.stdout.write(help)
  else out(version())
  return exitCodes.stopped
}

async function connect ({ options, json, warnings }: Command & { name: 'connect' }): Promise<number> {
  const sidecar = new UdpSidecar(options)
  for (const warning of warnings) complain(warning)
  if (json) reportJson(sidecar, out)
  else reportText(sidecar, String(options.url), out)
  const stopped = new Promise<SidecarStop>((resolve) => sidecar.on('stop', resolve))
  const signalled = new Promise<'signalled'>((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve('signalled'))
  })
  const outcome = await Promise.race([sidecar.start().then(() => stopped), signalled])
  await sidecar.close()
  if (outcome === 'signalled') return exitCodes.stopped
  complain(stopText(outcome))
  return exitCodeOf(outcome)
}

function version (): string {
  return createRequire(import.meta.url)('../../package.json').version
}
