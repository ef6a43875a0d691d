/** The value of the function, or a rejection as soon as the signal is aborted. */
export function abortable<T> (give: () => T | Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const given = Promise.resolve(give())
    const onAbort = () => reject(signal.reason)
    signal.addEventListener('abort', onAbort)
    given.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort))
  })
}
