import Fastify from 'fastify'
import mercurius from 'mercurius'
import spanzaRelay from 'fastify-spanza-relay'

const app = Fastify()
const isFirst = process.env.ORDER === 'before'
if (!isFirst) await app.register(spanzaRelay, { path: '/relay/:network', open: true })
await app.register(mercurius, {
  schema: 'type Query { last: Int } type Mutation { add: Int } type Subscription { added: Int }',
  resolvers: {
    Query: { last: () => 1 },
    Mutation: {
      async add (_root, _args, { pubsub }) {
        await pubsub.publish({ topic: 'added', payload: { added: 7 } })
        return 7
      }
    },
    Subscription: { added: { subscribe: async (_root, _args, { pubsub }) => await pubsub.subscribe('added') } }
  },
  subscription: true
})
if (isFirst) await app.register(spanzaRelay, { path: '/relay/:network', open: true })
app.get('/rest', async () => 'rest')
process.once('SIGTERM', () => app.close())
await app.listen({ port: 0, host: '127.0.0.1' })
console.log(`listening ${app.server.address().port}`)
