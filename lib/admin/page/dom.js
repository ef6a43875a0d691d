/** Makes an element; strings among the children are text, never markup. */
export function el (name, properties = {}, ...children) {
  const element = document.createElement(name)
  const { className, data, ...attributes } = properties
  if (className !== undefined) element.className = className
  Object.assign(element.dataset, data)
  for (const [attribute, value] of Object.entries(attributes)) element.setAttribute(attribute, value)
  element.append(...children)
  return element
}

export function svg (name, attributes = {}, ...children) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', name)
  for (const [attribute, value] of Object.entries(attributes)) element.setAttribute(attribute, value)
  element.append(...children)
  return element
}

export function byId (id) {
  return document.getElementById(id)
}

/** Writes text only where it changed, so that what somebody has selected stays selected. */
export function setText (element, text) {
  if (element.textContent !== text) element.textContent = text
}

/**
 * Keeps children that stand for items: those that stay keep their element, and with it focus and clicks under way.
 * `create(item)` gives an object with an `element`, `update(view, item)` brings it up to date.
 */
export class KeyedList {
  #parent
  #create
  #update
  #views = new Map()

  constructor (parent, create, update) {
    this.#parent = parent
    this.#create = create
    this.#update = update
  }

  show (items, keyOf) {
    const views = new Map()
    for (const item of items) {
      const key = keyOf(item)
      const view = this.#views.get(key) ?? this.#create(item)
      this.#update(view, item)
      views.set(key, view)
    }
    for (const [key, { element }] of this.#views) {
      if (!views.has(key)) element.remove()
    }
    let at = this.#parent.firstElementChild
    for (const { element } of views.values()) {
      if (element === at) at = at.nextElementSibling
      else this.#parent.insertBefore(element, at)
    }
    this.#views = views
  }
}

/** A button for each way through the pages of a list, and where one is. */
export class Pager {
  offset = 0
  #limit
  #text = el('span')
  #back = el('button', { type: 'button', 'aria-label': 'Previous page' }, '‹')
  #on = el('button', { type: 'button', 'aria-label': 'Next page' }, '›')

  constructor (nav, limit, onMove) {
    this.#limit = limit
    nav.append(this.#back, this.#text, this.#on)
    for (const [button, step] of [[this.#back, -limit], [this.#on, limit]]) {
      button.addEventListener('click', () => {
        if (button.ariaDisabled === 'true') return
        this.offset = Math.max(0, this.offset + step)
        onMove()
      })
    }
  }

  get query () {
    return { offset: this.offset, limit: this.#limit }
  }

  /** @returns whether the page that was asked for is behind the end, so that another one has to be fetched */
  show (total) {
    const lastOffset = Math.max(0, Math.ceil(total / this.#limit) - 1) * this.#limit
    const isBehind = this.offset > lastOffset
    this.offset = Math.min(this.offset, lastOffset)
    const last = Math.min(total, this.offset + this.#limit)
    setText(this.#text, total === 0 ? 'none' : `${this.offset + 1} to ${last} of ${total.toLocaleString('en')}`)
    setDisabled(this.#back, this.offset === 0)
    setDisabled(this.#on, last === total)
    return isBehind
  }
}

/** As aria has it: a button that is disabled by its attribute loses the focus. */
function setDisabled (button, isDisabled) {
  button.setAttribute('aria-disabled', String(isDisabled))
}
