import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Namespace } from './namespace.ts'

/**
 * Does in a namespace what `wg-quick up wg0` does for a configuration without a default route. wg-quick itself would leave
 * wireguard-go behind as a daemon; here it ends with the namespace.
 */
export async function wgQuickUp (namespace: Namespace, config: string): Promise<void> {
  const wireguard = namespace.start('wireguard-go', ['--foreground', 'wg0'], { env: { LOG_LEVEL: 'verbose' } })
  await wireguard.line((line) => line.includes('UAPI listener started'), 10_000)
  const directory = mkdtempSync(join(tmpdir(), 'spanza-wg-'))
  try {
    const file = join(directory, 'wg0.conf')
    writeFileSync(file, config, { mode: 0o600 })
    const stripped = await namespace.run('wg-quick', ['strip', file])
    // Behind a pipe, since Node's stdin for a child is a socket, which cannot be opened by its name.
    await namespace.run('sh', ['-c', 'cat | wg setconf wg0 /dev/stdin'], { input: stripped })
  } finally {
    rmSync(directory, { recursive: true })
  }
  for (const address of valuesOf(config, 'Address')) await namespace.run('ip', ['address', 'add', address, 'dev', 'wg0'])
  for (const mtu of valuesOf(config, 'MTU')) await namespace.run('ip', ['link', 'set', 'wg0', 'mtu', mtu])
  await namespace.run('ip', ['link', 'set', 'wg0', 'up'])
  // wg-quick leaves out what an address has brought along already.
  for (const range of valuesOf(config, 'AllowedIPs')) await namespace.run('ip', ['route', 'replace', range, 'dev', 'wg0'])
}

/** The values of one key, which may stand on several lines, or on one line with commas. */
function valuesOf (config: string, key: string): string[] {
  return [...config.matchAll(new RegExp(`^${key} *= *(.+)$`, 'gm'))].flatMap(([, value]) => value!.split(',').map((part) => part.trim()))
}

/** A key pair, in the form of `wg genkey` and `wg pubkey`. */
export async function wgKeys (namespace: Namespace): Promise<{ privateKey: string, publicKey: string }> {
  const privateKey = (await namespace.run('wg', ['genkey'])).trim()
  const publicKey = (await namespace.run('wg', ['pubkey'], { input: privateKey })).trim()
  return { privateKey, publicKey }
}
