const SUBPROTOCOL = 'spanza.v1'
/** The relay drops what is larger than its `maxPacketSize`. */
const MAX_DATAGRAM_SIZE = 2048
const MAX_SHOWN = 100
const ANSWER_MS = 10_000

/** What the codes of Close frames stand for. */
const closeCodes = {
  1000: 'You have left the network.',
  1001: 'The relay is shutting down.',
  1002: 'The relay did not understand what this page has sent.',
  1003: 'The relay takes binary messages only.',
  1006: 'The connection broke.',
  1009: 'The relay takes no datagrams of this size.',
  1011: 'The relay lost the other side.',
  1013: 'The relay is too busy: try again later.',
  4003: 'Another peer has joined with the same identity and taken its place. Is its token used somewhere else, too?',
  4004: 'The relay has not heard from this page for too long.',
  4005: 'This page did not read fast enough.',
  4006: 'The operator has disconnected this peer.'
}

const joinForm = document.querySelector('#join')
const sendForm = document.querySelector('#send')
const status = document.querySelector('#status')
const datagrams = document.querySelector('#datagrams')

/** The WebSocket of the network that was joined. */
let socket

joinForm.server.value = window.location.origin
takeTokenFromFragment()
window.addEventListener('hashchange', takeTokenFromFragment)

joinForm.addEventListener('submit', async (event) => {
  event.preventDefault()
  show('asking', 'Connecting …')
  try {
    await join(readServer(), joinForm.network.value, joinForm.token.value.trim())
  } catch (error) {
    show('failed', error.message)
  }
})

joinForm.leave.addEventListener('click', () => socket.close(1000))

sendForm.addEventListener('submit', (event) => {
  event.preventDefault()
  const bytes = new TextEncoder().encode(sendForm.text.value)
  const isTooLarge = bytes.length > MAX_DATAGRAM_SIZE
  sendForm.text.setCustomValidity(isTooLarge ? `A datagram has at most ${MAX_DATAGRAM_SIZE} bytes, this text has ${bytes.length}.` : '')
  if (!sendForm.reportValidity()) return
  socket.send(bytes)
  showDatagram('sent', bytes)
  sendForm.reset()
})

sendForm.text.addEventListener('input', () => sendForm.text.setCustomValidity(''))

/** The part of a URL behind `#` is not sent to any server. */
function takeTokenFromFragment () {
  const token = new URLSearchParams(window.location.hash.slice(1)).get('token')
  if (token === null) return
  joinForm.token.value = token
  // Nor is it to be in a bookmark, or on somebody's screen.
  window.history.replaceState(null, '', window.location.pathname)
}

function readServer () {
  return new URL(joinForm.server.value.replace(/^ws/i, 'http'))
}

async function join (server, network, token) {
  const device = await askWhoIAm(server, token)
  if (device !== undefined && !device.networks.includes(network)) {
    throw new Error(`${device.id} is not in the network “${network}”, only in: ${device.networks.join(', ')}.`)
  }
  const url = new URL(`/relay/${encodeURIComponent(network)}`, server)
  url.protocol = server.protocol === 'https:' ? 'wss:' : 'ws:'
  url.searchParams.set('token', token)
  const opening = new WebSocket(url, SUBPROTOCOL)
  opening.binaryType = 'arraybuffer'
  if (!await isOpened(opening)) throw new Error(await explainRefusal(server, device))

  socket = opening
  socket.addEventListener('message', ({ data }) => showDatagram('received', new Uint8Array(data)))
  socket.addEventListener('close', (end) => show(end.code === 1000 ? 'away' : 'failed', describeEnd(end)))
  show('joined', `Connected to the network “${network}”${device === undefined ? '' : ` as ${device.id}`}.`)
}

/**
 * A browser does not tell why a WebSocket was refused, so that this is asked for before.
 * @returns undefined where the browser does not let this page ask, as it is from another origin than the server
 */
async function askWhoIAm (server, token) {
  let response
  try {
    response = await fetch(new URL('/api/whoami', server), {
      headers: { authorization: `Bearer ${token}` },
      signal: AbortSignal.timeout(ANSWER_MS)
    })
  } catch {
    if (server.origin !== window.location.origin) return
    throw new Error(`No answer from ${server.origin}: is the server running?`)
  }
  if (response.status === 401) throw new Error('The server does not know this token.')
  if (!response.ok) throw new Error(`The server answered ${response.status} when it was asked about this token.`)
  return await response.json()
}

function isOpened (webSocket) {
  return new Promise((resolve) => {
    webSocket.addEventListener('open', () => resolve(true), { once: true })
    webSocket.addEventListener('close', () => resolve(false), { once: true })
  })
}

/** The likely reason why a WebSocket did not open, after the token was found good or could not be asked about. */
async function explainRefusal (server, device) {
  if (device === undefined) {
    if (!await isThere(server)) return `No answer from ${server.origin}: is the server running?`
    return `The relay at ${server.origin} has refused. This page is from another origin, ${window.location.origin}, and a relay ` +
      'lets only those pages in that are from its own, or that its route lists as “origins”. If it does list this one, the token is wrong, or the network.'
  }
  if (device.origin !== window.location.origin) {
    return `The relay has refused this page's origin. The page is from ${window.location.origin}, and the server takes ${device.origin} for its own: ` +
      'behind a proxy, it has to trust what that says about the request (trustProxy).'
  }
  return 'The relay has refused, though the token is good. It may have no room, or something between this page and it lets no WebSockets ' +
    'through; its log says more.'
}

/** Whether a server answers, which is all that a page of another origin can learn about it. */
async function isThere (server) {
  try {
    await fetch(new URL('/api/health', server), { mode: 'no-cors', signal: AbortSignal.timeout(ANSWER_MS) })
    return true
  } catch {
    return false
  }
}

function describeEnd ({ code, reason }) {
  const words = closeCodes[code] ?? 'The relay has closed the connection.'
  return code === 1000 ? words : `${words} (${reason === '' ? '' : `${reason}, `}code ${code})`
}

/** @param state `away`, `asking`, `joined` or `failed` */
function show (state, text) {
  const isJoined = state === 'joined'
  status.dataset.state = state
  status.textContent = text
  for (const element of joinForm.elements) element.disabled = isJoined || state === 'asking'
  for (const element of [joinForm.leave, ...sendForm.elements]) element.disabled = !isJoined
  if (isJoined) sendForm.text.focus()
}

/** @param direction `sent` or `received` */
function showDatagram (direction, bytes) {
  const item = document.createElement('li')
  item.dataset.direction = direction
  const size = bytes.length === 1 ? '1 byte' : `${bytes.length} bytes`
  item.append(
    line('div', 'about', `${direction}, ${size}, ${new Date().toLocaleTimeString()}`),
    line('div', 'text', readText(bytes)),
    line('code', 'hex', [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join(' '))
  )
  datagrams.prepend(item)
  if (datagrams.children.length > MAX_SHOWN) datagrams.lastElementChild.remove()
}

function line (name, className, text) {
  const element = document.createElement(name)
  element.className = className
  element.textContent = text
  return element
}

/** What does not show, or would turn the direction of the text, as a dot; nothing for what is no text. */
function readText (bytes) {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes).replace(/[^\P{C}\n]/gu, '·')
  } catch {
    return ''
  }
}
