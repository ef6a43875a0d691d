import t from 'tap'
import { liveText, trafficText, watchTraffic, type Traffic } from '../../lib/cli/traffic.ts'
import { UdpSidecar, type SidecarStats } from '../../lib/client/index.ts'

const unused: SidecarStats = { ...new UdpSidecar({ url: 'https://relay.example.com/' }).stats, connected: true }
const nothing: Traffic = { duration: 1000, datagramsIn: 0, datagramsOut: 0, bytesIn: 0, bytesOut: 0, drops: 0, dropsByReason: [] }

t.test('tells again and again what has passed since the last time', async (t) => {
  const time = { now: 1000 }
  t.intercept(performance, 'now', { value: () => time.now })
  const sidecar = { stats: unused }
  const told: Traffic[] = []
  await new Promise<void>((resolve) => {
    const end = watchTraffic(sidecar, 1, (passed) => {
      told.push(passed)
      time.now += 2000
      const { datagramsIn, datagramsOut, bytesIn, bytesOut, drops } = sidecar.stats
      sidecar.stats = {
        ...unused,
        datagramsIn: datagramsIn + 1,
        datagramsOut: datagramsOut + 2,
        bytesIn: bytesIn + 3,
        bytesOut: bytesOut + 4,
        drops: { ...drops, outage: drops.outage + 3, 'udp-error': drops['udp-error'] + 2 }
      }
      if (told.length < 3) return
      end()
      resolve()
    })
  })
  const passed: Traffic = { duration: 2000, datagramsIn: 1, datagramsOut: 2, bytesIn: 3, bytesOut: 4, drops: 5, dropsByReason: [['udp-error', 2], ['outage', 3]] }
  t.same(told, [{ ...nothing, duration: 0 }, passed, passed])
})

t.test('the line of a terminal has rates, or that there is no connection', async (t) => {
  const passed: Traffic = { duration: 2000, datagramsIn: 1900, datagramsOut: 81, bytesIn: 2_469_000, bytesOut: 69_120, drops: 1, dropsByReason: [] }
  const stats = { ...unused, drops: { ...unused.drops, outage: 2, 'queue-full': 1 } }
  t.equal(liveText(passed, stats), 'In 1.2 MB/s, 950 datagrams/s | out 34.6 kB/s, 41 datagrams/s | 3 dropped')
  t.equal(liveText(nothing, { ...stats, connected: false }), 'Not connected | 3 dropped')
})

t.test('the line of a log has sums, and is left out when nothing has passed', async (t) => {
  const passed: Traffic = {
    duration: 60_012, datagramsIn: 950, datagramsOut: 40, bytesIn: 1_234_500, bytesOut: 999, drops: 590, dropsByReason: [['outage', 3], ['too-large', 587]]
  }
  t.equal(trafficText(passed), 'In the last 60 s: 1.2 MB in (950 datagrams), 999 B out (40 datagrams), 590 dropped (587 too-large, 3 outage)')
  t.equal(trafficText({ ...passed, drops: 0, dropsByReason: [] }), 'In the last 60 s: 1.2 MB in (950 datagrams), 999 B out (40 datagrams), 0 dropped')
  t.equal(trafficText(nothing), undefined)
  for (const name of ['datagramsIn', 'datagramsOut', 'drops'] as const) t.type(trafficText({ ...nothing, [name]: 1 }), 'string')
})

t.test('bytes in decimal units, never a thousand of one', async (t) => {
  const cases: Array<[number, string]> = [
    [0, '0 B'], [999, '999 B'], [1000, '1.0 kB'], [999_949, '999.9 kB'], [999_950, '1.0 MB'], [1e9, '1.0 GB'], [2.5e12, '2.5 TB'], [4e15, '4000.0 TB']
  ]
  for (const [bytesIn, text] of cases) t.match(liveText({ ...nothing, bytesIn }, unused), `In ${text}/s,`)
})
