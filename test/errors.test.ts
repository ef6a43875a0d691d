import { readFileSync } from 'node:fs'
import t from 'tap'
import { errors } from '../lib/errors.ts'

const page = readFileSync(new URL('../docs/errors.md', import.meta.url), 'utf8')
const all = Object.entries(errors)

t.test('every error has its own code as name, and a message', (t) => {
  for (const [code, RelayError] of all) {
    const error = new RelayError(...([1, 2, 3] as unknown as [never, never, never]))
    t.equal(error.code, code)
    t.ok(error.message)
    t.notMatch(error.message, '%')
    t.match(code, /^FST_RELAY_[A-Z0-9_]+$/)
  }
  t.end()
})

t.test('docs/errors.md has one line for each code, with its status, and knows no others', (t) => {
  // | `CODE` | status | what it means |
  const rows = [...page.matchAll(/^\| *`(FST_RELAY_\w+)` *\| *([^|]*?) *\|/gm)].map(([, code, status]) => [code!, status!] as const)
  t.same(rows.map(([code]) => code).sort(), all.map(([code]) => code).sort())
  for (const [code, status] of rows) {
    const RelayError = errors[code as keyof typeof errors]
    const { statusCode } = new RelayError(...([] as unknown as [never, never, never]))
    if (/^\d/.test(status)) t.equal(Number.parseInt(status), statusCode, `status of ${code}`)
  }
  const unknown = [...page.matchAll(/FST_RELAY_[A-Z0-9_]+/g)].map(([code]) => code).filter((code) => !(code in errors))
  t.same(unknown, [])
  t.end()
})
