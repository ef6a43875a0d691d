import type { AddressInfo } from 'node:net'
import type { FastifyInstance } from 'fastify'
import type { BrowserContextOptions, Locator, Page } from 'playwright-core'
import type { Test } from 'tap'
import { launchChromium } from '../helpers/chromium.ts'

/** What went wrong in any page so far: errors, what a policy has refused, requests for what is elsewhere. */
export const faults: string[] = []

/** The page, with a profile of its own. */
export async function openPage (t: Test, app: FastifyInstance, options: BrowserContextOptions = {}): Promise<Page> {
  const context = await (await launchChromium()).newContext({ httpCredentials: { username: 'admin', password: 'secret' }, ...options })
  t.teardown(() => context.close())
  const page = await context.newPage()
  page.on('pageerror', (error) => faults.push(error.message))
  page.on('console', (message) => {
    // An answer that is an error may be meant to be one.
    if (message.type() === 'error' && !/^Failed to load resource/.test(message.text())) faults.push(message.text())
  })
  page.on('request', (request) => { if (!request.url().startsWith(origin)) faults.push(request.url()) })
  const origin = `http://127.0.0.1:${(app.server.address() as AddressInfo).port}/`
  await page.goto(`${origin}relay-admin`)
  await page.getByText('Live', { exact: true }).waitFor()
  return page
}

/** The row of a peer in the table. */
export function rowOf (page: Page, id: string): Locator {
  return page.locator('#peer-rows tr', { hasText: id })
}
