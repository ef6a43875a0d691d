import t from 'tap'
import { Identity } from '../../../lib/hub/packet/identity.ts'

const LIFETIME = 240_000
const PENDING = 15_000

function identity (name = 'x'): Identity {
  return new Identity(name, true, undefined)
}

t.test('what goes to an identity is summed up over its sessions, as long as there is one', async (t) => {
  const { sessions } = identity()
  const [b, c] = [identity('b'), identity('c')]
  sessions.install(1, b, 0)
  sessions.install(2, c, 0)
  sessions.lookUp(1, 0, 1000)
  sessions.install(3, b, 100_000)
  sessions.lookUp(1, 100_000, 100)
  sessions.lookUp(3, 100_000, 10)
  sessions.lookUp(2, 100_000, 5)
  sessions.peek(3, 100_000)
  t.same([...sessions.traffic()], [[b, 1110], [c, 5]])
  sessions.sweep(LIFETIME)
  t.same([...sessions.traffic()], [[b, 1110]])
  sessions.sweep(100_000 + LIFETIME)
  t.same([...sessions.traffic()], [])
  sessions.install(4, b, 400_000)
  t.same([...sessions.traffic()], [[b, 0]])
})

t.test('a session leads to its identity until 240 s after the handshake', async (t) => {
  const { sessions } = identity()
  const b = identity()
  sessions.install(7, b, 1000)
  t.equal(sessions.lookUp(7, 1000), b)
  t.equal(sessions.lookUp(7, 1000 + LIFETIME - 1), b)
  t.equal(sessions.lookUp(7, 1000 + LIFETIME), undefined)
  t.equal(sessions.lookUp(8, 1000), undefined)
})

t.test('use does not prolong a session', async (t) => {
  const { sessions } = identity()
  sessions.install(7, identity(), 0)
  for (let now = 0; now < LIFETIME; now += 1000) t.ok(sessions.lookUp(7, now))
  t.equal(sessions.lookUp(7, LIFETIME), undefined)
})

t.test('a session of one who has left for good leads nowhere', async (t) => {
  const { sessions } = identity()
  const b = identity()
  sessions.install(7, b, 0)
  b.remove()
  t.equal(sessions.lookUp(7, 1), undefined)
  t.equal(sessions.sweep(1), false)
  t.equal(sessions.size, 0)
})

t.test('of a pair\'s sessions the eight used last are kept', async (t) => {
  const { sessions } = identity()
  const [b, c] = [identity(), identity()]
  sessions.install(100, c, 0)
  for (let index = 0; index < 8; index++) sessions.install(index, b, 0)
  t.equal(sessions.lookUp(0, 1), b)
  sessions.peek(1, 1)
  sessions.install(8, b, 1)
  t.equal(sessions.size, 9)
  t.equal(sessions.lookUp(1, 1), undefined, 'the least recently used; to be looked at is no use')
  for (const index of [0, 2, 3, 4, 5, 6, 7, 8]) t.equal(sessions.lookUp(index, 1), b)
  t.equal(sessions.lookUp(100, 1), c, 'and none of another pair')
})

t.test('a session of the same index takes the place of the older', async (t) => {
  const { sessions } = identity()
  const b = identity()
  for (let index = 0; index < 8; index++) sessions.install(index, b, 0)
  sessions.install(3, b, 5000)
  t.equal(sessions.size, 8)
  t.equal(sessions.lookUp(3, LIFETIME + 1), b)
})

t.test('an identity has at most 1,024 sessions', async (t) => {
  const { sessions } = identity()
  for (let index = 0; index < 1024; index++) sessions.install(index, identity(), 0)
  t.ok(sessions.lookUp(0, 1))
  sessions.install(5000, identity(), 1)
  t.equal(sessions.size, 1024)
  t.ok(sessions.lookUp(0, 1))
  t.equal(sessions.lookUp(1, 1), undefined)
  t.ok(sessions.lookUp(5000, 1))
})

t.test('sweeping takes what has expired and tells whether anything is left', async (t) => {
  const { sessions } = identity()
  sessions.install(1, identity(), 0)
  sessions.install(2, identity(), 1000)
  t.equal(sessions.sweep(LIFETIME), true)
  t.equal(sessions.size, 1)
  t.equal(sessions.sweep(LIFETIME + 1000), false)
})

t.test('a pending initiation names its sender for 15 s', async (t) => {
  const [a, b] = [identity(), identity()]
  b.pending.add(7, a, 1000)
  t.equal(b.pending.senderOf(7, 1000 + PENDING - 1), a)
  t.equal(b.pending.senderOf(7, 1000 + PENDING), undefined)
  t.equal(b.pending.senderOf(8, 1000), undefined)
})

t.test('a pending of one destination is used up without touching the others', async (t) => {
  const [a, b, c] = [identity(), identity(), identity()]
  b.pending.add(7, a, 0)
  c.pending.add(7, a, 0)
  b.pending.remove(7)
  t.equal(b.pending.senderOf(7, 0), undefined)
  t.equal(c.pending.senderOf(7, 0), a)
})

t.test('of one sender\'s pendings the 256 newest are kept, wherever they went', async (t) => {
  const a = identity()
  const destinations = Array.from({ length: 4 }, () => identity())
  const other = identity()
  destinations[0]!.pending.add(9999, other, 0)
  for (let index = 0; index < 64; index++) {
    for (const destination of destinations) destination.pending.add(index, a, 0)
  }
  destinations[2]!.pending.add(64, a, 0)
  t.equal(destinations[0]!.pending.senderOf(0, 0), undefined, 'the oldest')
  t.equal(destinations[1]!.pending.senderOf(0, 0), a)
  t.equal(destinations[2]!.pending.senderOf(64, 0), a)
  t.equal(destinations[0]!.pending.senderOf(9999, 0), other, 'that of another sender')
})

t.test('a repeated initiation does not count twice', async (t) => {
  const [a, b, c] = [identity(), identity(), identity()]
  c.pending.add(1, a, 0)
  for (let i = 0; i < 1000; i++) b.pending.add(7, a, i)
  t.equal(c.pending.senderOf(1, 0), a)
  t.equal(b.pending.senderOf(7, 999 + PENDING - 1), a, 'and lives from the last one')
})

t.test('pendings that have expired make room for new ones', async (t) => {
  const [a, b] = [identity(), identity()]
  b.pending.add(0, a, 0)
  b.pending.sweep(PENDING - 1)
  t.equal(b.pending.senderOf(0, 1), a)
  b.pending.sweep(PENDING)
  t.equal(b.pending.senderOf(0, 1), undefined)
})

t.test('those that were sent to one who has left expire, too', async (t) => {
  const [a, b, c] = [identity(), identity(), identity()]
  c.pending.add(1, a, 0)
  for (let index = 0; index < 255; index++) b.pending.add(index, a, 0)
  b.remove()
  c.pending.add(2, a, 1)
  t.equal(c.pending.senderOf(1, 1), a, 'they do not take the place of others')
})
