// Speaks what ProxyGuard's client speaks, for where that one cannot be built, and takes the same options:
// `--to https://relay.example.com/path --listen-port 51821 --forward-port 51820`. One connection, no second try.

import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { request as httpRequest } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { parseArgs } from 'node:util'

const { values } = parseArgs({
  options: { to: { type: 'string' }, 'listen-port': { type: 'string' }, 'forward-port': { type: 'string' } }
})
const headers = { Connection: 'Upgrade', Upgrade: 'UoTLV/1', 'User-Agent': 'Go-http-client/1.1' }
const request = (values.to.startsWith('https:') ? httpsRequest : httpRequest)(values.to, { headers, agent: false }).end()
const [answer, tunnel, head] = await once(request, 'upgrade')
if (answer.headers.upgrade !== 'UoTLV/1' || answer.headers.connection !== 'Upgrade') throw new Error('unrecognized answer')

// WireGuard does not wait for anybody: what does not fit in here is lost.
const udp = createSocket({ type: 'udp4', recvBufferSize: 4 << 20 }).bind(Number(values['listen-port']), '127.0.0.1')
udp.on('message', (datagram) => {
  const length = Buffer.alloc(2)
  length.writeUInt16BE(datagram.length)
  tunnel.write(Buffer.concat([length, datagram]))
})

let waiting = head
tunnel.on('data', (chunk) => {
  waiting = Buffer.concat([waiting, chunk])
  while (waiting.length >= 2 && waiting.length >= 2 + waiting.readUInt16BE()) {
    const end = 2 + waiting.readUInt16BE()
    udp.send(waiting.subarray(2, end), Number(values['forward-port']), '127.0.0.1')
    waiting = waiting.subarray(end)
  }
})
await once(tunnel, 'close')
process.exit(1)
