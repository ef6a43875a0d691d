import { readdirSync, readFileSync } from 'node:fs'
import { extname } from 'node:path'
import type { FastifyInstance } from 'fastify'

const contentTypes: Record<string, string> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.txt': 'text/plain; charset=utf-8'
}

/** All resources from this origin, nothing inline, no framing, and no text that becomes markup or code. */
const PAGE_POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"

const directory = new URL('./page/', import.meta.url)
/** uPlot's, and where its package has them. The build puts them beside the page's own. */
const chartFiles = { 'uPlot.iife.min.js': 'dist/uPlot.iife.min.js', 'uPlot.min.css': 'dist/uPlot.min.css', 'uPlot.LICENSE.txt': 'LICENSE' }

/** Serves the page: a fixed list of files, from memory. */
export function definePage (fastify: FastifyInstance): void {
  for (const [name, content] of readPage()) {
    const isIndex = name === 'index.html'
    fastify.get(isIndex ? '/' : `/${name}`, { schema: { hide: true } as object }, async (request, reply) => {
      const [path] = request.url.split('?', 1) as [string]
      // Relative, like all URLs of the page: a proxy may serve it under another path.
      if (isIndex && !path.endsWith('/')) return reply.redirect(`./${path.slice(path.lastIndexOf('/') + 1)}/`)
      // Replaces the app's own policy, which @fastify/helmet may have set on the raw response.
      return reply
        .header('Content-Security-Policy', PAGE_POLICY)
        .header('Referrer-Policy', 'no-referrer')
        .type(contentTypes[extname(name)]!)
        .send(content)
    })
  }
}

function readPage (): Map<string, Buffer> {
  const files = new Map(readdirSync(directory).map((name) => [name, readFileSync(new URL(name, directory))]))
  for (const [name, path] of Object.entries(chartFiles)) {
    // Not built: the sources are run where they are, and the development dependencies are there.
    if (!files.has(name)) files.set(name, readFileSync(new URL(`../../node_modules/uplot/${path}`, import.meta.url)))
  }
  return files
}
