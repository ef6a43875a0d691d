/** The bytes of `text` up to `limit`, never cut inside a character. */
export function utf8Prefix (text: string, limit: number): Buffer {
  const bytes = Buffer.alloc(limit)
  const { written } = new TextEncoder().encodeInto(text, bytes)
  return bytes.subarray(0, written)
}
