import { Socket } from 'node:net'

/**
 * Reading sockets into memory that is used again: Node's own reads take 64 KiB anew each time, which costs more than all
 * that a relay does with the bytes. Node offers it for client sockets only (`onread` of `net.connect`); this sets the same
 * properties, which are not public, on sockets that a server has accepted.
 *
 * `SPANZA_NODE_INTERNALS=off` in the environment does without, and so does a Node in which they are not found.
 */

/** The part of a socket that is not public. */
interface Internals {
  _handle: { useUserBuffer: (buffer: Buffer) => void } | null
  [key: symbol]: unknown
}

const symbols = Object.getOwnPropertySymbols(new Socket())
const [kBuffer, kCallback] = ['kBuffer', 'kBufferCb'].map((name) => symbols.find(({ description }) => description === name))

// Windows is given the memory before there is something to read, and so could not share it among sockets.
const isPossible = kBuffer !== undefined && kCallback !== undefined &&
  process.platform !== 'win32' && process.env.SPANZA_NODE_INTERNALS !== 'off'

/**
 * Whether the stream is a plain socket of the system's: it can be read into memory of ours, and whatever it holds of what
 * is written to it, `writableLength` says.
 */
export function isPlain (stream: object): stream is Socket {
  if (!isPossible || !(stream instanceof Socket)) return false
  const handle = (stream as object as Internals)._handle as { constructor: { name: string }, useUserBuffer?: unknown } | null
  return (handle?.constructor.name === 'TCP' || handle?.constructor.name === 'Pipe') && typeof handle.useUserBuffer === 'function'
}

/**
 * From now on `socket`, a plain one, is read into `buffer`, and `onRead` is given the number of bytes instead of `data` being
 * emitted; the end, errors, `pause` and `resume` are as before.
 */
export function readInto (socket: Socket, buffer: Buffer, onRead: (this: Socket, length: number) => void): void {
  const internals = socket as object as Internals
  internals[kBuffer!] = buffer
  internals[kCallback!] = onRead
  internals._handle!.useUserBuffer(buffer)
}

/** Whether it is so already. */
export function isReadInto (socket: Socket, buffer: Buffer): boolean {
  return (socket as object as Internals)[kBuffer!] === buffer
}
