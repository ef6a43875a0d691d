import { fileURLToPath } from 'node:url'
import t from 'tap'
import { Program } from '../helpers/program.ts'

// A short run of `npm run soak`, over the built package.

const script = fileURLToPath(new URL('../../scripts/soak.js', import.meta.url))

t.setTimeout(120_000) // It takes 40 s where little else runs.

t.test('a relay under tunnels that come, talk, stall, break and come back delivers rightly, and is afterwards as it was', { timeout: 120_000 }, async (t) => {
  const program = new Program(process.execPath, ['--no-warnings', script, '--seconds', '12', '--tunnels', '300'], { name: 'soak' })
  t.teardown(() => program.stop('SIGKILL'))
  const code = await program.end(110_000)
  t.comment(program.lines.at(-1))
  t.equal(code, 0, program.output)
})
