import { impatience, reset, whims } from './dial.js'

const LARGEST_BURST = 64 * 1024
const MAX_UNSENT = 8 * 1024 * 1024

const deeds = { data: 60, flood: 6, stall: 8, finish: 5, reset: 3, third: 3, again: 2 }

class StreamTunnel {
  isLeaving = false

  constructor (device) {
    this.device = device
    this.room = device.room
    this.room.world.ledger.enter(this)
  }

  attach (socket) {
    this.socket = socket
    const { ledger } = this.room.world
    socket.on('data', (chunk) => ledger.streamArrived(this, chunk))
    socket.on('end', () => {
      if (wasReset(socket)) return socket.destroy()
      ledger.streamEnded(this)
      // The other direction may go on for a while.
      if (this.room.world.random.chance(0.5)) this.finish()
    })
    socket.on('close', () => {
      if (this.device.tunnel === this) this.device.tunnel = undefined
    })
  }

  send (length) {
    if (this.streamFinished || this.isLeaving || this.socket.writableLength > MAX_UNSENT) return
    this.socket.write(this.room.world.ledger.streamBytes(this, length))
  }

  finish () {
    if (this.streamFinished || this.isLeaving) return
    this.streamFinished = true
    this.socket.end()
  }

  reset () {
    this.isLeaving = true
    this.isReset = true
    reset(this.socket)
  }
}

/**
 * Whether what Node calls the end of the stream was a reset: libuv tells the two apart only where the reader was not
 * behind. A socket that was reset is no longer connected to anybody; one that has got a FIN still is.
 */
function wasReset (socket) {
  return socket._handle?.getpeername({}) !== 0
}

/** A stream channel: two tunnels that are spliced, and those who come in between. */
export class StreamRoom {
  kind = 'stream'
  tunnels = []
  isRetired = false

  constructor (world, path) {
    const { random } = world
    this.world = world
    this.path = path
    this.endsAt = Date.now() + random.between(...world.roomLife)
    this.devices = [1, 2].map(() => ({
      room: this,
      number: world.nextDevice++,
      isAnonymous: path.startsWith('/open/') || random.chance(0.5),
      tunnel: undefined,
      isDialling: false
    }))
  }

  get size () {
    return 2
  }

  get isOver () {
    return this.isRetired && this.tunnels.every(({ socket, isFailed }) => isFailed || socket?.destroyed)
  }

  act () {
    const { random } = this.world
    const device = random.pick(this.devices)
    if (device.tunnel === undefined) return this.#come(device)
    const deed = random.weighted(deeds)
    const { tunnel } = device
    if (deed === 'data') tunnel.send(random.between(9, LARGEST_BURST))
    else if (deed === 'flood') tunnel.send(random.between(LARGEST_BURST, MAX_UNSENT))
    else if (deed === 'finish') tunnel.finish()
    else if (deed === 'reset') tunnel.reset()
    else if (deed === 'third') this.#come({ room: this, number: this.world.nextDevice++, isAnonymous: true })
    else if (deed === 'again' && !device.isAnonymous) this.#come(device)
    else if (deed === 'stall') {
      tunnel.socket.pause()
      setTimeout(() => tunnel.socket.resume(), random.between(100, 3000))
    }
  }

  /** Everybody comes. */
  gather () {
    for (const device of this.devices) this.#come(device)
  }

  keepAlive () {}

  retire () {
    this.isRetired = true
    for (const tunnel of this.tunnels) {
      if (tunnel.socket === undefined || tunnel.socket.destroyed) continue
      if (this.world.random.chance(0.3)) tunnel.reset()
      else tunnel.finish()
    }
  }

  #come (device) {
    if (device.isDialling || this.isRetired) return
    const { random, dialer, ledger } = this.world
    device.isDialling = true
    const tunnel = new StreamTunnel(device)
    this.tunnels.push(tunnel)
    dialer.dial({
      path: this.path,
      mayBreak: true,
      lines: [...whims(random), ...(device.isAnonymous ? [] : [`X-Id: device-${device.number}`])],
      leaveAfter: impatience(random),
      early: random.chance(0.3) ? () => ledger.streamBytes(tunnel, random.between(8, 100_000)) : undefined,
      onTunnel: (socket) => {
        device.isDialling = false
        device.tunnel = tunnel
        tunnel.attach(socket)
        if (this.isRetired) tunnel.reset()
      },
      onFailure: () => {
        device.isDialling = false
        tunnel.isFailed = true
      }
    })
  }
}
