/* global uPlot, getComputedStyle, matchMedia, ResizeObserver */

const MAX_SECONDS_SHOWN = 300
const MIN_SECONDS_SHOWN = 60
const HEIGHT = 200

const color = (name) => () => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`)

/** A curve for each series, of at most the last five minutes. */
export class Chart {
  #element
  #plot
  #columns
  #format
  #series

  /** @param series for each curve its label, and its colour's name in the stylesheet */
  constructor (element, series, format) {
    this.#element = element
    this.#series = series
    this.#format = format
    this.#columns = [[], ...series.map(() => [])]
    const axis = { stroke: color('muted'), grid: { stroke: color('line'), width: 1 }, ticks: { stroke: color('line'), width: 1 } }
    this.#plot = new uPlot({ // eslint-disable-line new-cap
      width: this.#width,
      height: HEIGHT,
      scales: {
        x: { range: () => this.#range() },
        y: { range: (_plot, _min, max) => [0, max > 0 ? max * 1.1 : 1] }
      },
      axes: [
        { ...axis, values: '{HH}:{mm}:{ss}', space: 80 },
        { ...axis, size: 72, values: (_plot, values) => values.map((value) => format(value)) }
      ],
      series: [
        { label: 'Time', value: '{HH}:{mm}:{ss}' },
        ...series.map(({ label, stroke, dash }) => ({
          label, stroke: color(stroke), dash, width: 2, points: { show: false }, value: (_plot, value) => value == null ? '–' : format(value)
        }))
      ],
      legend: { live: true },
      cursor: { drag: { x: false, y: false } }
    }, this.#columns, element)
    // The chart's label says the same.
    element.querySelector('.u-legend').setAttribute('aria-hidden', 'true')
    new ResizeObserver(() => this.#plot.setSize({ width: this.#width, height: HEIGHT })).observe(element)
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.#plot.redraw(false, true))
  }

  /** @param time in milliseconds */
  add (time, values) {
    const [times] = this.#columns
    for (const [i, value] of [time / 1000, ...values].entries()) this.#columns[i].push(value)
    while (times[0] < time / 1000 - MAX_SECONDS_SHOWN) {
      for (const column of this.#columns) column.shift()
    }
    this.#plot.setData(this.#columns)
    // Nobody points at a moment: the legend shows the last one.
    if (this.#plot.cursor.left < 0) this.#plot.setLegend({ idx: times.length - 1 })
    const words = values.map((value, i) => `${this.#series[i].label} ${this.#format(value)}`).join(', ')
    this.#element.setAttribute('aria-label', `Now ${words}; most in five minutes ${this.#format(this.#most())}`)
  }

  get #width () {
    return Math.max(200, this.#element.clientWidth)
  }

  #range () {
    const [times] = this.#columns
    const end = times.at(-1) ?? Date.now() / 1000
    return [Math.min(times[0] ?? end, end - MIN_SECONDS_SHOWN), end]
  }

  #most () {
    return this.#columns.slice(1).flat().reduce((most, value) => Math.max(most, value), 0)
  }
}
