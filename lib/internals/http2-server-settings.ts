import type { Http2Server, Settings } from 'node:http2'

/** Whether the app has set how many streams a client may have. Node keeps a server's settings where no public API leads. */
export function limitsStreams (server: Http2Server): boolean {
  const options = Object.getOwnPropertySymbols(server).find(({ description }) => description === 'options')
  // Where it is not found, the app's own word must not be overwritten.
  if (options === undefined) return true
  return (server as object as Record<symbol, { settings?: Settings }>)[options]!.settings?.maxConcurrentStreams !== undefined
}
