import t from 'tap'
import { framingFuzzes } from './framing.ts'
import { testFuzzes } from './fuzz.ts'
import { valueFuzzes } from './values.ts'

testFuzzes(t, [...framingFuzzes, ...valueFuzzes])
