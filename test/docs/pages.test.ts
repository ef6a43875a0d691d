import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { errors } from '../../lib/errors.ts'

// The pages as a reader meets them: links lead somewhere, lines and pages are short, and README.md names each page.

const ROOT = fileURLToPath(new URL('../../', import.meta.url))
const docs = readdirSync(join(ROOT, 'docs')).filter((name) => name.endsWith('.md')).map((name) => `docs/${name}`)
const pages = ['README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', 'SECURITY.md', ...docs]

const MAX_COLUMNS = 120
const MAX_LINES = { 'README.md': 200 }
const MAX_PAGE_LINES = 300

t.test('relative links lead to files and headings that exist', (t) => {
  for (const page of pages) {
    const broken = linksOf(page).filter((link) => !leadsSomewhere(page, link))
    t.same(broken, [], page)
  }
  t.end()
})

t.test('the check of links sees what is broken', (t) => {
  t.ok(leadsSomewhere('README.md', 'docs/wireguard.md#full-tunnels'))
  t.ok(leadsSomewhere('docs/connecting.md', '#tokens'))
  for (const link of ['docs/none.md', 'docs/wireguard.md#none', '#none', 'docs#options']) t.notOk(leadsSomewhere('README.md', link), link)
  t.same(slugsOf('## `a_b`, c & [d](e.md)\n# A\n# A\n```\n# code\n```\n'), ['a_b-c--d', 'a', 'a-1'])
  t.end()
})

t.test(`lines of text have at most ${MAX_COLUMNS} characters`, (t) => {
  for (const page of pages) {
    const long = proseOf(readText(page)).filter(({ line }) => line.length > MAX_COLUMNS && !line.startsWith('|'))
    t.same(long.map(({ number, line }) => `${page}:${number} has ${line.length}`), [], page)
  }
  t.end()
})

t.test('pages are short enough to be read', (t) => {
  for (const page of ['README.md', ...docs]) {
    const lines = readText(page).trimEnd().split('\n').length
    const limit = page in MAX_LINES ? MAX_LINES[page as keyof typeof MAX_LINES] : MAX_PAGE_LINES
    t.ok(lines <= limit, `${page} has ${lines} lines, at most ${limit}`)
  }
  t.end()
})

t.test('README.md links to each page', (t) => {
  const linked = new Set(linksOf('README.md').map((link) => link.replace(/#.*/, '')))
  t.same(docs.filter((page) => !linked.has(page)), [])
  t.end()
})

t.test('error codes exist', (t) => {
  for (const page of pages) {
    const codes = new Set(readText(page).match(/\bFST_RELAY_[A-Z0-9_]*[A-Z0-9]\b/g))
    t.same([...codes].filter((code) => !(code in errors)), [], page)
  }
  t.end()
})

function readText (page: string): string {
  return readFileSync(join(ROOT, page), 'utf8')
}

/** The lines outside of blocks of code, numbered from 1. */
function proseOf (text: string): Array<{ number: number, line: string }> {
  let fence: string | undefined
  return text.split('\n').map((line, index) => ({ number: index + 1, line })).filter(({ line }) => {
    const mark = /^\s*(`{3,}|~{3,})/.exec(line)?.[1]
    if (mark === undefined) return fence === undefined
    if (fence === undefined) fence = mark
    else if (mark.startsWith(fence)) fence = undefined
    return false
  })
}

/** The targets of a page's links within the repository. */
function linksOf (page: string): string[] {
  const prose = proseOf(readText(page)).map(({ line }) => line.replaceAll(/(`+).*?\1/g, 'code')).join('\n')
  const targets = [...prose.matchAll(/\]\(([^)\s]+)\)/g), ...prose.matchAll(/^\[[^\]]+\]: (\S+)$/gm)].map(([, target]) => target!)
  return targets.filter((target) => !/^[a-z][a-z0-9+.-]*:/i.test(target))
}

function leadsSomewhere (page: string, link: string): boolean {
  const [path, anchor] = link.split('#') as [string, string | undefined]
  const file = path === '' ? page : relative(ROOT, join(ROOT, dirname(page), path))
  if (file.startsWith('..') || !existsSync(join(ROOT, file))) return false
  if (anchor === undefined) return true
  return statSync(join(ROOT, file)).isFile() && slugsOf(readText(file)).includes(anchor)
}

/** The anchors of a page's headings, as GitHub makes them. */
function slugsOf (text: string): string[] {
  const seen = new Map<string, number>()
  return proseOf(text).flatMap(({ line }) => {
    const heading = /^#{1,6} +(.+?)(?: +#+)?$/.exec(line)?.[1]
    if (heading === undefined) return []
    const words = heading.replaceAll(/\[([^\]]*)\]\([^)]*\)/g, '$1').replaceAll(/[`*]/g, '')
    const slug = words.toLowerCase().replaceAll(/[^\p{L}\p{N}\p{M}_ -]/gu, '').replaceAll(' ', '-')
    const count = seen.get(slug) ?? 0
    seen.set(slug, count + 1)
    return [count === 0 ? slug : `${slug}-${count}`]
  })
}
