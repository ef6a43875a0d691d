import { http1Attacks } from './attacks-http1.ts'
import { http2Attacks } from './attacks-http2.ts'
import { tlsAttacks } from './attacks-tls.ts'
import type { Place } from './peer.ts'

// The attacker of a siege, as a process of its own, with one address. It attacks for as long as its parent says.

const ADDRESS = '127.0.0.2'

const attacks = { ...http1Attacks, ...http2Attacks, ...tlsAttacks }

// Its parent may have ended.
process.on('disconnect', () => process.exit())

process.on('message', async ({ place, name, milliseconds }: { place: Place, name: string, milliseconds: number }) => {
  let count = 0
  const over = new AbortController()
  // Each connection listens.
  process.setMaxListeners(0)
  const timer = setTimeout(() => over.abort(), milliseconds)
  await attacks[name]!({
    place,
    from: ADDRESS,
    isOver: () => over.signal.aborted,
    counted: (times = 1) => { count += times },
    signal: over.signal
  })
  clearTimeout(timer)
  process.send!({ count })
})
// An attack breaks what it likes, its own connections as well.
process.on('uncaughtException', () => {})
process.on('unhandledRejection', () => {})
