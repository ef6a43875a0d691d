import type { ChannelKey, PeerInfo } from '../hub/hub-info.ts'
import type { HandshakeFaultInfo } from '../hub/packet/handshake-record.ts'
import { faultText } from '../hub/packet/handshake-words.ts'
import type { RefusalInfo } from '../server/relay-hub.ts'
import { printable } from '../util/printable.ts'

/** Which peers, and in which order. */
export interface PeerQuery {
  search?: string
  id?: string
  channel?: string
  scope?: string
  kind?: ChannelKey['kind']
  sort?: keyof typeof orders
}

/** One page of a list. */
export interface PageQuery {
  offset: number
  limit: number
}

/** A peer as the admin scope shows it: without the `context` of `identify`, with its handshake faults in words. */
export interface PeerView extends Omit<PeerInfo, 'context' | 'handshakeFaults'> {
  handshakeFaults: Array<HandshakeFaultInfo & { text: string }>
}

/** Remembered texts are cut to this length. */
const REMEMBERED_LENGTH = 500

/** How many of a peer's destinations are shown, those with the most bytes first. */
const SHOWN_PARTNERS = 32

const traffic = ['datagramsIn', 'datagramsOut', 'bytesIn', 'bytesOut', 'drops'] as const

/** A channel with the traffic of its attached peers. */
export interface ChannelView extends ChannelKey, Record<typeof traffic[number], number> {
  peers: number
  /** The peers with the most traffic. */
  busiest: PeerView[]
}

const orders = {
  traffic: (a: PeerInfo, b: PeerInfo) => bytes(b) - bytes(a),
  drops: (a: PeerInfo, b: PeerInfo) => b.drops - a.drops,
  newest: (a: PeerInfo, b: PeerInfo) => b.attachedAt.getTime() - a.attachedAt.getTime(),
  id: (a: PeerInfo, b: PeerInfo) => a.id < b.id ? -1 : Number(a.id > b.id)
}

export const peerOrders = Object.keys(orders)

/** The peers that match a query. Names in a query are those that the page shows. */
export function selectPeers (peers: PeerInfo[], { search = '', id, channel, scope, kind, sort }: PeerQuery): PeerInfo[] {
  const needle = search.toLowerCase()
  const selected = peers.filter((peer) =>
    (kind === undefined || peer.channel.kind === kind) &&
    (scope === undefined || nameOf(peer.channel.scope) === scope) &&
    (channel === undefined || nameOf(peer.channel.name) === channel) &&
    (id === undefined || printable(peer.id) === id) &&
    (needle === '' || textOf(peer).includes(needle)))
  return sort === undefined ? selected : selected.sort(orders[sort])
}

/** The channels of these peers that match, those with the most traffic first. */
export function selectChannels (peers: PeerInfo[], search = ''): PeerInfo[][] {
  const byKey = new Map<string, PeerInfo[]>()
  for (const peer of peers) {
    const { kind, scope, name } = peer.channel
    const key = `${kind}\n${scope}\n${name}`
    const members = byKey.get(key)
    if (members === undefined) byKey.set(key, [peer])
    else members.push(peer)
  }
  const needle = search.toLowerCase()
  return [...byKey.values()]
    .filter((members) => needle === '' || members.some((peer) => textOf(peer).includes(needle)))
    .map((members) => ({ members, total: members.reduce((sum, peer) => sum + bytes(peer), 0) }))
    .sort((a, b) => b.total - a.total)
    .map(({ members }) => members)
}

export function viewChannel (members: PeerInfo[], busiest: number): ChannelView {
  const { kind, scope, name } = members[0]!.channel
  const view: ChannelView = {
    kind,
    scope: nameOf(scope),
    name: nameOf(name),
    peers: members.length,
    datagramsIn: 0,
    datagramsOut: 0,
    bytesIn: 0,
    bytesOut: 0,
    drops: 0,
    busiest: busiest === 0 ? [] : members.toSorted(orders.traffic).slice(0, busiest).map(viewPeer)
  }
  for (const peer of members) {
    for (const counter of traffic) view[counter] += peer[counter]
  }
  return view
}

export function viewPeer ({ context, ...peer }: PeerInfo): PeerView {
  const { kind, scope, name } = peer.channel
  const sentTo = peer.sentTo.toSorted((a, b) => b.bytes - a.bytes).slice(0, SHOWN_PARTNERS).map(({ id, bytes }) => ({ id: printable(id), bytes }))
  return {
    ...peer,
    id: printable(peer.id),
    channel: { kind, scope: nameOf(scope), name: nameOf(name) },
    sentTo,
    lastHandshake: peer.lastHandshake && { ...peer.lastHandshake, id: printable(peer.lastHandshake.id) },
    handshakes: peer.handshakes.map((handshake) => ({ ...handshake, id: handshake.id && printable(handshake.id) })),
    handshakeFaults: peer.handshakeFaults.map((fault) => ({ ...fault, id: fault.id && printable(fault.id), text: faultText(fault) }))
  }
}

/** What is remembered of a peer that attached or left. */
export function rememberPeer ({ id, channel: { kind, scope, name }, address, protocol, httpVersion, framing, bytesIn, bytesOut, drops }: PeerInfo): object {
  const channel = { kind, scope: shortened(nameOf(scope)), name: shortened(nameOf(name)) }
  return { id: printable(id), channel, address, protocol, httpVersion, framing, bytesIn, bytesOut, drops }
}

export function viewRefusal ({ message, path, ...refusal }: RefusalInfo): RefusalInfo {
  return { ...refusal, message: message && shortened(printable(message)), path: shortened(printable(path)) }
}

/** A copy: V8 keeps the whole text alive for a slice of it. */
function shortened (text: string): string {
  return text.length > REMEMBERED_LENGTH ? Buffer.from(`${text.slice(0, REMEMBERED_LENGTH)}…`).toString() : text
}

function bytes ({ bytesIn, bytesOut }: PeerInfo): number {
  return bytesIn + bytesOut
}

/** Names that clients choose are not cut: two of them could look the same then. */
function nameOf (text: string): string {
  return printable(text, Infinity)
}

/** The texts that a search looks at. */
function textOf ({ id, channel, address = '', publicKey = '' }: PeerInfo): string {
  return `${id}\n${channel.name}\n${channel.scope}\n${address}\n${publicKey}`.toLowerCase()
}
