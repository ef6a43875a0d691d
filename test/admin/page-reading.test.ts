import type { FastifyInstance } from 'fastify'
import t from 'tap'
import { wg } from '../../lib/framing/wg.ts'
import { relayServerOf } from '../../lib/plugin.ts'
import { admitted } from '../helpers/admitted.ts'
import { skip } from '../helpers/chromium.ts'
import { FakeTunnel } from '../helpers/fake-tunnel.ts'
import { askForUpgrade } from '../helpers/relay-app.ts'
import { openTunnel } from '../helpers/tunnel.ts'
import { startAdmin } from './admin-app.ts'
import { faults, openPage, rowOf } from './admin-page.ts'

/** Attaches so many peers, in channels of 50, without a network between. */
function attachMany (app: FastifyInstance, count: number): void {
  for (let i = 0; i < count; i++) {
    relayServerOf(app)!.hub.attach(admitted({
      channel: { scope: '/relay/:network', name: `net-${Math.floor(i / 50)}`, kind: 'packet' },
      id: `device-${i}`,
      address: '192.0.2.1',
      framing: wg,
      hasKeepalive: false
    }), new FakeTunnel().tunnel)
  }
}

t.test('the page in Chromium', { skip }, async (t) => {
  await t.test('shows refusals as they happen, in words, and as nothing but text', async (t) => {
    const app = await startAdmin(t)
    const page = await openPage(t, app)
    await askForUpgrade(t, app, '/relay/<img-src=x>', { headers: { Upgrade: '<b>x</b>' } })
    await page.locator('#refusals li', { hasText: 'does not speak "<b>x</b>"' }).filter({ hasText: '127.0.0.1 · /relay/:network · 400 FST_RELAY_PROTOCOL' }).waitFor()
    for (let i = 0; i < 3; i++) await askForUpgrade(t, app, '/relay/home', { headers: { 'X-Id': 'stranger' } })
    await page.locator('#refusals li', { hasText: 'a hook of the app refused: not authenticated' }).filter({ hasText: '× 3' }).waitFor()
    t.equal(await page.locator('main b, main img').count(), 0)
    await page.locator('#counted div', { hasText: 'Refused: a hook of the app refused: not authenticated 401' }).filter({ hasText: '3' }).waitFor()
  })

  await t.test('with 5,000 peers it shows parts of them, and finds the others', async (t) => {
    const app = await startAdmin(t, { relay: { maxPeers: 10_000 } })
    attachMany(app, 5000)
    const page = await openPage(t, app)
    const [channels, peers] = [page.locator('#channel-pager'), page.locator('#peer-pager')]
    await channels.getByText('1 to 12 of 100').waitFor()
    await peers.getByText('1 to 25 of 5,000').waitFor()
    t.equal(await page.locator('#peer-rows tr').count(), 25)
    t.equal(await page.locator('#channel-list svg').count(), 12)
    t.ok(await page.locator('#channel-list .node').count() <= 12 * 13)
    await page.locator('#channel-list svg', { hasText: '38 more' }).first().waitFor()
    await peers.getByRole('button', { name: 'Next page' }).click()
    await peers.getByText('26 to 50 of 5,000').waitFor()
    await page.getByLabel('Search channels and peers').fill('DEVICE-4999')
    await rowOf(page, 'device-4999').waitFor()
    await peers.getByText('1 to 1 of 1').waitFor()
    await channels.getByText('1 to 1 of 1').waitFor()
    await page.getByRole('heading', { name: 'net-99' }).waitFor()
    await page.getByLabel('Search channels and peers').fill('')
    await page.getByLabel('Order').selectOption('id')
    await rowOf(page, 'device-0').waitFor()
    await page.getByRole('button', { name: 'net-1', exact: true }).click()
    await peers.getByText('1 to 25 of 50').waitFor()
    t.equal(await rowOf(page, 'net-1').count(), 25)
    await page.getByRole('button', { name: 'Show the peers of all channels' }).click()
    await peers.getByText('1 to 25 of 5,000').waitFor()
  })

  await t.test('on a phone nothing is wider than the screen', async (t) => {
    const app = await startAdmin(t)
    await openTunnel(t, app, { id: 'a'.repeat(255), path: `/relay/${'b'.repeat(90)}` })
    const page = await openPage(t, app, { viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true })
    await rowOf(page, 'aaa').waitFor()
    t.equal(await page.evaluate('document.documentElement.scrollWidth'), 360)
    await page.getByRole('button', { name: 'aaa' }).tap()
    await page.getByRole('dialog').waitFor()
    t.equal(await page.evaluate('document.documentElement.scrollWidth'), 360)
  })

  await t.test('everything that can be used has a name', async (t) => {
    const app = await startAdmin(t)
    await openTunnel(t, app, { id: 'laptop' })
    const page = await openPage(t, app)
    await rowOf(page, 'laptop').waitFor()
    const outline = await page.locator('body').ariaSnapshot()
    t.notMatch(outline, /^\s*- (?:button|textbox|searchbox|combobox|img|table|heading|navigation|dialog)(?::| \[.*\])?$/m)
    t.match(outline, /searchbox "Search channels and peers"/)
  })

  await t.test('says when the relay cannot be reached, and goes on when it can', async (t) => {
    const app = await startAdmin(t)
    const page = await openPage(t, app)
    await page.route('**/stats**', async (route) => await route.fulfill({ status: 401, json: { message: 'who is there?' } }))
    await page.getByText('401: who is there?. Reload the page to sign in again.').waitFor()
    await page.unroute('**/stats**')
    await page.getByText('Live', { exact: true }).waitFor()
  })

  t.same(faults, [], 'in all of this there was no error, nothing that a policy refused, and nothing from elsewhere')
})
