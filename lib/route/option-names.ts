import { errors } from '../errors.ts'
import { nearestName } from '../util/nearest-name.ts'
import { hubOptionNames } from '../hub/hub-options.ts'
import { optionError } from '../util/option-error.ts'
import type { RelayOptions } from './relay-options.ts'

const relayOptionNames = Object.keys({
  hosts: true,
  origins: true,
  protocols: true,
  framings: true,
  scope: true,
  identify: true,
  target: true,
  webSockets: true,
  perMessageDeflate: true,
  proxyProtocol: true,
  open: true,
  plain: true
} satisfies Record<keyof RelayOptions, true>)

/** Options of a Fastify route (Fastify 5, Reference, Routes: "Routes options") that a relay route leaves to the app. */
const fastifyOptionNames = [
  'onRequest', 'preParsing', 'preValidation', 'preHandler', 'preSerialization', 'onSend', 'onResponse', 'onTimeout', 'onError', 'onRequestAbort',
  'schema', 'attachValidation', 'validatorCompiler', 'serializerCompiler', 'schemaErrorFormatter', 'errorHandler', 'childLoggerFactory',
  'bodyLimit', 'handlerTimeout', 'logLevel', 'logSerializers', 'config', 'constraints', 'prefixTrailingSlash',
  // Of @fastify/websocket.
  'websocket', 'wsHandler'
]

/** Options of a Fastify route that are a relay route's own to set. */
const ownOptions: Record<string, string> = {
  method: 'left out: a relay route is a GET route',
  url: 'left out: the path is the first argument',
  handler: 'left out: use plain to answer a GET that asks for no upgrade',
  exposeHeadRoute: 'left out: a relay route has no HEAD route'
}

const knownNames = new Set([...relayOptionNames, ...hubOptionNames, ...fastifyOptionNames])

/**
 * Checks the names of options, as JavaScript is written without types: a hook that is misspelled guards nothing. A name that
 * is far from all of ours and Fastify's passes, since plugins may read route options of their own.
 * @param of says whose options they are
 * @throws FST_RELAY_UNKNOWN_OPTION for a name that is nearly one of those known, FST_RELAY_OPTION for one that is the relay's own to set
 */
export function checkOptionNames (of: 'a relay route' | 'the registration', options: object): void {
  for (const [name, value] of Object.entries(options)) {
    if (knownNames.has(name)) continue
    if (Object.hasOwn(ownOptions, name)) throw optionError(name, ownOptions[name]!, value)
    const meant = nearestName(name, knownNames)
    if (meant !== undefined) throw new errors.FST_RELAY_UNKNOWN_OPTION(name, of, meant)
  }
}
