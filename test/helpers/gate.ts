/** A hook that waits until it is let go. */
export interface Gate {
  hook: () => Promise<void>
  /** Lets it go on, and all that come later. */
  open: () => void
  /** Resolves when the hook runs for the first time. */
  reached: Promise<void>
}

export function createGate (): Gate {
  let open = (): void => {}
  const opened = new Promise<void>((resolve) => { open = resolve })
  let reach = (): void => {}
  const reached = new Promise<void>((resolve) => { reach = resolve })
  const hook = async (): Promise<void> => {
    reach()
    await opened
  }
  return { hook, open, reached }
}
