import { Socket } from 'node:net'

/**
 * What Node offers no public way to for sockets that a server has accepted: to read them into memory that is used again
 * (`onread` of `net.connect` is for clients), and to tell a reset from an end. Node's own reads take 64 KiB anew each time,
 * which costs more than all that a relay does with the bytes.
 *
 * `SPANZA_NODE_INTERNALS=off` in the environment does without, and so does a Node in which it is not found as expected.
 */

/** The part of a socket that is not public. */
interface Internals {
  _handle: Handle | null
  [key: symbol]: unknown
}

interface Handle {
  useUserBuffer: (buffer: Buffer) => void
  /** Of TCP only; returns an error's number, or 0. */
  getpeername?: (result: object) => number
  /** Bytes that the system has not taken yet. */
  writeQueueSize?: number
  /** Of TLS: the connection it is spoken on. */
  _parent?: Handle
}

const { write } = Socket.prototype
const symbols = Object.getOwnPropertySymbols(new Socket())
const [kBuffer, kCallback] = ['kBuffer', 'kBufferCb'].map((name) => symbols.find(({ description }) => description === name))

// Windows is given the memory before there is something to read, and so could not share it among sockets.
const isPossible = kBuffer !== undefined && kCallback !== undefined &&
  process.platform !== 'win32' && process.env.SPANZA_NODE_INTERNALS !== 'off'

/**
 * Whether the stream is a plain socket of the system's: it can be read into memory of ours, and whatever it holds of what
 * is written to it, `writableLength` says, unless somebody has put something of their own before that.
 */
export function isPlain (stream: object): stream is Socket {
  if (!isPossible || !(stream instanceof Socket) || stream.write !== write) return false
  const handle = handleOf(stream)
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

/**
 * Whether what has just come as the end of the stream was a reset: libuv before 1.52 (Node 20 and 22) takes one behind
 * unread bytes for an end. The system knows no other side of a connection then. Nor does it when both sides have ended,
 * so that this can be told only while this side has not.
 */
export function wasReset (stream: object): boolean {
  if (!isPlain(stream) || stream.writableEnded) return false
  const { getpeername } = handleOf(stream)!
  return getpeername !== undefined && getpeername.call(handleOf(stream), {}) !== 0
}

/**
 * How many bytes of what was written wait for the system, the part of a write that it has taken left out: of a socket, and of
 * the connection below TLS. 0 where that cannot be told.
 */
export function writeQueueSize (stream: object): number {
  if (!isPossible || !(stream instanceof Socket)) return 0
  const handle = handleOf(stream)
  return handle?._parent?.writeQueueSize ?? handle?.writeQueueSize ?? 0
}

function handleOf (socket: Socket): Handle | null {
  return (socket as object as Internals)._handle
}
