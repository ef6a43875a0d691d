// Measures the built package beside others that do the same work: `npm run bench [-- name …]`. Prints ratios and figures, and
// writes results/<name>.json.

import { existsSync } from 'node:fs'
import { compile, installPackages } from './lib/programs.js'

const all = ['raw', 'datagrams', 'latency', 'idle', 'tls', 'growth', 'sidecar', 'wireguard', 'websocket']

const names = process.argv.length > 2 ? process.argv.slice(2) : all
const unknown = names.find((name) => !all.includes(name))
if (unknown !== undefined) throw new Error(`no bench "${unknown}": ${all.join(', ')}`)
if (!existsSync(new URL('../dist/index.js', import.meta.url))) throw new Error('dist/ is missing: npm run build')

installPackages()
const obstacle = compile()
if (obstacle !== undefined) {
  console.log(`SKIPPED: ${obstacle}`)
  process.exit()
}
for (const name of names) {
  const started = performance.now()
  const { default: run } = await import(`./${name}.js`)
  await run()
  console.log(`${((performance.now() - started) / 1000).toFixed(0)} s`)
}
