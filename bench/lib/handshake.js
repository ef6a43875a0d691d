// Requests as the load generator sends them; {peer} and {pair} are numbers that it puts in.

const authorization = 'Bearer some-token'

/** A tunnel of the plugin, by HTTP/1.1. */
export function spanza (channel, framing) {
  return request(`/relay/${channel}`, 'spanza', framing === undefined ? [] : [`Spanza-Framing: ${framing}`])
}

/** A WebSocket by HTTP/1.1. */
export function webSocket (path) {
  return request(path, 'websocket', ['Sec-WebSocket-Version: 13', 'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=='])
}

/** A tunnel by extended CONNECT. */
export function extendedConnect (path, port, protocol = 'spanza', headers = []) {
  return [
    ':method CONNECT', ':scheme http', `:authority 127.0.0.1:${port}`, `:path ${path}`, `:protocol ${protocol}`,
    `authorization ${authorization}`, ...headers
  ].join('\n')
}

function request (path, protocol, headers) {
  return [
    `GET ${path} HTTP/1.1`, 'Host: localhost', 'Connection: Upgrade', `Upgrade: ${protocol}`, `Authorization: ${authorization}`,
    ...headers, '', ''
  ].join('\r\n')
}
