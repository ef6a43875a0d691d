import { readFile } from 'node:fs/promises'
import { readFileSync } from 'node:fs'
import { isValidHeaderValue } from '../client/options/header-options.ts'

/** Reads tokens as people store them: with a line end, with a byte order mark, or in a file that appears later. */

/** A token that is read again for each attempt. */
export function tokenFrom (file: string): () => Promise<string> {
  return async () => tokenOf(await readFile(file), file)
}

/**
 * Reads it once, to report errors at start-up.
 * @throws Error saying what is wrong with the file's content, or the system's error
 */
export function checkTokenFile (file: string): void {
  tokenOf(readFileSync(file), file)
}

/** @throws Error saying what is wrong, without showing the token */
export function tokenOf (bytes: Buffer, file: string): string {
  const mark = bytes.length >= 2 ? bytes.readUInt16BE(0) : 0
  // UTF-16 without a byte order mark has a zero byte beside each ASCII letter.
  if (mark === 0xfffe || mark === 0xfeff || bytes.includes(0)) {
    throw new Error(`the token file ${file} is UTF-16, as PowerShell writes it: save it as UTF-8`)
  }
  // trim() also removes the byte order mark of UTF-8.
  const token = bytes.toString('utf8').trim()
  if (token === '') throw new Error(`the token file ${file} is empty`)
  const fault = faultOf(token)
  if (fault !== undefined) throw new Error(`the token file ${file} ${fault}`)
  return token
}

/**
 * The token of the environment, undefined where there is none.
 * @throws Error saying what is wrong, without showing the token
 */
export function tokenOfEnvironment (value: string | undefined): string | undefined {
  const token = value?.trim()
  if (token === undefined || token === '') return
  const fault = faultOf(token)
  if (fault !== undefined) throw new Error(`SPANZA_TOKEN ${fault}`)
  return token
}

function faultOf (token: string): string | undefined {
  if (/[\r\n]/.test(token)) return 'has a line break in the middle: it must hold one token on one line'
  return isValidHeaderValue(token) ? undefined : 'has characters that no header may have: it must hold one token and nothing else'
}
