import helmet from '@fastify/helmet'
import Fastify from 'fastify'
import t from 'tap'
import relayAdmin from '../../lib/admin/index.ts'
import spanzaRelay from '../../lib/index.ts'
import { authorization, startAdmin } from './admin-app.ts'

t.test('the page loads nothing from elsewhere, and all that it loads is there', async (t) => {
  const app = await startAdmin(t)
  const seen = new Set<string>()
  const queue = ['']
  for (let name = queue.shift(); name !== undefined; name = queue.shift()) {
    if (seen.has(name)) continue
    seen.add(name)
    const answer = await app.inject({ url: `/relay-admin/${name}`, headers: { authorization } })
    t.equal(answer.statusCode, 200, name)
    t.match(answer.headers['content-type'], /^(?:text\/(?:html|javascript|css); charset=utf-8|image\/svg\+xml)$/)
    const links = [...answer.body.matchAll(/(?:(?:src|href)="|from ')(?!#)([^"']+)["']/g)].map(([, link]) => link!)
    t.notMatch(links.join(), /:\/\/|\/\//)
    queue.push(...links.map((link) => link.replace(/^\.\//, '')))
    if (name === '') t.notMatch(answer.body, / style=|<style|<script>| on\w+=/, 'nothing inline')
  }
  t.ok(seen.size > 10)
})

for (const order of ['before', 'after']) {
  t.test(`the page has its own policy beside @fastify/helmet, registered ${order} the scope`, async (t) => {
    const app = Fastify()
    t.teardown(() => app.close())
    if (order === 'before') await app.register(helmet)
    await app.register(spanzaRelay)
    await app.register(relayAdmin, { prefix: '/relay-admin', insecure: true })
    if (order === 'after') await app.register(helmet)
    app.get('/rest', async () => 'ok')
    const { headers } = await app.inject('/relay-admin/')
    t.match(headers['content-security-policy'], /^default-src 'none'; script-src 'self'; .*frame-ancestors 'none'/)
    t.notMatch(headers['content-security-policy'], /upgrade-insecure-requests|unsafe/)
    t.match((await app.inject('/rest')).headers['content-security-policy'], 'upgrade-insecure-requests', 'other routes keep theirs')
  })
}

t.test('without the slash at its end the address leads to the one with it', async (t) => {
  const app = await startAdmin(t)
  const answer = await app.inject({ url: '/relay-admin?x', headers: { authorization } })
  t.equal(answer.statusCode, 302)
  t.equal(answer.headers.location, './relay-admin/')
})

t.test('nothing else is served', async (t) => {
  const app = await startAdmin(t)
  for (const path of ['index.html', '..%2findex.ts', '../package.json', 'uPlot.cjs.js']) {
    t.equal((await app.inject({ url: `/relay-admin/${path}`, headers: { authorization } })).statusCode, 404, path)
  }
})
