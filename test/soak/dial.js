import { connect } from 'node:net'

/** Source addresses: each has some 28,000 ports, and a closed connection keeps its port for a minute. */
const SOURCES = 30

/** The life of one connection to the relay up to its answer. */
export class Dialer {
  /** Open sockets, tunnels or not yet. */
  sockets = new Set()
  attempts = 0
  /** Of these, without an answer yet: the requests. */
  unanswered = new Set()
  tunnels = 0
  /** Answers other than 101, by error code, or by status where there is no code of the relay's. */
  refused = {}
  /** Connections that we closed before the answer was read: the relay may have counted them as anything. */
  abandoned = 0
  #port
  #ledger
  #nextSource = 0

  constructor (port, ledger) {
    this.#port = port
    this.#ledger = ledger
  }

  /**
   * Sends an upgrade request.
   * @param lines header lines beyond Host, Connection and Upgrade
   * @param early bytes sent behind the request in the same write
   * @param mayBreak whether the tunnel may be reset together with another one as soon as it is open; a reset takes away
   * what has not been read, the 101 as well
   * @param leaveAfter milliseconds after which the connection is dropped if there is no answer yet
   * @param onTunnel called with the socket behind the 101
   * @param onFailure called when there will be no tunnel
   */
  dial ({ path, upgrade = 'spanza', lines = [], early, mayBreak = false, leaveAfter, onTunnel, onFailure = () => {} }) {
    this.attempts++
    const head = `GET ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: ${upgrade}\r\n${lines.map((line) => `${line}\r\n`).join('')}\r\n`
    this.unanswered.add(head)
    const socket = this.open(() => {
      socket.write(early === undefined ? head : Buffer.concat([Buffer.from(head), early()]))
    })
    let answer = Buffer.alloc(0)
    let isAbandoned = false
    let error
    socket.on('error', (reported) => { error ??= reported })
    const timer = leaveAfter === undefined
      ? undefined
      : setTimeout(() => {
        isAbandoned = true
        socket.resetAndDestroy()
      }, leaveAfter)
    const onData = (chunk) => {
      answer = Buffer.concat([answer, chunk])
      const end = answer.indexOf('\r\n\r\n')
      if (end < 0 || !answer.toString('latin1', 0, 12).endsWith(' 101')) return
      clearTimeout(timer)
      socket.off('data', onData)
      socket.off('end', onEnd)
      socket.off('close', onClose)
      this.unanswered.delete(head)
      this.tunnels++
      const rest = answer.subarray(end + 4)
      if (rest.length > 0) socket.unshift(rest)
      onTunnel(socket)
    }
    const onEnd = () => socket.end()
    const onClose = () => {
      clearTimeout(timer)
      this.unanswered.delete(head)
      if (isAbandoned || (mayBreak && error?.code === 'ECONNRESET' && answer.length === 0)) this.abandoned++
      else this.#note(answer.toString(), path, error)
      onFailure()
    }
    socket.on('data', onData)
    socket.on('end', onEnd)
    socket.on('close', onClose)
  }

  /** A plain TCP connection from one of the source addresses. */
  open (onConnect) {
    const localAddress = `127.0.0.${2 + this.#nextSource++ % SOURCES}`
    const socket = connect({ port: this.#port, host: '127.0.0.1', localAddress, noDelay: true, allowHalfOpen: true }, onConnect)
    this.sockets.add(socket)
    socket.on('error', () => {})
    socket.on('close', () => this.sockets.delete(socket))
    return socket
  }

  #note (answer, path, error) {
    const status = /^HTTP\/1\.1 (\d{3}) /.exec(answer)?.[1]
    if (status === undefined) return this.#ledger.violation('a handshake without an answer', { path, answer: answer.slice(0, 100), error: error?.message })
    let code
    try {
      code = JSON.parse(answer.slice(answer.indexOf('\r\n\r\n') + 4)).code
    } catch {
      this.#ledger.violation('a refusal that was cut', { path, answer })
    }
    const key = code ?? status
    this.refused[key] = (this.refused[key] ?? 0) + 1
  }
}

/** Sends a RST. While a FIN is being sent libuv refuses to, and Node would never close the socket then. */
export function reset (socket) {
  const isEnding = socket.writableEnded && !socket.writableFinished && socket.writableLength === 0
  if (isEnding && !socket.destroyed) socket.once('finish', () => socket.resetAndDestroy())
  else socket.resetAndDestroy()
}

/** Header lines that tell the app's hook to be slow, or to refuse, at random; mostly none. */
export function whims (random) {
  const lines = []
  if (random.chance(0.05)) lines.push(`X-Slow: ${random.between(1, 300)}`)
  else if (random.chance(0.003)) lines.push('X-Slow: 3000') // longer than the handshake may take
  if (random.chance(0.03)) lines.push(`X-Refuse: ${random.pick([401, 403, 429, 500, 503])}`)
  return lines
}

/** When a client leaves without waiting for the answer; mostly never. */
export function impatience (random) {
  return random.chance(0.02) ? random.between(0, 40) : undefined
}
