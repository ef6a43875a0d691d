/** What is shown of a text that a client has chosen, in answers, log lines, events and counters; in UTF-16 code units. */
const MAX_LENGTH = 256

/**
 * Takes out of text that came from the other side what a terminal would obey: control characters (C0, DEL, C1), line and
 * paragraph separators, and what turns the direction of writing (Unicode Standard Annex 9, section 2).
 * @param maxLength of the result, in UTF-16 code units; what is longer is cut, and ends with an ellipsis
 */
export function printable (text: string, maxLength = MAX_LENGTH): string {
  // Not between the halves of a surrogate pair.
  const cut = text.length > maxLength ? `${text.slice(0, maxLength - 1).replace(/[\ud800-\udbff]$/, '')}…` : text
  return cut.replace(/[\p{Cc}\u2028\u2029\p{Bidi_Control}]/gu, '')
}
