import { generateKeyPairSync } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { succeedsInside } from './namespace.js'
import { folder, hasProgram } from './programs.js'

/** Says why there is no WireGuard here; undefined if there is. */
export async function missingForWireGuard () {
  if (!hasProgram('wg')) return 'needs wg'
  if (await succeedsInside('ip', 'link', 'add', 'wg0', 'type', 'wireguard')) return
  if (!hasProgram('wireguard-go')) return 'needs WireGuard in the kernel, or wireguard-go'
  if (!await succeedsInside('ip', 'tuntap', 'add', 'tun0', 'mode', 'tun')) return 'needs WireGuard in the kernel, or /dev/net/tun for wireguard-go'
}

/** A host with WireGuard interfaces, of the kernel or of wireguard-go. They share one key. */
export class WireGuardHost {
  namespace
  publicKey
  /** Which WireGuard it is, once there is an interface. */
  implementation
  #keyFile

  constructor (namespace) {
    const { x, d } = generateKeyPairSync('x25519').privateKey.export({ format: 'jwk' })
    this.namespace = namespace
    this.publicKey = Buffer.from(x, 'base64url').toString('base64')
    this.#keyFile = join(folder, `key-${x}`)
    writeFileSync(this.#keyFile, Buffer.from(d, 'base64url').toString('base64'), { mode: 0o600 })
  }

  async addInterface (device, address, port) {
    await this.#createInterface(device)
    await this.namespace.run('wg', 'set', device, 'private-key', this.#keyFile, 'listen-port', String(port))
    await this.namespace.run('ip', 'address', 'add', address, 'dev', device)
    await this.namespace.run('ip', 'link', 'set', device, 'up')
  }

  /** @param endpoint where the peer is found; undefined to wait for it */
  async setPeer (device, { publicKey }, address, endpoint) {
    const where = endpoint === undefined ? [] : ['endpoint', endpoint]
    await this.namespace.run('wg', 'set', device, 'peer', publicKey, 'allowed-ips', `${address}/32`, ...where)
  }

  async #createInterface (device) {
    try {
      await this.namespace.run('ip', 'link', 'add', device, 'type', 'wireguard')
      this.implementation = 'of the kernel'
    } catch (error) {
      if (!hasProgram('wireguard-go')) throw error
      this.namespace.start(['wireguard-go', '--foreground', device])
      await this.#appearance(device)
      this.implementation = 'wireguard-go'
    }
  }

  /** Waits until a program that has just been started has made the interface. */
  async #appearance (device) {
    for (let i = 0; ; i++) {
      try {
        return await this.namespace.run('wg', 'show', device)
      } catch (error) {
        if (i === 100) throw error
        await sleep(50)
      }
    }
  }
}
