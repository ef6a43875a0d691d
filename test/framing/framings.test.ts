import t from 'tap'
import { datagramFramings, framingNames, framingOf, framingsByName } from '../../lib/framing/framings.ts'

t.test('each framing stands under its own name, and raw is none', (t) => {
  for (const name of datagramFramings) {
    t.equal(framingsByName[name].name, name)
    t.equal(framingOf(name), framingsByName[name])
  }
  t.equal(framingOf('raw'), undefined)
  t.same(framingNames, [...datagramFramings, 'raw'])
  t.end()
})
