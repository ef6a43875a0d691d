import { createError, type FastifyError } from '@fastify/error'

/**
 * Every error this package makes, by code. A code never changes its meaning. The table in docs/errors.md has one line for
 * each; a test compares the two.
 *
 * Errors of the handshake answer the client with their status. The others are thrown when registering, or by the client.
 */
export const errors = {
  // The handshake, in the order of admission.
  FST_RELAY_HEADERS: createError<[number]>('FST_RELAY_HEADERS', 'An upgrade request must have fewer than %d headers', 431),
  FST_RELAY_HOST_HEADER: createError<[string]>('FST_RELAY_HOST_HEADER', 'An upgrade request must have exactly one Host header, this one has %s', 400),
  FST_RELAY_REQUEST_TARGET: createError('FST_RELAY_REQUEST_TARGET', 'The target of an upgrade request must be a path, as in "GET /relay HTTP/1.1"', 400),
  FST_RELAY_HTTP_VERSION: createError<[string]>('FST_RELAY_HTTP_VERSION', 'An upgrade needs HTTP/1.1, this request is HTTP/%s', 400),
  FST_RELAY_BODY: createError<[string]>('FST_RELAY_BODY', 'An upgrade request must not have a body, this one has the header %s', 400),
  FST_RELAY_PIPELINED: createError('FST_RELAY_PIPELINED', 'An upgrade request must wait for the answers to earlier requests on its connection', 400),
  FST_RELAY_CLOSING: createError('FST_RELAY_CLOSING', 'The relay is shutting down', 503),
  FST_RELAY_HUB_UNFINISHED: createError<[number]>('FST_RELAY_HUB_UNFINISHED', 'Too many unfinished handshakes at this relay (maxUnfinishedHandshakes: %d)', 503),
  FST_RELAY_CLIENT_UNFINISHED: createError<[string, number]>('FST_RELAY_CLIENT_UNFINISHED', 'Too many unfinished handshakes from %s (maxClientUnfinishedHandshakes: %d)', 429),
  FST_RELAY_CLIENT_RATE: createError<[string, number]>('FST_RELAY_CLIENT_RATE', 'Too many handshakes from %s (clientHandshakesPerSecond: %d)', 429),
  FST_RELAY_HUB_RATE: createError<[number]>('FST_RELAY_HUB_RATE', 'Too many handshakes at this relay (handshakesPerSecond: %d)', 503),
  FST_RELAY_UPGRADE_REQUIRED: createError<[string, string]>('FST_RELAY_UPGRADE_REQUIRED', 'This is a relay: send Upgrade with one of: %s%s', 426),
  FST_RELAY_PROTOCOL: createError<[string, string]>('FST_RELAY_PROTOCOL', 'This relay does not speak "%s", only: %s', 400),
  FST_RELAY_CONNECT_PROTOCOL: createError<[string, string]>('FST_RELAY_CONNECT_PROTOCOL', 'This relay does not speak "%s" over HTTP/2, only: %s', 501),
  FST_RELAY_WEBSOCKET_VERSION: createError<[string]>('FST_RELAY_WEBSOCKET_VERSION', 'This relay speaks version 13 of the WebSocket protocol, the request says: %s', 426),
  FST_RELAY_WEBSOCKET_KEY: createError('FST_RELAY_WEBSOCKET_KEY', 'Sec-WebSocket-Key must be 16 bytes in base64', 400),
  FST_RELAY_HOST_NOT_ALLOWED: createError<[string]>('FST_RELAY_HOST_NOT_ALLOWED', 'No relay at the host "%s"', 421),
  FST_RELAY_ORIGIN_NOT_ALLOWED: createError<[string, string]>('FST_RELAY_ORIGIN_NOT_ALLOWED', 'Pages of "%s" may not open WebSockets here, only those of: %s', 403),
  FST_RELAY_CLIENT_ADDRESS: createError<[string]>('FST_RELAY_CLIENT_ADDRESS', 'A trusted proxy sent "%s" as the client address, which is not an IP address', 400),
  FST_RELAY_FRAMING: createError<[string, string]>('FST_RELAY_FRAMING', 'No framing in common: asked for "%s", this route has: %s', 400),
  FST_RELAY_SUBPROTOCOL: createError<[string, string]>('FST_RELAY_SUBPROTOCOL', 'No subprotocol in common: asked for "%s", this route has: %s', 400),
  FST_RELAY_IDENTITY: createError<[string, string]>('FST_RELAY_IDENTITY', 'identify() returned an unusable %s: %s', 500),
  FST_RELAY_ANSWER_HEADER: createError<[string]>('FST_RELAY_ANSWER_HEADER', 'A hook set the answer header %s to a value that cannot be sent', 500),
  FST_RELAY_HUB_FULL: createError<[number]>('FST_RELAY_HUB_FULL', 'The relay is full (maxPeers: %d)', 503),
  FST_RELAY_CLIENT_FULL: createError<[string, number]>('FST_RELAY_CLIENT_FULL', 'Too many peers from %s (maxClientPeers: %d)', 429),
  FST_RELAY_CHANNEL_RATE: createError<[number]>('FST_RELAY_CHANNEL_RATE', 'Too many handshakes for this channel (channelHandshakesPerSecond: %d)', 503),
  FST_RELAY_CHANNEL_PAIRED: createError('FST_RELAY_CHANNEL_PAIRED', 'This channel already joins two tunnels', 409),
  FST_RELAY_CHANNEL_FULL: createError<[number]>('FST_RELAY_CHANNEL_FULL', 'The channel is full (maxChannelPeers: %d)', 503),
  FST_RELAY_KEYLESS_FULL: createError<[number]>('FST_RELAY_KEYLESS_FULL', 'The channel has no room for another peer without a public key (maxKeylessPeers: %d)', 503),
  FST_RELAY_TARGET: createError('FST_RELAY_TARGET', 'target() returned an invalid target', 500),
  FST_RELAY_TARGET_UNREACHABLE: createError('FST_RELAY_TARGET_UNREACHABLE', 'The server behind this route cannot be reached', 502),
  FST_RELAY_TARGET_TIMEOUT: createError<[number]>('FST_RELAY_TARGET_TIMEOUT', 'The server behind this route has not answered within %d ms', 504),
  FST_RELAY_REPLACED_TOO_OFTEN: createError('FST_RELAY_REPLACED_TOO_OFTEN', 'This identity keeps replacing its own tunnel: do two devices share it?', 429),
  FST_RELAY_WEBSOCKET_SERVER: createError('FST_RELAY_WEBSOCKET_SERVER', "The app's own WebSocket server refused the handshake", 400),
  FST_RELAY_WEBSOCKET_FAULT: createError('FST_RELAY_WEBSOCKET_FAULT', "The app's own WebSocket server threw an error", 500),
  FST_RELAY_HANDSHAKE_TIMEOUT: createError<[number]>('FST_RELAY_HANDSHAKE_TIMEOUT', 'The handshake was not finished after %d ms', 503),
  FST_RELAY_CLIENT_GONE: createError('FST_RELAY_CLIENT_GONE', 'The client left during the handshake', 499),

  // Registering.
  FST_RELAY_OPTION: createError<[string, string, string]>('FST_RELAY_OPTION', 'The option %s must be %s, not %s', 500),
  FST_RELAY_UNKNOWN_OPTION: createError<[string, string, string]>('FST_RELAY_UNKNOWN_OPTION', '%s is not an option of %s; did you mean %s?', 500),
  FST_RELAY_OPTIONS_TWICE: createError<[string]>('FST_RELAY_OPTIONS_TWICE', 'The hub of this server has its options already: give %s in the first registration only', 500),
  FST_RELAY_PREFIX: createError('FST_RELAY_PREFIX', 'The option prefix has no effect on a plugin that does not encapsulate: give the whole path, or register inside a scope that has the prefix', 500),

  // The admin scope.
  FST_RELAY_ADMIN_UNGUARDED: createError('FST_RELAY_ADMIN_UNGUARDED', 'relayAdmin has no guarding hook among its own options (onRequest, preParsing, preValidation, preHandler), and a guard in an outer scope cannot be seen from here: give it one, or say insecure: true if there is such a guard, or everybody may see and disconnect the peers', 500),
  FST_RELAY_ADMIN_HUB: createError('FST_RELAY_ADMIN_HUB', 'relayAdmin found no relay: register fastify-spanza-relay before it, in the same scope or an outer one', 500),
  FST_RELAY_ADMIN_ORIGIN: createError<[string, string]>('FST_RELAY_ADMIN_ORIGIN', 'A change must come from a page of %s, not from %s', 403),
  FST_RELAY_ADMIN_PEER: createError('FST_RELAY_ADMIN_PEER', 'No such peer is attached', 404),

  // The client.
  FST_RELAY_REFUSED: createError<[string, number, string]>('FST_RELAY_REFUSED', '%s answered %d: %s'),
  FST_RELAY_CONNECT: createError<[string]>('FST_RELAY_CONNECT', 'Could not connect to the relay: %s'),
  FST_RELAY_PROXY: createError<[string, string]>('FST_RELAY_PROXY', 'Could not connect through the proxy %s: %s'),
  FST_RELAY_ANSWER: createError<[string]>('FST_RELAY_ANSWER', 'The answer is not what a relay sends: %s'),
  FST_RELAY_HTTP2: createError<[string]>('FST_RELAY_HTTP2', 'The server takes no tunnels over HTTP/2: %s'),
  FST_RELAY_ABORTED: createError<[string]>('FST_RELAY_ABORTED', 'The tunnel was aborted: %s'),
  FST_RELAY_CLIENT_OPTION: createError<[string, string, string]>('FST_RELAY_CLIENT_OPTION', 'The option %s must be %s, not %s')
}

/** The code of an error of this package. */
export type RelayErrorCode = keyof typeof errors

/** True for an instance of these errors, even if the app threw it. An error with only the same code is not one. */
export function isRelayError (error: unknown): error is FastifyError {
  if (!(error instanceof Error)) return false
  const { code = '' } = error as Partial<FastifyError>
  return Object.hasOwn(errors, code) && error instanceof errors[code as RelayErrorCode]
}
