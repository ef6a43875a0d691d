import { execFile, execFileSync } from 'node:child_process'
import { readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import t from 'tap'
import { help } from '../../lib/cli/help.ts'
import { exampleIn, readPage, replaceAll } from '../helpers/markdown.ts'

// What can be said of a block of code without running it. Blocks that are run have tests of their own.

const run = promisify(execFile)
const docs = readdirSync(fileURLToPath(new URL('../../docs', import.meta.url))).filter((name) => name.endsWith('.md'))
const pages = ['README.md', 'CONTRIBUTING.md', ...docs.map((name) => `docs/${name}`)]

/** Run by test/proxies, or by nothing here. */
const unchecked = ['', 'apache', 'caddyfile', 'dockerfile', 'haproxy', 'mermaid', 'nginx', 'powershell', 'ts', 'yaml']

/** Options of other programs that the pages about `spanza` name. */
const foreign = ['--prefix']

interface Block { page: string, line: number, language: string, code: string }

const blocks = pages.flatMap(blocksOf)
const at = ({ page, line }: Block) => `${page}:${line}`

t.setTimeout(120_000)

t.test('every block is in a language that is known', (t) => {
  const known = [...unchecked, 'ini', 'js', 'json', 'sh', 'xml']
  t.same(blocks.filter(({ language }) => !known.includes(language)).map((block) => `${at(block)} ${block.language}`), [])
  t.end()
})

t.test('shell commands can be parsed', { skip: has('bash') ? false : 'needs bash' }, async (t) => {
  for (const block of of('sh')) await t.resolves(run('bash', ['-n', '-c', block.code]), at(block))
})

t.test('JavaScript can be parsed', async (t) => {
  const directory = t.testdir({})
  const files = of('js').map((block, index) => {
    const file = join(directory, `${index}.mjs`)
    writeFileSync(file, block.code)
    return [block, file] as const
  })
  for (const [block, file] of files) await t.resolves(run(process.execPath, ['--check', file], { env: { ...process.env, NODE_OPTIONS: '' } }), at(block))
})

t.test('JSON can be parsed', (t) => {
  for (const block of of('json')) t.doesNotThrow(() => JSON.parse(block.code), at(block))
  t.end()
})

t.test('configurations have sections, comments, and keys with values', (t) => {
  for (const block of of('ini')) {
    const lines = block.code.replaceAll('\\\n', '').split('\n').filter((line) => line !== '')
    t.same(lines.filter((line) => !/^(?:#.*|\[\w+\]|\w+ ?= ?\S.*)$/.test(line)), [], at(block))
  }
  t.end()
})

t.test('a property list can be read', { skip: has('python3') ? false : 'needs python3' }, async (t) => {
  for (const block of of('xml')) {
    const code = 'import json, plistlib, sys; print(json.dumps(plistlib.loads(sys.argv[1].encode())))'
    const { stdout } = await run('python3', ['-c', code, block.code])
    const { ProgramArguments } = JSON.parse(stdout)
    t.same(unknownOptions(ProgramArguments.join(' ')), [], at(block))
  }
})

t.test('units are what systemd understands', { skip: has('systemd-analyze') ? false : 'needs systemd-analyze' }, async (t) => {
  const directory = t.testdir({})
  for (const [page, name, program] of [
    ['docs/getting-started.md', 'relay.service', '/usr/bin/node'],
    ['docs/connecting-services.md', 'spanza.service', '/usr/local/bin/spanza']
  ] as const) {
    const file = join(directory, name)
    writeFileSync(file, replaceAll(exampleIn(readPage(page), name), { [program]: process.execPath }))
    const { stderr } = await run('systemd-analyze', ['verify', file])
    t.equal(stderr.split('\n').filter((line) => line.includes(name)).join('\n'), '', `${page}: ${name}`)
  }
})

t.test('the options of spanza exist', (t) => {
  for (const block of blocks) {
    const lines = block.code.replaceAll(/[\\`]\n/g, '').replaceAll(/" \+\n *"/g, '').split('\n')
    for (const line of lines.filter((line) => /\bspanza(?:\.js)? connect\b/.test(line))) t.same(unknownOptions(line), [], `${at(block)} ${line}`)
  }
  for (const page of pages.filter((name) => /connecting|wireguard/.test(name))) {
    const inline = [...readPage(page).matchAll(/`(--[^`]+)`/g)].map(([, code]) => code!)
    t.same(inline.flatMap(unknownOptions).filter((option) => !foreign.includes(option)), [], page)
  }
  t.same(unknownOptions('spanza connect --listen 1 --lisen 2'), ['--lisen'])
  t.end()
})

function unknownOptions (line: string): string[] {
  const known = new Set(help.match(/(?<![\w-])--[a-z0-9-]+/g))
  return (line.match(/(?<![\w-])--[a-z0-9-]+/g) ?? []).filter((option) => !known.has(option))
}

function of (language: string): Block[] {
  return blocks.filter((block) => block.language === language)
}

function blocksOf (page: string): Block[] {
  const text = readPage(page)
  return [...text.matchAll(/^( *)```(\w*)\n(.*?)^ *```$/gms)].map(({ index, 1: indent, 2: language, 3: code }) => ({
    page,
    line: text.slice(0, index).split('\n').length,
    language: language!,
    code: code!.replaceAll(new RegExp(`^${indent}`, 'gm'), '')
  }))
}

function has (command: string): boolean {
  try {
    execFileSync('sh', ['-c', `command -v ${command}`])
    return true
  } catch {
    return false
  }
}
