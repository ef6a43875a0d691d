import { appendFileSync } from 'node:fs'
import type { Test } from 'tap'

const built: string[] = JSON.parse(process.env['INTEROP_PROGRAMS'] ?? '[]')

/** Why a test cannot be run without these programs; false if they are there. */
export function missingPrograms (...names: string[]): string | false {
  const missing = names.filter((name) => !built.includes(name))
  return missing.length > 0 && `needs ${missing.join(', ')}: npm run test:interop builds what it can, and says what it cannot`
}

/** One line of the table at the end. */
export function figure (t: Test, client: string, transport: string, result: string): void {
  t.comment(`${client}, ${transport}: ${result}`)
  const file = process.env['INTEROP_FIGURES']
  if (file !== undefined) appendFileSync(file, JSON.stringify({ client, transport, result }) + '\n')
}

export function megabytesPerSecond (bytes: number, since: number): string {
  const seconds = (performance.now() - since) / 1000
  return `${seconds.toFixed(1)} s (${Math.round(bytes / 1e6 / seconds)} MB/s)`
}
