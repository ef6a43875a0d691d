// How tap's loader (ts-node, see tsconfig.json) takes the types out of TypeScript on Node 20, which cannot itself: each
// file once, and not once in each of the processes that tests run in. It halves what the tests take.
// What is kept is named by all that it was made of, so it is never stale.

const { createHash } = require('node:crypto')
const { mkdirSync, readFileSync, renameSync, writeFileSync } = require('node:fs')
const { join } = require('node:path')
const { version } = require('typescript/package.json')

const directory = join(__dirname, '../node_modules/.cache/fastify-spanza-relay')

exports.create = ({ service }) => {
  const compilerOptions = {
    target: service.config.options.target,
    module: 99, // esnext; all TypeScript here is ES modules
    verbatimModuleSyntax: true,
    sourceMap: true
  }
  const maker = JSON.stringify([version, compilerOptions])
  mkdirSync(directory, { recursive: true })

  return {
    transpile (code, { fileName }) {
      const name = createHash('sha256').update(`${maker}\n${fileName}\n`).update(code).digest('hex')
      const path = join(directory, name)
      try {
        return JSON.parse(readFileSync(path, 'utf8'))
      } catch (error) {
        if (error.code !== 'ENOENT') throw error
      }
      const { outputText, sourceMapText } = require('typescript').transpileModule(code, { fileName, compilerOptions })
      const made = { outputText, sourceMapText }
      // Whole or not at all: other processes look for it at the same time.
      writeFileSync(`${path}.${process.pid}`, JSON.stringify(made))
      renameSync(`${path}.${process.pid}`, path)
      return made
    }
  }
}
