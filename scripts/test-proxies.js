// Tests the relay behind real proxies: `node scripts/test-proxies.js [proxy …]`. Needs the built package. Each proxy is
// started from the recipe in docs/behind-proxies.md; one that is not installed is left out, and it is said how to install it.

import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { delimiter } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const TAP = fileURLToPath(new URL('../node_modules/tap/dist/esm/run.mjs', import.meta.url))

/** Under the name of their test file: how to ask for the version, and Debian's packages. */
const proxies = {
  nginx: { version: ['nginx', '-v'], packages: ['nginx', 'libnginx-mod-stream'] },
  haproxy: { version: ['haproxy', '-v'], packages: ['haproxy'] },
  caddy: { version: ['caddy', 'version'], packages: ['caddy'] },
  apache: { version: ['apache2', '-v'], packages: ['apache2'] }
}

// Where Debian has servers, and users do not look.
const env = { ...process.env, PATH: [process.env.PATH, '/usr/sbin'].join(delimiter) }

const names = process.argv.length > 2 ? process.argv.slice(2) : Object.keys(proxies)
const unknown = names.find((name) => !Object.hasOwn(proxies, name))
if (unknown !== undefined) throw new Error(`no proxy "${unknown}": ${Object.keys(proxies).join(', ')}`)
if (!existsSync(new URL('../dist/index.js', import.meta.url))) throw new Error('dist/ is missing: npm run build')

const results = names.map((name) => test(name))

console.log('\nBehind proxies:')
for (const { name, outcome } of results) console.log(`  ${name}: ${outcome}`)
process.exitCode = results.every(({ ok }) => ok) ? 0 : 1

function test (name) {
  const { version: [program, ...args], packages } = proxies[name]
  const asked = spawnSync(program, args, { env, encoding: 'utf8' })
  if (asked.error !== undefined) {
    return { name, ok: true, outcome: `SKIPPED, ${program} is not installed: apt-get install --no-install-recommends ${packages.join(' ')}` }
  }
  const version = /\d+\.\d+\.\d+/.exec(asked.stdout + asked.stderr)?.[0]
  console.log(`\n${name} ${version}`)
  const { status, signal } = spawnSync(process.execPath, [TAP, '--disable-coverage', '--timeout=900', `test/proxies/${name}.proxy.js`], {
    cwd: ROOT, env, stdio: ['ignore', 'inherit', 'inherit']
  })
  return { name: `${name} ${version}`, ok: status === 0, outcome: status === 0 ? 'passed' : `failed (${signal ?? `exit code ${status}`})` }
}
