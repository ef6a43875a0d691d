/* global requestAnimationFrame */
import { byId, el, KeyedList, setText } from './dom.js'
import { formatBytes, formatCount, formatDuration, formatTime, named, wordsOfRefusal } from './words.js'

const MAX_SHOWN = 200

/** The newest events first; those that are alike are one line with their number. */
class EventList {
  #element
  #empty
  #list
  #entries = new Map()
  #isScheduled = false

  constructor (element, empty) {
    this.#element = element
    this.#empty = empty
    this.#list = new KeyedList(element, createEntry, updateEntry)
  }

  add (key, entry) {
    const count = (this.#entries.get(key)?.count ?? 0) + 1
    this.#entries.delete(key)
    this.#entries.set(key, { ...entry, key, count })
    if (this.#entries.size > MAX_SHOWN) this.#entries.delete(this.#entries.keys().next().value)
    if (this.#isScheduled) return
    this.#isScheduled = true
    requestAnimationFrame(() => this.#show())
  }

  #show () {
    this.#isScheduled = false
    this.#empty.hidden = true
    this.#element.hidden = false
    this.#list.show([...this.#entries.values()].reverse(), ({ key }) => key)
  }
}

function createEntry ({ kind }) {
  const [time, count, text, detail] = [el('time'), el('span', { className: 'count' }), el('strong'), el('span', { className: 'muted' })]
  return { element: el('li', { data: { kind } }, el('div', {}, time, ' ', text, ' ', count), detail), time, count, text, detail }
}

function updateEntry (view, { time, count, text, detail }) {
  setText(view.time, formatTime(time))
  setText(view.text, text)
  setText(view.detail, detail)
  setText(view.count, count > 1 ? `× ${formatCount(count)}` : '')
}

/** What has happened, and happens. */
export class EventLists {
  #refusals = new EventList(byId('refusals'), byId('refusals-empty'))
  #moves = new EventList(byId('moves'), byId('moves-empty'))
  #serial = 0

  add (event) {
    if (event.event === 'refuse') this.#refuse(event)
    else if (event.event === 'attach') this.#move('attach', event, 'came', placeOf(event.peer))
    else if (event.event === 'detach') this.#detach(event)
    else if (event.event === 'missed') this.#moves.add(`missed ${this.#serial++}`, missed(event))
  }

  #refuse ({ time, statusCode, code, message, address, path }) {
    const text = code?.startsWith('FST_RELAY_') ? message : `${wordsOfRefusal(String(statusCode))}${message === undefined ? '' : ` (${message})`}`
    const detail = [address ?? 'no address', path, `${statusCode}${code === undefined ? '' : ` ${code}`}`].join(' · ')
    this.#refusals.add(`${text}\n${detail}`, { kind: 'refuse', time, text, detail })
  }

  #detach (event) {
    const { peer, reason, text, duration } = event
    const size = `${formatBytes(peer.bytesIn)} in, ${formatBytes(peer.bytesOut)} out`
    this.#move('detach', event, 'left', `${text} · ${reason} · after ${formatDuration(duration)} · ${size} · ${placeOf(peer)}`)
  }

  #move (kind, { time, peer }, verb, detail) {
    this.#moves.add(`${kind} ${this.#serial++}`, { kind, time, text: `${named(peer.id)} ${verb}`, detail })
  }
}

function missed ({ time, count }) {
  return { kind: 'missed', time, text: `${formatCount(count)} events are not shown`, detail: 'they came faster than this page could read them' }
}

function placeOf ({ channel, address, framing }) {
  return `${named(channel.name)} · ${channel.kind} · ${framing} · ${address ?? 'no address'}`
}
