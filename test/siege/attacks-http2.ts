import { once } from 'node:events'
import type { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { connectHeaders, encodeFrame, flags, frameTypes, hpack, PREFACE, uint32 } from '../helpers/http2-frames.ts'
import { crowd, hold, type Attack, type Siege } from './attack.ts'
import { dial, reset } from './peer.ts'

// What one client can do to the relay over HTTP/2 without a token. Frames are written by hand, many at a time.

const { CONTINUATION, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE } = frameTypes
const { ACK, END_HEADERS } = flags
const INITIAL_WINDOW_SIZE = 4
const CANCEL = uint32(8)
/** Frames written together. */
const BATCH = 50
const PAUSE_MS = 2

function setting (identifier: number, value: number): Buffer {
  const payload = Buffer.alloc(6)
  payload.writeUInt16BE(identifier, 0)
  payload.writeUInt32BE(value, 2)
  return payload
}

function connectFrame (stream: number, path = '/relay/c0'): Buffer {
  return encodeFrame(HEADERS, END_HEADERS, stream, hpack(connectHeaders(path, 'spanza', { ':scheme': 'https' })))
}

async function openConnection (siege: Siege, settings: Uint8Array = Buffer.alloc(0)): Promise<Socket> {
  const socket = dial(siege.place, { from: siege.from, alpn: 'h2' })
  socket.resume()
  socket.write(Buffer.concat([PREFACE, encodeFrame(SETTINGS, 0, 0, settings), encodeFrame(SETTINGS, ACK, 0)]))
  await once(socket, 'secureConnect', { signal: siege.signal })
  return socket
}

/** Writes frames without end on one connection at a time; one that the relay closes is opened again. */
function frames (batch: (firstStream: number) => Buffer[], { settings, streams = 0, pause = PAUSE_MS }: { settings?: Buffer, streams?: number, pause?: number } = {}): Attack {
  return async (siege) => {
    while (!siege.isOver()) {
      let socket
      try {
        socket = await openConnection(siege, settings)
      } catch {
        await sleep(5)
        continue
      }
      for (let stream = 1; !socket.destroyed && !siege.isOver() && stream < 2 ** 30; stream += 2 * streams) {
        const written = batch(stream)
        siege.counted(written.length)
        if (!socket.write(Buffer.concat(written))) {
          await Promise.race([once(socket, 'drain'), once(socket, 'close'), once(siege.signal, 'abort')]).catch(() => {})
        }
        await sleep(pause)
      }
      socket.destroy()
    }
  }
}

function each (firstStream: number, make: (stream: number) => Buffer): Buffer[] {
  return Array.from({ length: BATCH }, (_, index) => make(firstStream + 2 * index))
}

export const http2Attacks: Record<string, Attack> = {
  'CONNECTs without a token': frames((first) => each(first, (stream) => connectFrame(stream)), { streams: BATCH }),

  'CONNECTs with a window of 0': frames((first) => each(first, (stream) => connectFrame(stream)), { streams: BATCH, settings: setting(INITIAL_WINDOW_SIZE, 0), pause: 33 }),

  'CONNECTs of 14 kB': frames((first) => each(first, (stream) => encodeFrame(HEADERS, END_HEADERS, stream, hpack(connectHeaders('/relay/c0', 'spanza', {
    ':scheme': 'https', 'spanza-framing': 'x,'.repeat(3500), 'x-more': 'y'.repeat(7000)
  })))), { streams: BATCH, pause: 20 }),

  'CONNECTs to a slow hook': frames((first) => each(first, (stream) => connectFrame(stream, '/slow')), { streams: BATCH, pause: 33 }),

  'streams that are reset at once': frames((first) => each(first, (stream) => Buffer.concat([connectFrame(stream), encodeFrame(RST_STREAM, 0, stream, CANCEL)])), { streams: BATCH }),

  'connections that are reset behind their CONNECTs': async (siege) => await crowd(siege, async () => {
    const socket = await openConnection(siege)
    socket.write(Buffer.concat(each(1, (stream) => connectFrame(stream))), () => reset(socket))
    siege.counted(BATCH)
    await once(socket, 'close')
  }),

  SETTINGS: frames(() => each(0, () => encodeFrame(SETTINGS, 0, 0, setting(INITIAL_WINDOW_SIZE, 65535)))),

  PINGs: frames(() => each(0, () => encodeFrame(PING, 0, 0, Buffer.alloc(8)))),

  'WINDOW_UPDATEs of a byte': frames(() => each(0, () => encodeFrame(WINDOW_UPDATE, 0, 0, uint32(1)))),

  'CONTINUATIONs without end': frames((first) => first === 1
    ? [encodeFrame(HEADERS, 0, 1, hpack(connectHeaders('/relay/c0', 'spanza')))]
    : each(0, () => encodeFrame(CONTINUATION, 0, 1, hpack([['x', 'y'.repeat(100)]]))), { streams: 1 }),

  'sessions without a request': async (siege) => await hold(siege, 1000, async () => {
    const socket = dial(siege.place, { from: siege.from, alpn: 'h2' })
    socket.resume()
    socket.write(Buffer.concat([PREFACE, encodeFrame(SETTINGS, 0, 0)]))
    return socket
  })
}
