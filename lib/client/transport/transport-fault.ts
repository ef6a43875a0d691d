import { X509Certificate } from 'node:crypto'
import type { Duplex } from 'node:stream'
import { TLSSocket, type PeerCertificate } from 'node:tls'
import { printable } from '../../util/printable.ts'
import { describeError } from '../describe-error.ts'
import type { ConnectPlan } from '../options/connect-plan.ts'

/** Explains errors of a connection where Node and OpenSSL name only the symptom. */

type SystemError = NodeJS.ErrnoException & { rawPacket?: Buffer }

const MAX_SHOWN_BYTES = 60
const MAX_CERTIFICATE_NAME = 200

const peerCertificates = new WeakMap<Duplex, PeerCertificate>()

/**
 * Keeps the other side's certificate for `describeFault`. Node destroys a socket whose certificate it rejects, and no longer
 * has the certificate when it emits the error. Node's own check also runs in a listener of `secure`, so this one comes first.
 */
export function keepCertificate (socket: TLSSocket): void {
  socket.prependListener('secure', () => peerCertificates.set(socket, socket.getPeerCertificate()))
}

/** An error of a transport in words, on one line: what happened, the likely reason, and the option that helps. */
export function describeFault (error: unknown, plan: ConnectPlan, transport?: Duplex): string {
  const text = describeError(error)
  if (!(error instanceof Error)) return text
  const { code = '', rawPacket } = error as SystemError
  const isSecured = transport instanceof TLSSocket && peerCertificates.has(transport)
  const reason = openSslReason(error)
  if (reason !== undefined) return sentence(`TLS: ${reason}`, ofTls(reason.toUpperCase().replaceAll(/[ /]/g, '_'), plan))
  if (rawPacket !== undefined) return sentence(text, ofBytes(rawPacket))
  if (!isSecured) return text
  return sentence(text, code === 'ECONNRESET' ? ofSilence(plan) : ofCertificate(code, plan, peerCertificates.get(transport)!))
}

function sentence (text: string, more: string | undefined): string {
  return more === undefined ? text : `${text}; ${more}`
}

/** OpenSSL's name for the error. Node gives it in `reason`, or in a message that is a line of OpenSSL's error queue. */
function openSslReason (error: Error): string | undefined {
  const { code, reason, message } = error as SystemError & { reason?: string }
  if (code?.startsWith('ERR_SSL_') === true && reason !== undefined) return reason
  return /:SSL routines:[^:]*:([^:]+):/.exec(message)?.[1]
}

function ofTls (reason: string, plan: ConnectPlan): string | undefined {
  if (reason === 'WRONG_VERSION_NUMBER' || reason === 'PACKET_LENGTH_TOO_LONG') return 'the port does not speak TLS: use http:, or the port of TLS'
  const alert = /ALERT_(?:NUMBER_)?(.+)$/.exec(reason)?.[1]
  return alert === undefined ? undefined : ofAlert(alert, plan)
}

/** OpenSSL's errors for a chain that does not end at a trusted CA. */
const unknownAuthority = [
  'UNABLE_TO_GET_ISSUER_CERT', 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY', 'UNABLE_TO_VERIFY_LEAF_SIGNATURE', 'SELF_SIGNED_CERT_IN_CHAIN',
  'CERT_UNTRUSTED', 'INVALID_CA'
]

function ofCertificate (code: string, plan: ConnectPlan, certificate: PeerCertificate): string {
  const host = printable(plan.servername ?? plan.hostname)
  const shows = `${host} shows the certificate of ${distinguishedName(certificate.subject)}, issued by ${distinguishedName(certificate.issuer)}, ` +
    `valid from ${day(certificate.valid_from)} until ${day(certificate.valid_to)}`
  const clock = `this machine's clock says ${day(Date.now())}`
  if (code === 'DEPTH_ZERO_SELF_SIGNED_CERT') return `${shows}; it is signed by itself: if it is yours, trust it with --ca (tls.ca)`
  if (unknownAuthority.includes(code)) {
    if (plan.tls.ca !== undefined) {
      return `${shows}; its issuer is not among the certificates given with --ca (tls.ca): give that of the CA which issued it, unless something is intercepting TLS, or the server leaves out an intermediate certificate`
    }
    return `${shows}; its issuer is not known here: if the CA is yours, give it with --ca (tls.ca); else something may be intercepting TLS, or the server leaves out an intermediate certificate`
  }
  if (code === 'CERT_HAS_EXPIRED' || code === 'CERT_NOT_YET_VALID') return `${shows}; ${clock}`
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') {
    return `${shows}, for the names ${printable(certificate.subjectaltname ?? 'none').slice(0, MAX_CERTIFICATE_NAME)}; is the host right (--servername), or is something intercepting TLS?`
  }
  return shows
}

/** The meaning of the other side's alert (RFC 8446, section 6.2). The error's own message has its name. */
function ofAlert (alert: string, plan: ConnectPlan): string {
  if (alert === 'CERTIFICATE_REQUIRED') return 'the server wants a certificate of this side: give --cert and --key (tls.cert, tls.key)'
  if (alert === 'CERTIFICATE_EXPIRED') return `the server finds this side's certificate expired${ownCertificate(plan)}`
  if (alert === 'UNKNOWN_CA') return `the server does not know the CA of this side's certificate${ownCertificate(plan)}`
  if (alert.includes('CERTIFICATE') || alert === 'ACCESS_DENIED') return `the server does not accept this side's certificate${ownCertificate(plan)}`
  if (alert === 'NO_APPLICATION_PROTOCOL') {
    return plan.httpVersion === 2 ? 'the server does not speak HTTP/2' : 'the server does not speak HTTP/1.1, perhaps HTTP/2: try --http2 (httpVersion 2)'
  }
  if (alert === 'UNRECOGNIZED_NAME') return `the server does not know the name ${printable(plan.servername ?? plan.hostname)}: is --servername right?`
  if (alert === 'HANDSHAKE_FAILURE' || alert === 'PROTOCOL_VERSION') {
    return plan.tls.cert === undefined
      ? 'no TLS version or cipher in common, or the server wants a certificate of this side (--cert, --key)'
      : `no TLS version or cipher in common, or the server does not accept this side's certificate${ownCertificate(plan)}`
  }
  return 'the server ended TLS with this alert'
}

/** For a server that closed the connection right after the TLS handshake, as Node's servers do when they reject a certificate. */
function ofSilence (plan: ConnectPlan): string {
  return plan.tls.cert === undefined
    ? 'the server closed the connection without an answer; does it want a certificate of this side (--cert, --key)?'
    : `the server closed the connection without an answer; does it not accept this side's certificate${ownCertificate(plan)}?`
}

function ofBytes (bytes: Buffer): string {
  // The header of a SETTINGS frame on stream 0 (RFC 9113, sections 4.1 and 6.5).
  if (bytes.length >= 9 && bytes[3] === 4 && bytes.readUIntBE(0, 3) % 6 === 0 && bytes.readUInt32BE(5) === 0) {
    return 'the server speaks HTTP/2 only: use --http2 (httpVersion 2)'
  }
  // An alert, in any version (RFC 8446, section 5.1).
  if (bytes[0] === 0x15 && bytes[1] === 3) return 'the port speaks TLS: use https:'
  return `what answers does not speak HTTP: "${printable(bytes.toString('latin1', 0, MAX_SHOWN_BYTES))}"`
}

/** The subject and expiry of this side's certificate, if they can be read. */
function ownCertificate ({ tls: { cert } }: ConnectPlan): string {
  if (typeof cert !== 'string' && !(cert instanceof Buffer)) return ''
  try {
    const { subject, validTo } = new X509Certificate(cert)
    return ` (${printable(subject.replaceAll('\n', ', ')).slice(0, MAX_CERTIFICATE_NAME)}, valid until ${day(validTo)})`
  } catch {
    return ''
  }
}

function distinguishedName (name: PeerCertificate['subject'] | undefined): string {
  const parts = Object.entries(name ?? {}).map(([key, value]) => `${key}=${[value].flat().join('+')}`)
  return parts.length === 0 ? 'no name' : printable(parts.join(', ')).slice(0, MAX_CERTIFICATE_NAME)
}

function day (time: string | number): string {
  const date = new Date(time)
  return Number.isNaN(date.getTime()) ? printable(String(time)) : date.toISOString().slice(0, 16).replace('T', ' ') + ' UTC'
}
