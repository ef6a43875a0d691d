import { createSocket } from 'node:dgram'
import { ready } from './serve.js'

// The least that UDP costs on Node: each datagram comes in by an event, and goes out by a call.

const socket = createSocket('udp4')
socket.on('message', (datagram, { port, address }) => socket.send(datagram, port, address))
socket.bind(0, '127.0.0.1', () => ready(socket))
