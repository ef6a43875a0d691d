/** The maximum length, in UTF-16 code units, of client text in responses, log lines, events and counters. */
const MAX_LENGTH = 256

/**
 * Removes characters that could control a terminal from text that the other side sent: control characters (C0, DEL, C1), line
 * and paragraph separators, and bidirectional controls (Unicode Standard Annex 9, section 2).
 * @param maxLength the maximum length in UTF-16 code units. Default: 256. Longer text is cut and ends with an ellipsis.
 */
export function printable (text: string, maxLength = MAX_LENGTH): string {
  // Do not cut a surrogate pair in half.
  const cut = text.length > maxLength ? `${text.slice(0, maxLength - 1).replace(/[\ud800-\udbff]$/, '')}…` : text
  return cut.replace(/[\p{Cc}\u2028\u2029\p{Bidi_Control}]/gu, '')
}
