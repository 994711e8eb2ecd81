// The banner: masters that are apart, and those that nodes cannot reach.

import { count, h, span, when } from './dom.js';

/** banner returns a line for each split and for each master that is deaf. */
export function banner(splits, masters) {
  return [
    ...(splits ?? []).map(split),
    ...[...masters.values()].filter((m) => m.deaf).map((m) => h('li', { 'data-master-id': m.id, 'data-kind': 'deaf' },
      h('strong', {}, m.name || m.id), ` ${m.reason || 'hears few nodes'}. No node is offline for it while other masters hear them.`)),
  ];
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
