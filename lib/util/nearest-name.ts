/**
 * Returns the candidate that a misspelled name probably means. It is at most one slip away, or two if the candidate has more than
 * five characters. A slip is a missing, extra or wrong character, or two swapped neighbours. Case is ignored.
 * @returns the nearest candidate, or undefined if none is near enough
 */
export function nearestName (name: string, candidates: Iterable<string>): string | undefined {
  let nearest: string | undefined
  let least = Infinity
  for (const candidate of candidates) {
    const limit = candidate.length > 5 ? 2 : 1
    if (Math.abs(candidate.length - name.length) > limit) continue
    const slips = distance(name.toLowerCase(), candidate.toLowerCase())
    if (slips > limit || slips >= least) continue
    nearest = candidate
    least = slips
  }
  return nearest
}

/** Returns the edit distance, including swaps of neighbours (optimal string alignment). */
function distance (a: string, b: string): number {
  let beforeLast: number[] = []
  let last = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const isSame = a[i - 1] === b[j - 1]
      let slips = Math.min(last[j]! + 1, row[j - 1]! + 1, last[j - 1]! + (isSame ? 0 : 1))
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) slips = Math.min(slips, beforeLast[j - 2]! + 1)
      row.push(slips)
    }
    beforeLast = last
    last = row
  }
  return last[b.length]!
}
