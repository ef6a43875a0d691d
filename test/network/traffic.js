// Sends a datagram to a sidecar ten times a second and prints a line for each that came back. Its argument: the port.

import { createSocket } from 'node:dgram'

const socket = createSocket('udp4')
socket.on('message', () => console.log('answer'))
setInterval(() => socket.send(Buffer.from('hello'), Number(process.argv[2]), '127.0.0.1'), 100)
