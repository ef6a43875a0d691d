// The hook that guards the routes of the benches: some token, looked up.
const tokens = new Set(['some-token', 'another-token'])

export async function authenticate (request) {
  if (!tokens.has(request.headers.authorization?.slice('Bearer '.length))) throw Object.assign(new Error('unknown token'), { statusCode: 401 })
}
