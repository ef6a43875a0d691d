const dropWords = {
  'too-large': 'larger than maxPacketSize',
  empty: 'a target sent a datagram without bytes',
  'queue-full': 'the receiver’s socket is blocked, and its queue is full',
  'peer-away': 'the receiver has no tunnel at the moment',
  'peer-closed': 'the receiver was closed while the datagram waited',
  'no-session': 'no WireGuard session: no handshake before it',
  'no-pending': 'a response without a handshake initiation before it',
  'no-responder': 'no peer of the channel has the public key that the handshake is for',
  'initiation-rate': 'the sender starts handshakes too often',
  'mac1-budget': 'too many handshakes for unknown keys',
  'index-collision': 'the session index belongs to another peer',
  unroutable: 'not a WireGuard message, and the channel does not have exactly two peers',
  'udp-too-large': 'too large for the target’s network',
  'udp-queue-full': 'the target’s network is slower than the tunnel',
  'udp-error': 'the target’s network reported an error'
}

const endWords = {
  'protocol-error': 'broke the rules of its framing',
  unstamped: 'its messages were changed on the way',
  replaced: 'another tunnel has the same identity now',
  idle: 'was silent for too long',
  'write-deadline': 'took nothing for too long',
  disconnected: 'was disconnected by the operator',
  shutdown: 'the relay is shutting down',
  'target-failed': 'its target failed',
  limit: 'exceeded a limit',
  ended: 'the client ended it',
  lost: 'the connection broke',
  'pair-timeout': 'no second tunnel came in time',
  'partner-lost': 'the other tunnel of the pair broke'
}

const refusalWords = {
  FST_RELAY_HEADERS: 'too many headers',
  FST_RELAY_HOST_HEADER: 'not exactly one Host header',
  FST_RELAY_REQUEST_TARGET: 'the request’s target is not a path',
  FST_RELAY_HTTP_VERSION: 'not HTTP/1.1',
  FST_RELAY_BODY: 'a request with a body',
  FST_RELAY_CLOSING: 'the relay is shutting down',
  FST_RELAY_HUB_UNFINISHED: 'too many unfinished handshakes',
  FST_RELAY_CLIENT_UNFINISHED: 'too many unfinished handshakes of one client',
  FST_RELAY_CLIENT_RATE: 'one client’s handshakes come too fast',
  FST_RELAY_HUB_RATE: 'handshakes come too fast',
  FST_RELAY_UPGRADE_REQUIRED: 'asked for no upgrade',
  FST_RELAY_PROTOCOL: 'asked for a protocol that the route does not speak',
  FST_RELAY_CONNECT_PROTOCOL: 'asked for a protocol that the route does not speak over HTTP/2',
  FST_RELAY_WEBSOCKET_VERSION: 'another version of the WebSocket protocol',
  FST_RELAY_WEBSOCKET_KEY: 'an unusable Sec-WebSocket-Key',
  FST_RELAY_WEBSOCKET_SERVER: 'the app’s WebSocket server refused',
  FST_RELAY_WEBSOCKET_FAULT: 'the app’s WebSocket server threw an error',
  FST_RELAY_PIPELINED: 'an upgrade behind an unanswered request',
  FST_RELAY_HOST_NOT_ALLOWED: 'the host is not allowed',
  FST_RELAY_CLIENT_ADDRESS: 'a proxy sent an unusable client address',
  FST_RELAY_ORIGIN_NOT_ALLOWED: 'a WebSocket from a page of an origin that is not allowed',
  FST_RELAY_SUBPROTOCOL: 'no subprotocol in common',
  FST_RELAY_FRAMING: 'no framing in common',
  FST_RELAY_IDENTITY: 'identify() returned something unusable',
  FST_RELAY_ANSWER_HEADER: 'a hook set a header that must not be sent',
  FST_RELAY_HUB_FULL: 'the relay is full',
  FST_RELAY_CLIENT_FULL: 'one client has too many peers',
  FST_RELAY_CHANNEL_RATE: 'handshakes for one channel come too fast',
  FST_RELAY_CHANNEL_PAIRED: 'a third tunnel for a channel of two',
  FST_RELAY_CHANNEL_FULL: 'the channel is full',
  FST_RELAY_KEYLESS_FULL: 'too many peers of the channel have no public key',
  FST_RELAY_TARGET: 'the app chose an invalid target',
  FST_RELAY_TARGET_UNREACHABLE: 'the target cannot be reached',
  FST_RELAY_TARGET_TIMEOUT: 'the target has not answered in time',
  FST_RELAY_REPLACED_TOO_OFTEN: 'two devices seem to share an identity',
  FST_RELAY_HANDSHAKE_TIMEOUT: 'the handshake took too long',
  FST_RELAY_CLIENT_GONE: 'the client left during the handshake'
}

const statusWords = {
  400: 'bad request',
  401: 'not authenticated',
  403: 'not allowed',
  404: 'nothing there',
  429: 'too many requests',
  500: 'an error of the app',
  503: 'not available'
}

export const wordsOfDrop = (reason) => dropWords[reason] ?? reason

export const wordsOfEnd = (reason) => endWords[reason] ?? reason

/** @param code an error code, or the status where a hook of the app refused */
export function wordsOfRefusal (code) {
  if (!/^\d+$/.test(code)) return refusalWords[code] ?? code
  return `a hook of the app refused${code in statusWords ? `: ${statusWords[code]}` : ''}`
}

/** The name of a peer or channel as the page shows it. */
export const named = (name) => name.trim() === '' ? '(no name)' : name

const units = ['', 'k', 'M', 'G', 'T', 'P']

function withPrefix (value, unit) {
  let i = 0
  // 999.5 would be shown as 1000.
  for (; value >= 999.5 && i < units.length - 1; i++) value /= 1000
  const digits = i === 0 ? (value > 0 && value < 10 && !Number.isInteger(value) ? 1 : 0) : (value < 9.95 ? 1 : 0)
  return `${value.toFixed(digits)} ${units[i]}${unit}`.trim()
}

export const formatBytes = (bytes) => withPrefix(bytes, 'B')

/** @param rate bytes per second; undefined before the second count */
export const formatRate = (rate) => rate === undefined ? '–' : withPrefix(rate, 'B/s')

export const formatCount = (count) => count.toLocaleString('en')

export const formatPerSecond = (rate) => rate === undefined ? '–' : `${withPrefix(rate, '')}/s`

export function formatDuration (milliseconds) {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000))
  if (seconds < 60) return `${seconds} s`
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ${Math.floor(seconds % 3600 / 60)} min`
  return `${Math.floor(seconds / 86_400)} d ${Math.floor(seconds % 86_400 / 3600)} h`
}

export const formatTime = (time) => new Date(time).toLocaleTimeString(undefined, { hourCycle: 'h23' })
