import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { availableParallelism, cpus, loadavg, release, totalmem } from 'node:os'
import { median } from './contest.js'
import { isPinned } from './process.js'
import { hasProgram, versionOf } from './programs.js'

const results = new URL('../results/', import.meta.url)

/** What a bench has found: ratios first, then the figures they are made of. */
export class Report {
  #name
  #title
  #machine
  #ratios = []
  #tables = []
  #notes = []

  /**
   * @param title what was measured, in a sentence
   * @param options.isPinned `false` where the relay and the load are left to the system on any machine
   */
  constructor (name, title, { isPinned = machine.pinned } = {}) {
    this.#name = name
    this.#title = title
    this.#machine = { ...machine, pinned: isPinned }
  }

  /**
   * Adds a table.
   * @param columns its figures by name: heading, and digits behind the point
   * @param figures by row, of each round
   */
  table (heading, columns, figures) {
    this.#tables.push({ heading, columns, figures })
  }

  /**
   * Adds the ratio of one figure in two rows, the median of those of the rounds.
   * @param goal `{ atLeast }` or `{ atMost }`
   */
  ratio (text, figure, measured, against, goal) {
    const rounds = measured.map((round, i) => round[figure] / against[i][figure])
    const ratio = median(rounds)
    this.#ratios.push({ text, ratio, ...goal, isReached: isReached(ratio, goal), rounds })
  }

  /** Says what was left out, and why. */
  note (text) {
    this.#notes.push(text)
  }

  /** Prints it, and writes it to results/<name>.json. */
  finish () {
    console.log(`\n## ${this.#name}: ${this.#title}\n`)
    if (this.#ratios.length > 0) {
      printTable(['ratio', 'measured', 'lowest … highest', 'to reach', ''], this.#ratios.map(({ text, ratio, atLeast, atMost, isReached, rounds }) => [
        text, ratio.toFixed(2), `${Math.min(...rounds).toFixed(2)} … ${Math.max(...rounds).toFixed(2)}`,
        atLeast !== undefined ? `≥ ${atLeast}` : atMost !== undefined ? `≤ ${atMost}` : '', isReached === undefined ? '' : isReached ? 'yes' : 'NO'
      ]))
    }
    for (const { heading, columns, figures } of this.#tables) {
      console.log()
      printTable([heading, ...Object.values(columns).map(([title]) => title)], Object.entries(figures).map(([row, rounds]) => [
        row, ...Object.entries(columns).map(([name, [, digits]]) => rounds[0][name] === undefined ? '' : median(rounds.map((round) => round[name])).toFixed(digits))
      ]))
    }
    console.log()
    for (const note of this.#notes) console.log(note)
    console.log(describe(this.#machine))
    mkdirSync(results, { recursive: true })
    writeFileSync(new URL(`${this.#name}.json`, results), JSON.stringify({
      bench: this.#name,
      title: this.#title,
      date: new Date().toISOString(),
      machine: this.#machine,
      ratios: this.#ratios,
      tables: this.#tables.map(({ heading, figures }) => ({ heading, rows: withMedians(figures) })),
      notes: this.#notes
    }, null, 2) + '\n')
  }
}

function isReached (ratio, { atLeast, atMost } = {}) {
  if (atLeast !== undefined) return ratio >= atLeast
  if (atMost !== undefined) return ratio <= atMost
}

function withMedians (figures) {
  return Object.fromEntries(Object.entries(figures).map(([row, rounds]) => [row, {
    median: Object.fromEntries(Object.keys(rounds[0]).map((name) => [name, median(rounds.map((round) => round[name]))])),
    rounds
  }]))
}

function printTable (head, rows) {
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column].length)))
  for (const row of [head, ...rows]) {
    console.log(row.map((cell, column) => column === 0 ? cell.padEnd(widths[column]) : cell.padStart(widths[column])).join('  ').trimEnd())
  }
}

const machine = {
  processors: availableParallelism(),
  processor: cpus()[0]?.model.trim(),
  memory: `${Math.round(totalmem() / 2 ** 30)} GiB`,
  system: `${process.platform} ${release()}`,
  pinned: isPinned,
  loadBefore: loadavg()[0],
  versions: {
    node: process.version.slice(1),
    ...Object.fromEntries(['fastify', '@fastify/websocket', 'ws'].map((name) => [name, versionOfPackage(name)])),
    ...Object.fromEntries(Object.entries({ haproxy: '-v', nginx: '-v', socat: '-V', openssl: 'version', iperf3: '--version', 'wireguard-go': '--version' })
      .filter(([name]) => hasProgram(name)).map(([name, option]) => [name, versionOf(name, option)]))
  }
}

function versionOfPackage (name) {
  return JSON.parse(readFileSync(new URL(`../../node_modules/${name}/package.json`, import.meta.url))).version
}

function describe ({ processors, processor, memory, system, pinned, loadBefore, versions }) {
  const named = Object.entries(versions).map(([name, version]) => `${name} ${version}`).join(', ')
  return `${processors} × ${processor}, ${memory}, ${system}; ${pinned ? 'relay and load pinned' : 'not pinned'}; load average before ${loadBefore}\n${named}`
}
