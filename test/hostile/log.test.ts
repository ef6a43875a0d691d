import { Writable } from 'node:stream'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { RawClient, upgradeText } from '../helpers/raw-client.ts'
import { openBare, startApp } from '../helpers/relay-app.ts'

/** What a terminal would obey, or that turns text around. */
const unprintable = /[\p{Cc}\u2028\u2029\p{Bidi_Control}]/u

/** An app with its log lines, parsed. */
async function startLogging (t: Test, server: object = {}): Promise<{ app: FastifyInstance, log: object[] }> {
  const log: object[] = []
  const stream = new Writable({
    write (chunk, _encoding, done) {
      for (const line of String(chunk).trim().split('\n')) log.push(JSON.parse(line))
      done()
    }
  })
  const app = await startApp(t, (app) => {
    app.relay('/relay', { hosts: ['localhost'] })
    app.relay('/relay/:network')
  }, { server: { logger: { stream }, trustProxy: true, ...server } })
  return { app, log }
}

/** The texts of a log line, whatever they are called and however deep they lie. */
function textsIn (value: unknown): string[] {
  if (typeof value === 'string') return [value]
  return typeof value === 'object' && value !== null ? Object.values(value).flatMap(textsIn) : []
}

async function refuse (t: Test, app: FastifyInstance, text: string): Promise<void> {
  const client = await RawClient.dial(t, app)
  await client.send(Buffer.from(text, 'latin1'))
  const { statusCode } = await client.answer()
  t.ok(statusCode >= 400, `refused with ${statusCode}`)
  await client.closed
}

t.test('no text with control characters from the other side is logged', async (t) => {
  // 0x9b alone is what ESC [ is in two bytes (ECMA-48, C1); Node lets it pass in headers.
  const rows: Array<[title: string, text: string]> = [
    ['an unknown protocol', upgradeText('/relay', { headers: { Upgrade: '\x9b31m' } })],
    ['an unknown framing', upgradeText('/relay', { headers: { 'Spanza-Framing': '\x9b31m' } })],
    ['a host', upgradeText('/relay', { host: '\x9b31m' })],
    ['a client address', upgradeText('/relay', { headers: { 'X-Forwarded-For': '\x9b31m' } })]
  ]
  for (const [title, text] of rows) {
    await t.test(title, async (t) => {
      const { app, log } = await startLogging(t, { disableRequestLogging: true })
      await refuse(t, app, text)
      t.ok(log.some((line) => 'refusal' in line), 'logged')
      t.same(textsIn(log).filter((each) => unprintable.test(each)), [])
    })
  }

  await t.test('a channel that is named by the parameters', async (t) => {
    const { app, log } = await startLogging(t, { disableRequestLogging: true })
    await openBare(t, app, '/relay/%1b%5b31m%c2%9b%e2%80%ae')
    t.ok(log.some((line) => 'channel' in line), 'logged')
    t.same(textsIn(log).filter((each) => unprintable.test(each)), [])
  })
})

t.test('what stands behind or before the path in a target is not logged', async (t) => {
  const { app, log } = await startLogging(t, { disableRequestLogging: true, routerOptions: { useSemicolonDelimiter: true } })
  for (const target of ['/relay?token=secret', '/relay;token=secret', '/relay#token=secret', 'http://user:secret@localhost/relay']) {
    await refuse(t, app, upgradeText(target, { host: false }))
  }
  t.same(textsIn(log).filter((each) => each.includes('secret')), [])
})

t.test('what identify has returned by mistake is not told to the client', async (t) => {
  const app = await startApp(t, (app) => app.relay('/relay', {
    identify: () => ({ id: { name: 'laptop', passwordHash: 'secret' } as unknown as string })
  }))
  const client = await RawClient.dial(t, app)
  await client.send(upgradeText('/relay'))
  const { statusCode, body } = await client.answer()
  t.equal(statusCode, 500)
  t.notMatch(body, 'secret')
})
