/** Whether the relay's own counters agree with each other and with what the clients saw, when nobody is there. */

const sum = (counts) => Object.values(counts).reduce((total, count) => total + count, 0)

/**
 * @param stats `relayHub.stats()`, and `copies`: what initiations to several receivers were more than one
 * @param dialer what the clients saw
 * @returns lines that say what is wrong
 */
export function auditCounters (stats, dialer) {
  const wrong = []
  const check = (holds, text) => { if (!holds) wrong.push(text) }
  const { attached, detached, refused, datagramsIn, datagramsOut, drops, copies } = stats
  const { attempts, tunnels, abandoned } = dialer

  check(attached === sum(detached), `${attached} attached, ${sum(detached)} detached`)
  check(datagramsIn + copies === datagramsOut + sum(drops),
    `datagrams: ${datagramsIn} in and ${copies} more copies, but ${datagramsOut} out and ${sum(drops)} drops`)

  // What a client has not waited for may have been counted as anything.
  const isWithin = (counted, seen) => counted >= seen && counted <= seen + abandoned
  check(isWithin(attached, tunnels), `${attached} attached, ${tunnels} seen by clients, ${abandoned} abandoned`)
  check(isWithin(attempts, attached + sum(refused)), `${attempts} handshakes, but ${attached} attached and ${sum(refused)} refused`)
  for (const code of new Set([...Object.keys(refused), ...Object.keys(dialer.refused)])) {
    const counted = refused[code] ?? 0
    const seen = dialer.refused[code] ?? 0
    check(isWithin(counted, seen), `refusals with ${code}: ${counted} counted, ${seen} seen by clients, ${abandoned} abandoned`)
  }
  return wrong
}

/** What is more than it was before, as lines. */
export function auditTables (now, before) {
  const wrong = []
  for (const [name, value] of Object.entries(now)) {
    if (typeof value === 'object') wrong.push(...auditTables(value, before[name] ?? {}))
    else if (value > (before[name] ?? 0)) wrong.push(`${name}: ${value}, was ${before[name] ?? 0}`)
  }
  return wrong
}
