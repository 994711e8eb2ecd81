// The event stream. It is read by fetch rather than EventSource, because that
// can send no token and says nothing of why it failed.

import { authorization, CallError, endpoint, newToken } from './rpc.js';

const opening = 5_000; // until the server begins to answer
const silence = 8_000; // the server says something every 5 s
const longestPause = 5_000;
const longestEvent = 1 << 20; // characters

/**
 * follow reads events until the page is gone and connects again whenever the
 * stream ends. It tells onState "live" or "reconnecting", and onEvent the kind
 * and data of each event; a snapshot is told without its data, which holds every
 * node there is.
 */
export async function follow({ onState, onEvent }) {
  let cursor = '';
  let pause = 0;
  for (;;) {
    const stop = new AbortController();
    let alive = setTimeout(() => stop.abort(), opening);
    const heard = () => {
      clearTimeout(alive);
      alive = setTimeout(() => stop.abort(), silence);
    };
    try {
      const response = await open(cursor, stop.signal);
      onState('live');
      pause = 0;
      // Not everything that happened may be told again: read what is shown anew.
      onEvent('snapshot');
      for await (const event of parse(response.body, heard)) {
        if (event.id) cursor = event.id;
        if (event.kind === 'snapshot') onEvent('snapshot');
        else if (event.data) onEvent(event.kind, event.data);
      }
    } catch (error) {
      if (error instanceof CallError && error.unauthorized) {
        onState('unauthorized');
        if (await newToken(error, { background: true })) continue;
        await nap(longestPause);
        continue;
      }
    } finally {
      clearTimeout(alive);
      stop.abort();
    }
    onState('reconnecting');
    await nap(pause * (0.5 + Math.random() / 2));
    pause = Math.min(longestPause, Math.max(250, pause * 2));
  }
}

async function open(cursor, signal) {
  const url = endpoint('events');
  url.searchParams.set('snapshot', 'brief'); // a server that can leaves the lists out
  url.searchParams.set('log', '1'); // and one that can tells what happened
  const headers = { Accept: 'text/event-stream', ...authorization() };
  if (cursor) headers['Last-Event-ID'] = cursor;
  const response = await fetch(url, { headers, signal, cache: 'no-store' });
  if (!response.ok) {
    const body = await response.json().catch(() => undefined);
    throw new CallError(body?.error ?? { message: `the server answered ${response.status}` });
  }
  return response;
}

/** parse yields the events of a stream. Data that is too long, or no JSON, is left out. */
async function* parse(body, heard) {
  const decoder = new TextDecoder();
  const reader = body.getReader();
  let line = ''; // what has come of a line
  let skipping = false; // the rest of the line is of no use
  let event = { kind: 'message', id: '', data: '' };
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    heard();
    let text = decoder.decode(value, { stream: true });
    for (;;) {
      const end = text.indexOf('\n');
      const part = end < 0 ? text : text.slice(0, end);
      if (!skipping) line += part;
      if (end < 0) {
        if (line.length > longestEvent || (event.kind === 'snapshot' && line.startsWith('data:'))) {
          skipping = true;
          line = '';
        }
        break;
      }
      text = text.slice(end + 1);
      if (line.endsWith('\r')) line = line.slice(0, -1);
      if (line === '' && !skipping) {
        if (event.kind !== 'message') yield { ...event, data: decode(event.data) };
        event = { kind: 'message', id: '', data: '' };
      } else if (line.startsWith('event:')) {
        event.kind = line.slice(6).trim();
      } else if (line.startsWith('id:')) {
        event.id = line.slice(3).trim();
      } else if (line.startsWith('data:') && event.kind !== 'snapshot' && event.data.length < longestEvent) {
        event.data += line.slice(5);
      }
      line = '';
      skipping = false;
    }
  }
}

function decode(data) {
  try {
    return JSON.parse(data);
  } catch {
    return undefined;
  }
}

/** nap waits, but not past the moment when the machine is back on the network or the tab in view. */
function nap(milliseconds) {
  return new Promise((resolve) => {
    const wake = () => {
      clearTimeout(timer);
      window.removeEventListener('online', wake);
      document.removeEventListener('visibilitychange', seen);
      resolve();
    };
    const seen = () => { if (!document.hidden) wake(); };
    const timer = setTimeout(wake, milliseconds);
    window.addEventListener('online', wake);
    document.addEventListener('visibilitychange', seen);
  });
}
