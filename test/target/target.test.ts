import t from 'tap'
import { parseTarget } from '../../lib/target/target.ts'

t.test('reads a target', async (t) => {
  t.same(parseTarget('udp://127.0.0.1:51820'), { protocol: 'udp', host: '127.0.0.1', port: 51820 })
  t.same(parseTarget('tcp://[2001:db8::1]:22'), { protocol: 'tcp', host: '2001:db8::1', port: 22 })
  t.same(parseTarget('tcp://ssh.internal:22'), { protocol: 'tcp', host: 'ssh.internal', port: 22 })
  t.same(parseTarget('unix:/run/app.sock'), { protocol: 'unix', path: '/run/app.sock' })
  t.same(parseTarget('unix:///run/app.sock'), { protocol: 'unix', path: '/run/app.sock' })
})

t.test('reads nothing else', async (t) => {
  const others = [
    '', 'udp:', 'udp://', 'udp://host', 'udp://host:0', 'udp://host:65536', 'udp://::1:5', 'udp://host:1/path', 'udp://user@host:1',
    'tcp:host:1', 'TCP://host:1', 'http://host:1', 'host:1', 'unix:', 'unix:relative', 'unix://', ' tcp://host:1', 'tcp://host:1\n', undefined, 22, null, {}
  ]
  for (const value of others) t.equal(parseTarget(value), undefined, String(value))
})
