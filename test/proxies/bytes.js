import { createHash } from 'node:crypto'

/** What comes out of a stream, until it is so many bytes; what it still has to send goes on. */
export async function chunksOf (stream, length) {
  const chunks = []
  let missing = length
  for await (const chunk of stream.iterator({ destroyOnReturn: false })) {
    chunks.push(chunk)
    missing -= chunk.length
    if (missing <= 0) break
  }
  return chunks
}

export function sha256 (chunks) {
  const hash = createHash('sha256')
  for (const chunk of chunks) hash.update(chunk)
  return hash.digest('hex')
}
