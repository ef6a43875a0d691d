import type { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

/** The answer that is being written to a socket. No public API leads from one to the other; Node's own does from 0.4 to 26. */
export function answerOn (socket: Socket): ServerResponse | undefined {
  return (socket as Socket & { _httpMessage?: ServerResponse | null })._httpMessage ?? undefined
}
