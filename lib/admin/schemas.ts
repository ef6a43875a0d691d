import { peerOrders } from './views.ts'

const tags = ['relay']
const counter = { type: 'integer', minimum: 0 }
const counters = { type: 'object', additionalProperties: counter }
const text = { type: 'string' }
const kind = { type: 'string', enum: ['packet', 'stream', 'target'] }
const time = { ...counter, description: 'Time of the count, in milliseconds since 1970' }
const total = { ...counter, description: 'Length of the whole list' }

const offset = { ...counter, default: 0 }
const limit = { type: 'integer', minimum: 1, maximum: 500, default: 50 }
const search = { ...text, maxLength: 255, description: 'Matches id, channel, scope, address or public key; case is ignored' }

const traffic = { datagramsIn: counter, datagramsOut: counter, bytesIn: counter, bytesOut: counter, drops: counter }

const date = { type: 'string', format: 'date-time' }
const someId = { ...text, description: 'Omitted for peers without a known public key' }

const channelKey = { scope: text, name: text, kind }

const peer = {
  type: 'object',
  properties: {
    id: text,
    channel: { type: 'object', properties: channelKey },
    address: text,
    protocol: text,
    httpVersion: text,
    framing: text,
    publicKey: text,
    attachedAt: { type: 'string', format: 'date-time' },
    ...traffic,
    dropsByReason: { ...counters, description: 'Only reasons that occurred' },
    lastHandshake: {
      type: 'object',
      properties: { id: text, at: date },
      description: 'The last WireGuard handshake that was answered; omitted if none was'
    },
    handshakes: {
      type: 'array',
      items: { type: 'object', properties: { id: someId, sent: counter, answered: counter, unanswered: counter, lastAt: date } },
      description: 'WireGuard handshakes with other peers, the newest first: initiations that were sent to each, answered, and unanswered since; ' +
        'when the last one was answered, whoever began it; the last 16 peers'
    },
    handshakeFaults: {
      type: 'array',
      items: {
        type: 'object',
        properties: { fault: text, text, id: someId, asked: counter, count: counter, since: date, lastAt: date }
      },
      description: 'Handshakes it started that failed several times in a row'
    },
    sentTo: {
      type: 'array',
      items: { type: 'object', properties: { id: text, bytes: counter } },
      description: 'Peers it has WireGuard sessions with, and the bytes it sent to each, most first; at most 32'
    }
  }
}

/** A peer of a list, with what the picture needs. */
const { handshakes, handshakeFaults, lastHandshake, dropsByReason, ...drawn } = peer.properties
const drawnPeer = { type: 'object', properties: drawn }

const channel = {
  type: 'object',
  properties: { ...channelKey, peers: counter, ...traffic, busiest: { type: 'array', items: drawnPeer } }
}

const selector = { id: text, channel: { ...text, description: 'Its name' }, scope: text, kind }

/** The form of Fastify's own errors. */
const error = {
  type: 'object',
  properties: { statusCode: { type: 'integer' }, code: text, error: text, message: text }
}

function remembered (properties: object): object {
  const event = { ...text, enum: ['attach', 'detach', 'refuse'] }
  return { type: 'array', items: { type: 'object', properties: { event, serial: counter, time: date, ...properties } } }
}

function listOf (name: string, items: object): object {
  return { type: 'object', properties: { time, total, [name]: { type: 'array', items } } }
}

/** Requests and responses of each route. */
export const schemas = {
  stats: {
    tags,
    summary: 'The counters of the hub, and how much there is now',
    response: {
      200: {
        type: 'object',
        additionalProperties: true,
        properties: {
          time,
          peers: counter,
          channels: counter,
          datagramsIn: counter,
          datagramsOut: counter,
          bytesIn: counter,
          bytesOut: counter,
          drops: counters,
          targetDatagramsIn: counter,
          targetDatagramsOut: counter,
          targetErrors: counters,
          initiations: counters,
          attached: counter,
          detached: counters,
          refused: counters,
          handshakeFaults: counters
        }
      }
    }
  },
  channels: {
    tags,
    summary: 'Channels, those with the most traffic first',
    querystring: {
      type: 'object',
      properties: {
        search: { ...search, description: 'Matches the channel, or one of its peers' },
        offset,
        limit,
        busiest: { ...counter, maximum: 32, default: 0, description: 'Number of peers to show of each channel, most traffic first' }
      }
    },
    response: { 200: listOf('channels', channel) }
  },
  peers: {
    tags,
    summary: 'Peers',
    querystring: {
      type: 'object',
      properties: { search, ...selector, sort: { type: 'string', enum: peerOrders, default: 'traffic' }, offset, limit }
    },
    response: { 200: listOf('peers', peer) }
  },
  peer: {
    tags,
    summary: 'One peer; more than one where tunnels to targets share an id',
    querystring: { type: 'object', required: ['id', 'channel'], properties: selector },
    response: { 200: { type: 'object', properties: { time, peers: { type: 'array', items: peer } } }, 404: error }
  },
  disconnect: {
    tags,
    summary: 'Closes the tunnels of a peer',
    consumes: ['application/json'],
    body: {
      type: 'object',
      required: ['id', 'channel'],
      additionalProperties: false,
      properties: { ...selector, text: { ...text, maxLength: 100, description: 'Told to the peer' } }
    },
    response: {
      200: { type: 'object', properties: { closed: { ...counter, description: 'Number of tunnels closed' } } },
      403: error
    }
  },
  history: {
    tags,
    summary: 'What has happened up to now',
    description: 'The last 200 refusals, and the last 200 times a peer attached or left, oldest first: as in events, with less of each peer.',
    response: {
      200: {
        type: 'object',
        properties: {
          time,
          since: { ...counter, description: 'Start of the serial numbers, in milliseconds since 1970: when relayAdmin was registered' },
          refusals: remembered({ statusCode: { type: 'integer' }, code: text, message: text, address: text, path: text }),
          moves: remembered({ peer: drawnPeer, reason: text, text, duration: { type: 'number' } })
        }
      }
    }
  },
  events: {
    tags,
    summary: 'What happens from now on',
    description: 'A line of JSON for each event, with its serial number: attach and detach with the peer, refuse, missed with the count of events this reader was ' +
      'too slow for, and a heartbeat at once and every 15 s.',
    produces: ['application/x-ndjson'],
    response: {
      200: {
        description: 'One line for each event; the response does not end',
        content: {
          'application/x-ndjson': {
            schema: {
              type: 'object',
              properties: {
                event: { type: 'string', enum: ['attach', 'detach', 'refuse', 'missed', 'heartbeat'] },
                time: date,
                serial: { ...counter, description: 'Grows with each event; history has the same' }
              }
            }
          }
        }
      }
    }
  }
}
