// JSON-RPC calls to the master that serves this page, and the token for them.

const tokenKey = 'explorer-token';
const unauthorized = -32005;
const outcomeUnknown = -32004;
// Errors of a master or an agent; a node's compute service may have the same codes.
const behind = [-32001, -32002, -32005, -32008]; // a master that knows the node or the caller badly
const nothingDone = [-32603, -32003, -32007]; // where they are retryable: it cannot be done now

/** The error of a call: code, message, hint, and data as the other side gave it. */
export class CallError extends Error {
  constructor(error) {
    super(String(error.message ?? 'failed'));
    this.code = error.code;
    this.data = error.data;
    this.lost = error.lost === true; // it may have been carried out
    const hint = error.data?.hint;
    this.hint = typeof hint === 'string' && hint !== this.message ? hint : undefined;
  }

  get unauthorized() {
    return this.code === unauthorized && this.data?.by === 'master';
  }

  get outcomeUnknown() {
    return this.lost || this.code === outcomeUnknown;
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
export async function call(method, params = {}, { signal, background = false, limit } = {}) {
  limit ??= background ? backgroundLimit : undefined;
  for (;;) {
    const used = sessionStorage.getItem(tokenKey);
    try {
      return await once(method, params, signal, limit);
    } catch (error) {
      if (!(error instanceof CallError) || !error.unauthorized) throw error;
      // Another call may have been given a new one while this one was under way.
      if (sessionStorage.getItem(tokenKey) !== used) continue;
      if (background || !(await newToken(error))) throw error;
    }
  }
}

const backgroundLimit = 30_000; // what the page reads by itself it reads again

const attempts = 5;
const attemptLimit = 150_000; // the master gives a node 120 s at most

/**
 * operation prepares one change of a VM, and returns a function that calls its
 * method with the params. The change has a name, by which the node tells a
 * repetition; so when the answer is lost the call is repeated, and yet the change
 * is made once. Called again with the same params after all of that led to no
 * answer, the function asks for the first answer again.
 */
export function operation(method) {
  let open; // the change whose outcome is unknown
  return async (params) => {
    const wanted = JSON.stringify(params);
    const change = open?.wanted === wanted ? open : { wanted, op_id: randomName(), again: false };
    open = undefined;
    for (let attempt = 1; ; attempt++) {
      try {
        const named = { ...params, op_id: change.op_id };
        if (change.again) named.op_again = true;
        return await call(method, named, { limit: attemptLimit });
      } catch (error) {
        if (!(error instanceof CallError)) throw error;
        const underWay = ['master', 'agent'].includes(error.data?.by); // it is no answer of the node
        const retryable = error.lost || error.data?.retryable === true;
        const refusedNow = underWay && retryable && nothingDone.includes(error.code);
        const refusedHere = underWay && change.again && behind.includes(error.code);
        if (!error.outcomeUnknown && !refusedNow && !refusedHere) throw error;
        change.again ||= error.outcomeUnknown;
        const more = retryable || refusedHere;
        if (more && attempt < attempts) {
          await new Promise((wake) => { setTimeout(wake, 300 * 2 ** attempt * (0.5 + Math.random())); });
          continue;
        }
        if (!change.again) throw error;
        if (more) open = change;
        throw new CallError({
          code: outcomeUnknown,
          message: 'it is not known whether this was done',
          data: {
            hint: more
              ? `The answer was lost, and no master has it (${error.message}). The same again asks for it once more; within 10 minutes it does nothing twice.`
              : 'The answer was lost, and this node does not remember what it did. Look at the VM before you do it again.',
          },
        });
      }
    }
  };
}

/** randomName works on plain HTTP as well, where crypto.randomUUID is missing. */
function randomName() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, '0')).join('');
}

let lastID = 0;

async function once(method, params, signal, most = 330_000) { // the master gives a node 300 s at most
  const limit = AbortSignal.timeout(most);
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
      lost: true,
      data: { hint: 'it may be down or restarting; a call that changes something may have run, so look before you repeat it' },
    });
  }
  if (answer?.error) throw new CallError(answer.error);
  if (!response.ok) throw refused(response);
  return answer.result;
}

const refused = (response) => new CallError({
  message: `the server answered ${response.status} ${response.statusText}`,
  // A gateway may have sent it on; what is moved elsewhere may have been taken before.
  lost: (response.status < 400 || response.status >= 500) && response.status !== 503,
  ...(response.status === 503 && { code: -32603, data: { by: 'master', retryable: true, hint: 'no master can serve now; try again in a moment' } }),
});
