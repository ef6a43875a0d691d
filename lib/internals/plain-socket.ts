import { Socket } from 'node:net'

/**
 * Uses Node internals on sockets that a server has accepted: reads into a reused buffer, and tells a reset from an end.
 * The public `onread` of `net.connect` is for clients only. Node's own reads allocate 64 KiB each time, which costs more than
 * all the work of the relay on these bytes.
 *
 * The environment variable `SPANZA_NODE_INTERNALS=off` disables this. It is also off if Node's internals differ.
 */

/** The private part of a socket. */
interface Internals {
  _handle: Handle | null
  [key: symbol]: unknown
}

interface Handle {
  useUserBuffer: (buffer: Buffer) => void
  /** TCP only. Returns an error number, or 0. */
  getpeername?: (result: object) => number
  /** Bytes that the OS has not taken yet. */
  writeQueueSize?: number
  /** TLS only: the handle of the underlying connection. */
  _parent?: Handle
}

const { write } = Socket.prototype
const symbols = Object.getOwnPropertySymbols(new Socket())
const [kBuffer, kCallback] = ['kBuffer', 'kBufferCb'].map((name) => symbols.find(({ description }) => description === name))

// On Windows, libuv passes the buffer to the OS before data arrives, so sockets cannot share it.
const isPossible = kBuffer !== undefined && kCallback !== undefined &&
  process.platform !== 'win32' && process.env.SPANZA_NODE_INTERNALS !== 'off'

/**
 * True for an unwrapped OS socket: `readInto` works on it, and `writableLength` covers everything still unsent. False if its
 * `write` has been replaced.
 */
export function isPlain (stream: object): stream is Socket {
  if (!isPossible || !(stream instanceof Socket) || stream.write !== write) return false
  const handle = handleOf(stream)
  return (handle?.constructor.name === 'TCP' || handle?.constructor.name === 'Pipe') && typeof handle.useUserBuffer === 'function'
}

/**
 * Reads a plain `socket` into `buffer` from now on. Instead of `data` events, `onRead` gets the number of bytes read.
 * The end, errors, `pause` and `resume` work as before.
 */
export function readInto (socket: Socket, buffer: Buffer, onRead: (this: Socket, length: number) => void): void {
  const internals = socket as object as Internals
  internals[kBuffer!] = buffer
  internals[kCallback!] = onRead
  internals._handle!.useUserBuffer(buffer)
}

/** True if `socket` is already read into `buffer`. */
export function isReadInto (socket: Socket, buffer: Buffer): boolean {
  return (socket as object as Internals)[kBuffer!] === buffer
}

/**
 * True if the stream's `end` was a reset. libuv before 1.52 (Node 20 and 22) reports a reset after unread bytes as an end.
 * After a reset, the OS has no peer address for the connection. The same holds once both sides have ended, so this returns
 * false after this side has ended.
 */
export function wasReset (stream: object): boolean {
  if (!isPlain(stream) || stream.writableEnded) return false
  const { getpeername } = handleOf(stream)!
  return getpeername !== undefined && getpeername.call(handleOf(stream), {}) !== 0
}

/**
 * The written bytes that the OS has not taken yet, without the part of a write that it has taken. For TLS, this counts the
 * underlying connection. Returns 0 if the number is unknown.
 */
export function writeQueueSize (stream: object): number {
  if (!isPossible || !(stream instanceof Socket)) return 0
  const handle = handleOf(stream)
  return handle?._parent?.writeQueueSize ?? handle?.writeQueueSize ?? 0
}

function handleOf (socket: Socket): Handle | null {
  return (socket as object as Internals)._handle
}
