/** Numbers values that have no unique text form, so that two different values never get the same text. */
const numbers = new WeakMap<object, number>()
const symbolNumbers = new Map<symbol, number>()
let count = 0

/**
 * Returns a route's constraints as text. The text is part of the scope of the route's channels, because routes with the same
 * URL and different constraints are different routes. It does not depend on the Node version or on the order of the
 * constraints. Example: ` host="relay.example.com" version="1.2.0"`. Empty if the route has no constraints.
 */
export function constraintsText (constraints: object | undefined): string {
  return Object.entries(constraints ?? {}).sort(byName).map(([name, value]) => ` ${name}=${valueText(value, [])}`).join('')
}

function valueText (value: unknown, outer: readonly object[]): string {
  if (typeof value === 'string') return JSON.stringify(value)
  if (typeof value === 'bigint') return `${value}n`
  if (typeof value === 'symbol') return symbolText(value)
  if (typeof value === 'function') return numbered(`function ${value.name}`, value)
  if (typeof value !== 'object' || value === null) return Object.is(value, -0) ? '-0' : String(value)
  if (value instanceof RegExp) return String(value)
  if (outer.includes(value)) return numbered('object', value)
  const within = [...outer, value]
  if (Array.isArray(value)) return `[${value.map((item) => valueText(item, within)).join(',')}]`
  const prototype = Object.getPrototypeOf(value)
  if (prototype !== Object.prototype && prototype !== null) return numbered(value.constructor?.name ?? 'object', value)
  return `{${Object.entries(value).sort(byName).map(([name, item]) => `${JSON.stringify(name)}:${valueText(item, within)}`).join(',')}}`
}

function symbolText (value: symbol): string {
  if (Symbol.keyFor(value) !== undefined) return String(value)
  const number = symbolNumbers.get(value) ?? ++count
  symbolNumbers.set(value, number)
  return `${String(value)}#${number}`
}

function numbered (kind: string, value: object): string {
  const number = numbers.get(value) ?? ++count
  numbers.set(value, number)
  return `${kind}#${number}`
}

function byName ([a]: [string, unknown], [b]: [string, unknown]): number {
  return a < b ? -1 : 1
}
