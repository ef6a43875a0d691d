// A Fastify app with a relay route under OpenTelemetry's http instrumentation, which patches Node's http module for
// the whole process. Plain JavaScript over the built package, as a user would run it. Its argument says when the
// instrumentation is loaded; it prints a JSON line for the port, and for each span that begins and ends.

import { createRequire, register } from 'node:module'

const when = process.argv[2]
const require = createRequire(import.meta.url)
const print = (line) => console.log(JSON.stringify(line))

function instrument () {
  const { registerInstrumentations } = require('@opentelemetry/instrumentation')
  const { HttpInstrumentation } = require('@opentelemetry/instrumentation-http')
  const { NodeTracerProvider } = require('@opentelemetry/sdk-trace-node')
  const tracerProvider = new NodeTracerProvider({
    spanProcessors: [{
      onStart: (span) => print({ began: span.spanContext().spanId }),
      onEnd: (span) => print({ ended: span.spanContext().spanId, target: span.attributes['http.target'] ?? span.attributes['url.path'] }),
      forceFlush: async () => {},
      shutdown: async () => {}
    }]
  })
  tracerProvider.register()
  registerInstrumentations({ tracerProvider, instrumentations: [new HttpInstrumentation()] })
  // It patches the module when it is next loaded.
  require('node:http')
}

if (when === 'before, with hooks for ES modules') register('@opentelemetry/instrumentation/hook.mjs', import.meta.url)
if (when.startsWith('before')) instrument()
const { default: Fastify } = await import('fastify')
const { default: spanzaRelay } = await import('fastify-spanza-relay')

const app = Fastify()
if (when === 'behind the import') instrument()
await app.register(spanzaRelay)
app.relay('/relay/:channel', {
  onRequest: async (request) => { if (request.headers['x-refuse'] !== undefined) throw Object.assign(new Error('no'), { statusCode: 401 }) }
})
app.get('/rest', async (request) => ({ upgrade: request.headers.upgrade }))
app.post('/rest', async (request) => request.body)
process.once('SIGTERM', async () => {
  await app.close()
  // Of a client's keep-alive connection.
  app.server.closeAllConnections()
})
await app.listen({ port: 0, host: '127.0.0.1' })
if (when === 'when it listens') instrument()
print({ port: app.server.address().port })
