import { once } from 'node:events'
import { createServer } from 'node:net'
import t from 'tap'
import { portError, type PortUse } from '../../lib/cli/port-fault.ts'
import { serveMetrics } from '../../lib/cli/metrics-server.ts'
import { UdpSidecar } from '../../lib/client/index.ts'
import { udpPeer } from '../helpers/udp-peer.ts'

/** What a sidecar that listens there says. */
async function listening (listen: string): Promise<unknown> {
  const sidecar = new UdpSidecar({ url: 'https://127.0.0.1:1/', listen, forward: '127.0.0.1:1' })
  const error = await sidecar.start().then(() => undefined, (error: unknown) => error)
  await sidecar.close()
  return portError(error, { flag: '--listen', value: listen, takenBy: 'another sidecar' })
}

t.test('a port that is taken', async (t) => {
  const { address } = await udpPeer(t)
  t.match(await listening(address), {
    message: `--listen ${address}: the port is taken, perhaps by another sidecar: stop that, or choose another port here and in WireGuard's Endpoint (bind EADDRINUSE ${address})`,
    cause: { code: 'EADDRINUSE' }
  })
  const server = createServer().listen(0, '127.0.0.1')
  t.teardown(() => server.close())
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  const use = { flag: '--metrics', value: `127.0.0.1:${port}`, takenBy: 'another program' } as const
  const error = await serveMetrics({ host: '127.0.0.1', port }, () => '').catch((error: unknown) => portError(error, use))
  t.match(error, { message: new RegExp(`^--metrics 127\\.0\\.0\\.1:${port}: the port is taken, perhaps by another program: stop that, or choose another port \\(listen EADDRINUSE`) })
})

t.test('an address that is not this machine\'s', async (t) => {
  t.match(await listening('192.0.2.1:5'), { message: '--listen 192.0.2.1:5: this machine has no such address: take one of its own, such as 127.0.0.1 (bind EADDRNOTAVAIL 192.0.2.1:5)' })
})

t.test('a port that the user may not use, and what is no fault of the port', async (t) => {
  const use: PortUse = { flag: '--listen', value: '127.0.0.1:80', takenBy: '' }
  const refused = Object.assign(new Error('bind EACCES 127.0.0.1:80'), { code: 'EACCES', syscall: 'bind' })
  t.match(portError(refused, use), { message: "--listen 127.0.0.1:80: this user may not use the port: choose another port here and in WireGuard's Endpoint, above 1023 (bind EACCES 127.0.0.1:80)" })
  const others = [
    Object.assign(new Error('bind EINVAL'), { code: 'EINVAL', syscall: 'bind' }),
    Object.assign(new Error('getaddrinfo ENOTFOUND x'), { code: 'ENOTFOUND', syscall: 'getaddrinfo' }),
    new Error('anything')
  ]
  for (const error of others) t.equal(portError(error, use), error)
})
