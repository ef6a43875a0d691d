import { fileURLToPath } from 'node:url'
import t from 'tap'
import { Program } from '../helpers/program.ts'

// A short run of `npm run soak`, over the built package.

const script = fileURLToPath(new URL('../../scripts/soak.js', import.meta.url))

t.test('a relay under tunnels that come, talk, stall, break and come back delivers rightly, and is afterwards as it was', async (t) => {
  const program = new Program(process.execPath, ['--no-warnings', script, '--seconds', '12', '--tunnels', '300'], { name: 'soak' })
  t.teardown(() => program.stop('SIGKILL'))
  const code = await program.end(55_000)
  t.comment(program.lines.at(-1))
  t.equal(code, 0, program.output)
})
