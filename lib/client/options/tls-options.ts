import { createSecureContext } from 'node:tls'
import type { TlsOptions, TransportOptions } from './connect-options.ts'
import { clientOptionError } from './client-option-error.ts'

/** Checks TLS options. Their values are never shown: they may hold a private key. */

export function checkTls ({ tls, createConnection }: TransportOptions, secure: boolean): TlsOptions {
  if (tls === undefined) return {}
  if (createConnection !== undefined) throw clientOptionError('tls', 'absent with createConnection, which does TLS itself', 'given')
  if (!secure) throw clientOptionError('tls', 'absent with an http: URL', 'given')
  return checkTlsContext('tls', tls)
}

export function checkTlsContext (name: string, tls: TlsOptions | undefined): TlsOptions {
  if (tls === undefined) return {}
  if (typeof tls !== 'object' || tls === null) throw clientOptionError(name, 'an object', typeof tls)
  try {
    createSecureContext(tls)
  } catch (error) {
    throw clientOptionError(name, 'what Node can make a TLS context of', (error as Error).message)
  }
  return { ...tls }
}
