import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

/** The text of a page, by its path in the repository. */
export function readPage (path: string): string {
  return readFileSync(fileURLToPath(new URL(`../../${path}`, import.meta.url)), 'utf8')
}

/** The block of code behind `<!-- example: name -->`. */
export function exampleOf (page: string, name: string): string {
  const marker = `<!-- example: ${name} -->`
  const at = page.indexOf(marker)
  if (at < 0) throw new Error(`the page has no line ${marker}`)
  const block = /^\s*```\w+\n(.*?)```/s.exec(page.slice(at + marker.length))
  if (block === null) throw new Error(`the page has no block of code behind ${marker}`)
  return block[1]!
}

/** The same text with each of `changes` everywhere; one that the text does not have is an error. */
export function replaceAll (text: string, changes: Record<string, string>): string {
  for (const [from, to] of Object.entries(changes)) {
    if (!text.includes(from)) throw new Error(`the example has no ${from}`)
    text = text.replaceAll(from, to)
  }
  return text
}
