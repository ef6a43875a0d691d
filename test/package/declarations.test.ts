import { join } from 'node:path'
import t from 'tap'
import ts from 'typescript'
import { manifest, PackedPackage, ROOT } from '../helpers/packed.ts'

// What a user's editor shows of the packed package: the names that its entries export, and every name of ours that can be
// reached from them, by what they extend, take, give or hold. Needs `npm run build` first.

t.setTimeout(120_000)

const packed = new PackedPackage()
const { installed } = packed
t.teardown(() => packed.remove())

const entries = Object.entries<string | { types: string }>(manifest.exports)
  .flatMap(([name, entry]) => typeof entry === 'string' ? [] : [{ name, path: join(installed, entry.types) }])
const program = ts.createProgram(entries.map(({ path }) => path), {
  target: ts.ScriptTarget.ES2023,
  module: ts.ModuleKind.NodeNext,
  moduleResolution: ts.ModuleResolutionKind.NodeNext,
  skipLibCheck: true,
  noEmit: true,
  types: ['node'],
  typeRoots: [join(ROOT, 'node_modules/@types')]
})
const checker = program.getTypeChecker()
const files = program.getSourceFiles().filter(({ fileName }) => fileName.startsWith(installed))

/** What each entry exports. */
const exported: Record<string, string[]> = {
  '.': [
    'ChannelInfo', 'ChannelKey', 'CloseReason', 'DetachInfo', 'DetachReason', 'DropReason', 'FramingName', 'HandshakeFault',
    'HandshakeFaultInfo', 'HandshakeInfo', 'HubEvents', 'HubOptions', 'HubStats', 'Identified', 'PeerInfo', 'PeerSelector',
    'ProtocolName', 'ProxyProtocolOptions', 'ProxyProtocolServerFactory', 'RefusalInfo', 'RelayDiagnostics', 'RelayErrorCode',
    'RelayHub', 'RelayOptions', 'RelayRouteOptions', 'SpanzaRelayOptions', 'TunnelCount', 'errors', 'proxyProtocol', 'spanzaRelay'
  ],
  './client': [
    'AnsweredBy', 'ClientProtocol', 'CloseReason', 'ConnectOptions', 'ConnectionDropReason', 'ConnectionEnd',
    'ConnectionEndReason', 'ConnectionNotice', 'ConnectionStats', 'DatagramFraming', 'DatagramOptions', 'HttpUpgradeOptions',
    'LoopInfo', 'NoticeName', 'RawConnectOptions', 'RelayConnection', 'RelayConnectionEvents', 'RelayErrorCode',
    'RelayRefusedError', 'SidecarDropReason', 'SidecarEndReason', 'SidecarEvents', 'SidecarOptions', 'SidecarProtocol',
    'SidecarStats', 'SidecarStop', 'TlsOptions', 'TlsSource', 'TokenSource', 'TransportOptions', 'UdpDropReason', 'UdpSidecar',
    'connect', 'errors'
  ],
  './admin': ['RelayAdminOptions', 'relayAdmin'],
  './metrics': ['relayMetrics']
}

/** What those are made of, and shows in an editor, though it has no name that could be imported. */
const parts = [
  'Counters', 'HandshakeCounters', 'HistogramData', 'HttpVersion', 'HttpVersionNumber', 'ProxyProtocolVersion', 'RawOptions', 'RelayMethod',
  'TrafficStats', 'UdpSendFault',
  // Lists of which a type names the members.
  'closeReasons', 'dropReasons', 'guardNames', 'httpVersions', 'notices', 'otherReasons'
]

/** What is reached today, and is none of a user's business. Only ever shorter. */
const internal = [
  // By ProtocolName, which is the keys of the table.
  'Agree', 'Agreement', 'protocols',
  // By the constructor of RelayConnection, which nobody calls but `connect`.
  'ConnectionFraming', 'ConnectionSink', 'DatagramSink', 'Decoder', 'DecoderOptions', 'Encoding', 'Framing', 'FramingFault',
  'RelayConnectionSettings'
]

/** Classes beside types of ours, in files that are read for those. Only ever fewer. */
const classesBeside = ['HandshakeRecord', 'ProtocolChoice', 'UdpPort']

const reached = reach()

t.test('each entry exports what the documentation speaks of, and nothing else', (t) => {
  t.same(entries.map(({ name }) => name), Object.keys(exported))
  for (const { name, path } of entries) t.same(exportsOf(path).map((symbol) => symbol.name).sort(), exported[name]!.toSorted(), name)
  t.end()
})

t.test('from there nothing internal is reached', (t) => {
  const allowed = new Set([...Object.values(exported).flat(), ...parts])
  const others = [...reached].filter(([{ name }]) => !allowed.has(name))
  const described = others.map(([symbol, from]) => `${symbol.name} of ${fileOf(symbol)}, by ${from}`)
  t.same(described.filter((_text, i) => !internal.includes(others[i]![0].name)), [])
  const names = new Set([...reached.keys()].map(({ name }) => name))
  t.same([...parts, ...internal].filter((name) => !names.has(name)), [], 'the lists hold nothing that is gone')
  t.same(described, [], { todo: internal.length > 0 && 'the list `internal`' })
  t.end()
})

t.test('everything that is exported, and what it is made of, is described', (t) => {
  const silent = [...reached.keys()].filter((symbol) => !internal.includes(symbol.name) && symbol.getDocumentationComment(checker).length === 0)
  t.same(silent.map((symbol) => `${symbol.name} of ${fileOf(symbol)}`), [])
  t.end()
})

t.test('the declarations that are read have no class but those that are exported, and nothing that is marked as internal', (t) => {
  t.ok(files.length > entries.length)
  const classes = files.flatMap((file) => file.statements.filter(ts.isClassDeclaration).map(({ name }) => name!.text))
  const expected = Object.values(exported).flat()
  t.same(classes.filter((name) => !expected.includes(name)).sort(), classesBeside)
  for (const file of files) t.notMatch(file.text, '@internal', nameOf(file))
  t.end()
})

function exportsOf (path: string): ts.Symbol[] {
  return checker.getExportsOfModule(checker.getSymbolAtLocation(program.getSourceFile(path)!)!).map(unaliased)
}

function unaliased (symbol: ts.Symbol): ts.Symbol {
  return symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol
}

function fileOf (symbol: ts.Symbol): string {
  return nameOf(symbol.declarations![0]!.getSourceFile())
}

function nameOf ({ fileName }: ts.SourceFile): string {
  return fileName.slice(installed.length + 1)
}

/** Names of the package, each with the name by which it was reached. */
function reach (): Map<ts.Symbol, string> {
  const found = new Map<ts.Symbol, string>()
  const queue: Array<{ node: ts.Node, from: string }> = []
  const add = (symbol: ts.Symbol, from: string): void => {
    const declarations = symbol.declarations?.filter((node) => files.includes(node.getSourceFile())) ?? []
    const top = declarations.filter(({ parent }) => ts.isSourceFile(parent) || ts.isVariableDeclarationList(parent))
    if (top.length === 0 || found.has(symbol)) return
    found.set(symbol, from)
    for (const node of top) queue.push({ node, from: symbol.name })
  }
  for (const { name, path } of entries) for (const symbol of exportsOf(path)) add(symbol, name)
  // What is added to Fastify's types.
  for (const file of files) {
    for (const statement of file.statements) if (ts.isModuleDeclaration(statement)) queue.push({ node: statement, from: 'declare module' })
  }
  for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
    const { from } = next
    const visit = (node: ts.Node): void => {
      if (ts.isIdentifier(node)) {
        const symbol = checker.getSymbolAtLocation(node)
        if (symbol !== undefined) add(unaliased(symbol), from)
      }
      node.forEachChild(visit)
    }
    visit(next.node)
  }
  return found
}
