import type { ServerResponse } from 'node:http'
import { Readable } from 'node:stream'
import type { DetachInfo, PeerInfo } from '../hub/hub-info.ts'
import type { RefusalInfo, RelayHub } from '../server/relay-hub.ts'
import { LINGER_MS } from '../tunnel/linger.ts'
import { printable } from '../util/printable.ts'
import { rememberPeer, viewPeer, viewRefusal } from './views.ts'

/** Half of what proxies usually wait for. */
const HEARTBEAT_MS = 15_000
/** How many refusals are remembered, and as many comings and goings. */
const MAX_REMEMBERED = 200
/** What waits for a reader that is slow. */
const MAX_WAITING_BYTES = 64 * 1024

/** An event with its number: each has one more than the one before. */
interface RememberedEvent {
  event: string
  serial: number
  time: Date
}

/** What has happened, the oldest first. */
export interface EventHistory {
  /** When the first serial number was given, in milliseconds since 1970. */
  since: number
  refusals: RememberedEvent[]
  moves: RememberedEvent[]
}

/** A response; to destroy one that has been sent does nothing. */
type Answer = Pick<ServerResponse, 'destroy'>

/** Tells a hub's events to any number of readers, as lines of JSON, and remembers the last ones. */
export class EventBroadcast {
  readonly #hub: RelayHub
  readonly #readers = new Set<EventReader>()
  readonly #timer: NodeJS.Timeout
  readonly #history: EventHistory = { since: Date.now(), refusals: [], moves: [] }
  #serial = 0
  #isClosed = false

  /** @param heartbeatInterval milliseconds from one heartbeat to the next */
  constructor (hub: RelayHub, heartbeatInterval = HEARTBEAT_MS) {
    this.#hub = hub
    hub.on('attach', this.#onAttach)
    hub.on('detach', this.#onDetach)
    hub.on('refuse', this.#onRefuse)
    this.#timer = setInterval(() => this.#beat(), heartbeatInterval)
    this.#timer.unref()
  }

  /** What has happened up to now: the last 200 refusals, and the last 200 comings and goings. */
  get history (): EventHistory {
    return this.#history
  }

  /**
   * A stream of what happens from now on, one heartbeat first; destroy it when nobody reads it any more.
   * @param answer what it is sent as; destroyed where the client has not taken the end 1 s after `close`
   */
  read (answer?: Answer): Readable {
    const reader = new EventReader(answer)
    reader.tell(line('heartbeat', {}))
    if (this.#isClosed) {
      reader.push(null)
      return reader
    }
    this.#readers.add(reader)
    reader.on('close', () => this.#readers.delete(reader))
    return reader
  }

  /** Ends all streams, behind what they have been told, and breaks off those whose end is not taken: the app would wait for them. */
  close (): void {
    if (this.#isClosed) return
    this.#isClosed = true
    clearInterval(this.#timer)
    this.#hub.off('attach', this.#onAttach)
    this.#hub.off('detach', this.#onDetach)
    this.#hub.off('refuse', this.#onRefuse)
    // One that has ended is not among them any more; its client may not have taken all of it.
    const readers = [...this.#readers]
    for (const reader of readers) reader.push(null)
    setTimeout(() => readers.forEach((reader) => reader.cut()), LINGER_MS).unref()
  }

  readonly #onAttach = (peer: PeerInfo): void => {
    this.#remember(this.#history.moves, 'attach', { peer: rememberPeer(peer) })
    this.#tell('attach', () => ({ peer: viewPeer(peer) }))
  }

  readonly #onDetach = (peer: PeerInfo, { reason, text, duration }: DetachInfo): void => {
    const end = { reason, text: printable(text), duration }
    this.#remember(this.#history.moves, 'detach', { peer: rememberPeer(peer), ...end })
    this.#tell('detach', () => ({ peer: viewPeer(peer), ...end }))
  }

  readonly #onRefuse = (refusal: RefusalInfo): void => {
    const view = viewRefusal(refusal)
    this.#remember(this.#history.refusals, 'refuse', view)
    this.#tell('refuse', () => view)
  }

  #remember (list: RememberedEvent[], event: string, fields: object): void {
    list.push({ event, serial: ++this.#serial, time: new Date(), ...fields })
    if (list.length > MAX_REMEMBERED) list.shift()
  }

  #tell (event: string, fieldsOf: () => object): void {
    if (this.#readers.size === 0) return
    const text = line(event, { serial: this.#serial, ...fieldsOf() })
    for (const reader of this.#readers) reader.tell(text)
  }

  #beat (): void {
    // Where a preClose hook of the app has thrown, Fastify skips ours, and waits for these streams all the same.
    if (this.#hub.isClosing) return this.close()
    const text = line('heartbeat', {})
    for (const reader of this.#readers) reader.beat(text)
  }
}

/** What one reader has not taken yet. */
class EventReader extends Readable {
  #mayPush = true
  #missed = 0
  #hasTaken = true
  readonly #answer: Answer | undefined

  constructor (answer: Answer | undefined) {
    super({ highWaterMark: MAX_WAITING_BYTES })
    this.#answer = answer
  }

  /** Destroys what is left of it. */
  cut (): void {
    this.destroy()
    this.#answer?.destroy()
  }

  override _read (): void {
    this.#hasTaken = true
    this.#mayPush = true
    if (this.#missed === 0) return
    const count = this.#missed
    this.#missed = 0
    this.tell(line('missed', { count }))
  }

  tell (text: string): void {
    if (this.#mayPush) this.#mayPush = this.push(text)
    else this.#missed++
  }

  /** A reader that is full and has taken nothing since the last heartbeat is given up. */
  beat (text: string): void {
    if (this.#mayPush) this.tell(text)
    else if (!this.#hasTaken) this.destroy()
    this.#hasTaken = false
  }
}

function line (event: string, fields: object): string {
  return JSON.stringify({ event, time: new Date(), ...fields }) + '\n'
}
