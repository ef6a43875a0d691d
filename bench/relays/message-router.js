/** What a socket may hold back before the one who fills it is not read any more, in bytes. */
const HIGH_WATER = 4 * 1024 * 1024

/**
 * Brings messages to those of the same channel that they are for: to number n goes what has n as the receiver index of
 * WireGuard's transport data. No more than that: it has no sessions, queues, deadlines or counters.
 */
export class MessageRouter {
  #channels = new Map()
  #isCorked

  /** @param isCorked whether what is written in one turn of the event loop leaves in one piece */
  constructor (isCorked) {
    this.#isCorked = isCorked
  }

  attach (channelName, number, socket) {
    let channel = this.#channels.get(channelName)
    if (channel === undefined) this.#channels.set(channelName, channel = new Map())
    channel.set(number, socket)
    socket.on('message', (data) => {
      const to = channel.get(data.readUInt32LE(4))
      if (to !== undefined) this.#send(socket, to, data)
    })
    socket.on('error', () => socket.terminate())
    socket.on('close', () => {
      channel.delete(number)
      if (channel.size === 0) this.#channels.delete(channelName)
    })
  }

  #send (from, to, data) {
    const tcp = to._socket
    if (this.#isCorked && tcp.writableCorked === 0) {
      tcp.cork()
      setImmediate(() => tcp.uncork())
    }
    to.send(data)
    if (to.bufferedAmount <= HIGH_WATER || from.isPaused) return
    from.pause()
    tcp.once('drain', () => from.resume())
  }
}
