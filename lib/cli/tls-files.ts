import { readFileSync } from 'node:fs'
import { createSecureContext } from 'node:tls'
import { describeError } from '../client/describe-error.ts'
import type { TlsOptions } from '../client/options/connect-options.ts'

const CERTIFICATE = /^-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----/m

/** The files that `--ca`, `--cert` and `--key` name. */
export interface TlsFiles {
  ca?: string | undefined
  cert?: string | undefined
  key?: string | undefined
}

/**
 * Reads the certificates and keys, which may be renewed at any time.
 * @throws Error naming the flag
 */
export function readTlsFiles (files: TlsFiles): TlsOptions {
  const tls: TlsOptions = {}
  for (const name of ['ca', 'cert', 'key'] as const) {
    const file = files[name]
    if (file !== undefined) tls[name] = readText(file, `--${name}`)
  }
  // OpenSSL takes a file without one as no CA at all.
  if (typeof tls.ca === 'string' && !CERTIFICATE.test(tls.ca)) {
    throw new Error(`--ca ${files.ca} holds no certificate: it must be the CA's certificate in PEM, with a line -----BEGIN CERTIFICATE-----`)
  }
  return tls
}

/**
 * Reads them once, to report errors at start-up.
 * @throws Error naming the flags
 */
export function checkTlsFiles (files: TlsFiles): void {
  const tls = readTlsFiles(files)
  try {
    createSecureContext(tls)
  } catch (error) {
    const flags = Object.keys(tls).map((name) => `--${name}`).join(', ')
    throw new Error(`${flags} cannot be used, they must be PEM files, with the certificate and key of one pair: ${describeError(error)}`)
  }
}

/** @throws Error naming the flag */
export function readText (file: string, flag: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (error) {
    throw new Error(`${flag} cannot be read: ${describeError(error)}`)
  }
}
