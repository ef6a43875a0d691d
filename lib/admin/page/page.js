/* global matchMedia */
import { AnswerError, get, readEvents } from './api.js'
import { Chart } from './chart.js'
import { Details } from './details.js'
import { byId, el, KeyedList, Pager, setText } from './dom.js'
import { EventLists } from './event-lists.js'
import { PeerTable } from './peer-table.js'
import { DRAWN_PEERS, Picture } from './picture.js'
import { keyOfChannel, keyOfPair, keyOfPeer, Rates } from './rates.js'
import {
  formatCount, formatPerSecond, formatRate, named, wordsOfDrop, wordsOfEnd, wordsOfRefusal
} from './words.js'

const POLL_MS = 1000
const RETRY_MS = 3000
/** Many events at once are one reason to look again. */
const EVENT_DELAY_MS = 200
const isNarrow = matchMedia('(max-width: 45rem)').matches
const CHANNELS_SHOWN = isNarrow ? 4 : 12
const PEERS_SHOWN = isNarrow ? 15 : 25

const hubRates = new Rates()
const channelRates = new Rates()
const drawnRates = new Rates()
const peerRates = new Rates()
/** The picture knows channels and peers by their keys. */
const pictureRates = { get: (key) => drawnRates.get(key) ?? channelRates.get(key) }

const throughputChart = new Chart(byId('throughput-chart'), [
  { label: 'In', stroke: 'in' },
  { label: 'Out', stroke: 'out', dash: [6, 3] }
], formatRate)
const dropChart = new Chart(byId('drop-chart'), [{ label: 'Dropped', stroke: 'drop' }], formatPerSecond)

const tiles = new KeyedList(byId('tiles'), ([name]) => {
  const value = el('dd')
  return { element: el('div', { className: 'tile' }, el('dt', {}, name), value), value }
}, ({ value }, [, text]) => setText(value, text))

const details = new Details(refreshSoon)
const picture = new Picture(byId('channel-list'), pictureRates, { onPeer: (peer) => details.open(peer), onChannel: filterByChannel })
const peerTable = new PeerTable(byId('peer-rows'), peerRates, (peer) => details.open(peer))
const eventLists = new EventLists()
const drops = reasonList('drops', wordsOfDrop)
const counted = reasonList('counted', (key) => key.startsWith('end ') ? `Ended: ${wordsOfEnd(key.slice(4))}` : `Refused: ${wordsOfRefusal(key)}`)
const channelPager = new Pager(byId('channel-pager'), CHANNELS_SHOWN, refreshNow)
const peerPager = new Pager(byId('peer-pager'), PEERS_SHOWN, refreshNow)

/** The channel whose peers the table shows; all of them if undefined. */
let shownChannel

function reasonList (id, wordsOf) {
  const list = new KeyedList(byId(id), ([reason]) => {
    const value = el('dd')
    return { element: el('div', {}, el('dt', {}, wordsOf(reason), ' ', el('code', {}, reason.replace('end ', ''))), value), value }
  }, ({ value }, [, count]) => setText(value, formatCount(count)))
  return (counters) => {
    const counts = Object.entries(counters).filter(([, count]) => count > 0).sort(([, a], [, b]) => b - a)
    byId(`${id}-empty`).hidden = counts.length > 0
    list.show(counts, ([reason]) => reason)
  }
}

/** Those that the curves and their tiles have now. */
let shownRates

const sum = (counters) => Object.values(counters).reduce((total, count) => total + count, 0)

function showStats (stats) {
  const dropped = sum(stats.drops)
  const rates = hubRates.begin(stats.time).of('hub', { ...stats, drops: dropped })
  const shown = {
    Peers: formatCount(stats.peers),
    Channels: formatCount(stats.channels),
    In: formatRate(rates?.bytesIn),
    Out: formatRate(rates?.bytesOut),
    Dropped: formatPerSecond(rates?.drops),
    Refused: formatCount(sum(stats.refused))
  }
  tiles.show(Object.entries(shown), ([name]) => name)
  if (rates !== shownRates) {
    shownRates = rates
    throughputChart.add(stats.time, [rates.bytesIn, rates.bytesOut])
    dropChart.add(stats.time, [rates.drops])
  }
  drops(stats.drops)
  const ends = Object.entries(stats.detached).map(([reason, count]) => [`end ${reason}`, count])
  counted({ ...stats.refused, ...Object.fromEntries(ends) })
}

/** @returns whether there is such a page */
function showChannels ({ time, total, channels }) {
  if (channelPager.show(total)) return false
  channelRates.begin(time)
  drawnRates.begin(time)
  for (const channel of channels) {
    channelRates.of(keyOfChannel(channel), channel)
    for (const peer of channel.busiest) {
      drawnRates.of(keyOfPeer(peer), peer)
      for (const { id, bytes } of peer.sentTo) drawnRates.of(keyOfPair(peer, id), { bytesIn: bytes, bytesOut: 0, drops: 0 })
    }
  }
  byId('channels-empty').hidden = total > 0
  picture.show(channels)
  return true
}

/** @returns whether there is such a page */
function showPeers ({ time, total, peers }) {
  if (peerPager.show(total)) return false
  peerRates.begin(time)
  for (const peer of peers) peerRates.of(keyOfPeer(peer), peer)
  byId('peers-empty').hidden = total > 0
  peerTable.show(peers, time)
  return true
}

async function refresh () {
  const search = byId('search').value.trim()
  const { kind, scope, name: channel } = shownChannel ?? {}
  const [stats, channels, peers] = await Promise.all([
    get('stats'),
    get('channels', { search, ...channelPager.query, busiest: DRAWN_PEERS }),
    get('peers', { search, kind, scope, channel, sort: byId('sort').value, ...peerPager.query }),
    details.refresh()
  ])
  showStats(stats)
  const areThere = [showChannels(channels), showPeers(peers)]
  if (areThere.includes(false)) refreshNow()
}

function showState (state, text) {
  const status = byId('status')
  status.dataset.state = state
  setText(status, text)
}

function showFailure (error) {
  if (error instanceof AnswerError) showState('failed', `${error.statusCode}: ${error.message}. Reload the page to sign in again.`)
  else showState('failed', 'The relay cannot be reached; trying again …')
}

let timer
let isBusy = false
let isWanted = false

/** Reads everything, then again in a second; never twice at once. */
async function poll () {
  if (isBusy) {
    isWanted = true
    return
  }
  clearTimeout(timer)
  isBusy = true
  isWanted = false
  const begun = performance.now()
  let pause = POLL_MS
  try {
    if (!document.hidden) {
      await refresh()
      showState('live', 'Live')
    }
  } catch (error) {
    showFailure(error)
    pause = RETRY_MS
  }
  isBusy = false
  timer = setTimeout(poll, isWanted ? 0 : Math.max(0, pause - (performance.now() - begun)))
}

function refreshNow () {
  poll()
}

let soon
function refreshSoon () {
  soon ??= setTimeout(() => {
    soon = undefined
    poll()
  }, EVENT_DELAY_MS)
}

function filterByChannel (channel) {
  shownChannel = channel
  peerPager.offset = 0
  const button = byId('channel-filter')
  button.hidden = channel === undefined
  if (channel !== undefined) {
    setText(button, `only ${named(channel.name)} ✕`)
    button.setAttribute('aria-label', `Show the peers of all channels, not only of ${named(channel.name)}`)
  }
  byId('peers').focus()
  refreshNow()
}

/** The last event that is shown, and which start of the relay counts them. */
let shown = { since: 0, serial: 0 }

function showEvent (event) {
  if (event.serial <= shown.serial) return
  shown.serial = event.serial ?? shown.serial
  eventLists.add(event)
}

/** Shows what has happened before, or while the page could not read. */
async function showHistory () {
  const { since, refusals, moves } = await get('history')
  if (since !== shown.since) shown = { since, serial: 0 }
  for (const event of [...refusals, ...moves].sort((a, b) => a.serial - b.serial)) showEvent(event)
}

async function followEvents () {
  while (true) {
    try {
      let isFirst = true
      await readEvents(async (event) => {
        // The events themselves wait meanwhile, so that none is missed between the two.
        if (isFirst) await showHistory()
        isFirst = false
        if (event.event === 'heartbeat') return
        showEvent(event)
        refreshSoon()
      })
    } catch {
      // The polls tell what is wrong.
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS))
  }
}

byId('channel-filter').addEventListener('click', () => filterByChannel(undefined))
byId('search-form').addEventListener('submit', (event) => event.preventDefault())
for (const id of ['search', 'sort']) {
  byId(id).addEventListener('input', () => {
    peerPager.offset = 0
    if (id === 'search') channelPager.offset = 0
    refreshNow()
  })
}
document.addEventListener('visibilitychange', refreshNow)

followEvents()
poll()
