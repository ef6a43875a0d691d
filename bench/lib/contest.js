const ROUNDS = 5

/**
 * Measures every contender once a round, each round beginning with another one.
 * @param contenders names
 * @param measure gives figures by name
 * @param warmUp whether there is a first round that does not count
 * @returns for each contender the figures of all rounds
 */
export async function contest (contenders, measure, { warmUp = true } = {}) {
  const figures = Object.fromEntries(contenders.map((name) => [name, []]))
  for (let round = warmUp ? 0 : 1; round <= ROUNDS; round++) {
    for (let i = 0; i < contenders.length; i++) {
      const name = contenders[(i + round) % contenders.length]
      const measured = await measure(name)
      if (round > 0) figures[name].push(measured)
    }
  }
  return figures
}

export function median (values) {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = Math.floor(sorted.length / 2)
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}
