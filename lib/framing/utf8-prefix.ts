/** Encodes `text`, cut to at most `limit` bytes between two characters. */
export function utf8Prefix (text: string, limit: number): Buffer {
  const bytes = Buffer.alloc(limit)
  const { written } = new TextEncoder().encodeInto(text, bytes)
  return bytes.subarray(0, written)
}
