import type { NoticeName } from '../../framing/notices.ts'
import { printable } from '../../util/printable.ts'
import type { HandshakeFaultInfo } from './handshake-record.ts'
import type { Identity } from './identity.ts'

/** Longer names are cut, so that the whole text fits into a notice. */
const MAX_NAME_LENGTH = 64

/** The notice text for a peer. `to` is the intended peer. */
export function noticeText (notice: NoticeName, { count, asked }: { count: number, asked: number }, channelName: string, to: Identity | undefined): string {
  const network = channelName.trim() === '' ? 'this network' : `the network ${shortened(channelName)}`
  const name = to === undefined ? undefined : nameOf(to)
  switch (notice) {
    case 'answered':
      return `${name} has answered WireGuard's handshake`
    case 'alone':
      return `you are alone in ${network}: is the other device's sidecar running, with a token for the same network?`
    case 'no-responder':
      return `no device in ${network} has the public key that your WireGuard asks for: is PublicKey under [Peer] right here, and the other device's publicKey right in the relay's app?`
    case 'peer-away':
      return `${count} handshakes to ${name} were not delivered: it is not connected to the relay at the moment`
    case 'unanswered':
      if (name !== undefined) return `${count} handshakes to ${name} were not answered: is WireGuard running there, with this device's public key?`
      return `${count} handshakes were not answered by ${askedText(asked, network)}: is WireGuard running there, and does each side have the other's public key?`
    case 'initiation-rate':
      return `${count} handshakes${name === undefined ? '' : ` to ${name}`} were dropped: your WireGuard starts too many`
    case 'mac1-budget':
      return `${count} handshakes were dropped: too many are for public keys that no device here has`
    case 'index-collision':
      return `${count} handshakes to ${name} were dropped: their session index belongs to another device there`
  }
}

/** The log text for the operator. */
export function faultText ({ fault, id, asked, count }: HandshakeFaultInfo): string {
  const name = id === undefined ? undefined : shortened(id)
  switch (fault) {
    case 'alone':
      return "no other peer is in its channel: is the other device's sidecar running, and does identify() give it the same channel?"
    case 'no-responder':
      return "no peer in its channel has the public key that its WireGuard asks for: is PublicKey under [Peer] right there, and is the other peer's publicKey that identify() returns?"
    case 'peer-away':
      return `${count} handshakes to ${name} were not delivered: it has no tunnel at the moment`
    case 'unanswered':
      if (name !== undefined) return `${count} handshakes to ${name} were not answered: is WireGuard running there, with this peer's public key?`
      return `${count} handshakes were not answered by ${askedText(asked, 'its channel')}: is WireGuard running there, and does each side have the other's public key?`
    case 'initiation-rate':
      return `${count} handshakes${name === undefined ? '' : ` to ${name}`} were dropped: its WireGuard starts too many`
    case 'mac1-budget':
      return `${count} handshakes were dropped: too many are for public keys that no peer has`
    case 'index-collision':
      return `${count} handshakes to ${name} were dropped: their session index belongs to another peer there`
  }
}

function askedText (count: number, where: string): string {
  const asked = count === 1 ? 'the one device' : `any of the ${count} devices`
  return `${asked} in ${where} whose public key the relay does not know`
}

/** The name shown to other peers of the channel. Never a public key or a random id. */
function nameOf ({ id, isStable, publicKey }: Identity): string {
  if (isStable && id !== publicKey?.toString('base64')) return shortened(id)
  return publicKey === undefined ? 'another peer' : 'the peer with that public key'
}

function shortened (name: string): string {
  const shown = printable(name)
  return shown.length > MAX_NAME_LENGTH ? `${shown.slice(0, MAX_NAME_LENGTH - 1)}…` : shown
}
