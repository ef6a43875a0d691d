import swagger from '@fastify/swagger'
import t from 'tap'
import { startAdmin } from './admin-app.ts'

t.test('@fastify/swagger documents the routes, and not the files of the page', async (t) => {
  const app = await startAdmin(t, { before: (app) => app.register(swagger, { openapi: {} }) })
  const { paths } = app.swagger() as unknown as { paths: Record<string, Record<string, any>> }
  const methods = Object.fromEntries(Object.entries(paths)
    .filter(([path]) => path.startsWith('/relay-admin'))
    .map(([path, item]) => [path.slice('/relay-admin'.length), Object.keys(item)]))
  t.same(methods, {
    '/stats': ['get'], '/channels': ['get'], '/peers': ['get'], '/peer': ['get'], '/disconnect': ['post'], '/history': ['get'], '/events': ['get']
  })
  for (const path of Object.keys(methods)) {
    const [operation] = Object.values(paths[`/relay-admin${path}`]!)
    t.ok(operation.summary, path)
    t.same(operation.tags, ['relay'])
    t.ok(Object.values<any>(operation.responses[200].content)[0].schema.properties)
  }
  const { get: peers } = paths['/relay-admin/peers']!
  t.same(peers!.parameters.map(({ name }: { name: string }) => name),
    ['search', 'id', 'channel', 'scope', 'kind', 'sort', 'offset', 'limit'])
  const { post: disconnect } = paths['/relay-admin/disconnect']!
  t.same(Object.keys(disconnect!.requestBody.content), ['application/json'])
  t.same(Object.keys(disconnect!.responses), ['200', '403'])
})
