import { once } from 'node:events'
import dns from 'node:dns'
import { connect } from 'node:net'
import type { Test } from 'tap'
import { Program } from './program.ts'

// Without a name, and with it the process that stops. With the backlog of 1 the kernel keeps two connections that nobody accepts.
const LISTENER = `
const secure = process.argv[1] !== undefined
const { createServer } = require(secure ? 'node:tls' : 'node:net')
const { readFileSync } = require('node:fs')
const options = secure ? { cert: readFileSync(process.argv[1]), key: readFileSync(process.argv[2]) } : {}
createServer(options, (socket) => {
  socket.on('error', () => {})
  socket.once('data', () => socket.write('HTTP/1.1 101 Switching Protocols\\r\\nConnection: Upgrade\\r\\nUpgrade: spanza\\r\\n\\r\\n'))
}).on('error', () => {}).listen({ host: '127.0.0.2', port: 0, backlog: 1 }, function () { console.log(this.address().port) })
`

/** How long the first SYN has no answer, in milliseconds: longer than the 250 ms that Node gives an address. The next one comes after 1 s. */
const SLOW_MS = 400

export interface SlowListener {
  port: number
  /** Lets it go on in a moment. */
  resumeSoon: () => void
}

/** A server on 127.0.0.2 that answers the first SYN of the next connection not at all. It upgrades what it is sent. */
export async function slowListener (t: Test, certificate: string[] = []): Promise<SlowListener> {
  const program = new Program(process.execPath, ['-e', LISTENER, ...certificate], { name: 'slow listener' })
  t.teardown(() => program.stop('SIGKILL'))
  const port = Number(await program.line(() => true, 20_000))
  program.child.kill('SIGSTOP')
  for (let count = 0; count < 2; count++) {
    const filler = connect(port, '127.0.0.2')
    t.teardown(() => filler.destroy())
    filler.on('error', () => {})
    await once(filler, 'connect')
  }
  return {
    port,
    resumeSoon () {
      setTimeout(() => program.child.kill('SIGCONT'), SLOW_MS)
    }
  }
}

/** For the time of the test, every name has these addresses, in this order. */
export function resolveEveryNameTo (t: Test, addresses: string[]): void {
  const { lookup } = dns
  t.teardown(() => { dns.lookup = lookup })
  dns.lookup = ((_name: string, _options: object, callback: (error: null, found: object[]) => void) => {
    process.nextTick(callback, null, addresses.map((address) => ({ address, family: 4 })))
  }) as unknown as typeof lookup
}
