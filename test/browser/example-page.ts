import type { FastifyInstance } from 'fastify'
import type { Locator, Page } from 'playwright-core'
import type { Test } from 'tap'
import { launchChromium } from '../helpers/chromium.ts'

/** The page of the example app in a tab of its own. */
export class ExamplePage {
  readonly page: Page
  /** What the page's script has thrown. */
  readonly errors: Error[] = []

  constructor (page: Page) {
    this.page = page
    page.on('pageerror', (error) => this.errors.push(error))
  }

  /** Opens the page as a link with a token does. */
  static async open (t: Test, app: FastifyInstance, token: string): Promise<ExamplePage> {
    return await ExamplePage.openAt(t, app.listeningOrigin, token)
  }

  static async openAt (t: Test, origin: string, token: string): Promise<ExamplePage> {
    const page = await (await launchChromium()).newPage()
    t.teardown(() => page.close())
    const examplePage = new ExamplePage(page)
    await page.goto(`${origin}/#token=${token}`)
    return examplePage
  }

  async fill (label: string, text: string): Promise<void> {
    await this.page.getByLabel(label, { exact: true }).fill(text)
  }

  async press (button: string): Promise<void> {
    await this.page.getByRole('button', { name: button, exact: true }).click()
  }

  /** Presses "Join"; what is shown when that has succeeded or failed. */
  async join (): Promise<string> {
    await this.press('Join')
    return await this.#text('#status:not([data-state=asking])')
  }

  /** What is shown when the page has this state. */
  async status (state: 'away' | 'asking' | 'joined' | 'failed'): Promise<string> {
    return await this.#text(`#status[data-state=${state}]`)
  }

  async send (text: string): Promise<void> {
    await this.fill('Datagram', text)
    await this.press('Send')
  }

  /** Of the datagrams shown so far, the one with this number, as soon as it is there. */
  async datagram (number: number): Promise<{ direction: string | null, text: string | null, hex: string | null }> {
    // The newest is on top.
    const item: Locator = this.page.locator(`#datagrams li:nth-last-child(${number})`)
    return {
      direction: await item.getAttribute('data-direction'),
      text: await item.locator('.text').textContent(),
      hex: await item.locator('.hex').textContent()
    }
  }

  async #text (selector: string): Promise<string> {
    return (await this.page.locator(selector).textContent())!
  }
}
