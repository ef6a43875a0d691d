import { clearLine, cursorTo } from 'node:readline'
import type { WriteStream } from 'node:tty'

/** For a terminal that does not tell its width. */
const DEFAULT_COLUMNS = 80

/** The last line of a terminal. It is redrawn in place, and other lines go above it. */
export class LiveLine {
  readonly #terminal: WriteStream
  #text = ''

  constructor (terminal: WriteStream) {
    this.#terminal = terminal
  }

  /** Replaces the text. */
  show (text: string): void {
    this.#erase()
    this.#text = text
    this.#draw()
  }

  /** Writes a line that stays. */
  writeAbove (line: string): void {
    this.#erase()
    this.#terminal.write(`${line}\n`)
    this.#draw()
  }

  /** Removes the line; those above it stay. */
  end (): void {
    this.#erase()
    this.#text = ''
  }

  #erase (): void {
    if (this.#text === '') return
    cursorTo(this.#terminal, 0)
    clearLine(this.#terminal, 0)
  }

  #draw (): void {
    // A longer text would wrap into the next line, and could not be erased.
    this.#terminal.write(this.#text.slice(0, (this.#terminal.columns || DEFAULT_COLUMNS) - 1))
  }
}
