import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'

/** A TCP port of 127.0.0.1 that nobody listens on. */
export async function freePort (): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

/** Whether a UDP port can be taken. */
export async function isFree ({ address, port }: AddressInfo): Promise<boolean> {
  const socket = createSocket('udp4')
  const bound = await new Promise<boolean>((resolve) => {
    socket.on('error', () => resolve(false))
    socket.bind({ port, address, exclusive: true }, () => resolve(true))
  })
  await new Promise<void>((resolve) => { socket.close(resolve) })
  return bound
}
