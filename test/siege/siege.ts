import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { http1Attacks } from './attacks-http1.ts'
import { http2Attacks } from './attacks-http2.ts'
import { tlsAttacks } from './attacks-tls.ts'
import type { Place } from './peer.ts'
import type { Tries } from './victim.ts'

/** What of the relay is besieged, with the attacks that it can be met with. */
export const fronts = {
  'HTTP/1.1': Object.keys(http1Attacks),
  'HTTP/1.1, TLS': [...Object.keys(tlsAttacks), 'upgrades without a token', 'answers that nobody reads', 'connections that are reset behind the request'],
  'HTTP/2, TLS': [...Object.keys(http2Attacks), 'upgrades without a token', 'handshakes in a slow hook']
} as const satisfies Record<string, readonly string[]>

export type Front = keyof typeof fronts

/** What a siege found out about one attack. */
export interface Outcome {
  front: Front
  attack: string
  /** Requests, frames or connections that the attack was made of. */
  count: number
  calm: Tries
  attacked: Tries
  /** Resident memory of the relay's process in MiB: before, the most during the attack, and after it. */
  memory: { before: number, most: number, after: number }
}

export interface SiegeOptions {
  /** How long each attack lasts. */
  attackMs: number
  /** How long the calm before each attack lasts; 0 for none. */
  calmMs: number
  /** The pause after an attack; default: what it has left unfinished is over by then. */
  recoveryMs?: number
  /** After how long a try is given up; default: 4 s. */
  patienceMs?: number
  /** Attacks whose front or name does not contain it are left out. */
  only?: string
  onOutcome?: (outcome: Outcome) => void
}

/** How long the relay's process may take to end. */
const CLOSE_MS = 15_000
/** How often the relay's memory is looked at. */
const MEMORY_MS = 100
const RECOVERY_MS = 1500
/** What nobody waits for any longer. */
const PATIENCE_MS = 4000
/** The first attack is not to be compared with a relay that is being compiled. */
const WARM_UP_MS = 300

/** Attacks a relay in each way in turn, while a victim opens tunnels. */
export async function besiege (options: SiegeOptions): Promise<Outcome[]> {
  const outcomes: Outcome[] = []
  for (const [front, names] of Object.entries(fronts) as Array<[Front, readonly string[]]>) {
    const attacks = names.filter((name) => `${front}: ${name}`.includes(options.only ?? ''))
    if (attacks.length > 0) outcomes.push(...await besiegeFront(front, attacks, options))
  }
  return outcomes
}

async function besiegeFront (front: Front, attacks: readonly string[], { attackMs, calmMs, recoveryMs = RECOVERY_MS, patienceMs = PATIENCE_MS, onOutcome }: SiegeOptions): Promise<Outcome[]> {
  const relay = fork(fileOf('relay-server.js'), [front], { execArgv: ['--no-warnings'], env: { ...process.env, NODE_OPTIONS: '' } })
  const [victim, attacker] = [forkTypeScript('victim.ts'), forkTypeScript('attacker.ts')]
  const outcomes: Outcome[] = []
  try {
    const [{ port }] = await answerOf(relay)
    const place: Place = { port, isTls: front !== 'HTTP/1.1' }
    await ask(victim, { command: 'start', ...place, isHttp2: front === 'HTTP/2, TLS', patienceMs })
    await tryFor(victim, Math.max(calmMs, WARM_UP_MS))
    for (const attack of attacks) {
      const calm = calmMs > 0 ? await tryFor(victim, calmMs) : { made: 0, failed: {}, durations: [] }
      const before = memoryOf(relay)
      let most = before
      const watch = setInterval(() => { most = Math.max(most, memoryOf(relay)) }, MEMORY_MS)
      await ask(victim, { command: 'begin' })
      const [{ count }] = await ask(attacker, { place, name: attack, milliseconds: attackMs })
      const [attacked] = await ask(victim, { command: 'end' }) as [Tries]
      clearInterval(watch)
      await sleep(recoveryMs)
      const outcome = { front, attack, count, calm, attacked, memory: { before, most, after: memoryOf(relay) } }
      outcomes.push(outcome)
      onOutcome?.(outcome)
    }
    // Node closes no connection whose TLS handshake is not finished, and the server waits for it: the attacker has left some.
    for (const child of [attacker, victim]) {
      if (child.exitCode !== null || child.signalCode !== null) continue
      child.kill('SIGKILL')
      await once(child, 'exit')
    }
    relay.send({})
    // How an app closes is tested elsewhere.
    await Promise.race([once(relay, 'exit'), sleep(CLOSE_MS)])
  } finally {
    for (const child of [victim, attacker, relay]) child.kill('SIGKILL')
  }
  return outcomes
}

async function tryFor (victim: ChildProcess, milliseconds: number): Promise<Tries> {
  await ask(victim, { command: 'begin' })
  await sleep(milliseconds)
  const [tries] = await ask(victim, { command: 'end' })
  return tries
}

function ask (child: ChildProcess, question: object): Promise<any[]> {
  const answer = answerOf(child)
  child.send(question)
  return answer
}

async function answerOf (child: ChildProcess): Promise<any[]> {
  const ended = new AbortController()
  const onExit = (code: number | null, signal: string | null): void => ended.abort(new Error(`a process of the siege has ended: ${signal ?? code}`))
  child.once('exit', onExit)
  try {
    return await once(child, 'message', { signal: ended.signal })
  } catch {
    throw ended.signal.reason
  } finally {
    child.off('exit', onExit)
  }
}

/** As the fuzz is loaded: on every version of Node, without a check of types. */
function forkTypeScript (file: string): ChildProcess {
  return fork(fileOf(file), {
    execArgv: ['--no-warnings', '--import=@tapjs/typescript/import'],
    env: { ...process.env, NODE_OPTIONS: '', TS_NODE_TRANSPILE_ONLY: '1' }
  })
}

function fileOf (name: string): string {
  return fileURLToPath(new URL(name, import.meta.url))
}

/** Resident memory in MiB, without asking a process that is busy. */
function memoryOf ({ pid }: ChildProcess): number {
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) / 1024
}

/** The part of `durations` below which a share of them lies. */
export function quantile (durations: readonly number[], share: number): number {
  const sorted = [...durations].sort((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN
}

export function failuresOf ({ failed }: Tries): number {
  return Object.values(failed).reduce((sum, count) => sum + count, 0)
}
