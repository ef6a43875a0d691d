import t from 'tap'
import { protocolNames } from '../../lib/admission/protocols.ts'
import { framingNames } from '../../lib/framing/framings.ts'
import { hubOptionNames, readHubOptions } from '../../lib/hub/hub-options.ts'
import type { Identified, RelayOptions } from '../../lib/index.ts'
import { errors } from '../../lib/errors.ts'
import { namesIn, readPage, tablesOf } from '../helpers/markdown.ts'

// The tables of docs/options.md have each option, with the default and the range that it has in the code.

const page = readPage('docs/options.md')

const routeOptions = Object.keys({
  identify: true,
  hosts: true,
  origins: true,
  protocols: true,
  framings: true,
  scope: true,
  target: true,
  proxyProtocol: true,
  webSockets: true,
  perMessageDeflate: true,
  open: true,
  plain: true
} satisfies Record<keyof RelayOptions, true>)

const identityParts = Object.keys({ id: true, channel: true, publicKey: true, context: true } satisfies Record<keyof Identified, true>)

t.test('hub-wide options', (t) => {
  const rows = tablesOf(page, 'option', 'default', 'range').flat()
  t.same(rows.map(([option]) => option).sort(), hubOptionNames.map((name) => `\`${name}\``).sort(), 'each once, and no others')
  const defaults = readHubOptions({})
  for (const name of hubOptionNames) {
    const [, fallback, range] = rows.find(([option]) => option === `\`${name}\``) ?? []
    t.equal(fallback, String(defaults[name]), `default of ${name}`)
    t.equal(range, rangeOf(name), `range of ${name}`)
  }
  t.end()
})

t.test('options of a relay route', (t) => {
  const rows = tablesOf(page, 'option', 'default', 'values').flat()
  t.same(rows.map(([option]) => option).sort(), routeOptions.map((name) => `\`${name}\``).sort(), 'each once, and no others')
  const valuesOf = (name: string): string[] => namesIn(rows.find(([option]) => option === `\`${name}\``)![2]!)
  t.same(valuesOf('protocols').sort(), [...protocolNames].sort())
  t.same(valuesOf('framings').sort(), [...framingNames].sort())
  t.end()
})

t.test('what identify returns', (t) => {
  t.same(tablesOf(page, 'part of the result').flat().map(([part]) => part).sort(), identityParts.map((name) => `\`${name}\``).sort())
  t.end()
})

/** As the error says that a value is outside of it. */
function rangeOf (name: string): string {
  try {
    readHubOptions({ [name]: -1 })
  } catch (error) {
    if (error instanceof errors.FST_RELAY_OPTION) return /a whole number from (\d+ to \d+)/.exec(error.message)![1]!
  }
  throw new Error(`${name} may be -1`)
}
