import { readFileSync } from 'node:fs'

// Pages of the documentation as tests read them.

/** The text of a page, by its path in the repository. */
export function readPage (path: string): string {
  return readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8')
}

/** The block of code behind `<!-- example: name -->`. */
export function exampleIn (page: string, name: string): string {
  const marker = `<!-- example: ${name} -->`
  const at = page.indexOf(marker)
  if (at < 0) throw new Error(`The page has no line ${marker}`)
  const block = /^\s*```\w+\n(.*?)```/s.exec(page.slice(at + marker.length))
  if (block === null) throw new Error(`The page has no block of code behind ${marker}`)
  return block[1]!
}

/** The same text with each of `changes` made everywhere. Throws if the text lacks one of them. */
export function replaceAll (text: string, changes: Record<string, string>): string {
  for (const [from, to] of Object.entries(changes)) {
    if (!text.includes(from)) throw new Error(`The example has no ${from}`)
    text = text.replaceAll(from, to)
  }
  return text
}

/** Runs an example as the body of an async function. What it imports, and takes for granted, are given as variables. */
export async function runExample (code: string, variables: Record<string, unknown>): Promise<void> {
  const AsyncFunction = Object.getPrototypeOf(async () => {}).constructor
  await new AsyncFunction(...Object.keys(variables), code.replace(/^import .*$/gm, ''))(...Object.values(variables))
}

/** The rows of each table whose header has these cells, without the header. */
export function tablesOf (page: string, ...header: string[]): string[][][] {
  const tables: string[][][] = []
  let rows: string[][] | undefined
  for (const line of page.split('\n')) {
    if (!line.startsWith('|')) {
      rows = undefined
      continue
    }
    const cells = line.split(/(?<!\\)\|/).slice(1, -1).map((cell) => cell.trim())
    if (rows !== undefined) {
      if (!/^-+$/.test(cells[0]!)) rows.push(cells)
    } else {
      rows = []
      if (header.every((cell, index) => cells[index] === cell)) tables.push(rows)
    }
  }
  if (tables.length === 0) throw new Error(`The page has no table with the header ${header.join(', ')}`)
  return tables
}

/** The names in a cell, each of which is code. */
export function namesIn (cell: string): string[] {
  return [...cell.matchAll(/`([^`]+)`/g)].map(([, name]) => name!)
}
