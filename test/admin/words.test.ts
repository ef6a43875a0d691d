import { readFileSync } from 'node:fs'
import t from 'tap'
import { detachReasons } from '../../lib/tunnel/close-reasons.ts'
import { dropReasons } from '../../lib/hub/counters.ts'

const { wordsOfDrop, wordsOfEnd, wordsOfRefusal } = await import(new URL('../../lib/admin/page/words.js', import.meta.url).href)

/** The codes that a client may be answered in the handshake: those with a status, but for those of the admin scope. */
const refusals = [...readFileSync(new URL('../../docs/errors.md', import.meta.url), 'utf8').matchAll(/^\| `(FST_RELAY_(?!ADMIN_)\w+)` \| \d/gm)].map(([, code]) => code!)

t.test('the page has words for each reason to drop a datagram, to end a tunnel, and to refuse a handshake', (t) => {
  for (const reason of dropReasons) t.not(wordsOfDrop(reason), reason, reason)
  for (const reason of detachReasons) t.not(wordsOfEnd(reason), reason, reason)
  t.ok(refusals.length > 20)
  for (const code of refusals) t.not(wordsOfRefusal(code), code, code)
  t.end()
})

t.test('what it has no words for is shown as it is, and so is the status that a hook has answered', (t) => {
  t.equal(wordsOfDrop('something-new'), 'something-new')
  t.equal(wordsOfRefusal('FST_RELAY_SOMETHING_NEW'), 'FST_RELAY_SOMETHING_NEW')
  t.equal(wordsOfRefusal('401'), 'a hook of the app refused: not authenticated')
  t.equal(wordsOfRefusal('418'), 'a hook of the app refused')
  t.end()
})
