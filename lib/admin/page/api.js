/** The relay sends a heartbeat every 15 s. */
const SILENCE_MS = 40_000
const REQUEST_TIMEOUT_MS = 10_000

/** What a route answered instead of what was asked for. */
export class AnswerError extends Error {
  constructor (statusCode, message) {
    super(message)
    this.statusCode = statusCode
  }
}

export async function get (route, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined)
  return await ask(`${route}?${new URLSearchParams(given)}`)
}

export async function post (route, body) {
  return await ask(route, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) })
}

async function ask (url, options = {}) {
  const answer = await fetch(url, { ...options, signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS) })
  if (!answer.ok) throw await errorOf(answer)
  return await answer.json()
}

async function errorOf (answer) {
  const { message } = await answer.json().catch(() => ({}))
  return new AnswerError(answer.status, message ?? answer.statusText)
}

/** Reads the events, the next one when `onEvent` is done with one, until the stream ends, breaks or falls silent. */
export async function readEvents (onEvent) {
  const abort = new AbortController()
  let timer
  const isAlive = () => {
    clearTimeout(timer)
    timer = setTimeout(() => abort.abort(), SILENCE_MS)
  }
  isAlive()
  try {
    const answer = await fetch('events', { signal: abort.signal })
    if (!answer.ok) throw await errorOf(answer)
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader()
    let rest = ''
    while (true) {
      const { value, done } = await reader.read()
      if (done) return
      isAlive()
      const lines = (rest + value).split('\n')
      rest = lines.pop()
      for (const line of lines) await onEvent(JSON.parse(line))
    }
  } finally {
    clearTimeout(timer)
  }
}
