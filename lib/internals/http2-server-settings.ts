import type { Http2Server, Settings } from 'node:http2'

/** True if the app has set `maxConcurrentStreams`. Node has no public API for a server's settings. */
export function limitsStreams (server: Http2Server): boolean {
  const options = Object.getOwnPropertySymbols(server).find(({ description }) => description === 'options')
  // If the symbol is missing, assume that the app has set the limit, and do not overwrite it.
  if (options === undefined) return true
  return (server as object as Record<symbol, { settings?: Settings }>)[options]!.settings?.maxConcurrentStreams !== undefined
}
