import { randomBytes } from 'node:crypto'

/** A WireGuard message of this type and size, with random content; `mark` can be found again at its end. */
export function wireguardMessage (type: 1 | 2 | 3 | 4, size: number = [0, 148, 92, 64, 128][type]!, mark = 0): Buffer {
  const message = randomBytes(size)
  message.writeUInt32LE(type, 0)
  message[size - 1] = mark
  return message
}

/** Datagrams of every kind and of sizes from 1 to 65535 bytes. */
export function assortedDatagrams (): Buffer[] {
  return [
    wireguardMessage(1), wireguardMessage(2), wireguardMessage(3),
    wireguardMessage(4, 32), wireguardMessage(4, 33), wireguardMessage(4, 1452), wireguardMessage(4, 65535),
    Buffer.from([0]), Buffer.from([4, 0, 0, 0]), randomBytes(31), randomBytes(1500), randomBytes(65535),
    // Cloudflare WARP writes into the reserved bytes.
    Buffer.concat([Buffer.from([4, 1, 2, 3]), randomBytes(100)])
  ]
}
