import { PacketChannel } from '../../dist/hub/packet/packet-channel.js'
import { SendQueue } from '../../dist/hub/packet/send-queue.js'
import { StreamChannel } from '../../dist/hub/stream/stream-channel.js'

/** Faults that the soak must find: each breaks the relay in its own way, rarely enough that nothing else would notice. */

const EVERY = 50

function wrap (target, name, wrapper) {
  const original = target[name]
  target[name] = function (...args) {
    return wrapper.call(this, (...given) => original.apply(this, given), ...args)
  }
}

const bugs = {
  'wrong-channel' () {
    const queues = new Set()
    wrap(PacketChannel.prototype, 'attach', (original, admitted, tunnel) => {
      const peer = original(admitted, tunnel)
      queues.add(peer.queue)
      tunnel.onClose(() => queues.delete(peer.queue))
      return peer
    })
    let calls = 0
    wrap(SendQueue.prototype, 'add', function (original, ...args) {
      if (++calls % EVERY !== 0) return original(...args)
      const wrong = [...queues].at(calls % queues.size)
      if (wrong === this) return original(...args)
      calls++ // or this would come here again
      if (wrong.add(...args)) wrong.flush()
      return false
    })
  },

  'duplicate' () {
    let calls = 0
    wrap(SendQueue.prototype, 'add', (original, ...args) => {
      const isOwed = original(...args)
      if (++calls % EVERY === 0) return original(...args) || isOwed
      return isOwed
    })
  },

  'altered' () {
    let calls = 0
    wrap(SendQueue.prototype, 'add', (original, source, frame, start, end, ...rest) => {
      if (++calls % EVERY === 0) source[end - 20] ^= 1
      return original(source, frame, start, end, ...rest)
    })
  },

  'lost-byte' () {
    wrap(StreamChannel.prototype, 'attach', (original, admitted, tunnel) => {
      let wasBlocked = false
      wrap(tunnel.stream, 'write', (write, chunk, ...rest) => {
        const isOpen = write(wasBlocked ? chunk.subarray(1) : chunk, ...rest)
        wasBlocked = !isOpen
        return isOpen
      })
      return original(admitted, tunnel)
    })
  },

  'half-stream' () {
    // The end of a stream that broke is passed on as if it were whole.
    wrap(StreamChannel.prototype, 'attach', (original, admitted, tunnel) => {
      tunnel.abort = () => tunnel.end()
      return original(admitted, tunnel)
    })
  },

  'leaked-identity' () {
    const kept = []
    wrap(PacketChannel.prototype, 'detach', (original, peer) => {
      kept.push(peer.identity)
      original(peer)
    })
  },

  'leaked-channel' () {
    // Found empty, a channel is taken out of the hub's table only now and then.
    const { isEmpty } = Object.getOwnPropertyDescriptors(PacketChannel.prototype)
    const kept = new WeakSet()
    Object.defineProperty(PacketChannel.prototype, 'isEmpty', {
      get () {
        if (!kept.has(this) && Math.random() < 1 / 100) kept.add(this)
        return isEmpty.get.call(this) && !kept.has(this)
      }
    })
  },

  'leaked-listener' () {
    wrap(PacketChannel.prototype, 'attach', (original, admitted, tunnel) => {
      process.on('leaked', () => tunnel.stream.remoteAddress)
      return original(admitted, tunnel)
    })
    process.setMaxListeners(0)
  },

  'leaked-memory' () {
    const kept = []
    wrap(PacketChannel.prototype, 'attach', (original, admitted, tunnel) => {
      kept.push(Array.from({ length: 500 }, (_, i) => i + 0.5))
      return original(admitted, tunnel)
    })
  },

  'leaked-socket' () {
    let tunnels = 0
    wrap(PacketChannel.prototype, 'attach', (original, admitted, tunnel) => {
      if (++tunnels % 50 === 0) tunnel.stream.destroy = () => tunnel.stream
      return original(admitted, tunnel)
    })
  },

  'leaked-timer' () {
    wrap(PacketChannel.prototype, 'attach', (original, admitted, tunnel) => {
      setInterval(() => {}, 1e6).unref()
      return original(admitted, tunnel)
    })
  },

  'lost-count' () {
    let calls = 0
    wrap(SendQueue.prototype, 'add', (original, ...args) => ++calls % EVERY === 0 ? false : original(...args))
  },

  'slow-rest' () {
    wrap(PacketChannel.prototype, 'sweep', (original) => {
      if (Math.random() < 1 / 2000) for (const end = Date.now() + 3000; Date.now() < end;);
      original()
    })
  }
}

export const plantedBugs = Object.keys(bugs)

export function plantBug (name) {
  bugs[name]()
}
