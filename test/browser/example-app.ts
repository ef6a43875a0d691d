import type { FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import { serverCertificate, startListening } from '../helpers/relay-app.ts'

type BuildApp = (secrets: { devices: object[], adminPassword: string }, options?: object) => Promise<FastifyInstance>

// Its plugin is the built one, as users have it: `npm run build` makes it.
const { buildApp } = await import(new URL('../../example-app/app.js', import.meta.url).href) as { buildApp: BuildApp }

export const tokens = { alice: 'the-token-of-alice', bob: 'the-token-of-bob' }

export const adminPassword = 'the-password-of-the-admin'

const devices = Object.entries(tokens).map(([id, token]) => ({ id, token, networks: ['home'] }))

/** What makes the app speak HTTP/2 over TLS, and HTTP/1.1 beside it. */
export function http2Options (): object {
  return { http2: true, https: { ...serverCertificate(), allowHTTP1: true } }
}

export interface ExampleOptions {
  /** For Fastify. */
  server?: object
  setUp?: (app: FastifyInstance) => void
}

/** The example app with two devices in the network `home`, listening until the test ends. */
export async function startExample (t: Test, { server = {}, setUp = () => {} }: ExampleOptions = {}): Promise<FastifyInstance> {
  const app = await buildApp({ devices, adminPassword }, server)
  setUp(app)
  return await startListening(t, app)
}
