import { readFileSync } from 'node:fs'

// Pages of docs/ as tests read them.

export function readDocs (name: string): string {
  return readFileSync(new URL(`../../docs/${name}`, import.meta.url), 'utf8')
}

/** The block of code behind `<!-- example: name -->`. */
export function exampleIn (page: string, name: string): string {
  const marker = `<!-- example: ${name} -->`
  const block = /^\s*```\w*\n(.*?)^```$/ms.exec(page.slice(page.indexOf(marker) + marker.length))
  if (!page.includes(marker) || block === null) throw new Error(`The page has no block of code behind ${marker}`)
  return block[1]!
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
