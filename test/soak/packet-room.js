import { PING, pong, wg } from '../../dist/framing/wg.js'
import { len16 } from '../../dist/framing/len16.js'
import { clearReserved } from '../../dist/framing/wireguard.js'
import {
  cookieReply, initiation, mac1Key, otherDatagram, response, seal, SMALLEST_OTHER, transportData
} from './datagrams.js'
import { impatience, reset, whims } from './dial.js'

const WARDENS = 3
/** The relay's `maxPacketSize`. */
const MAX_PACKET = 2048
const MAX_SESSIONS = 16
/** A session that is younger than this is surely in the relay's tables. */
const FRESH_MS = 5000
const SILENCE_MS = 1500
const MAX_UNSENT = 4 * 1024 * 1024

const flavours = [
  { upgrade: 'spanza', framing: wg, lines: ['Spanza-Framing: wg'] },
  { upgrade: 'spanza', framing: wg, lines: ['Spanza-Framing: nothing, wg, len16'] },
  { upgrade: 'spanza', framing: len16, lines: ['Spanza-Framing: len16'] },
  { upgrade: 'UoTLV/1', framing: len16, lines: [], hasNoKeepalive: true }
]

/** What a member does next, by weight. */
const deeds = { data: 60, handshake: 18, forge: 6, flood: 0.15, oversize: 1, stall: 2, silence: 0.5, come: 5, reset: 3, finish: 3, cut: 1.5, garbage: 1.5, again: 2 }

/** Deeds after which a tunnel is lost: not for those that keep the channel together. */
const fatal = new Set(['stall', 'silence', 'reset', 'finish', 'cut', 'garbage', 'again'])

/** A member of a packet channel over all its tunnels. */
class Device {
  /** Who may get transport data that this device addresses to an index. */
  mayReach = new Map()
  /** Indices that this device can address: { index, to, since }. */
  sessions = []
  tunnel = undefined
  isDialling = false

  constructor (room, number, random, { isWarden, hasKey, isAnonymous }) {
    this.room = room
    this.number = number
    this.isWarden = isWarden
    this.isAnonymous = isAnonymous
    this.publicKey = hasKey ? random.bytes(32) : undefined
    this.mac1Key = this.publicKey && mac1Key(this.publicKey)
    this.flavour = random.pick(flavours)
  }

  get identityLines () {
    if (this.isAnonymous) return []
    const id = [`X-Id: device-${this.number}`]
    return this.publicKey === undefined ? id : [...id, `X-Key: ${this.publicKey.toString('base64')}`]
  }

  allow (index, to) {
    const allowed = this.mayReach.get(index)
    if (allowed === undefined) this.mayReach.set(index, [to])
    else if (!allowed.includes(to)) allowed.push(to)
  }

  /** @param isSettled whether the relay has seen both halves of the handshake */
  learn (index, to, isSettled) {
    this.sessions.push({ index, to, isSettled, since: Date.now() })
    if (this.sessions.length > MAX_SESSIONS) this.sessions.shift()
  }
}

/** The client's end of one tunnel of datagrams. */
class Tunnel {
  isSilent = false
  isLeaving = false
  lastSentAt = Date.now()

  constructor (device) {
    this.device = device
    this.room = device.room
    this.framing = device.flavour.framing
    this.room.world.ledger.enter(this)
  }

  attach (socket) {
    this.socket = socket
    const { ledger } = this.room.world
    const decoder = this.framing.createDecoder({
      datagram: (chunk, _frame, start, end, stamped) => {
        const datagram = Buffer.from(chunk.subarray(start, end))
        if (stamped) clearReserved(datagram, 0)
        const record = ledger.datagramArrived(this, datagram)
        if (record !== undefined) this.room.answer(this, record)
      },
      dropped: (reason) => ledger.violation('a frame that must not be sent', { reason, device: this.device.number }),
      control: (type, chunk, start, end) => {
        if (type === PING && !this.isSilent) this.write(pong(chunk, start, end))
      }
    }, { maxPacketSize: 65535 })
    socket.on('data', (chunk) => {
      const fault = decoder.push(chunk)
      if (fault !== undefined) {
        ledger.violation('the relay broke the framing', { ...fault, device: this.device.number })
        socket.destroy()
      }
    })
    socket.on('end', () => {
      const fault = decoder.end()
      // A relay that destroys a tunnel over unwritten bytes is seen as a reset, never as an end.
      if (fault !== undefined && !this.isLeaving) ledger.violation('the tunnel ended inside a frame', { ...fault, device: this.device.number })
      socket.end()
    })
    socket.on('close', () => {
      if (this.device.tunnel === this) this.device.tunnel = undefined
    })
  }

  /** @param messages lists of [datagram, allowed, what, about] */
  send (messages) {
    if (this.isLeaving || this.socket.writableLength > MAX_UNSENT) return
    this.write(Buffer.concat(messages.map((message) => this.frame(...message))))
  }

  frame (datagram, allowed, what, about) {
    const crc = seal(datagram, this.number, this.sent.length)
    this.room.world.ledger.datagramSent(this, crc, datagram.length, allowed, what, about)
    const frame = Buffer.allocUnsafe(datagram.length + this.framing.maxOverhead)
    return frame.subarray(0, this.framing.encode(frame, 0, datagram, 0, datagram.length, false))
  }

  write (bytes) {
    if (this.socket.destroyed || this.socket.writableEnded) return
    this.lastSentAt = Date.now()
    const { random } = this.room.world
    let position = 0
    // Frames cut anywhere.
    while (random.chance(0.2) && bytes.length - position > 1) {
      const end = random.between(position + 1, bytes.length - 1)
      this.socket.write(bytes.subarray(position, end))
      position = end
    }
    this.socket.write(bytes.subarray(position))
  }

  /** Stays alive as long as it does not mean to be silent. */
  keepAlive (now) {
    if (this.isSilent || this.isLeaving || now - this.lastSentAt < SILENCE_MS) return
    this.write(this.framing.keepalive())
  }

  reset () {
    this.isLeaving = true
    reset(this.socket)
  }

  finish (lastBytes) {
    this.isLeaving = true
    this.socket.resume()
    if (lastBytes === undefined) this.socket.end()
    else this.socket.end(lastBytes)
  }
}

/** A packet channel: a pair that sends anything, or a group that speaks WireGuard. */
export class PacketRoom {
  kind = 'packet'
  tunnels = []
  devices = []
  mayHaveOnlyTwo = true
  isRetired = false
  #nextIndex

  constructor (world, path) {
    const { random } = world
    this.world = world
    this.path = path
    this.isOpen = path.startsWith('/open/')
    this.isPair = this.isOpen || random.chance(0.5)
    this.endsAt = Date.now() + random.between(...world.roomLife)
    this.#nextIndex = random.between(0, 2 ** 31)
    const count = this.isPair ? 2 : WARDENS + random.between(1, random.chance(0.1) ? 24 : 6)
    for (let i = 0; i < count; i++) this.#addDevice(!this.isPair && i < WARDENS)
  }

  get size () {
    return this.devices.length
  }

  get isOver () {
    return this.isRetired && this.tunnels.every(({ socket, isFailed }) => isFailed || socket?.destroyed)
  }

  /** One random deed of one member. */
  act () {
    const { random } = this.world
    const wardens = this.devices.filter(({ isWarden }) => isWarden)
    const absent = wardens.filter(({ tunnel }) => tunnel === undefined)
    if (absent.length > 0) return this.#come(random.pick(absent))
    if (wardens.length > 0) this.mayHaveOnlyTwo = false
    const device = random.pick(this.devices)
    if (device.tunnel === undefined) return this.#come(device)
    if (device.tunnel.isLeaving) return
    const deed = random.weighted(deeds)
    if (device.isWarden && fatal.has(deed)) return
    this[`do${deed}`](device, device.tunnel)
  }

  /** Everybody comes. */
  gather () {
    for (const device of this.devices) this.#come(device)
  }

  keepAlive (now) {
    for (const { tunnel } of this.devices) tunnel?.keepAlive(now)
  }

  /** Everybody leaves, those who keep the channel together last. */
  retire () {
    this.isRetired = true
    const leave = (isWarden) => {
      for (const { tunnel, isWarden: is } of this.devices) {
        if (tunnel === undefined || is !== isWarden) continue
        if (this.world.random.chance(0.3)) tunnel.reset()
        else tunnel.finish()
      }
    }
    leave(false)
    setTimeout(() => {
      this.mayHaveOnlyTwo = true
      leave(true)
      leave(false)
    }, 500)
  }

  #addDevice (isWarden) {
    const { random } = this.world
    const isAnonymous = this.isOpen || (!isWarden && random.chance(0.3))
    const hasKey = isWarden || (!isAnonymous && random.chance(0.6))
    this.devices.push(new Device(this, this.world.nextDevice++, random, { isWarden, hasKey, isAnonymous }))
  }

  #come (device) {
    if (device.isDialling || this.isRetired) return
    const { random, dialer } = this.world
    device.isDialling = true
    // Before the 101: the first datagrams may come with the request.
    const tunnel = new Tunnel(device)
    this.tunnels.push(tunnel)
    dialer.dial({
      path: this.path,
      upgrade: device.flavour.upgrade,
      lines: [...device.flavour.lines, ...device.identityLines, ...(device.isWarden ? [] : whims(random))],
      leaveAfter: device.isWarden ? undefined : impatience(random),
      early: this.isPair && random.chance(0.3)
        ? () => tunnel.frame(otherDatagram(random, random.between(SMALLEST_OTHER, 1500)), this.#reachable(device), 'early')
        : undefined,
      onTunnel: (socket) => {
        device.isDialling = false
        // The older tunnel of an identity is the relay's to close.
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

  #others (device) {
    return this.devices.filter((other) => other !== device)
  }

  /** Who may get what leads to the only other one: for somebody without an id, also its own tunnel that has not yet been found dead. */
  #reachable (device) {
    return device.isAnonymous ? this.devices : this.#others(device)
  }

  #index () {
    this.#nextIndex = (this.#nextIndex + this.world.random.between(1, 1000)) % 2 ** 32
    return this.#nextIndex
  }

  /** What arrived may ask for an answer. */
  answer (tunnel, { sender, about }) {
    const { random } = this.world
    const { device } = tunnel
    if (about === undefined || this.isRetired) return
    if (about.response !== undefined) device.learn(about.response, sender.device, true)
    if (about.initiation === undefined || about.target !== device) return
    if (random.chance(0.1)) {
      return tunnel.send([[cookieReply(random, about.initiation), [sender.device], 'cookie reply']])
    }
    if (random.chance(0.1)) return
    const index = this.#index()
    sender.device.allow(index, device)
    device.learn(about.initiation, sender.device, false)
    tunnel.send([[response(random, index, about.initiation), [sender.device], 'response', { response: index }]])
  }

  docome () {}

  dohandshake (device, tunnel) {
    const { random } = this.world
    const target = random.pick(this.#others(device))
    const index = this.#index()
    target.allow(index, device)
    // A key that nobody here has makes it everybody's who has none.
    const isListed = target.isWarden && !this.mayHaveOnlyTwo
    const allowed = isListed ? [target] : this.#reachable(device).filter((other) => other === target || other.publicKey === undefined)
    tunnel.send([[initiation(random, index, target.mac1Key), allowed, 'initiation', { initiation: index, target }]])
  }

  dodata (device, tunnel) {
    const { random } = this.world
    const messages = []
    for (let i = random.between(1, 12); i > 0; i--) messages.push(this.#data(device, random.chance(0.5) ? random.between(32, 200) : random.between(32, 1500)))
    tunnel.send(messages)
  }

  /** Enough to fill the buffers of a receiver that does not read. */
  doflood (device, tunnel) {
    const messages = []
    for (let i = 0; i < 2000; i++) messages.push(this.#data(device, MAX_PACKET))
    tunnel.send(messages)
  }

  #data (device, size) {
    const { random } = this.world
    if (this.isPair && random.chance(0.5)) return [otherDatagram(random, Math.max(size, SMALLEST_OTHER)), this.#reachable(device), 'other']
    const index = device.sessions.length > 0 && random.chance(0.95) ? random.pick(device.sessions.slice(-4)).index : this.#index()
    return [
      transportData(random, index, size),
      this.isPair ? this.#reachable(device) : device.mayReach.get(index) ?? [],
      'transport data'
    ]
  }

  /** Somebody tries to get at the sessions of two others. */
  doforge (device, tunnel) {
    const { random } = this.world
    const [one, other] = this.devices.filter(({ isWarden }) => isWarden)
    if (device.isWarden || this.isPair || this.mayHaveOnlyTwo) return
    const session = one.sessions.findLast(({ to, isSettled }) => to === other && isSettled)
    if (session === undefined) return
    const { index } = session
    const allowed = device.mayReach.get(index) ?? []
    const isFresh = Date.now() - session.since < FRESH_MS
    const forgeries = [
      [transportData(random, index, 200), allowed, 'forged transport data'],
      [cookieReply(random, index), allowed, 'forged cookie reply'],
      [response(random, this.#index(), index), allowed, 'forged response']
    ]
    // The index that `other` has given: whoever else claims it towards `one` must be turned away.
    if (isFresh) forgeries.push([initiation(random, index, one.mac1Key), [], 'forged initiation'])
    tunnel.send([random.pick(forgeries)])
  }

  dooversize (_device, tunnel) {
    const { random } = this.world
    tunnel.send([[transportData(random, this.#index(), random.between(MAX_PACKET + 1, 65535)), [], 'too large']])
  }

  dostall (_device, tunnel) {
    tunnel.socket.pause()
    setTimeout(() => tunnel.socket.resume(), this.world.random.between(200, 6000))
  }

  dosilence (_device, tunnel) {
    tunnel.isSilent = true
  }

  doreset (_device, tunnel) {
    tunnel.reset()
  }

  dofinish (_device, tunnel) {
    tunnel.finish()
  }

  docut (device, tunnel) {
    const { random } = this.world
    const frame = tunnel.frame(transportData(random, this.#index(), random.between(32, 1500)), [], 'cut')
    const part = frame.subarray(0, random.between(1, frame.length - 1))
    if (random.chance(0.5)) return tunnel.finish(part)
    tunnel.isLeaving = true
    tunnel.socket.write(part, () => reset(tunnel.socket))
  }

  dogarbage (_device, tunnel) {
    const { random } = this.world
    const garbage = random.bytes(random.between(2, 300))
    if (tunnel.framing === wg) garbage[0] = random.between(5, 0x7f)
    // There is no wrong byte in len16: this says that a datagram follows which is too large, and it never comes.
    else garbage.fill(0xff, 0, 2)
    tunnel.isLeaving = true
    tunnel.socket.write(garbage)
    setTimeout(() => tunnel.finish(), random.between(0, 500))
  }

  /** The same identity comes again before the relay knows that the older tunnel is not wanted any more. */
  doagain (device, tunnel) {
    if (device.isAnonymous) return
    tunnel.isSilent = this.world.random.chance(0.5)
    this.#come(device)
  }
}
