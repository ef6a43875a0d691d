import { describeError } from '../client/describe-error.ts'

/** What cannot be bound, and who else may have it. */
export interface PortUse {
  /** As on the command line. */
  flag: '--listen' | '--metrics'
  /** Address and port. */
  value: string
  takenBy: string
}

/** The error for a port that cannot be bound, with what to do; any other error as it is. */
export function portError (error: unknown, use: PortUse): unknown {
  const { code, syscall } = error as NodeJS.ErrnoException
  if (code === undefined || (syscall !== 'bind' && syscall !== 'listen')) return error
  const advice = adviceFor(code, use)
  return advice === undefined ? error : new Error(`${use.flag} ${use.value}: ${advice} (${describeError(error)})`, { cause: error })
}

function adviceFor (code: string, { flag, takenBy }: PortUse): string | undefined {
  const another = flag === '--listen' ? 'another port here and in WireGuard\'s Endpoint' : 'another port'
  switch (code) {
    case 'EADDRINUSE':
      return `the port is taken, perhaps by ${takenBy}: stop that, or choose ${another}`
    case 'EADDRNOTAVAIL':
      return 'this machine has no such address: take one of its own, such as 127.0.0.1'
    case 'EACCES':
      return `this user may not use the port: choose ${another}, above 1023`
  }
}
