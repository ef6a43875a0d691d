import { el, KeyedList, setText, svg } from './dom.js'
import { keyOfChannel, keyOfPair, keyOfPeer } from './rates.js'
import { formatCount, formatRate, named } from './words.js'

const WIDTH = 360
const ROW = 26
const TOP = 18
const PEER_X = 118
const MAX_EDGE = 11
const IDLE_EDGE = 1
const MAX_LABEL = 14
/** Less than this is not drawn as wide as the widest edge, even if nobody has more. */
const SMALLEST_FULL_RATE = 10_000

/** How many peers of a channel are drawn; the others together are one. */
export const DRAWN_PEERS = 12

/**
 * Channels in the middle of their peers, on both sides, with edges as wide as their traffic: from peer to peer where it is known
 * who talks to whom, else from the peer to the channel.
 */
export class Picture {
  #list
  #rates
  #onPeer
  #onChannel
  #fullRate = SMALLEST_FULL_RATE

  constructor (parent, rates, { onPeer, onChannel }) {
    this.#rates = rates
    this.#onPeer = onPeer
    this.#onChannel = onChannel
    this.#list = new KeyedList(parent, (channel) => this.#createCard(channel), (card, channel) => this.#updateCard(card, channel))
  }

  show (channels) {
    const shown = channels.map((channel) => ({ channel, nodes: nodesOf(channel, this.#rates) }))
    this.#fullRate = shown.flatMap(({ nodes }) => nodes).reduce(
      (most, { rates }) => Math.max(most, rates?.bytesIn ?? 0, rates?.bytesOut ?? 0), SMALLEST_FULL_RATE)
    this.#list.show(shown, ({ channel }) => keyOfChannel(channel))
  }

  #createCard ({ channel }) {
    const title = el('button', { type: 'button', className: 'link' }, named(channel.name))
    title.addEventListener('click', () => this.#onChannel(channel))
    const facts = el('p', { className: 'muted' })
    const edges = svg('g')
    const pairs = svg('g')
    const nodes = svg('g')
    const hub = svg('circle', { class: 'hub', cx: WIDTH / 2, r: 9 })
    const drawing = svg('svg', { role: 'img' }, edges, pairs, hub, nodes)
    const element = el('li', { className: 'card' }, el('h3', {}, title), facts, drawing)
    const card = { element, facts, drawing, hub }
    card.edges = new KeyedList(edges, createEdge, (edge, node) => this.#updateEdge(edge, node))
    card.pairs = new KeyedList(pairs, createPairEdge, (edge, pair) => this.#updatePairEdge(edge, pair))
    card.nodes = new KeyedList(nodes, (node) => this.#createNode(node), updateNode)
    return card
  }

  #updateCard (card, { channel, nodes }) {
    const rates = this.#rates.get(keyOfChannel(channel))
    setText(card.facts, `${channel.kind} · ${channel.scope} · ${formatCount(channel.peers)} ${channel.peers === 1 ? 'peer' : 'peers'} · ` +
      `${formatRate(rates?.bytesIn)} in, ${formatRate(rates?.bytesOut)} out`)
    const height = TOP * 2 + ROW * (Math.ceil(nodes.length / 2) - 1)
    card.drawing.setAttribute('viewBox', `0 0 ${WIDTH} ${height}`)
    card.drawing.setAttribute('aria-label', `Channel ${named(channel.name)} and ${nodes.length === 1 ? 'its peer' : 'its peers with the most traffic'}: ` +
      nodes.map((node) => `${node.label} ${formatRate(node.rates?.bytesIn)} in ${formatRate(node.rates?.bytesOut)} out`).join(', '))
    card.hub.setAttribute('cy', height / 2)
    const placed = nodes.map((node, i) => place(node, i, nodes.length, height))
    const pairs = pairsOf(placed, this.#rates)
    const inPairs = new Set(pairs.flatMap(({ ends }) => ends))
    card.edges.show(placed.filter((node) => !inPairs.has(node)), ({ key }) => key)
    card.pairs.show(pairs, ({ key }) => key)
    card.nodes.show(placed, ({ key }) => key)
  }

  #createNode ({ peer }) {
    const element = svg('g', { class: peer === undefined ? 'node others' : 'node' })
    const dot = svg('circle', { r: peer === undefined ? 7 : 5 })
    const label = svg('text', { dy: '0.35em' })
    const title = svg('title')
    element.append(title, dot, label)
    // For a pointer only: the table of peers offers the same to everybody.
    if (peer !== undefined) element.addEventListener('click', () => this.#onPeer(peer))
    return { element, dot, label, title }
  }

  #updateEdge ({ element, into, out }, { x, y, hubY, rates }) {
    // Side by side, in above and out below.
    draw(into, x, y, hubY, this.#widthOf(rates?.bytesIn), 'in', -1)
    draw(out, x, y, hubY, this.#widthOf(rates?.bytesOut), 'out', 1)
    element.classList.toggle('idle', !(rates?.bytesIn > 0 || rates?.bytesOut > 0))
  }

  #updatePairEdge ({ element, title }, { ends: [a, b], rate, text }) {
    const width = this.#widthOf(rate)
    element.classList.toggle('idle', width === 0)
    element.setAttribute('d', `M${a.x} ${a.y} C${WIDTH / 2} ${a.y} ${WIDTH / 2} ${b.y} ${b.x} ${b.y}`)
    setWidth(element, width)
    setText(title, text)
  }

  /** By the square root: what has a hundredth of the traffic can still be seen. */
  #widthOf (rate = 0) {
    return rate === 0 ? 0 : Math.max(IDLE_EDGE, MAX_EDGE * Math.sqrt(rate / this.#fullRate))
  }
}

function createEdge () {
  const [into, out] = [svg('path'), svg('path')]
  return { element: svg('g', { class: 'edge' }, into, out), into, out }
}

function createPairEdge () {
  const title = svg('title')
  return { element: svg('path', { class: 'pair-edge' }, title), title }
}

function draw (path, x, peerY, centreY, width, name, side) {
  const middle = (x + WIDTH / 2) / 2
  const offset = side * Math.max(IDLE_EDGE, width / 2)
  const [y, hubY] = [peerY + offset, centreY + offset]
  path.setAttribute('class', width === 0 ? 'none' : name)
  path.setAttribute('d', `M${x} ${y} C${middle} ${y} ${middle} ${hubY} ${WIDTH / 2} ${hubY}`)
  setWidth(path, width)
}

function setWidth (path, width) {
  path.setAttribute('stroke-width', width === 0 ? IDLE_EDGE : width.toFixed(1))
}

function updateNode ({ dot, label, title }, { x, y, isLeft, label: text, rates }) {
  dot.setAttribute('cx', x)
  dot.setAttribute('cy', y)
  label.setAttribute('x', isLeft ? x - 10 : x + 10)
  label.setAttribute('y', y)
  label.setAttribute('text-anchor', isLeft ? 'end' : 'start')
  setText(label, shorten(text))
  setText(title, `${text}: ${formatRate(rates?.bytesIn)} in, ${formatRate(rates?.bytesOut)} out`)
}

/** The peers that are drawn, always in the same order, and one that stands for all others. */
function nodesOf (channel, rates) {
  const nodes = channel.busiest
    .map((peer) => ({ peer, key: keyOfPeer(peer), label: named(peer.id), rates: rates.get(keyOfPeer(peer)) }))
    .sort((a, b) => a.key < b.key ? -1 : 1)
  const others = channel.peers - nodes.length
  if (others === 0) return nodes
  const all = rates.get(keyOfChannel(channel))
  const rest = (name) => nodes.reduce((sum, node) => sum - (node.rates?.[name] ?? 0), all?.[name] ?? 0)
  const restRates = { bytesIn: Math.max(0, rest('bytesIn')), bytesOut: Math.max(0, rest('bytesOut')) }
  return [...nodes, { peer: undefined, key: 'others', label: `${formatCount(others)} more`, rates: restRates }]
}

/** The pairs of drawn peers that have a session, in channels where that is not plain to see anyway. */
function pairsOf (nodes, rates) {
  if (nodes.length < 3) return []
  const byId = new Map(nodes.filter(({ peer }) => peer !== undefined).map((node) => [node.peer.id, node]))
  const pairs = new Map()
  for (const from of byId.values()) {
    for (const { id } of from.peer.sentTo) {
      const to = byId.get(id)
      if (to === undefined) continue
      const ends = from.key < to.key ? [from, to] : [to, from]
      const key = JSON.stringify(ends.map((end) => end.key))
      const rate = rates.get(keyOfPair(from.peer, id))?.bytesIn ?? 0
      const pair = pairs.get(key) ?? { key, ends, rate: 0, text: '' }
      pair.rate += rate
      pair.text += `${from.label} to ${to.label}: ${formatRate(rate)}\n`
      pairs.set(key, pair)
    }
  }
  return [...pairs.values()]
}

/** The first half on the left side, the others on the right one. */
function place (node, i, count, height) {
  const isLeft = i < Math.ceil(count / 2)
  const [row, rows] = isLeft ? [i, Math.ceil(count / 2)] : [i - Math.ceil(count / 2), Math.floor(count / 2)]
  const y = height / 2 + ROW * (row - (rows - 1) / 2)
  return { ...node, isLeft, x: isLeft ? PEER_X : WIDTH - PEER_X, y, hubY: height / 2 }
}

function shorten (text) {
  const characters = [...text]
  return characters.length > MAX_LABEL ? `${characters.slice(0, MAX_LABEL - 1).join('')}…` : text
}
