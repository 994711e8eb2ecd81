// JSON-RPC calls to the master that serves this page, and the token for them.

const tokenKey = 'explorer-token';
const unauthorized = -32005;

/** The error of a call: code, message, hint, and data as the other side gave it. */
export class CallError extends Error {
  constructor(error) {
    super(String(error.message ?? 'failed'));
    this.code = error.code;
    this.data = error.data;
    const hint = error.data?.hint;
    this.hint = typeof hint === 'string' && hint !== this.message ? hint : undefined;
  }

  get unauthorized() {
    return this.code === unauthorized;
  }
}

/** Where the page's own server is, also behind a path. */
export const endpoint = (path) => new URL(`explorer/${path}`, document.baseURI);

export function authorization() {
  const token = sessionStorage.getItem(tokenKey);
  return token ? { Authorization: `Bearer ${token}` } : {};
}

let ask = async () => false;
let asking;
let declined = false; // the user gave no token; only what the user does asks again

/** onUnauthorized sets who asks the user for a token: it resolves to one, or to nothing. */
export function onUnauthorized(askUser) {
  ask = askUser;
}

/** newToken asks for a token, once for all calls that wait for one; false: there is none. */
export async function newToken(error, { background = false } = {}) {
  if (background && declined) return false;
  asking ??= ask(error)
    .then((token) => {
      declined = !token;
      if (token) sessionStorage.setItem(tokenKey, token);
      return Boolean(token);
    })
    .finally(() => { asking = undefined; });
  return asking;
}

/**
 * call calls a method. When a token is needed it asks for one and repeats the
 * call, which was refused and so did not run; in the background it does not ask.
 */
export async function call(method, params = {}, { signal, background = false } = {}) {
  for (;;) {
    const used = sessionStorage.getItem(tokenKey);
    try {
      return await once(method, params, signal);
    } catch (error) {
      if (!(error instanceof CallError) || !error.unauthorized) throw error;
      // Another call may have been given a new one while this one was under way.
      if (sessionStorage.getItem(tokenKey) !== used) continue;
      if (background || !(await newToken(error))) throw error;
    }
  }
}

let lastID = 0;

async function once(method, params, signal) {
  const limit = AbortSignal.timeout(330_000); // the master gives a node 300 s at most
  let response;
  let answer;
  try {
    response = await fetch(endpoint('rpc'), {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', ...authorization() },
      body: JSON.stringify({ jsonrpc: '2.0', id: ++lastID, method, params }),
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
      cache: 'no-store',
    });
    answer = await response.json();
  } catch (error) {
    if (signal?.aborted) throw error;
    if (response && !response.ok) throw refused(response);
    throw new CallError({
      message: 'no answer from the master',
      data: { hint: 'it may be down or restarting; a call that changes something may have run, so look before you repeat it' },
    });
  }
  if (answer?.error) throw new CallError(answer.error);
  if (!response.ok) throw refused(response);
  return answer.result;
}

const refused = (response) => new CallError({ message: `the server answered ${response.status} ${response.statusText}` });
