import { existsSync } from 'node:fs'
import t from 'tap'
import { namesIn, readPage, tablesOf } from '../helpers/markdown.ts'
import { fronts } from '../siege/siege.ts'

// docs/security.md says which test attacks which promise, and how many attacks a siege is made of.

const page = readPage('docs/security.md')

t.test('each promise is attacked, by tests that exist', (t) => {
  const rows = tablesOf(page, 'promise', 'attack').flat()
  const [, promises = ''] = page.split('## What the relay promises\n')
  const numbers = [...promises.split('\n## ')[0]!.matchAll(/^(\d+)\. /gm)].map(([, number]) => number!)
  t.ok(numbers.length > 0)
  t.same([...new Set(rows.map(([number]) => number!))], numbers)
  for (const file of rows.flatMap(([, , , test]) => namesIn(test!))) {
    t.ok(existsSync(new URL(`../hostile/${file}`, import.meta.url)), file)
  }
  t.end()
})

t.test('the number of attacks of a siege', (t) => {
  const [, said] = /in\s+each\s+of\s+(\d+)\s+ways/.exec(page)!
  t.equal(Number(said), Object.values(fronts).flat().length)
  t.end()
})
