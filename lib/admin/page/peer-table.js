import { el, KeyedList, setText } from './dom.js'
import { keyOfPeer } from './rates.js'
import { formatBytes, formatCount, formatDuration, formatRate, named } from './words.js'

/** The rows of the table of peers. */
export class PeerTable {
  #list

  constructor (body, rates, onPeer) {
    this.#list = new KeyedList(body, (peer) => createRow(peer, onPeer), (row, peer) => updateRow(row, peer, rates.get(keyOfPeer(peer)), this.now))
  }

  /** @param now the relay's time, in milliseconds */
  show (peers, now) {
    this.now = now
    this.#list.show(peers, keyOfPeer)
  }
}

function createRow (peer, onPeer) {
  const button = el('button', { type: 'button', className: 'link' }, named(peer.id))
  button.addEventListener('click', () => onPeer(peer))
  const cells = Object.fromEntries(['in', 'out', 'total', 'drops', 'attached'].map((name) => [name, el('td', { className: 'number' })]))
  cells.total.classList.add('wide')
  cells.attached.classList.add('wide')
  const fault = el('span', { className: 'notice' })
  const element = el('tr', {},
    el('th', { scope: 'row' }, button, el('span', { className: 'narrow muted' }, named(peer.channel.name)), fault),
    el('td', { className: 'wide' }, named(peer.channel.name)),
    el('td', { className: 'wide' }, peer.address ?? '–'),
    el('td', { className: 'wide' }, peer.framing),
    ...Object.values(cells))
  return { element, cells, fault }
}

function updateRow ({ cells, fault }, peer, rates, now) {
  setText(fault, peer.handshakeFaults[0]?.text ?? '')
  setText(cells.in, formatRate(rates?.bytesIn))
  setText(cells.out, formatRate(rates?.bytesOut))
  setText(cells.total, formatBytes(peer.bytesIn + peer.bytesOut))
  setText(cells.drops, formatCount(peer.drops))
  setText(cells.attached, formatDuration(now - Date.parse(peer.attachedAt)))
}
