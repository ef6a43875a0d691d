import { once } from 'node:events'
import { WebSocket } from 'ws'
import { connectStream } from '../helpers/http2-client.ts'

// WebSockets of ws, over both versions of HTTP. Both reject with `statusCode`, `headers` and `body` of what is answered instead.

export async function openOverHttp1 (url, { protocols = [], ...options }) {
  const webSocket = new WebSocket(url, protocols, options)
  const refused = once(webSocket, 'unexpected-response').then(async ([, answer]) => {
    const body = (await answer.toArray()).join('')
    webSocket.on('error', () => {})
    webSocket.terminate()
    throw refusal(answer.statusCode, answer.headers, body)
  })
  refused.catch(() => {})
  await Promise.race([once(webSocket, 'open'), refused])
  return quiet(webSocket)
}

/** ws speaks no HTTP/2: it is given a stream whose handshake is done (RFC 8441, section 5). */
export async function openOverHttp2 (session, path, { protocols = [], origin, protocolVersion = 13, headers } = {}) {
  const asked = connectStream(session, path, {
    headers: {
      'sec-websocket-version': protocolVersion,
      ...(protocols.length > 0 && { 'sec-websocket-protocol': protocols.join(', ') }),
      ...(origin !== undefined && { origin }),
      ...headers
    }
  })
  const { ':status': statusCode, ...answered } = await asked.head()
  if (statusCode !== 200) throw refusal(statusCode, answered, String(await asked.readToEnd()))
  // What Http2Client would keep.
  asked.stream.removeAllListeners('data')
  const webSocket = new WebSocket(null, undefined, { autoPong: true, closeTimeout: 30_000 })
  webSocket._isServer = false
  webSocket._protocol = answered['sec-websocket-protocol'] ?? ''
  webSocket.setSocket(asked.stream, Buffer.alloc(0), { allowSynchronousEvents: true, maxPayload: 0 })
  return quiet(webSocket)
}

/** What breaks later is told by `close`. */
function quiet (webSocket) {
  return webSocket.on('error', () => {})
}

function refusal (statusCode, headers, body) {
  return Object.assign(new Error(`refused: ${statusCode} ${body}`), { statusCode, headers, body })
}
