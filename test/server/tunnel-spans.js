import { subscribe } from 'node:diagnostics_channel'
import { SpanStatusCode, trace } from '@opentelemetry/api'

const tracer = trace.getTracer('relay')

// Made when the tunnel ends: exporters send only spans that have ended.
subscribe('fastify-spanza-relay:detach', ({ peer, reason, duration }) => {
  const attributes = {
    'relay.route': peer.channel.scope,
    'relay.channel': peer.channel.name,
    'relay.peer': peer.id,
    'relay.bytes_in': peer.bytesIn,
    'relay.bytes_out': peer.bytesOut,
    'relay.reason': reason
  }
  tracer.startSpan('relay tunnel', { root: true, startTime: peer.attachedAt, attributes }).end(peer.attachedAt.getTime() + duration)
})

subscribe('fastify-spanza-relay:refuse', ({ statusCode, code, message, path }) => {
  const attributes = { 'http.response.status_code': statusCode, 'error.type': code ?? String(statusCode), 'http.route': path }
  const span = tracer.startSpan('relay refusal', { attributes })
  span.setStatus({ code: SpanStatusCode.ERROR, message })
  span.end()
})
