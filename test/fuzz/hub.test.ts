import t from 'tap'
import { testFuzzes } from './fuzz.ts'
import { routingFuzzes } from './routing.ts'
import { sendQueueFuzzes } from './send-queue.ts'
import { tableFuzzes } from './tables.ts'

testFuzzes(t, [...tableFuzzes, ...sendQueueFuzzes, ...routingFuzzes])
