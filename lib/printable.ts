/**
 * Takes out of text that came from the other side what a terminal would obey: control characters (C0, DEL, C1), line and
 * paragraph separators, and what turns the direction of writing (Unicode Standard Annex 9, section 2).
 */
export function printable (text: string): string {
  return text.replace(/[\p{Cc}\u2028\u2029\p{Bidi_Control}]/gu, '')
}
