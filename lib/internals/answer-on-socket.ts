import type { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

/** The response that Node is writing to a socket. No public API gives it; Node keeps it in `_httpMessage`, from 0.4 to 26. */
export function answerOn (socket: Socket): ServerResponse | undefined {
  return (socket as Socket & { _httpMessage?: ServerResponse | null })._httpMessage ?? undefined
}
