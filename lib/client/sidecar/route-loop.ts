import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { lookup } from 'node:dns/promises'
import { access, readFile } from 'node:fs/promises'
import { networkInterfaces } from 'node:os'

/** A WireGuard interface that the route to the relay leads into. */
export interface LoopInfo {
  /** Its name, such as `wg0`. */
  interface: string
  /** This machine's address on it. */
  address: string
}

/** The host and port that a connection goes to, and the address it comes from. */
export interface RouteEnds {
  hostname: string
  port: number
  localAddress: string | undefined
}

/**
 * The WireGuard interface that the system's route to a host leads into, if there is one. It sends nothing: connecting a UDP
 * socket makes the system choose a source address, which tells the interface.
 */
export async function findRouteLoop (ends: RouteEnds): Promise<LoopInfo | undefined> {
  const found = await lookup(ends.hostname, { all: true }).catch(() => [])
  for (const { address, family } of found) {
    const source = await sourceAddress(ends, address, family === 6)
    const name = source === undefined ? undefined : interfaceOf(source)
    if (name !== undefined && await isWireGuard(name)) return { interface: name, address: source! }
  }
}

/** Undefined where there is no route. */
async function sourceAddress ({ port, localAddress }: RouteEnds, address: string, isIPv6: boolean): Promise<string | undefined> {
  const socket = createSocket(isIPv6 ? 'udp6' : 'udp4')
  try {
    if (localAddress !== undefined) {
      socket.bind(0, localAddress)
      await once(socket, 'listening')
    }
    socket.connect(port, address)
    await once(socket, 'connect')
    return socket.address().address
  } catch {
    return undefined
  } finally {
    socket.close()
  }
}

function interfaceOf (address: string): string | undefined {
  return Object.entries(networkInterfaces()).find(([, addresses]) => addresses?.some((each) => each.address === address))?.[0]
}

/** Whether it is one of the kernel's, or of a userspace program: those create a socket with the interface's name. */
async function isWireGuard (name: string): Promise<boolean> {
  const event = await readFile(`/sys/class/net/${name}/uevent`, 'utf8').catch(() => '')
  if (/^DEVTYPE=wireguard$/m.test(event)) return true
  return await access(`/var/run/wireguard/${name}.sock`).then(() => true, () => false)
}
