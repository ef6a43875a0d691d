import { readFileSync } from 'node:fs'
import t from 'tap'
import { noticeNameOf, notices } from '../../lib/framing/notices.ts'

t.test('each code has one name, and both are documented', async (t) => {
  const text = readFileSync(new URL('../../docs/troubleshooting.md', import.meta.url), 'utf8')
  const documented = [...text.matchAll(/^\| (\d+) \| `([\w-]+)` \|$/gm)].map(([, code, name]) => [name, Number(code)])
  t.same(documented, Object.entries(notices))
  for (const [name, code] of Object.entries(notices)) t.equal(noticeNameOf(code), name)
  t.equal(noticeNameOf(0), undefined)
  t.equal(noticeNameOf(65535), undefined)
})
