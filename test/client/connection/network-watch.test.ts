import { once } from 'node:events'
import { connect, createServer, type AddressInfo } from 'node:net'
import os from 'node:os'
import { mock } from 'node:test'
import t, { type Test } from 'tap'
import { watchAddress, watchNetwork } from '../../../lib/client/connection/network-watch.ts'

/** Sets what this machine's addresses are; those of its real interfaces come back with the test's end. */
function machine (t: Test, ...addresses: string[]): { addresses: string[] } {
  const set = { addresses }
  t.intercept(os, 'networkInterfaces', { value: () => ({ eth0: set.addresses.map((address) => ({ address })) }) })
  return set
}

/** Timers and clocks that stand still until they are moved: `pass` both, `shift` one of them without the other. */
function clocks (t: Test) {
  mock.timers.enable({ apis: ['setInterval'] })
  t.teardown(() => mock.timers.reset())
  const time = { monotonic: 1000, wall: 1e12 }
  t.intercept(performance, 'now', { value: () => time.monotonic })
  t.intercept(Date, 'now', { value: () => time.wall })
  return {
    time,
    pass (seconds: number) {
      for (let second = 0; second < seconds; second++) {
        time.monotonic += 1000
        time.wall += 1000
        mock.timers.tick(1000)
      }
    }
  }
}

t.test('tells of addresses that came and went, once', async (t) => {
  const { pass } = clocks(t)
  const interfaces = machine(t, '192.0.2.1', '192.0.2.2')
  const changes: unknown[] = []
  t.teardown(watchNetwork({ changed: (change) => changes.push(change) }))
  pass(3)
  t.same(changes, [])
  interfaces.addresses = ['192.0.2.2', '192.0.2.3']
  pass(3)
  t.same(changes, [{ added: ['192.0.2.3'], removed: ['192.0.2.1'] }])
})

t.test('tells of a suspension by either clock, and of nothing else', async (t) => {
  const { pass, time } = clocks(t)
  machine(t)
  const suspensions: number[] = []
  t.teardown(watchNetwork({ suspended: (ms) => suspensions.push(ms) }))
  pass(3)
  time.monotonic += 2900 // a busy process
  pass(1)
  t.same(suspensions, [])
  time.monotonic += 300_000 // SIGSTOP
  time.wall += 300_000
  pass(1)
  time.wall += 60_000 // a laptop that slept
  pass(1)
  time.wall -= 60_000 // a clock that was set back
  pass(2)
  t.same(suspensions, [300_000, 60_000])
})

t.test('watches only while somebody wants it, and a watcher that stopped hears nothing', async (t) => {
  const { pass } = clocks(t)
  let reads = 0
  t.intercept(os, 'networkInterfaces', { value: () => { reads++; return {} } })
  const heard: string[] = []
  let stopSecond = () => {}
  const stopFirst = watchNetwork({ tick: () => { heard.push('first'); stopSecond() } })
  stopSecond = watchNetwork({ tick: () => heard.push('second') })
  pass(2)
  stopFirst()
  stopFirst()
  pass(5)
  t.same(heard, ['first', 'first'])
  t.equal(reads, 3, 'at the beginning, and once a second for all')
})

t.test('an interface list that cannot be read is no change', async (t) => {
  const { pass } = clocks(t)
  const interfaces = machine(t, '192.0.2.1')
  let changes = 0
  t.teardown(watchNetwork({ changed: () => changes++ }))
  pass(1)
  t.intercept(os, 'networkInterfaces', { value: () => { throw new Error('EACCES') } })
  pass(2)
  t.equal(changes, 0)
  t.ok(interfaces)
})

t.test('the local address of a socket', async (t) => {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  /** A socket that says it has this address. */
  async function socketWith (t: Test, address: string) {
    const socket = connect((server.address() as AddressInfo).port, '127.0.0.1')
    t.teardown(() => socket.destroy())
    await once(socket, 'connect')
    Object.defineProperty(socket, 'localAddress', { value: address })
    return socket
  }

  for (const [address, listed] of [['192.0.2.1', '192.0.2.1'], ['fe80::1%eth0', 'fe80::1'], ['::ffff:192.0.2.1', '192.0.2.1']] as const) {
    t.test(`${address} is missed when it goes`, async (t) => {
      const socket = await socketWith(t, address)
      const { pass } = clocks(t)
      const interfaces = machine(t)
      t.teardown(watchNetwork({}))
      interfaces.addresses = [listed] // new since the last look
      const gone: string[] = []
      t.teardown(watchAddress(socket, (text) => gone.push(text)))
      pass(1)
      t.same(gone, [])
      interfaces.addresses = ['198.51.100.1']
      pass(1)
      interfaces.addresses = [listed]
      pass(1)
      interfaces.addresses = []
      pass(1)
      t.same(gone, [`this machine does not have the address ${listed} any more`])
    })
  }

  for (const address of ['127.0.0.1', '127.0.0.9', '::1', '203.0.113.7']) {
    t.test(`${address}, on no list or loopback, is not`, async (t) => {
      const socket = await socketWith(t, address)
      const { pass } = clocks(t)
      const interfaces = machine(t, '127.0.0.1', '::1')
      const gone: string[] = []
      t.teardown(watchAddress(socket, (text) => gone.push(text)))
      pass(1)
      interfaces.addresses = []
      pass(2)
      t.same(gone, [])
    })
  }
})
