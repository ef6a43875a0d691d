import { execFileSync } from 'node:child_process'
import { accessSync, chmodSync, constants, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect as connectTcp } from 'node:net'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { setTimeout as delay } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { fakeHttp2Relay } from '../../helpers/fake-http2-relay.ts'
import { fakeRelay } from '../../helpers/fake-relay.ts'
import { freePort } from '../../helpers/ports.ts'
import { Program } from '../../helpers/program.ts'
import { serverCertificate } from '../../helpers/relay-app.ts'
import { DEADLINE, listen, spanza } from '../../helpers/spanza.ts'

// The command through squid and tinyproxy, with user name and password.

t.setTimeout(180_000)

const CA = fileURLToPath(new URL('../../fixtures/ca.pem', import.meta.url))
const PATH = `${process.env['PATH'] ?? ''}${delimiter}/usr/sbin`
const SQUID_AUTH = '/usr/lib/squid/basic_ncsa_auth'

const proxies: Record<string, { needs: string[], config: (port: number, directory: string) => string, args: (config: string) => string[] }> = {
  squid: {
    needs: ['squid', 'openssl', SQUID_AUTH],
    config (port, directory) {
      const passwords = join(directory, 'passwords')
      writeFileSync(passwords, `me:${execFileSync('openssl', ['passwd', '-apr1', 'p@ss word'], { encoding: 'utf8' })}`)
      return [
        `http_port 127.0.0.1:${port}`, `auth_param basic program ${SQUID_AUTH} ${passwords}`, 'auth_param basic realm squid',
        'acl known proxy_auth REQUIRED', `acl forbidden port ${FORBIDDEN_PORT}`, 'http_access deny forbidden', 'http_access allow known',
        'http_access deny all', 'cache deny all', 'access_log none', 'cache_log /dev/null', 'netdb_filename none', 'shutdown_lifetime 0 seconds',
        `pid_filename ${directory}/squid.pid`, `coredump_dir ${directory}`
      ].join('\n')
    },
    args: (config) => ['-N', '-f', config]
  },
  tinyproxy: {
    needs: ['tinyproxy'],
    config: (port) => [`Port ${port}`, 'Listen 127.0.0.1', 'Timeout 600', 'BasicAuth me secret', 'LogLevel Critical'].join('\n'),
    args: (config) => ['-d', '-c', config]
  }
}
const FORBIDDEN_PORT = 9

/** Starts a proxy on a port of 127.0.0.1, to which it gives back the port. */
async function startProxy (t: Test, name: string): Promise<number> {
  const { config, args } = proxies[name]!
  const directory = mkdtempSync(join(tmpdir(), `spanza-${name}-`))
  chmodSync(directory, 0o777) // they leave root behind
  const port = await freePort()
  const file = join(directory, 'proxy.conf')
  writeFileSync(file, `${config(port, directory)}\n`)
  const program = new Program(name, args(file), { env: { PATH } })
  t.teardown(async () => {
    await program.stop()
    rmSync(directory, { recursive: true, force: true })
  })
  const giveUp = AbortSignal.timeout(DEADLINE)
  while (!await listens(port)) {
    if (giveUp.aborted) throw new Error(`${name} does not listen: ${program.output}`)
    await delay(50)
  }
  return port
}

function listens (port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connectTcp(port, '127.0.0.1', () => { socket.destroy(); resolve(true) })
    socket.on('error', () => resolve(false))
  })
}

function missing (names: string[]): string | false {
  const absent = names.filter((name) => ![name, ...PATH.split(delimiter).map((directory) => join(directory, name))].some((path) => {
    try {
      accessSync(path, constants.X_OK)
      return path.startsWith('/')
    } catch {
      return false
    }
  }))
  return absent.length > 0 && `needs ${absent.join(', ')}`
}

for (const [name, { needs }] of Object.entries(proxies)) {
  t.test(name, { skip: missing(needs) }, async (t) => {
    t.setTimeout(150_000)
    const port = await startProxy(t, name)
    const url = `http://me:${name === 'squid' ? 'p%40ss%20word' : 'secret'}@127.0.0.1:${port}`

    for (const httpVersion of [1, 2] as const) {
      for (const secure of [false, true]) {
        t.test(`HTTP/${httpVersion}, ${secure ? 'https' : 'http'}:, from the environment`, async (t) => {
          const options = secure ? { tls: serverCertificate() } : {}
          const relay = httpVersion === 2 ? await fakeHttp2Relay(t, options) : await fakeRelay(t, options)
          const args = ['connect', relay.url, ...listen, ...(httpVersion === 2 ? ['--http2'] : []), ...(secure ? ['--ca', CA] : [])]
          const program = spanza(t, args, { [secure ? 'HTTPS_PROXY' : 'HTTP_PROXY']: url, NO_PROXY: 'localhost' })
          await program.line((line) => line.startsWith('Connected'), DEADLINE)
          const tunnel = await relay.tunnels.next()
          tunnel.send(Buffer.from('goes nowhere'))
          await program.stop()
          t.equal(program.child.exitCode, 0)
        })
      }
    }

    t.test('without credentials, and with wrong ones', async (t) => {
      const given = { NO_PROXY: '' }
      const program = spanza(t, ['connect', 'http://127.0.0.1:1/', ...listen, '--proxy', `http://127.0.0.1:${port}`], given)
      await program.line((line) => line.includes(`through the proxy http://127.0.0.1:${port}: it wants credentials (407, Basic realm=`), DEADLINE)
      const wrong = spanza(t, ['connect', 'http://127.0.0.1:1/', ...listen], { ...given, ALL_PROXY: `http://me:wrong@127.0.0.1:${port}` })
      await wrong.line((line) => name === 'squid' ? line.includes('it does not accept the user name and password') : line.includes(`through the proxy http://127.0.0.1:${port}: it`), DEADLINE)
      t.notMatch(wrong.output, 'wrong')
    })

    t.test('what it cannot reach', async (t) => {
      const program = spanza(t, ['connect', `http://127.0.0.1:${await freePort()}/`, ...listen], { NO_PROXY: '', ALL_PROXY: url })
      t.match(await program.line((line) => line.includes('the proxy'), DEADLINE), /it could not connect to 127\.0\.0\.1:\d+ \(50[0-9]|it refused CONNECT to 127\.0\.0\.1:\d+ \(500/)
    })

    if (name === 'squid') {
      t.test('what it forbids', async (t) => {
        const program = spanza(t, ['connect', `http://127.0.0.1:${FORBIDDEN_PORT}/`, ...listen], { NO_PROXY: '', ALL_PROXY: url })
        await program.line((line) => line.includes(`it refused CONNECT to 127.0.0.1:${FORBIDDEN_PORT} (403 Forbidden); many proxies allow port 443 only`), DEADLINE)
      })
    }

    t.test('--proxy none goes past it', async (t) => {
      const relay = await fakeRelay(t)
      const program = spanza(t, ['connect', relay.url, ...listen, '--proxy', 'none'], { NO_PROXY: '', ALL_PROXY: 'http://127.0.0.1:1' })
      await program.line((line) => line.startsWith('Connected'), DEADLINE)
    })
  })
}

t.test('--proxy with a password works, with a warning', async (t) => {
  const program = spanza(t, ['connect', 'http://127.0.0.1:1/', ...listen, '--proxy', 'http://me:hush@127.0.0.1:1'], { NO_PROXY: '' })
  await program.line((line) => line.includes('through the proxy http://127.0.0.1:1: it cannot be reached'), DEADLINE)
  t.match(program.output, /spanza: --proxy: a password on the command line can be read by every user/)
  t.notMatch(program.output, 'hush')
})
