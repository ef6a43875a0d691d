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
    // Node warns of what tap's mocks use, too.
    const isOurs = ({ message }: Error) => message.includes('the installed ws is not as expected')
    const warned = new Promise<void>((resolve) => {
      const onWarning = (warning: Error) => {
        if (!isOurs(warning)) return
        process.off('warning', onWarning)
        resolve()
      }
      process.on('warning', onWarning)
    })
    const { canOpenOnStreams } = await t.mockImport<typeof import('../../lib/internals/ws-internals.ts')>('../../lib/internals/ws-internals.ts', { ws: other })
    t.equal(canOpenOnStreams, false)
    await t.resolves(warned, 'a warning says so')
  })
}

t.test('limits nothing in a WebSocket of another kind', (t) => {
  limitInflated({} as Duplex as object as ws.WebSocket, 1)
  t.end()
})
