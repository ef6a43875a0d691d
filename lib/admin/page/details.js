import { AnswerError, get, post } from './api.js'
import { byId, el, KeyedList, setText } from './dom.js'
import { keyOfPeer, Rates } from './rates.js'
import { formatBytes, formatCount, formatDuration, formatRate, named, wordsOfDrop } from './words.js'

const selectorOf = ({ id, channel: { name, scope, kind } }) => ({ id, channel: name, scope, kind })

/** The dialogs: a peer's details, and whether it shall be disconnected. */
export class Details {
  #dialog = byId('details')
  #confirm = byId('confirm')
  #state = byId('details-state')
  #facts = new KeyedList(byId('details-list'), createFact, updateFact)
  #rates
  #onDisconnected
  #peer

  constructor (onDisconnected) {
    this.#onDisconnected = onDisconnected
    byId('close-details').addEventListener('click', () => this.#dialog.close())
    byId('ask-disconnect').addEventListener('click', () => this.#ask())
    byId('cancel').addEventListener('click', () => this.#confirm.close())
    byId('disconnect').addEventListener('click', () => { this.#disconnect() })
    this.#dialog.addEventListener('close', () => { this.#peer = undefined })
  }

  open (peer) {
    this.#peer = peer
    this.#rates = new Rates()
    setText(byId('details-heading'), named(peer.id))
    setText(this.#state, '')
    byId('ask-disconnect').hidden = false
    this.#facts.show([])
    this.#dialog.showModal()
    this.refresh().catch(() => {})
  }

  /** Reads the peer's counters again while the dialog is open. */
  async refresh () {
    const asked = this.#peer
    if (asked === undefined) return
    try {
      const { time, peers } = await get('peer', selectorOf(asked))
      if (asked !== this.#peer) return
      const peer = peers.find((peer) => keyOfPeer(peer) === keyOfPeer(asked))
      if (peer === undefined) this.#left('This tunnel has ended; its peer is here again with another one.')
      else this.#show(peer, time)
    } catch (error) {
      if (!(error instanceof AnswerError) || error.statusCode !== 404) throw error
      if (asked === this.#peer) this.#left('This peer has left.')
    }
  }

  #show (peer, now) {
    const rates = this.#rates.begin(now).of(keyOfPeer(peer), peer)
    const facts = {
      Channel: named(peer.channel.name),
      Scope: peer.channel.scope,
      Kind: peer.channel.kind,
      Address: peer.address ?? '–',
      Protocol: `${peer.protocol} over HTTP/${peer.httpVersion}`,
      Framing: peer.framing,
      'Public key': peer.publicKey ?? '–',
      Attached: `${new Date(peer.attachedAt).toLocaleString()}, ${formatDuration(now - Date.parse(peer.attachedAt))} ago`,
      In: `${formatRate(rates?.bytesIn)}, ${formatBytes(peer.bytesIn)} in all, ${formatCount(peer.datagramsIn)} datagrams`,
      Out: `${formatRate(rates?.bytesOut)}, ${formatBytes(peer.bytesOut)} in all, ${formatCount(peer.datagramsOut)} datagrams`,
      Handshakes: handshakesText(peer, now),
      ...(peer.handshakeFaults.length > 0 && { 'They fail': peer.handshakeFaults.map(({ text, lastAt }) => `${text} (${agoText(lastAt, now)})`).join('\n') }),
      'Has sent to': peer.sentTo.map(({ id, bytes }) => `${named(id)} ${formatBytes(bytes)}`).join(', ') || '–',
      Dropped: droppedText(peer)
    }
    this.#facts.show(Object.entries(facts), ([name]) => name)
  }

  #left (text) {
    this.#peer = undefined
    setText(this.#state, text)
    byId('ask-disconnect').hidden = true
    this.#confirm.close()
    byId('close-details').focus()
  }

  #ask () {
    setText(byId('confirm-text'), `${named(this.#peer.id)} in channel ${named(this.#peer.channel.name)} (${this.#peer.channel.scope})`)
    this.#confirm.showModal()
  }

  async #disconnect () {
    const peer = this.#peer
    this.#confirm.close()
    if (peer === undefined) return
    try {
      const { closed } = await post('disconnect', selectorOf(peer))
      if (closed === 0) setText(this.#state, 'It had left already.')
      else this.#dialog.close()
      this.#onDisconnected()
    } catch (error) {
      setText(this.#state, `It is still there: ${error.message}`)
    }
  }
}

function agoText (time, now) {
  return `${formatDuration(now - Date.parse(time))} ago`
}

function handshakesText ({ lastHandshake, handshakes }, now) {
  if (handshakes.length === 0) return 'none of WireGuard’s seen'
  const last = lastHandshake === undefined ? 'never' : `with ${named(lastHandshake.id)}, ${agoText(lastHandshake.at, now)}`
  const lines = handshakes.map(({ id, sent, answered, unanswered, lastAt }) => {
    const name = id === undefined ? 'peers without a known public key' : named(id)
    const missing = unanswered > 0 ? `, the last ${formatCount(unanswered)} unanswered` : ''
    const at = id === undefined ? '' : `, last complete ${lastAt === undefined ? 'never' : agoText(lastAt, now)}`
    return `${name}: ${formatCount(sent)} sent, ${formatCount(answered)} answered${missing}${at}`
  })
  return [`Last complete: ${last}`, ...lines].join('\n')
}

function droppedText ({ drops, dropsByReason }) {
  const reasons = Object.entries(dropsByReason).sort(([, a], [, b]) => b - a)
  return [`${formatCount(drops)} datagrams from or for it`, ...reasons.map(([reason, count]) => `${formatCount(count)}: ${wordsOfDrop(reason)} (${reason})`)].join('\n')
}

function createFact ([name]) {
  const value = el('dd')
  return { element: el('div', {}, el('dt', {}, name), value), value }
}

function updateFact ({ value }, [, text]) {
  setText(value, text)
}
