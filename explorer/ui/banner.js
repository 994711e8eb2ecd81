// The banner: masters that are apart, those that nodes cannot reach, that have other
// settings or were never met, and silence that is doubted.

import { count, h, span, when } from './dom.js';

/**
 * banner returns a line for preservation, for each split, and for each master that is
 * partially connected, has other settings or was never met.
 */
export function banner(splits, masters, preservation) {
  return [
    ...(preservation ? [preserving(preservation)] : []),
    ...(splits ?? []).map(split),
    ...[...masters.values()].filter((m) => m.partially_connected).map((m) => h('li', { 'data-master-id': m.id, 'data-kind': 'partially_connected' },
      h('strong', {}, m.name || m.id), ` ${m.reason || 'hears few nodes'}. No node is offline for it while other masters hear them.`)),
    ...[...masters.values()].filter((m) => m.settings_differ?.length > 0).map((m) => h('li', { 'data-master-id': m.id, 'data-kind': 'settings' },
      'Settings of ', h('strong', {}, m.name || m.id), ` differ from this master's and should not: ${m.settings_differ.join('; ')}.`)),
    ...[...masters.values()].filter((m) => m.status === 'never_met' && m.cause).map((m) => h('li', { 'data-master-id': m.name, 'data-kind': 'never_met' },
      h('strong', {}, m.name), ` is configured as a master and was never met: ${m.reason || m.cause}.`)),
  ];
}

function preserving(p) {
  const until = when(p.ends_by);
  return h('li', { 'data-kind': 'preservation' },
    h('strong', {}, `${count(p.late)} of ${count(p.of)} nodes are silent`),
    ' at once. That is likelier a fault of the network or of this master, so they are suspect and not offline',
    until && [', until ', h('time', { datetime: until.toISOString() }, until.toLocaleTimeString()), ' at most'], '.');
}

function split(s) {
  const nodes = `${count(s.nodes)} ${s.nodes === 1 ? 'node' : 'nodes'}`;
  const text = s.unreachable
    ? [' cannot be reached since ', since(s), `, and what it holds is unknown. ${nodes} changed here since.`,
      s.heard_by?.length > 0 && ' Other masters hear it.']
    : [' holds something else since ', since(s), s.nodes > 0 && `: ${nodes} differed`, '.'];
  return h('li', { 'data-master-id': s.master, 'data-kind': 'split' },
    h('strong', {}, s.name || s.master), ...text, ' Both merge by themselves as soon as they can talk.');
}

function since(s) {
  const t = when(s.since);
  const far = s.lag_s >= 86_400;
  return t
    ? h('time', { datetime: t.toISOString(), title: t.toLocaleString() }, `${far ? t.toLocaleString() : t.toLocaleTimeString()} (${span(s.lag_s)})`)
    : span(s.lag_s);
}
