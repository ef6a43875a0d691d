import { once } from 'node:events'
import { PassThrough, type Duplex } from 'node:stream'
import t from 'tap'
import * as ws from 'ws'
import { canOpenOnStreams, limitInflated } from '../../lib/internals/ws-internals.ts'

t.test('the installed ws is as expected', (t) => {
  t.equal(canOpenOnStreams, true)
  t.end()
})

const others: Record<string, object> = {
  'a ws without its receiver': { ...ws, Receiver: undefined },
  'a ws whose receiver tells nothing': { ...ws, Receiver: PassThrough },
  'a ws whose WebSockets take no stream': { ...ws, WebSocket: class extends ws.WebSocket { setSocket: undefined } },
  'a ws whose WebSockets do not open': { ...ws, WebSocket: class extends ws.WebSocket { setSocket (): void {} } }
}

for (const [name, other] of Object.entries(others)) {
  t.test(`with ${name}, what needs it is off, and a warning says so`, async (t) => {
    const warned = once(process, 'warning')
    const { canOpenOnStreams } = await t.mockImport<typeof import('../../lib/internals/ws-internals.ts')>('../../lib/internals/ws-internals.ts', { ws: other })
    t.equal(canOpenOnStreams, false)
    const [warning] = await warned
    t.match((warning as Error).message, 'the installed ws is not as expected')
  })
}

t.test('limits nothing in a WebSocket of another kind', (t) => {
  limitInflated({} as Duplex as object as ws.WebSocket, 1)
  t.end()
})
