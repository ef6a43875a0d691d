import { once } from 'node:events'
import { connect } from 'node:net'
import { request } from 'node:http'
import t, { type Test } from 'tap'
import { serveMetrics } from '../../lib/cli/metrics-server.ts'

async function start (t: Test): Promise<string> {
  const server = await serveMetrics({ host: '127.0.0.1', port: 0 }, () => 'metric_total 1\n')
  t.teardown(() => server.close())
  return server.url
}

t.test('GET and HEAD of /metrics get the metrics', async (t) => {
  const url = await start(t)
  t.match(url, /^http:\/\/127\.0\.0\.1:\d+\/metrics$/)
  for (const path of [url, `${url}?name=value`]) {
    const answer = await fetch(path)
    t.equal(answer.status, 200)
    t.equal(answer.headers.get('content-type'), 'text/plain; version=0.0.4; charset=utf-8')
    t.equal(await answer.text(), 'metric_total 1\n')
  }
  const head = await fetch(url, { method: 'HEAD' })
  t.equal(head.status, 200)
  t.equal(head.headers.get('content-length'), '15')
})

t.test('another method, and another path, gets nothing', async (t) => {
  const url = await start(t)
  for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS']) {
    const answer = await fetch(url, { method })
    t.equal(answer.status, 405, method)
    t.equal(answer.headers.get('allow'), 'GET, HEAD')
  }
  for (const path of ['/', '/metrics/', '/metricsx']) t.equal((await fetch(new URL(path, url))).status, 404, path)
})

t.test('closes at once, whoever is connected', async (t) => {
  const server = await serveMetrics({ host: '127.0.0.1', port: 0 }, () => '')
  const port = Number(new URL(server.url).port)
  const idle = connect(port, '127.0.0.1')
  await once(idle, 'connect')
  const asking = request(server.url, { agent: false, method: 'GET' })
  asking.flushHeaders()
  await once(asking, 'response')
  const gone = once(idle, 'close')
  await server.close()
  await gone
  const later = connect(port, '127.0.0.1')
  t.match(await once(later, 'connect').catch((error) => error), { code: 'ECONNREFUSED' })
})

t.test('a port that is taken is an error', async (t) => {
  const url = new URL(await start(t))
  await t.rejects(serveMetrics({ host: url.hostname, port: Number(url.port) }, () => ''), { code: 'EADDRINUSE' })
})
