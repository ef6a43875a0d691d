import { once } from 'node:events'
import { connect } from 'node:net'
import { crowd, hold, type Attack } from './attack.ts'
import { dial } from './peer.ts'

// What one client can do to the relay over TLS without a token.

export const tlsAttacks: Record<string, Attack> = {
  'TLS handshakes': async (siege) => await crowd(siege, async () => {
    const socket = dial(siege.place, siege)
    siege.counted()
    await once(socket, 'secureConnect')
    socket.destroy()
  }),

  'TLS handshakes that are not finished': async (siege) => await hold(siege, 2000, async () => {
    const socket = connect({ host: '127.0.0.1', port: siege.place.port, localAddress: siege.from })
    socket.on('error', () => {})
    socket.resume()
    // The beginning of a ClientHello.
    socket.write(Buffer.from('160301020001', 'hex'))
    return socket
  }),

  'connections that say nothing': async (siege) => await hold(siege, 2000, async () => {
    const socket = dial(siege.place, siege)
    socket.resume()
    return socket
  })
}
