import t from 'tap'
import { answerFuzzes } from './answers.ts'
import { testFuzzes } from './fuzz.ts'
import { upgradeFuzzes } from './upgrade.ts'

testFuzzes(t, [...upgradeFuzzes, ...answerFuzzes])
