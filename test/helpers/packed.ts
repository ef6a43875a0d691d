import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { plainEnvironment } from './program.ts'

export const ROOT = fileURLToPath(new URL('../..', import.meta.url))

export const manifest = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))

/** The package as npm packs what is built, in a folder of its own, beside only what npm would install with it. */
export class PackedPackage {
  /** A project that has installed the package. */
  readonly folder = mkdtempSync(join(tmpdir(), 'spanza-package-'))
  readonly installed = join(this.folder, 'node_modules', manifest.name)
  /** Paths within the package. */
  readonly paths: string[]

  constructor () {
    // Without its scripts: they would build dist/ anew under the feet of other tests.
    const packed = execFileSync('npm', ['pack', '--ignore-scripts', '--json', '--pack-destination', this.folder], {
      cwd: ROOT, env: plainEnvironment, encoding: 'utf8'
    })
    const [{ filename, files }] = JSON.parse(packed) as [{ filename: string, files: Array<{ path: string }> }]
    this.paths = files.map(({ path }) => path)
    // A copy, not a link: TypeScript looks for types from a file's real path upwards, and would find the project's own.
    mkdirSync(this.installed, { recursive: true })
    execFileSync('tar', ['-xzf', join(this.folder, filename), '--strip-components=1', '-C', this.installed])
    // Nothing of the development dependencies but the types of Node.
    for (const name of [...Object.keys(manifest.dependencies), ...Object.keys(manifest.peerDependencies), '@types/node']) {
      const link = join(this.folder, 'node_modules', name)
      mkdirSync(dirname(link), { recursive: true })
      symlinkSync(join(ROOT, 'node_modules', name), link)
    }
  }

  remove (): void {
    rmSync(this.folder, { recursive: true, force: true })
  }
}
