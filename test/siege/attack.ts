import { once } from 'node:events'
import type { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Place } from './peer.ts'

/** What an attack is given. */
export interface Siege {
  readonly place: Place
  /** The attacker's one address. */
  readonly from: string
  isOver: () => boolean
  /** Notes a request, a frame, a connection: whatever the attack is made of. */
  counted: (times?: number) => void
  /** Aborted when time is up. */
  readonly signal: AbortSignal
}

/** Goes on until it is over; what it has opened it may leave to the end of its process. */
export type Attack = (siege: Siege) => Promise<void>

/** Runs `deed` again and again, so many at a time. */
export async function crowd (siege: Siege, deed: () => Promise<void>, size = 48): Promise<void> {
  await Promise.all(Array.from({ length: size }, async () => {
    while (!siege.isOver()) {
      const over = once(siege.signal, 'abort').catch(() => {})
      await Promise.race([deed().catch(() => sleep(5)), over])
    }
  }))
}

/** Keeps up to `most` connections open; those that the relay closes are opened again. */
export async function hold (siege: Siege, most: number, open: () => Promise<Socket>): Promise<void> {
  const held = new Set<Socket>()
  while (!siege.isOver()) {
    for (let i = 0; i < 50 && held.size < most; i++) {
      const socket = await open()
      siege.counted()
      held.add(socket)
      socket.on('close', () => held.delete(socket))
    }
    await sleep(10)
  }
  for (const socket of held) socket.destroy()
}
