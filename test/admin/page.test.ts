import helmet from '@fastify/helmet'
import type { Page } from 'playwright-core'
import t from 'tap'
import { skip } from '../helpers/chromium.ts'
import { askForUpgrade } from '../helpers/relay-app.ts'
import { openTunnel, settle, until, type Tunnel } from '../helpers/tunnel.ts'
import { initiation, response, transportData } from '../helpers/wireguard-messages.ts'
import { startAdmin } from './admin-app.ts'
import { faults, openPage, rowOf } from './admin-page.ts'

/** How high a curve goes, as a part of the chart: the topmost point of its colour. */
async function heightOf (page: Page, chart: string, color: string): Promise<number> {
  return await page.evaluate(`(() => {
    const canvas = document.querySelector('#${chart} canvas')
    const probe = document.createElement('i')
    probe.style.color = 'var(--${color})'
    document.body.append(probe)
    const wanted = getComputedStyle(probe).color.match(/\\d+/g).map(Number)
    probe.remove()
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height)
    for (let i = 0; i < data.length; i += 4) {
      if (data[i + 3] === 255 && wanted.every((value, c) => Math.abs(data[i + c] - value) < 3)) return 1 - Math.floor(i / 4 / canvas.width) / canvas.height
    }
    return 0
  })()`)
}

t.test('the page in Chromium', { skip }, async (t) => {
  await t.test('shows a peer when it attaches, and when it has left', async (t) => {
    const app = await startAdmin(t, { before: (app) => app.register(helmet) })
    const page = await openPage(t, app)
    t.equal(await page.locator('#peers-empty').isVisible(), true)
    const tunnel = await openTunnel(t, app, { id: 'laptop' })
    const begun = performance.now()
    await rowOf(page, 'laptop').waitFor()
    t.comment(`shown ${Math.round(performance.now() - begun)} ms after it had attached`)
    await page.locator('#channel-list svg', { hasText: 'laptop' }).waitFor()
    await page.locator('#moves li', { hasText: 'laptop came' }).waitFor()
    tunnel.socket.end()
    await rowOf(page, 'laptop').waitFor({ state: 'detached' })
    await page.locator('#moves li', { hasText: 'laptop left' }).waitFor()
  })

  await t.test('traffic moves the curve, and widens the lines of its peers', async (t) => {
    const app = await startAdmin(t)
    const [a, b] = [await openTunnel(t, app, { id: 'a' }), await openTunnel(t, app, { id: 'b' })]
    const page = await openPage(t, app)
    await page.locator('#throughput-chart[aria-label^="Now In 0 B/s"]').waitFor()
    t.ok(await heightOf(page, 'throughput-chart', 'in') < 0.5, 'flat')
    await page.locator('.edge.idle').nth(1).waitFor({ state: 'attached' })
    const traffic = setInterval(() => a.send(Buffer.alloc(1400)), 5)
    t.teardown(() => clearInterval(traffic))
    await page.getByRole('img', { name: /^Now In [\d.]+ kB/ }).waitFor()
    t.ok(await heightOf(page, 'throughput-chart', 'in') > 0.5, 'in')
    t.ok(await heightOf(page, 'throughput-chart', 'out') > 0.5, 'and out')
    await page.locator('.edge path.in').waitFor({ state: 'attached' })
    await page.locator('.edge path.out').waitFor({ state: 'attached' })
    clearInterval(traffic)
    await settle(a, b)
    await page.locator('.edge.idle').nth(1).waitFor({ state: 'attached' })
  })

  await t.test('lines between peers show who talks to whom', async (t) => {
    const app = await startAdmin(t)
    const tunnels = await Promise.all(['a', 'b', 'c'].map((id) => openTunnel(t, app, { id })))
    const [a, b, c] = tunnels as [Tunnel, Tunnel, Tunnel]
    const page = await openPage(t, app)
    await page.locator('.edge').nth(2).waitFor({ state: 'attached' })
    t.equal(await page.locator('.pair-edge').count(), 0)
    a.send(initiation(1))
    await Promise.all([b.datagrams.next(), c.datagrams.next()])
    b.send(response(11, 1))
    await a.datagrams.next()
    await page.locator('.pair-edge.idle', { hasText: /a to b|b to a/ }).waitFor({ state: 'attached' })
    t.equal(await page.locator('.pair-edge').count(), 1)
    t.equal(await page.locator('.edge').count(), 1, "c's to the channel")
    const traffic = setInterval(() => a.send(transportData(11, 1400)), 5)
    t.teardown(() => clearInterval(traffic))
    await page.locator('.pair-edge:not(.idle)', { hasText: /a to b: [\d.]+ kB\/s/ }).waitFor({ state: 'attached' })
    clearInterval(traffic)
    await rowOf(page, 'a').getByRole('button').click()
    await page.getByText(/^b [\d.]+ kB$/).waitFor()
  })

  await t.test('what is dropped moves the other curve, and is told in words', async (t) => {
    const app = await startAdmin(t)
    const a = await openTunnel(t, app, { id: 'a' })
    const page = await openPage(t, app)
    await page.locator('#drop-chart[aria-label^="Now Dropped 0/s"]').waitFor()
    const traffic = setInterval(() => a.send(Buffer.alloc(4000)), 5)
    t.teardown(() => clearInterval(traffic))
    await page.getByRole('img', { name: /^Now Dropped [1-9]/ }).waitFor()
    t.ok(await heightOf(page, 'drop-chart', 'drop') > 0.5)
    await page.locator('#drops div', { hasText: 'larger than maxPacketSize too-large' }).waitFor()
  })

  await t.test('shows what happened before it was opened, once', async (t) => {
    const app = await startAdmin(t)
    const tunnel = await openTunnel(t, app, { id: 'early' })
    await askForUpgrade(t, app, '/relay/home', { headers: { Upgrade: 'x' } })
    tunnel.socket.end()
    await until(() => app.relayHub.stats().peers === 0)
    const page = await openPage(t, app)
    await page.locator('#moves li', { hasText: 'early came' }).waitFor()
    await page.locator('#moves li', { hasText: 'early left' }).waitFor()
    await page.locator('#refusals li', { hasText: 'does not speak "x"' }).waitFor()
    await openTunnel(t, app, { id: 'late' })
    await page.locator('#moves li', { hasText: 'late came' }).waitFor()
    t.equal(await page.locator('#moves li').count(), 3)
    t.match(await page.locator('#moves li').first().textContent(), 'late came', 'the newest first')
    t.equal(await page.locator('#refusals li').count(), 1)
    // As after a night in which the computer slept.
    await page.reload()
    await page.locator('#moves li', { hasText: 'early came' }).waitFor()
    t.equal(await page.locator('#moves li').count(), 3)
  })

  await t.test('says whose handshakes fail, with whom, and why datagrams were dropped', async (t) => {
    const app = await startAdmin(t)
    const tunnels = await Promise.all(['a', 'b', 'c'].map((id) => openTunnel(t, app, { id })))
    const [a, b, c] = tunnels as [Tunnel, Tunnel, Tunnel]
    const { peers } = app.relayHub
    const since = new Date(Date.now() - 60_000)
    t.intercept(app.relayHub, 'peers', {
      value: () => peers.call(app.relayHub).map((peer) => peer.id === 'c'
        ? { ...peer, handshakeFaults: [{ fault: 'unanswered', id: 'b<b>', asked: 1, count: 7, since, lastAt: new Date() }] }
        : peer)
    })
    const page = await openPage(t, app)
    a.send(initiation(1))
    await Promise.all([b.datagrams.next(), c.datagrams.next()])
    b.send(response(11, 1))
    await a.datagrams.next()
    a.send(initiation(2), transportData(77))
    await rowOf(page, 'c').getByText('7 handshakes to b<b> were not answered: is WireGuard running there').waitFor()
    await page.getByRole('button', { name: 'a', exact: true }).click()
    const details = page.getByRole('dialog', { name: 'a' })
    await details.getByText(/^Last complete: with b, \d+ s ago/).waitFor()
    await details.getByText('peers without a known public key: 2 sent, 1 answered, the last 1 unanswered').waitFor()
    await details.getByText(/b: 1 sent, 1 answered, last complete \d+ s ago/).waitFor()
    await details.getByText('1: no WireGuard session: no handshake before it (no-session)').waitFor()
    if (process.env['SCREENSHOT'] !== undefined) await page.screenshot({ path: process.env['SCREENSHOT'], fullPage: true })
    await page.getByRole('button', { name: 'Close' }).click()
    await page.getByRole('button', { name: 'c', exact: true }).click()
    await page.getByRole('dialog', { name: 'c' }).getByText(/^7 handshakes to b<b> were not answered: .* \(\d s ago\)$/).waitFor()
  })

  await t.test('disconnects a peer after a question, by keyboard', async (t) => {
    const app = await startAdmin(t)
    const tunnel = await openTunnel(t, app, { id: 'laptop' })
    await openTunnel(t, app, { id: 'nas' })
    const page = await openPage(t, app)
    await page.getByRole('button', { name: 'laptop' }).focus()
    await page.keyboard.press('Enter')
    const details = page.getByRole('dialog', { name: 'laptop' })
    await details.getByText('127.0.0.1').waitFor()
    const ask = async (): Promise<void> => {
      await page.getByRole('button', { name: 'Disconnect …' }).focus()
      await page.keyboard.press('Enter')
      await page.getByRole('alertdialog', { name: 'Disconnect this peer?' }).getByText('laptop in channel home').waitFor()
    }
    await ask()
    await page.keyboard.press('Enter')
    t.equal(await page.getByRole('alertdialog').isVisible(), false, 'what has the focus first is Cancel')
    t.equal(app.relayHub.stats().peers, 2)
    await ask()
    await page.keyboard.press('Escape')
    t.equal(app.relayHub.stats().peers, 2)
    await ask()
    await page.keyboard.press('Shift+Tab')
    await page.keyboard.press('Enter')
    await tunnel.ended
    t.match(tunnel.closing, { code: 6 }, 'the tunnel is closed as disconnected')
    await rowOf(page, 'laptop').waitFor({ state: 'detached' })
    await page.getByRole('dialog').waitFor({ state: 'hidden' })
    await page.locator('#moves li', { hasText: 'disconnected by the operator' }).waitFor()
    t.same(app.relayHub.peers().map(({ id }) => id), ['nas'])
  })

  await t.test('the details of a peer that leaves say so', async (t) => {
    const app = await startAdmin(t)
    const tunnel = await openTunnel(t, app, { id: 'laptop' })
    const page = await openPage(t, app)
    await page.getByRole('button', { name: 'laptop' }).click()
    tunnel.socket.destroy()
    await page.getByText('This peer has left.').waitFor()
    t.equal(await page.getByRole('button', { name: 'Disconnect …' }).isVisible(), false)
  })

  t.same(faults, [], 'in all of this there was no error, nothing that a policy refused, and nothing from elsewhere')
})
