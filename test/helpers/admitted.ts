import type { Admitted } from '../../lib/hub/admitted.ts'

/** What admission has found out about a spanza tunnel over HTTP/1.1: a packet peer without id, key and address, but for `known`. */
export function admitted (known: Pick<Admitted, 'framing'> & Partial<Admitted>): Admitted {
  return {
    channel: { scope: '', name: '', kind: 'packet' },
    id: undefined,
    publicKey: undefined,
    context: undefined,
    address: undefined,
    client: undefined,
    protocol: 'spanza',
    httpVersion: '1.1',
    hasKeepalive: true,
    holdsOutput: false,
    ...known
  }
}
