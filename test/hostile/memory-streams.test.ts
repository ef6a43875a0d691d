import { once } from 'node:events'
import { createServer, type AddressInfo, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import t, { type Test } from 'tap'
import { certificate, checkGrowth, dial, drip, fill, MeasuredRelay, type Settings } from '../helpers/measured-relay.ts'

t.setTimeout(300_000)

// What single bytes make a relay hold on many raw tunnels at once, where a fault of each adds up. Each byte is read on its own.

const BYTE = Buffer.from('x')
const BLOCK = Buffer.alloc(4096)

/** In MiB, for all tunnels of a row. Of single bytes, what bounds the pieces makes each hold far less than the documented 1 MiB. */
const LIMIT = 2

type Accept = (t: Test) => Promise<Socket>

/** A server that does not read what comes to it. @returns its URL, and the next connection */
async function startTarget (t: Test): Promise<{ url: string, accept: Accept }> {
  const server = createServer().listen(0, '127.0.0.1')
  t.teardown(() => server.close())
  await once(server, 'listening')
  return {
    url: `tcp://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async accept (t) {
      const [socket] = await once(server, 'connection') as [Socket]
      t.teardown(() => socket.destroy())
      socket.on('error', () => {})
      return socket.setNoDelay()
    }
  }
}

async function start (t: Test, settings?: Settings): Promise<{ relay: MeasuredRelay, accept: Accept }> {
  const { url, accept } = await startTarget(t)
  return { relay: await MeasuredRelay.start(t, { ...settings, target: url }), accept }
}

async function openPairs (t: Test, relay: MeasuredRelay, count: number): Promise<Duplex[]> {
  const senders = []
  for (let i = 0; i < count; i++) {
    senders.push(await dial(t, relay, `pair-${i}`, {}))
    await dial(t, relay, `pair-${i}`, {})
  }
  return senders
}

t.test('over TCP', async (t) => {
  const { relay, accept } = await start(t)

  t.test('66,000 single bytes for those that do not read', async (t) => {
    const senders = await openPairs(t, relay, 4)
    const before = await relay.measure()
    await fill(relay, senders, BLOCK)
    await drip(relay, senders, BYTE, 16_500)
    checkGrowth(t, before, await relay.measure(), LIMIT)
  })

  // The last one, for a relay that does not read hears of a client's end no sooner than by the write deadline.
  for (const [name, fromTarget] of [['from a target to clients that do not read', true], ['to a target that does not read', false]] as const) {
    t.test(`66,000 single bytes ${name}`, async (t) => {
      await relay.empty()
      const before = await relay.measure()
      const senders = []
      for (let i = 0; i < 4; i++) {
        const [client, target] = await Promise.all([dial(t, relay, '', {}, '/target'), accept(t)])
        senders.push(fromTarget ? target : client)
      }
      await fill(relay, senders, BLOCK)
      await drip(relay, senders, BYTE, 16_500)
      checkGrowth(t, before, await relay.measure(), LIMIT)
    })
  }
})

t.test('over TCP, 66,000 single bytes, and then much, on tunnels that wait for their other half', async (t) => {
  const { relay } = await start(t)
  const before = await relay.measure()
  const senders = []
  for (let i = 0; i < 4; i++) senders.push(await dial(t, relay, `waiting-${i}`, {}))
  await drip(relay, senders, BYTE, 16_500)
  await drip(relay, senders, Buffer.alloc(64 * 1024), 32)
  checkGrowth(t, before, await relay.measure(), LIMIT)
})

t.test('over TLS, each byte a record of its own', async (t) => {
  const { relay } = await start(t, { server: { https: certificate } })
  const senders = await openPairs(t, relay, 8)
  const before = await relay.measure()
  await fill(relay, senders, BLOCK)
  await drip(relay, senders, BYTE, 16_000, 32)
  checkGrowth(t, before, await relay.measure(), LIMIT)
})
