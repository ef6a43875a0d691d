import t from 'tap'
import { len16 } from '../../../lib/framing/len16.ts'
import { Clock } from '../../../lib/hub/clock.ts'
import { createCounters } from '../../../lib/hub/counters.ts'
import type { DatagramTarget } from '../../../lib/hub/admitted.ts'
import type { DetachReason } from '../../../lib/tunnel/close-reasons.ts'
import { TargetChannel } from '../../../lib/hub/target/target-channel.ts'
import { readHubOptions, type HubOptions } from '../../../lib/hub/hub-options.ts'
import { admitted } from '../../helpers/admitted.ts'
import { FakeTunnel } from '../../helpers/fake-tunnel.ts'

// What takes minutes, by a clock of its own; all else is in test/target.

function attachSilent (options: HubOptions, hasKeepalive: boolean) {
  const clock = new Clock(1000)
  const left: DetachReason[] = []
  const channel = new TargetChannel({
    options: readHubOptions(options), clock, counters: createCounters(), detached: (_peer, reason) => left.push(reason), handshakesFail () {}, handshakesSucceed () {}
  })
  let isOpen = true
  const target: DatagramTarget = { carries: 'datagrams', receive () {}, send () {}, close () { isOpen = false } }
  channel.attach(admitted({
    channel: { scope: '', name: '', kind: 'target' }, protocol: 'UoTLV/1', framing: len16, hasKeepalive, target
  }), new FakeTunnel().tunnel)
  /** How long it takes, in seconds, until the peer is closed. */
  return (): number | undefined => {
    for (clock.now = 0; clock.now <= 3_600_000; clock.now += 1000) {
      channel.sweep()
      if (left.length === 0) continue
      t.same(left, ['idle'])
      t.notOk(isOpen, 'its socket is closed, too')
      t.ok(channel.isEmpty)
      return clock.now / 1000
    }
  }
}

t.test('a silent tunnel to a UDP target gives its port back after ten minutes, or as the app says', async (t) => {
  t.equal(attachSilent({}, false)(), 601)
  t.equal(attachSilent({ idleTimeout: 60_000 }, false)(), 61)
  t.equal(attachSilent({}, true)(), 76, 'with keepalives, those count')
})
