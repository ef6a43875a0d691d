import { execFileSync } from 'node:child_process'
import { join } from 'node:path'

/** Makes a certificate authority and a server certificate for some addresses; gives back the paths of the files. */
export function makeCertificates (directory: string, addresses: string[]): { ca: string, key: string, cert: string } {
  const file = (name: string): string => join(directory, name)
  const openssl = (...args: string[]): void => {
    const common = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2']
    execFileSync('openssl', [...common, ...args], { stdio: 'pipe' })
  }
  openssl('-keyout', file('ca.key'), '-out', file('ca.pem'), '-subj', '/CN=CA of a test')
  openssl(
    '-CA', file('ca.pem'), '-CAkey', file('ca.key'), '-keyout', file('server.key'), '-out', file('server.pem'),
    '-subj', '/CN=server of a test',
    '-addext', `subjectAltName=${addresses.map((address) => `IP:${address}`).join(',')}`,
    '-addext', 'basicConstraints=critical,CA:FALSE'
  )
  return { ca: file('ca.pem'), key: file('server.key'), cert: file('server.pem') }
}
