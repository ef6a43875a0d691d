import { constants } from 'node:http2'
import type { Duplex } from 'node:stream'
import { errors } from '../../errors.ts'
import { connectError, markCut, noAnswerError } from '../connect-error.ts'
import { describeError } from '../describe-error.ts'
import { joinSession, type RelaySession } from './http2-session.ts'
import type { Http2Tunnel } from './http2-tunnel.ts'
import { openTunnel } from './open-tunnel.ts'
import type { ConnectPlan } from '../options/connect-plan.ts'
import { readRefusal } from '../refusal.ts'
import type { RelayConnection } from '../connection/relay-connection.ts'

/** Opens a tunnel by an extended CONNECT, on a session that may have other tunnels. */
export function connectHttp2 (plan: ConnectPlan): Promise<RelayConnection | Duplex> {
  return new Promise((resolve, reject) => {
    let session: RelaySession
    let tunnel: Http2Tunnel | undefined
    let refusal: (() => void) | undefined
    let isSettled = false
    let isRetry = false
    const timer = setTimeout(() => {
      if (refusal !== undefined) return refusal()
      // The connection may be dead: the next attempt gets a new one.
      session.retire()
      fail(noAnswerError(plan, session.hasTransport))
    }, plan.handshakeTimeout)
    const onAbort = () => fail(plan.signal!.reason)
    plan.signal?.addEventListener('abort', onAbort)

    const settle = () => {
      isSettled = true
      clearTimeout(timer)
      plan.signal?.removeEventListener('abort', onAbort)
    }
    const fail = (error: unknown) => {
      if (isSettled) return
      settle()
      if (tunnel === undefined) session.leave()
      else tunnel.destroy()
      reject(error)
    }
    const begin = () => {
      session = joinSession(plan)
      const wasOpen = session.isOpen
      session.opened.then(() => { if (!isSettled) ask(wasOpen) }).catch(fail)
    }

    const ask = (wasOpen: boolean) => {
      const asked = session.request(plan)
      if (asked === undefined) {
        session.leave()
        return begin()
      }
      tunnel = asked
      tunnel.on('error', () => {})
      tunnel.on('close', () => {
        session.leave()
        if (isSettled || refusal !== undefined) return
        const { rstCode } = asked.stream
        if (rstCode === constants.NGHTTP2_HTTP_1_1_REQUIRED) return fail(errors.FST_RELAY_HTTP2('it answers HTTP_1_1_REQUIRED'))
        // Whatever the reason was, the next attempt gets a new session.
        session.retire()
        // In both cases the relay has not processed the request, or the session is gone.
        const again = rstCode === constants.NGHTTP2_REFUSED_STREAM || (wasOpen && session.isBroken)
        if (isRetry || !again) return fail(markCut(connectError(describeError(asked.errored), asked.errored)))
        isRetry = true
        tunnel = undefined
        begin()
      })
      tunnel.stream.on('response', (headers) => {
        if (isSettled) return
        const statusCode = headers[':status']!
        if (statusCode < 200 || statusCode > 299) {
          asked.end()
          refusal = readRefusal({ statusCode, headers }, asked, fail)
          return
        }
        try {
          resolve(openTunnel(plan, headers, asked))
          settle()
        } catch (error) {
          fail(error)
        }
      })
    }

    begin()
  })
}
