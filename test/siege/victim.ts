import type { ClientHttp2Session } from 'node:http2'
import type { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { encode, nextChunk, openSession, openTunnel, openTunnelOn, type Place } from './peer.ts'

// The victim of a siege, as a process of its own: twenty times a second it opens a tunnel to a peer that waits, and sends
// it a datagram, which comes back. It is told by its parent when to begin and when to stop.

const TRIES_PER_SECOND = 20
/** Tries under way at once have a channel each, for unknown datagrams go to the other one of two. */
const CHANNELS = 40
/** A datagram may be lost: one that comes while the relay has not yet noticed that the channel's last try has left. */
const SEND_AGAIN_MS = 500
/** Several, so that the victim stays far below the limits of one client. */
const addresses = ['127.0.0.11', '127.0.0.12', '127.0.0.13', '127.0.0.14']
const ECHO_ADDRESSES = ['127.0.0.21', '127.0.0.22']

/** What became of the tries between `begin` and `end`. */
export interface Tries {
  made: number
  /** By what was seen. */
  failed: Record<string, number>
  /** Of those that succeeded, from dialling to the datagram's return, in milliseconds. */
  durations: number[]
}

let place: Place
let isHttp2 = false
let patienceMs = 0
let tries: Tries = noTries()
let stopping = new AbortController()
let underWay: Array<Promise<void>> = []
let beginning: Promise<void> | undefined
const sessions = new Map<string, ClientHttp2Session>()
/** Those that no try uses; the one that was left longest ago comes first. */
const freeChannels = Array.from({ length: CHANNELS }, (_, i) => `c${i}`)

function noTries (): Tries {
  return { made: 0, failed: {}, durations: [] }
}

/** A peer that sends back what comes; one that is lost counts as a failure, and is opened again. */
async function echo (channel: string, from: string): Promise<void> {
  for (;;) {
    try {
      const tunnel = await openTunnel(place, channel, from)
      for (;;) tunnel.write(await nextChunk(tunnel))
    } catch {
      tries.failed['an open tunnel was lost'] = (tries.failed['an open tunnel was lost'] ?? 0) + 1
      await sleep(100)
    }
  }
}

async function open (number: number, channel: string): Promise<Duplex> {
  const from = addresses[number % addresses.length]!
  if (!isHttp2 || number % 2 === 0) return await openTunnel(place, channel, from)
  let session = sessions.get(from)
  if (session === undefined || session.closed || session.destroyed) {
    session = openSession(place, from)
    sessions.set(from, session)
  }
  return await openTunnelOn(session, channel)
}

async function attempt (number: number): Promise<void> {
  const current = tries
  const began = performance.now()
  current.made++
  let tunnel: Duplex | undefined
  let again: NodeJS.Timeout | undefined
  const channel = freeChannels.shift()
  const late = AbortSignal.timeout(patienceMs)
  try {
    await Promise.race([
      (async () => {
        if (channel === undefined) throw new Error('every channel has a try that waits')
        const opened = tunnel = await open(number, channel)
        if (late.aborted) return opened.destroy()
        const datagram = encode(Buffer.from(`try ${number}`))
        opened.write(datagram)
        again = setInterval(() => opened.write(datagram), SEND_AGAIN_MS)
        let received = Buffer.alloc(0)
        // An earlier try may have left one on its way.
        while (!received.includes(datagram)) received = Buffer.concat([received, await nextChunk(opened)])
        current.durations.push(performance.now() - began)
      })(),
      new Promise((_resolve, reject) => late.addEventListener('abort', () => reject(new Error(`took more than ${patienceMs} ms`))))
    ])
  } catch (error) {
    const { message } = error as Error
    current.failed[message] = (current.failed[message] ?? 0) + 1
  } finally {
    clearInterval(again)
    tunnel?.destroy()
    if (channel !== undefined) freeChannels.push(channel)
  }
}

async function begin (): Promise<void> {
  tries = noTries()
  stopping = new AbortController()
  underWay = []
  const { signal } = stopping
  const began = performance.now()
  for (let number = 0; !signal.aborted; number++) {
    underWay.push(attempt(number))
    await sleep(Math.max(0, began + (number + 1) * 1000 / TRIES_PER_SECOND - performance.now()))
  }
}

// Its parent may have ended.
process.on('disconnect', () => process.exit())

process.on('message', async ({ command, ...rest }: { command: 'start' | 'begin' | 'end' } & Partial<Place> & { isHttp2?: boolean, patienceMs?: number }) => {
  if (command === 'start') {
    place = rest as Place
    isHttp2 = rest.isHttp2 === true
    patienceMs = rest.patienceMs!
    for (let i = 0; i < CHANNELS; i++) echo(`c${i}`, ECHO_ADDRESSES[i % ECHO_ADDRESSES.length]!).catch(() => {})
    // Until each has its tunnel.
    for (let i = 0; i < CHANNELS; i++) {
      do {
        tries = noTries()
        await attempt(2 * i)
        await sleep(20)
      } while (tries.durations.length === 0)
    }
    process.send!({})
  } else if (command === 'begin') {
    beginning = begin()
    process.send!({})
  } else {
    stopping.abort()
    await beginning
    await Promise.all(underWay)
    process.send!(tries)
  }
})
