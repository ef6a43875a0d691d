import { chmodSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Program } from '../helpers/program.ts'

// A proxy of its own for a test: its configuration is the recipe in docs/behind-proxies.md, with this machine's
// addresses and files in place of the ones it names.

const RECIPES = new URL('../../docs/behind-proxies.md', import.meta.url)

/** The files that a recipe has under other names. */
export const fixture = (name) => fileURLToPath(new URL(`../fixtures/${name}`, import.meta.url))

/** The block of code behind `<!-- recipe: name -->` in docs/behind-proxies.md. */
export function readRecipe (name) {
  const recipes = readFileSync(RECIPES, 'utf8')
  const marker = `<!-- recipe: ${name} -->`
  const at = recipes.indexOf(marker)
  const block = at < 0 ? null : /^\s*```[a-z]*\n(.*?)\n```/s.exec(recipes.slice(at + marker.length))
  if (block === null) throw new Error(`docs/behind-proxies.md has no block of code behind ${marker}`)
  return block[1] + '\n'
}

/** Replaces each of `changes` wherever it is; one that is not there has been left out of docs/behind-proxies.md. */
export function adapt (recipe, changes) {
  let adapted = recipe
  for (const [from, to] of changes) {
    if (!adapted.includes(from)) throw new Error(`the recipe has no "${from}":\n${recipe}`)
    adapted = adapted.replaceAll(from, to)
  }
  return adapted
}

export function temporaryFolder () {
  const folder = mkdtempSync(join(tmpdir(), 'spanza-proxy-'))
  // Workers of a proxy that was started by root are somebody else.
  chmodSync(folder, 0o755)
  return folder
}

export async function freePort () {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()
  server.close()
  await once(server, 'close')
  return port
}

const running = new Set()
process.on('exit', () => {
  for (const { child } of running) child.kill()
})

/**
 * Starts a proxy.
 * @param command its program and arguments, with `config` in place of the configuration's path
 */
export function runProxy ({ command: [program, ...args], folder, config, env = {} }) {
  const path = join(folder, 'config')
  writeFileSync(path, config)
  const proxy = new Program(program, args.map((arg) => arg === 'config' ? path : arg), { env, cwd: folder })
  running.add(proxy)
  proxy.child.on('close', () => running.delete(proxy))
  return proxy
}

/** Waits until a proxy takes connections at this port of 127.0.0.1. */
export async function listening (proxy, port) {
  while (!await accepts(port)) {
    if (proxy.child.exitCode !== null || proxy.child.pid === undefined) throw new Error(`${proxy.name} has ended:\n${proxy.output}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

/** Whether somebody listens there. */
async function accepts (port) {
  const socket = connect({ port, host: '127.0.0.1' })
  try {
    await once(socket, 'connect')
    return true
  } catch {
    return false
  } finally {
    socket.destroy()
  }
}
