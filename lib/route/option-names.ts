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
  // Options that @fastify/websocket adds.
  'websocket', 'wsHandler'
]

/** Options of a Fastify route that the relay sets itself. */
const ownOptions: Record<string, string> = {
  method: 'left out: a relay route is a GET route',
  url: 'left out: the path is the first argument',
  handler: 'left out: use plain to answer a GET that asks for no upgrade',
  exposeHeadRoute: 'left out: a relay route has no HEAD route'
}

const knownNames = new Set([...relayOptionNames, ...hubOptionNames, ...fastifyOptionNames])

/**
 * Checks the names of options. Without TypeScript, a misspelled hook would silently guard nothing. A name that resembles no
 * known option passes, because plugins may read route options of their own.
 * @param of the owner of the options, for the error message
 * @throws FST_RELAY_UNKNOWN_OPTION for a name that resembles a known option
 * @throws FST_RELAY_OPTION for an option that the relay sets itself
 */
export function checkOptionNames (of: 'a relay route' | 'the registration', options: object): void {
  for (const [name, value] of Object.entries(options)) {
    if (knownNames.has(name)) continue
    if (Object.hasOwn(ownOptions, name)) throw optionError(name, ownOptions[name]!, value)
    const meant = nearestName(name, knownNames)
    if (meant !== undefined) throw new errors.FST_RELAY_UNKNOWN_OPTION(name, of, meant)
  }
}
