import { Dialer } from './dial.js'
import { Ledger } from './ledger.js'
import { PacketRoom } from './packet-room.js'
import { Random } from './random.js'
import { StreamRoom } from './stream-room.js'

const TICK_MS = 10
const KEEPALIVE_TICKS = 50
/** A new load is built up over this many milliseconds. */
const RAMP_MS = 1500
/** What a room has sent is remembered a little longer than the room: what arrives late was still sent. */
const AFTERLIFE_MS = 2000

/** Malformed handshakes; what each is answered is counted like any refusal. */
const nuisances = [
  { path: '/relay/nuisance', upgrade: 'chisel' },
  { path: '/relay/nuisance', lines: ['Spanza-Framing: nothing'] },
  { path: '/relay/nuisance', lines: ['Host: twice'] },
  { path: '/relay/nuisance', lines: ['Content-Length: 5'] },
  { path: '/relay/nuisance', lines: ['X-Id:'] },
  { path: '/relay/nuisance', lines: ['X-Key: no key'] },
  { path: 'http://localhost/relay/nuisance' }
]

/** All that the clients of a relay do: rooms come and go, and in each a few devices do what they like. */
export class World {
  ledger
  random
  dialer
  /** How long a room lives, in milliseconds: from and to. */
  roomLife
  nextDevice = 1
  #relay
  #rooms = new Set()
  #names = new Map()
  #timer
  #ticks = 0
  #tunnels
  #deedsPerSecond

  /** @param settings { seed, tunnels, deeds (a second), roomLife, print } */
  constructor (relay, { seed, tunnels, deeds, roomLife, print }) {
    this.ledger = new Ledger(print)
    this.#relay = relay
    this.#tunnels = tunnels
    this.#deedsPerSecond = deeds
    this.roomLife = roomLife
    this.random = new Random(seed)
    this.dialer = new Dialer(relay.port, this.ledger)
  }

  get devices () {
    let sum = 0
    for (const room of this.#rooms) sum += room.size
    return sum
  }

  start () {
    this.#ticks = 0
    this.#timer = setInterval(() => this.#tick(), TICK_MS)
  }

  /** Everybody stands still, as they are. */
  stop () {
    clearInterval(this.#timer)
  }

  /** Everybody leaves; @returns when all connections are closed and nothing of it is remembered */
  async letGo (timeout) {
    this.stop()
    for (const room of this.#rooms) if (!room.isRetired) room.retire()
    const isDone = await until(() => this.dialer.sockets.size === 0 && [...this.#rooms].every((room) => room.isOver), timeout)
    if (!isDone) {
      this.ledger.violation('connections that did not end', {
        sockets: [...this.dialer.sockets].slice(0, 5).map(socketState),
        count: this.dialer.sockets.size,
        unanswered: [...this.dialer.unanswered].slice(0, 5),
        rooms: [...this.#rooms].filter(({ isOver }) => !isOver).map(({ kind, path }) => `${kind} ${path}`).slice(0, 5)
      })
    }
    for (const room of this.#rooms) this.#forget(room)
  }

  #tick () {
    const target = this.#tunnels * Math.min(1, ++this.#ticks * TICK_MS / RAMP_MS)
    let devices = this.devices
    while (devices < target) devices += this.#open().size
    const rooms = [...this.#rooms].filter(({ isRetired }) => !isRetired)
    const deeds = this.#deedsPerSecond * TICK_MS / 1000
    for (let i = 0; i < deeds; i++) this.random.pick(rooms).act()
    if (this.random.chance(0.05)) this.#bother()
    if (this.random.chance(0.03)) this.#disconnect(this.random.pick(rooms))
    if (this.#ticks % KEEPALIVE_TICKS !== 0) return
    const now = Date.now()
    for (const room of this.#rooms) {
      room.keepAlive(now)
      if (!room.isRetired && now > room.endsAt) room.retire()
      else if (room.isOver) this.#end(room)
    }
  }

  #open () {
    const { random } = this
    const route = random.chance(0.75) ? 'relay' : 'open'
    const Room = random.chance(0.7) ? PacketRoom : StreamRoom
    // Each kind of room on each route has all names in turn, so that channels differ in one part of their key only.
    const series = `${route} ${Room.name}`
    const number = this.#names.get(series) ?? 0
    this.#names.set(series, number + 1)
    const room = new Room(this, `/${route}/room-${number}`)
    this.#rooms.add(room)
    room.gather()
    return room
  }

  #end (room) {
    this.#rooms.delete(room)
    setTimeout(() => this.ledger.forget(room.tunnels), AFTERLIFE_MS).unref()
  }

  #forget (room) {
    this.#rooms.delete(room)
    this.ledger.forget(room.tunnels)
  }

  /** Handshakes that lead nowhere, and connections that never become one. */
  #bother () {
    const { random, dialer } = this
    if (random.chance(0.7)) {
      const path = `/relay/nuisance-${this.nextDevice++}`
      const nuisance = random.pick(nuisances)
      return dialer.dial({ ...nuisance, path: nuisance.path.replace('/relay/nuisance', path), onTunnel: (socket) => socket.destroy() })
    }
    const socket = dialer.open(() => {
      socket.write('GET /relay/slow HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgra')
      setTimeout(() => socket.resetAndDestroy(), random.between(0, 2000))
    })
  }

  /** The operator ends a peer's tunnels. */
  #disconnect (room) {
    const device = this.random.pick(room.devices)
    if (device.isWarden || device.isAnonymous) return
    this.#relay.ask('disconnect', { selector: { channel: room.path.split('/').at(-1), id: `device-${device.number}`, kind: room.kind } })
      .catch(() => {})
  }
}

function socketState (socket) {
  const { connecting, readableEnded, writableEnded, writableFinished, writableLength, bytesRead, bytesWritten } = socket
  return { connecting, readableEnded, writableEnded, writableFinished, writableLength, bytesRead, bytesWritten, isPaused: socket.isPaused() }
}

/** Waits until `condition` holds, at most so long; @returns whether it holds */
export async function until (condition, timeout) {
  const deadline = Date.now() + timeout
  while (!(await condition())) {
    if (Date.now() > deadline) return false
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  return true
}
