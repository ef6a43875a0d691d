import t from 'tap'
import { constraintsText } from '../../lib/route/constraints-text.ts'
import { openBare, startApp } from '../helpers/relay-app.ts'

t.test('constraints have a text of their own, whatever their order', (t) => {
  t.equal(constraintsText(undefined), '')
  t.equal(constraintsText({}), '')
  t.equal(constraintsText({ version: '1.2.0', host: 'relay.example.com' }), ' host="relay.example.com" version="1.2.0"')
  t.equal(constraintsText({ host: /^relay\.(a|b)$/i }), ' host=/^relay\\.(a|b)$/i')
  t.equal(constraintsText({ version: ['1', 2, null, undefined, true, 5n, { b: 1, a: -0 }] }), ' version=["1",2,null,undefined,true,5n,{"a":-0,"b":1}]')
  t.equal(constraintsText({ version: Symbol.for('neutral') }), ' version=Symbol(neutral)')
  t.end()
})

t.test('values without a spelling are told apart, and are the same each time', (t) => {
  const looped: unknown[] = []
  looped.push(looped)
  const makers = [() => Symbol('x'), () => function x () {}, () => new Map([[1, 2]]), () => new (class Tenant {})()]
  for (const make of makers) {
    const [a, b] = [make(), make()]
    t.not(constraintsText({ x: a }), constraintsText({ x: b }))
    t.equal(constraintsText({ x: a }), constraintsText({ x: a }))
  }
  t.not(constraintsText({ x: 1 }), constraintsText({ x: '1' }))
  t.not(constraintsText({ x: '1" y="2' }), constraintsText({ x: '1', y: '2' }))
  t.match(constraintsText({ x: looped }), /^ x=\[object#\d+\]$/)
  t.end()
})

t.test('the scope of channels says them', async (t) => {
  const app = await startApp(t, (app) => {
    app.relay('/tunnel/:a', { constraints: { host: 'a.example.com' } })
    app.relay('/tunnel/:b', { constraints: { host: /^b\./ } })
  })
  await openBare(t, app, '/tunnel/x', { host: 'a.example.com' })
  await openBare(t, app, '/tunnel/x', { host: 'b.example.com' })
  t.same(app.relayHub.channels().map(({ scope }) => scope), ['/tunnel/:a host="a.example.com"', '/tunnel/:b host=/^b\\./'])
})
