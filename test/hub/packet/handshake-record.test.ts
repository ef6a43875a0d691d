import t from 'tap'
import { HandshakeRecord } from '../../../lib/hub/packet/handshake-record.ts'

/** Fails so often, every 5 s as WireGuard does. @returns the times of those that were to be told */
function failEvery5s (record: HandshakeRecord, count: number, to: string | undefined, begin = 0): number[] {
  const told = []
  for (let i = 0; i < count; i++) {
    const now = begin + 5000 * i
    if (record.failed(to === undefined ? 'no-responder' : 'unanswered', to, 1, now) !== undefined) told.push(now)
  }
  return told
}

t.test('three in a row are a fault, which is told once in five minutes', async (t) => {
  t.same(failEvery5s(new HandshakeRecord(), 100, undefined), [10_000, 310_000])
})

t.test('many at once are none: the answer may be on its way', async (t) => {
  const record = new HandshakeRecord()
  for (let i = 0; i < 1000; i++) t.equal(record.failed('unanswered', 'b', 1, i), undefined)
  t.same(record.faults(1000), [])
})

t.test('those that are a minute apart are not in a row', async (t) => {
  const record = new HandshakeRecord()
  for (let i = 0; i < 10; i++) t.equal(record.failed('no-responder', undefined, 1, 61_000 * i), undefined)
})

t.test('of several faults each is told, but not within five seconds of another', async (t) => {
  const record = new HandshakeRecord()
  const told = []
  for (let i = 0; i < 10; i++) {
    for (const to of ['b', 'c', 'd']) {
      const fault = record.failed('unanswered', to, 1, 5000 * i)
      if (fault !== undefined) told.push([fault.id, 5000 * i])
    }
  }
  t.same(told, [['b', 10_000], ['c', 15_000], ['d', 20_000]])
})

t.test('an answer ends the faults with that peer, and is news after one that was told', async (t) => {
  const record = new HandshakeRecord()
  t.same(failEvery5s(record, 3, 'b'), [10_000])
  failEvery5s(record, 3, 'c')
  t.match(record.faults(10_000).map(({ id, count }) => [id, count]), [['b', 3], ['c', 3]])
  t.same(record.answered('b', false, 20_000), { isOver: true, isNews: true })
  t.match(record.faults(20_000).map(({ id }) => id), ['c'])
  t.same(record.answered('b', false, 140_000), { isOver: false, isNews: false })
  t.same(failEvery5s(record, 3, 'b', 200_000), [210_000], 'a fault again')
  t.same(record.answered('c', false, 212_000), { isOver: false, isNews: false }, 'not within five seconds of another')
  t.same(record.answered('c', false, 332_000), { isOver: false, isNews: true }, 'but the next time')
})

t.test('a new tunnel is told everything again', async (t) => {
  const record = new HandshakeRecord()
  failEvery5s(record, 3, 'b')
  record.answered('c', false, 15_000)
  record.restart()
  t.same(record.faults(20_000), [])
  t.same(failEvery5s(record, 3, 'b', 20_000), [30_000])
  t.same(record.answered('c', false, 140_000), { isOver: false, isNews: true })
})

t.test('counts what was sent and answered', async (t) => {
  const record = new HandshakeRecord()
  t.equal(record.sent('b'), false)
  t.equal(record.sent('b'), true, 'the one before was not answered')
  record.answered('b', false, 0)
  t.equal(record.sent('b'), false)
  record.sent(undefined)
  record.sent(undefined)
  record.answered('keyless', true, 0)
  record.completed('who began')
  t.match(record.handshakes(), [
    { id: 'who began', sent: 0, answered: 0, unanswered: 0, lastAt: Date },
    { id: undefined, sent: 2, answered: 1, unanswered: 0, lastAt: undefined },
    { id: 'keyless', sent: 1, answered: 1, unanswered: 0, lastAt: Date },
    { id: 'b', sent: 3, answered: 1, unanswered: 1, lastAt: Date }
  ])
  t.equal(record.last!.id, 'who began')
})

t.test('holds 16 peers and 32 faults, whatever happens', async (t) => {
  const record = new HandshakeRecord()
  for (let round = 0; round < 4; round++) {
    for (let i = 0; i < 1000; i++) {
      record.sent(`peer ${i}`)
      record.failed('unanswered', `peer ${i % 40}`, 1, 5000 * round)
    }
    record.sent('peer 7')
  }
  t.equal(record.handshakes().length, 16)
  t.equal(record.handshakes()[0]!.id, 'peer 7', 'those that were used last')
  t.ok(record.faults(20_000).length <= 32)
})

t.test('a fault is shown for ten minutes', async (t) => {
  const record = new HandshakeRecord()
  failEvery5s(record, 3, 'b')
  t.equal(record.faults(609_000).length, 1)
  t.equal(record.faults(611_000).length, 0)
})
