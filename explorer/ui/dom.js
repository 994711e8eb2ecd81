// Building blocks of the page. Whatever a node says of itself may be hostile:
// text gets into the page as text nodes only, and links only where safeURL lets
// them through.

/** The element of the given id, or the first that matches within another. */
export const $ = (selector, within = document) => within.querySelector(selector);

/**
 * h makes an element. Attributes that are null, undefined or false are left
 * out. Children are nodes or text. Listeners belong on what stays around it, as
 * renew knows nothing of them.
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    element.setAttribute(name, value === true ? '' : String(value));
  }
  element.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== false && c !== ''));
  return element;
}

/** td makes a table cell that knows its column, for narrow screens. */
export function td(label, attributes, ...children) {
  return h('td', { role: 'cell', 'data-label': label, ...attributes }, ...children);
}

/** badge shows a status. The text is what was said, the colour what is known of it. */
export function badge(status, title) {
  return h('span', { class: 'badge', 'data-status': status, title }, status || 'unknown');
}

/** id shows an id. Where room is short the beginning gives way: the end tells ids apart. */
export function id(text) {
  return h('code', { class: 'id', title: text }, h('bdi', { dir: 'ltr' }, text));
}

/** meter shows how much of a total is used. */
export function meter(used, total, format) {
  const share = total > 0 ? Math.min(1, Math.max(0, used / total)) : 0;
  const fill = h('span');
  fill.style.inlineSize = `${share * 100}%`;
  return [
    h('span', { class: 'amount' }, format(used), h('span', { class: 'of' }, ` / ${format(total)}`)),
    h('span', { class: 'meter', 'data-full': share > 0.9, 'aria-hidden': 'true' }, fill),
  ];
}

/** place puts rows into a table's body by key. A row that was there stays, with its new content. */
export function place(body, rows, key) {
  const old = new Map([...body.children].map((row) => [key(row), row]));
  const next = rows.map((row) => {
    const before = old.get(key(row));
    if (before) renew(before, row);
    return before ?? row;
  });
  const stay = new Set(next);
  for (const row of [...body.children]) if (!stay.has(row)) row.remove();
  next.forEach((row, i) => {
    if (body.children[i] !== row) body.insertBefore(row, body.children[i] ?? null);
  });
}

/** fill gives an element other children, as renew does. */
export function fill(element, ...children) {
  const next = element.cloneNode(false);
  next.append(...children);
  renew(element, next);
}

/**
 * renew makes an element like another, which it takes apart. What is alike in
 * both stays the same element: the focus and the selection stay where they are,
 * and a button that is pressed while it is drawn anew is clicked when it is let
 * go.
 */
export function renew(element, next) {
  if (element.isEqualNode(next)) return;
  for (const { name } of [...element.attributes]) if (!next.hasAttribute(name)) element.removeAttribute(name);
  for (const { name, value } of [...next.attributes]) {
    if (name === 'style') element.style.cssText = value; // as an attribute the content policy forbids it
    else if (element.getAttribute(name) !== value) element.setAttribute(name, value);
  }
  let at = element.firstChild;
  for (const child of [...next.childNodes]) {
    let same = at;
    while (same && !alike(same, child)) same = same.nextSibling;
    if (!same) {
      element.insertBefore(child, at);
      continue;
    }
    while (at !== same) at = dropped(at);
    at = same.nextSibling;
    if (same.nodeType === Node.ELEMENT_NODE) renew(same, child);
    else if (same.data !== child.data) same.data = child.data;
  }
  while (at) at = dropped(at);
}

const identity = ['data-action', 'data-kind', 'data-label', 'data-master-id', 'data-node-id', 'data-total', 'data-vm-sid'];

/** alike says whether two nodes stand for the same thing, whatever they say of it now. */
const alike = (a, b) => a.nodeName === b.nodeName
  && (a.nodeType !== Node.ELEMENT_NODE || identity.every((name) => a.getAttribute(name) === b.getAttribute(name)));

function dropped(node) {
  const next = node.nextSibling;
  node.remove();
  return next;
}

/** The URL if it leads to a web page, else undefined. */
export function safeURL(text) {
  try {
    const url = new URL(text);
    return ['http:', 'https:'].includes(url.protocol) ? url.href : undefined;
  } catch {
    return undefined;
  }
}

/** link makes a link where the URL is safe, else text. */
export function link(text) {
  const href = safeURL(text);
  return href ? h('a', { href, rel: 'noreferrer noopener', target: '_blank' }, text) : h('span', {}, text);
}

const number = new Intl.NumberFormat('en', { maximumFractionDigits: 1 });

/** count formats a number. */
export const count = (n) => number.format(Number(n) || 0);

/** bytes formats a size. */
export function bytes(n) {
  let size = Number(n) || 0;
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'];
  let unit = 0;
  while (size >= 1000 && unit < units.length - 1) {
    size /= 1024;
    unit++;
  }
  return `${size >= 100 ? Math.round(size) : number.format(size)} ${units[unit]}`;
}

/** span formats seconds. */
export function span(seconds) {
  const s = Math.max(0, Math.round(Number(seconds) || 0));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86400)} d`;
}

/** when parses a time; Go's zero time is no time. */
export function when(text) {
  const t = new Date(text ?? NaN);
  return Number.isNaN(t.getTime()) || t.getUTCFullYear() < 1971 ? undefined : t;
}

/** ago shows a time as a distance from now, with the time itself as its title. */
export function ago(text) {
  const t = when(text);
  if (!t) return h('span', {}, 'never');
  return h('time', { datetime: t.toISOString(), title: t.toLocaleString() }, `${span((Date.now() - t) / 1000)} ago`);
}

/** show puts an error, with its hint, into the element that is there for it. */
export function show(element, error) {
  element.hidden = !error;
  element.replaceChildren(...(error ? explain(error) : []));
}

/** explain tells an error: what happened, what to do, and its code. */
export function explain(error) {
  return [
    h('strong', {}, error.message || 'failed'),
    error.hint && h('span', { class: 'hint' }, error.hint),
    error.code !== undefined && h('span', { class: 'code' }, `error ${error.code}`),
  ].filter(Boolean);
}

/** throttle runs the function at once, and then at most once per interval. */
export function throttle(interval, run) {
  let last = -Infinity;
  let timer;
  const go = () => {
    timer = undefined;
    last = performance.now();
    run();
  };
  return () => {
    timer ??= setTimeout(go, Math.max(0, last + interval - performance.now()));
  };
}
