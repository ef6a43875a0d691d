import { EventEmitter } from 'node:events'
import t from 'tap'
import { exitCodes } from '../../lib/cli/exit-codes.ts'
import { help } from '../../lib/cli/help.ts'
import { reportJson } from '../../lib/cli/report.ts'
import { sidecarMetrics } from '../../lib/cli/sidecar-metrics.ts'
import { errors, UdpSidecar, type SidecarEvents } from '../../lib/client/index.ts'
import { namesIn, readPage, tablesOf } from '../helpers/markdown.ts'

// docs/command.md against `spanza --help`, and against what the command prints.

const page = readPage('docs/command.md')

t.test('options are those of --help, with their values', (t) => {
  const offered = [...help.split('\nExit codes:')[0]!.matchAll(/^ {2}(?:(-\w), )?(--[\w-]+)(?: (<[^>]+>))?/gm)]
    .flatMap(([, short, name, value]) => [value === undefined ? name! : `${name} ${value}`, ...(short === undefined ? [] : [short])])
  const documented = tablesOf(page, 'option').flat().flatMap(([option]) => namesIn(option!))
  t.same(documented.sort(), offered.sort())
  t.end()
})

t.test('defaults are those of --help', (t) => {
  const lines = help.replaceAll(/\n {10,}/g, ' ').split('\n')
  for (const [option, fallback] of tablesOf(page, 'option').flat()) {
    const [name = ''] = namesIn(option!)
    const said = /\(default ([^)]+)\)/.exec(lines.find((line) => line.includes(`  ${name.split(' ')[0]} `)) ?? '')
    if (said !== null) t.equal(fallback, said[1], name)
  }
  t.end()
})

t.test('exit codes', (t) => {
  const documented = tablesOf(page, 'code', 'when').flat().map(([code]) => Number(code))
  t.same(documented, Object.values(exitCodes))
  const [, offered = ''] = help.split('\nExit codes:\n')
  t.same(documented, [...offered.matchAll(/^ {2}(\d) /gm)].map(([, code]) => Number(code)))
  t.end()
})

t.test('JSON events, and their fields', (t) => {
  const error = Object.assign(errors.FST_RELAY_REFUSED('The relay', 503, 'no'), { statusCode: 503, answeredBy: 'relay', relayCode: 'X', retryAfter: 5 })
  const samples: { [Name in keyof SidecarEvents]: SidecarEvents[Name][0] } = {
    listening: { address: '127.0.0.1', port: 1, family: 'IPv4' },
    connect: { framing: 'wg', url: '' },
    fallback: { protocol: 'websocket', text: '', error },
    oversized: { size: 1, limit: 1 },
    lost: { reason: 'lost', text: '', retryIn: 1, cutAfterSilence: 1 },
    retry: { error, text: '', retryIn: 1 },
    drain: { afterMs: 1 },
    loop: { interface: 'wg0', address: '10.0.0.1' },
    notice: { code: 1, name: 'answered', text: '' },
    stop: { text: '', reason: 'lost', error }
  }
  const written: Record<string, string[]> = {}
  const sidecar = new EventEmitter()
  reportJson(sidecar as UdpSidecar, (line) => {
    const { event, time, ...fields } = JSON.parse(line)
    t.ok(Date.parse(time))
    written[event] = Object.keys(fields)
  })
  for (const [name, sample] of Object.entries(samples)) sidecar.emit(name, sample)
  // The command itself writes this one.
  written['metrics'] = ['url']

  const rows = tablesOf(page, 'event', 'when', 'fields').flat()
  t.same(rows.map(([event]) => namesIn(event!)[0]).sort(), Object.keys(written).sort())
  const ofError = ['code', 'statusCode', 'answeredBy', 'relayCode', 'retryAfter']
  for (const [event, , fields] of rows) {
    const expected = [...namesIn(fields!), ...(fields!.endsWith('those of an error') ? ofError : [])]
    t.same(expected.sort(), written[namesIn(event!)[0]!]!.sort(), event!)
  }
  t.end()
})

t.test('metrics', (t) => {
  const text = sidecarMetrics(new UdpSidecar({ url: 'http://localhost' }).stats)
  const written = [...text.matchAll(/^# TYPE (\S+ \S+)$/gm)].map(([, family]) => family!)
  const documented = tablesOf(page, '`spanza_sidecar_…`').flat().map(([name, type]) => `spanza_sidecar_${namesIn(name!)[0]} ${type}`)
  t.same(documented.sort(), written.sort())
  t.end()
})
