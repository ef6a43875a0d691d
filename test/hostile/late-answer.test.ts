import { once } from 'node:events'
import type { FastifyReply } from 'fastify'
import t from 'tap'
import { RawClient, upgradeText } from '../helpers/raw-client.ts'
import { startApp } from '../helpers/relay-app.ts'

const late: Array<[title: string, answer: (reply: FastifyReply) => void]> = [
  ['ends the raw response', (reply) => { reply.raw.end('no') }],
  ['writes to the raw response', (reply) => { reply.raw.write('no') }]
]

for (const [title, answer] of late) {
  t.test(`a hook that ${title} after the deadline has answered does not end the process`, async (t) => {
    const failures: Error[] = []
    const note = (error: Error): void => { failures.push(error) }
    process.on('uncaughtException', note)
    t.teardown(() => process.off('uncaughtException', note))
    let reply: FastifyReply | undefined
    const app = await startApp(t, (app) => app.relay('/relay', {
      onRequest: (_request, hijacked, _done) => { reply = hijacked.hijack() }
    }), { relay: { handshakeTimeout: 50 } })
    const client = await RawClient.dial(t, app)
    const refused = once(app.relayHub, 'refuse')
    await client.send(upgradeText('/relay'))
    t.equal((await client.answer()).statusCode, 503)
    await refused
    answer(reply!)
    await client.closed
    t.same(failures.map(({ message }) => message), [])
  })
}
