import { crc32 } from 'node:zlib'
import { readMark } from './datagrams.js'
import { Random } from './random.js'

const MAX_TOLD = 20
const STREAM_HEADER = 8
/** Streams are cut from this, each from its own place on; its length is prime, so that no cut lines up with a power of two. */
const PATTERN_LENGTH = 65521
const pattern = new Random(2).bytes(PATTERN_LENGTH)

/**
 * What was sent, and the judgement on what arrives. A tunnel here is an object with `number`, `device` and `room`;
 * a device is a peer with an identity of its own, over all its tunnels; a room is a channel.
 */
export class Ledger {
  violations = 0
  datagramsSent = 0
  datagramsChecked = 0
  streamBytesChecked = 0
  /** Streams that a client has cut by a reset and whose reader saw an end. */
  resetsTakenForEnds = 0
  #print
  #tunnels = new Map()
  #nextTunnel = 1

  /** @param print takes a line for each of the first violations */
  constructor (print) {
    this.#print = print
  }

  /** Enters a tunnel; until its room is forgotten, what it has sent may arrive. */
  enter (tunnel) {
    tunnel.number = this.#nextTunnel++
    tunnel.sent = []
    tunnel.streamSent = 0
    tunnel.streamFinished = false
    tunnel.streamReader = undefined
    this.#tunnels.set(tunnel.number, tunnel)
  }

  get size () {
    return this.#tunnels.size
  }

  get tunnelsMade () {
    return this.#nextTunnel - 1
  }

  /** A room is over: from now on nothing that was sent in it may arrive anywhere. */
  forget (tunnels) {
    for (const tunnel of tunnels) this.#tunnels.delete(tunnel.number)
  }

  violation (what, details) {
    if (this.violations++ < MAX_TOLD) this.#print(`wrong: ${what}: ${JSON.stringify(details)}`)
  }

  /**
   * A datagram is about to be sent.
   * @param allowed the devices that it may be delivered to
   * @param what kind of datagram it is, for the report
   * @param about what the receiver has to know about it to answer
   */
  datagramSent (tunnel, crc, size, allowed, what, about) {
    this.datagramsSent++
    tunnel.sent.push({ crc, size, allowed, what, about, receivers: undefined })
  }

  /** @returns the record of a datagram that was rightly delivered */
  datagramArrived (receiver, datagram) {
    this.datagramsChecked++
    const at = { receiver: describe(receiver), size: datagram.length }
    const mark = readMark(datagram)
    if (mark === undefined) return this.violation('a datagram was altered, or sent by nobody', { ...at, head: datagram.toString('hex', 0, 32) })
    const sender = this.#tunnels.get(mark.tunnel)
    if (sender === undefined) return this.violation('a datagram of a channel that is over', { ...at, ...mark })
    const record = sender.sent[mark.sequence]
    const details = { ...at, sender: describe(sender), sequence: mark.sequence, what: record?.what }
    if (record === undefined) return this.violation('a datagram that was not sent', details)
    if (record.crc !== mark.crc || record.size !== datagram.length) return this.violation('a datagram that was altered', details)
    if (sender.room !== receiver.room) return this.violation('a datagram of another channel', details)
    if (!isAllowed(record, sender, receiver)) {
      return this.violation('a datagram for somebody else', { ...details, allowed: record.allowed.map((device) => device.number) })
    }
    // Somebody without an id is somebody new with each tunnel.
    const identity = receiver.device.isAnonymous ? receiver : receiver.device
    if (record.receivers?.includes(identity)) return this.violation('a datagram delivered twice', details)
    record.receivers ??= []
    record.receivers.push(identity)
    return { sender, ...record }
  }

  /** The next bytes of a tunnel's stream. */
  streamBytes (tunnel, length) {
    const start = tunnel.streamSent
    tunnel.streamSent += length
    return streamSlice(tunnel.number, start, tunnel.streamSent)
  }

  streamArrived (receiver, chunk) {
    this.streamBytesChecked += chunk.length
    receiver.streamHead ??= Buffer.alloc(0)
    if (receiver.streamHead.length < STREAM_HEADER) {
      receiver.streamHead = Buffer.concat([receiver.streamHead, chunk]).subarray(0, STREAM_HEADER)
      if (receiver.streamHead.length === STREAM_HEADER) this.#findStream(receiver)
    }
    const position = receiver.streamReceived ?? 0
    receiver.streamReceived = position + chunk.length
    const sender = receiver.streamSender
    if (sender === undefined || receiver.streamIsWrong) return
    const isSent = receiver.streamReceived <= sender.streamSent
    if (isSent && chunk.equals(streamSlice(sender.number, position, receiver.streamReceived))) return
    receiver.streamIsWrong = true
    this.violation(isSent ? 'a stream was altered, or lost bytes' : 'more of a stream than was sent', {
      receiver: describe(receiver), sender: describe(sender), position, length: chunk.length, sent: sender.streamSent
    })
  }

  /** The receiver has seen the end of its stream: it must be the end that the sender has made, behind its last byte. */
  streamEnded (receiver) {
    const received = receiver.streamReceived ?? 0
    if (received === 0 || receiver.streamIsWrong) return
    const sender = receiver.streamSender
    if (sender?.streamFinished === true && sender.streamSent === received) return
    // The relay has the same libuv: where it was behind with reading, it cannot tell a client's reset from an end.
    if (sender?.isReset === true) {
      this.resetsTakenForEnds++
      return
    }
    this.violation('a stream that was cut looks like one that has ended', {
      receiver: describe(receiver), sender: sender && describe(sender), received, sent: sender?.streamSent, finished: sender?.streamFinished
    })
  }

  #findStream (receiver) {
    const number = receiver.streamHead.readUInt32LE(0)
    const sender = this.#tunnels.get(number)
    const isWhole = crc32(receiver.streamHead.subarray(0, 4)) === receiver.streamHead.readUInt32LE(4)
    const details = { receiver: describe(receiver), sender: sender && describe(sender), head: receiver.streamHead.toString('hex') }
    receiver.streamIsWrong = true
    if (!isWhole || sender === undefined) return this.violation('a stream of nobody', details)
    if (sender.room !== receiver.room) return this.violation('a stream of another channel', details)
    if (sender === receiver) return this.violation('a stream came back', details)
    if (sender.streamReader !== undefined) return this.violation('a stream for two readers', details)
    receiver.streamIsWrong = false
    receiver.streamSender = sender
    sender.streamReader = receiver
  }
}

function isAllowed (record, sender, receiver) {
  if (sender === receiver) return false
  if (record.allowed.includes(receiver.device)) return true
  // In a channel of exactly two identities, transport data that no session leads anywhere goes to the other one.
  return sender.room.mayHaveOnlyTwo && record.what.endsWith('transport data') && sender.device !== receiver.device
}

function describe ({ number, device, room }) {
  return `tunnel ${number} of device ${device.number} in ${room.kind} ${room.path}`
}

function streamSlice (number, start, end) {
  const bytes = Buffer.allocUnsafe(end - start)
  for (let position = start; position < end;) {
    const from = (number * 7919 + position) % PATTERN_LENGTH
    const length = Math.min(PATTERN_LENGTH - from, end - position)
    pattern.copy(bytes, position - start, from, from + length)
    position += length
  }
  if (start < STREAM_HEADER) {
    const head = Buffer.alloc(STREAM_HEADER)
    head.writeUInt32LE(number, 0)
    head.writeUInt32LE(crc32(head.subarray(0, 4)), 4)
    head.copy(bytes, 0, start, Math.min(STREAM_HEADER, end))
  }
  return bytes
}
