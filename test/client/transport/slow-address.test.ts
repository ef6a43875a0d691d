import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { connect } from '../../../lib/client/index.ts'
import { connectStream } from '../../../lib/tunnel/socket/connect-stream.ts'
import { attemptTimeout } from '../../../lib/util/tcp-socket.ts'
import { resolveEveryNameTo, slowListener } from '../../helpers/slow-listener.ts'

// A name with several addresses, of which only the first leads anywhere, and that one takes longer than Node's 250 ms.

const fixture = (name: string): string => fileURLToPath(new URL(`../../fixtures/${name}`, import.meta.url))
const skip = process.platform !== 'linux' && 'needs Linux, where a full backlog takes no SYN'
const addresses = ['127.0.0.2', '127.0.0.3']

for (const secure of [false, true]) {
  t.test(`a relay at such a name, ${secure ? 'https' : 'http'}:`, { skip }, async (t) => {
    const { port, resumeSoon } = await slowListener(t, secure ? [fixture('server.pem'), fixture('server-key.pem')] : [])
    resolveEveryNameTo(t, addresses)
    const attempt = connect(`${secure ? 'https' : 'http'}://relay.example.com:${port}/`, {
      framings: 'raw', handshakeTimeout: 20_000, ...(secure ? { tls: { ca: readFileSync(fixture('ca.pem')) } } : {})
    })
    resumeSoon()
    const tunnel = await attempt
    tunnel.destroy()
  })
}

t.test('a target at such a name', { skip }, async (t) => {
  const { port, resumeSoon } = await slowListener(t)
  resolveEveryNameTo(t, addresses)
  const attempt = connectStream({ host: 'target.example.com', port }, 20_000)
  resumeSoon()
  const tunnel = await attempt
  tunnel.write(Buffer.from('anybody there?'))
  const answer = await new Promise<Buffer>((resolve) => tunnel.onData(resolve))
  t.match(answer.toString(), /^HTTP\/1\.1 101 /, 'the one with a server')
  tunnel.destroy()
})

t.test('four addresses have their turn within the deadline, none more than 5 s', (t) => {
  t.equal(attemptTimeout(10_000), 2500)
  t.equal(attemptTimeout(1), 10, 'the least that Node takes')
  t.equal(attemptTimeout(0x7fffffff), 5000)
  t.end()
})
