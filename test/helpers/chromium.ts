import { existsSync } from 'node:fs'
import { chromium, type Browser } from 'playwright-core'
import t from 'tap'

const executablePath = '/usr/bin/chromium'

/** Why tests with a browser cannot run here, or false. */
export const skip = existsSync(executablePath) ? false : `needs Debian's package chromium: there is no ${executablePath}`

/** One for all tests of a file. */
let browser: Promise<Browser> | undefined

// On a busy machine a browser takes its time.
t.setTimeout(180_000)
t.teardown(async () => await (await browser)?.close())

/** The browser of this process, headless, started when it is asked for first. It believes every certificate. */
export function launchChromium (): Promise<Browser> {
  // As root, Chromium has no sandbox.
  const sandbox = process.getuid?.() === 0 ? ['--no-sandbox'] : []
  browser ??= chromium.launch({ executablePath, args: ['--ignore-certificate-errors', ...sandbox] })
  return browser
}
