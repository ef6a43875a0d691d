import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { dial, reset, upgradeHead } from './peer.ts'
import { crowd, hold, type Attack } from './attack.ts'

// What one client can do to the relay over HTTP/1.1 without a token.

/** Sends requests, each on a connection of its own, and reads what is answered. */
function flood (request: string): Attack {
  return async (siege) => await crowd(siege, async () => {
    const socket = dial(siege.place, siege)
    socket.resume()
    socket.on('end', () => socket.destroy())
    socket.write(request)
    siege.counted()
    await once(socket, 'close')
  })
}

const KEY = 'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=='
const longList = Array.from({ length: 1500 }, (_, index) => `token${index}`).join(',')

export const http1Attacks: Record<string, Attack> = {
  'upgrades without a token': flood(upgradeHead('/relay/c0')),

  'WebSockets without a token': flood(upgradeHead('/relay/c0', [KEY, 'Sec-WebSocket-Version: 13'], 'websocket')),

  'WebSockets of another origin': flood(upgradeHead('/relay/c0', [KEY, 'Sec-WebSocket-Version: 13', 'Origin: https://evil.example'], 'websocket')),

  'upgrades with two Host headers': flood(upgradeHead('/relay/c0', ['Host: other'])),

  'upgrades of an unknown path': flood(upgradeHead('/nowhere')),

  'lists of 14 kB': flood(upgradeHead('/relay/c0', [`Spanza-Framing: ${longList}`])),

  'URLs that no router takes': async (siege) => await hold(siege, 1000, async () => {
    const socket = dial(siege.place, siege)
    socket.write(upgradeHead('/%', [KEY, 'Sec-WebSocket-Version: 13'], 'websocket'))
    return socket
  }),

  'plain requests': async (siege) => await crowd(siege, async () => {
    const socket = dial(siege.place, siege)
    socket.resume()
    for (let i = 0; i < 20 && !socket.destroyed; i++) {
      socket.write('GET /relay/c0 HTTP/1.1\r\nHost: localhost\r\n\r\n')
      siege.counted()
    }
    socket.end()
    await once(socket, 'close')
  }),

  'connections that are reset behind the request': async (siege) => await crowd(siege, async () => {
    const socket = dial(siege.place, siege)
    await once(socket, siege.place.isTls ? 'secureConnect' : 'connect')
    socket.write(upgradeHead('/relay/c0'), () => reset(socket))
    siege.counted()
    await once(socket, 'close')
  }),

  'answers that nobody reads': async (siege) => await hold(siege, 2000, async () => {
    const socket = dial(siege.place, siege)
    socket.pause()
    socket.write(upgradeHead('/relay/c0'))
    return socket
  }),

  'headers that come byte by byte': async (siege) => await hold(siege, 2000, async () => {
    const socket = dial(siege.place, siege)
    socket.write('GET /relay/c0 HTTP/1.1\r\nHost: localhost\r\nX-Slow: ')
    const timer = setInterval(() => socket.write('x'), 500)
    socket.on('close', () => clearInterval(timer))
    return socket
  }),

  'handshakes in a slow hook': async (siege) => await hold(siege, 2000, async () => {
    const socket = dial(siege.place, siege)
    socket.write(upgradeHead('/slow'))
    socket.resume()
    return socket
  }),

  'upgrades behind a request that waits': async (siege) => await hold(siege, 500, async () => {
    const socket = dial(siege.place, siege)
    socket.resume()
    socket.write('GET /slow-rest HTTP/1.1\r\nHost: localhost\r\n\r\n' + upgradeHead('/relay/c0').repeat(20))
    return socket
  }),

  'data behind a request without a token': async (siege) => await crowd(siege, async () => {
    const socket = dial(siege.place, siege)
    socket.resume()
    socket.write(upgradeHead('/relay/c0'))
    siege.counted()
    const piece = Buffer.alloc(64 * 1024)
    while (!socket.destroyed && !siege.isOver()) {
      if (!socket.write(piece)) await Promise.race([once(socket, 'drain'), once(socket, 'close'), sleep(1000)])
    }
    socket.destroy()
  }, 4)
}
