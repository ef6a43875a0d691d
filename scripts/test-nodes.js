// Runs the tests on other versions of Node than the one at hand: `node scripts/test-nodes.js [version …] [-- test files …]`;
// unless told, all but those that say nothing about Node, and those that take long on the newest only.
// The binaries come from the npm package `node`. Ends with one line per version, and fails when any version did.

import { execFileSync, spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { delimiter, dirname } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const NEWEST = '26'
/** Of pages in a browser, of other programs on the way, of the package, of what only calculates. */
const ofOthers = new RegExp('^(?:' + [
  'browser/', 'docs/', 'package/', 'network/', 'framing/', 'metrics/', 'errors', 'util/',
  'admin/(?!events|routes)', 'e2e/(?:full-tunnel|readme|why-not)', 'client/transport/(?:real-proxies|proxy-environment)', 'client/sidecar/backoff',
  'cli/(?:arguments|live-line|report|sidecar-metrics|traffic)', 'fuzz/(?!network)', 'route/(?!relay-route)',
  'hub/(?:clock|hub-options|replacement-limit)', 'hub/packet/(?!packet-peer|message-peer|handshakes)'
].join('|') + ')')
/** Whole systems, of many processes. */
const long = /^(?:e2e\/wireguard|siege\/|soak\/)/
const TAP = fileURLToPath(new URL('../node_modules/tap/dist/esm/run.mjs', import.meta.url))

const separator = process.argv.indexOf('--')
const given = process.argv.slice(2, separator < 0 ? undefined : separator)
const versions = given.length > 0 ? given : ['22', '24', '26']
const files = (version) => separator < 0 ? testFiles(version) : process.argv.slice(separator + 1)

const results = []
for (const version of versions) {
  const result = testOn(version)
  results.push(result)
}

console.log('\nTests by version of Node:')
for (const { version, outcome } of results) console.log(`  Node ${version}: ${outcome}`)
process.exitCode = results.every(({ ok }) => ok) ? 0 : 1

function testOn (version) {
  let node
  try {
    node = findNode(version)
  } catch (error) {
    return { version, ok: false, outcome: `cannot be had: ${error.message}` }
  }
  console.log(`\nNode ${node.version}`)
  const started = Date.now()
  // First in PATH, so that what the tests start runs on it as well.
  const env = { ...process.env, PATH: `${dirname(node.path)}${delimiter}${process.env.PATH}` }
  const { status, signal } = spawnSync(node.path, [TAP, ...files(version)], { cwd: ROOT, env, stdio: ['ignore', 'inherit', 'inherit'] })
  const seconds = Math.round((Date.now() - started) / 1000)
  return {
    version: node.version,
    ok: status === 0,
    outcome: `${status === 0 ? 'passed' : `failed (${signal ?? `exit code ${status}`})`} in ${seconds} s`
  }
}

function testFiles (version) {
  return readdirSync(fileURLToPath(new URL('../test', import.meta.url)), { recursive: true })
    .filter((path) => path.endsWith('.test.ts') && !ofOthers.test(path) && (version === NEWEST || !long.test(path)))
    .map((path) => `test/${path}`)
}

/** The real binary, not npm's wrapper around it, and what it says it is. */
function findNode (wanted) {
  const script = 'console.log(JSON.stringify({ path: process.execPath, version: process.version }))'
  const printed = execFileSync('npx', ['--yes', `node@${wanted}`, '-e', script], {
    cwd: ROOT, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit']
  })
  const node = JSON.parse(printed.trim().split('\n').at(-1))
  if (!node.version.startsWith(`v${wanted}.`)) throw new Error(`node@${wanted} is ${node.version}`)
  return node
}
