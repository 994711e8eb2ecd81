// The rows of the tables and the totals: values in, elements out.

import { ago, badge, bytes, count, h, id, link, meter, safeURL, span, td } from './dom.js';

/** The name of a master, by its id. */
export const masterName = (masters, master) => masters.get(master)?.name || `${master.slice(0, 6)}…${master.slice(-6)}`;

export function nodeRow(node, masters) {
  const { usage, total } = amounts(node);
  const observers = node.seen_by ?? [];
  const names = Object.entries(node.labels ?? {}).sort(([a], [b]) => (a < b ? -1 : 1));
  return h('tr', {
    role: 'row', 'data-node-id': node.node_id, 'data-status': node.status, 'data-drained': node.drained && 'true',
  },
  td('Node', { class: 'name' },
    h('button', { type: 'button', class: 'open', 'data-action': 'open' }, node.hostname || node.node_id),
    node.hostname && node.hostname !== node.node_id && id(node.node_id)),
  td('Status', { class: 'status' }, nodeBadges(node), node.reason && h('span', { class: 'note' }, node.reason),
    node.conflict && h('span', { class: 'note' }, claimants(node.conflict))),
  td('Cores', { class: 'gauge' }, meter(usage.cru, total.cru, count)),
  td('Memory', { class: 'gauge' }, meter(usage.mru, total.mru, bytes)),
  td('Disk', { class: 'gauge' }, disks(usage, total)),
  td('VMs', { class: 'num' }, count(node.vms?.length)),
  td('Location', { class: 'where-it-is' }, locality(node.location)),
  td('Labels', {}, h('span', { class: 'chips' },
    names.slice(0, 3).map(([k, v]) => label(k, v)),
    names.length > 3 && h('span', { class: 'note' }, `and ${names.length - 3} more`))),
  td('Last seen', { class: 'nowrap' }, lastSeen(node)),
  td('Heard by', {}, h('span', { class: 'chips' }, observers.map((w) => observer(w, masters)),
    observers.length === 0 && h('span', { class: 'note' }, 'nobody'))));
}

/** What a node has and what of it is used. */
export const amounts = (node) => ({ usage: node.usage ?? {}, total: node.total ?? {} });

/** The status of a node and what an operator should know besides. */
export function nodeBadges(node) {
  return h('span', { class: 'chips' },
    badge(node.status, node.reason),
    node.drained && badge('drained'),
    node.removed_at && badge('removed'),
    node.conflict && badge('conflict', node.conflict.reason),
    node.trouble?.length > 0 && badge('trouble', node.trouble.join('; ')));
}

/** claimants names the machines that claim one id. */
const claimants = ({ claims }) => `claimed by ${(claims ?? []).map((c) => c.hostname || c.socket_path || 'a machine without a name').join(' and ')}`;

function disks(usage, total) {
  return [
    (total.sru > 0 || !total.hru) && meter(usage.sru, total.sru, bytes),
    total.hru > 0 && h('span', { class: 'hdd' }, meter(usage.hru, total.hru, bytes)),
  ].filter(Boolean).flat();
}

export const label = (name, value) => h('span', { class: 'chip', title: `${name}=${value}` }, value ? `${name}=${value}` : name);

/** Where a node stands. */
export const locality = (location) => [location?.city, location?.country].filter(Boolean).join(', ');

/** When a node was heard last: by whom heard it last, else as the record says. */
export function lastSeen(node) {
  const ages = (node.seen_by ?? []).map((w) => w.age_s).filter((age) => age >= 0);
  return ages.length ? `${span(Math.min(...ages))} ago` : ago(node.last_seen);
}

function observer(w, masters) {
  const lost = w.reachable === false;
  return h('span', { class: 'chip', 'data-lost': lost && 'true', title: `${span(w.age_s)} ago${lost ? '; this master is not reachable now' : ''}` },
    masterName(masters, w.master));
}

/** vmRow is a VM's row; of says whether to name its node. */
export function vmRow(vm, of = true) {
  return h('tr', { role: 'row', 'data-vm-sid': vm.sid, 'data-node-id': vm.node_id, 'data-status': vm.state },
    td('VM', { class: 'name' }, h('strong', {}, vm.name || vm.sid), vm.name && vm.name !== vm.sid && id(vm.sid)),
    td('State', { class: 'status' }, badge(vm.state)),
    of && td('Node', {}, h('button', { type: 'button', class: 'open', 'data-action': 'open' }, id(vm.node_id))),
    td('Cores', { class: 'num' }, count(vm.cpu)),
    td('Memory', { class: 'num nowrap' }, bytes(vm.memory)),
    td('Address', {}, vm.ip && h('code', {}, vm.ip)),
    td('Actions', { class: 'do' }, h('span', { class: 'actions' },
      ['start', 'stop', 'restart', 'delete'].map((action) => h('button', {
        type: 'button', 'data-action': action, class: action === 'delete' ? 'danger' : undefined,
        disabled: vm.state === (action === 'start' ? 'running' : action === 'delete' ? '' : 'stopped'),
        'aria-label': `${verb(action)} ${vm.name || vm.sid}`,
      }, verb(action))))));
}

export const verb = (action) => action[0].toUpperCase() + action.slice(1);

/** What a master is kept by: of a peer that was never met, the address as configured. */
export const masterKey = (master) => (master.status === 'never_met' ? master.name : master.id);

/** The row of a configured peer that was never met. */
function unmetRow(master) {
  return h('tr', { role: 'row', 'data-master-id': masterKey(master), 'data-status': master.status },
    td('Master', { class: 'name' }, h('strong', {}, master.name), master.id && id(master.id)),
    td('Status', { class: 'status' },
      h('span', { class: 'chips' }, badge(master.status), master.cause && badge(master.cause)),
      master.reason && h('span', { class: 'note' }, master.reason)),
    td('Nodes', { class: 'num' }, '—'),
    td('Hears', { class: 'num' }, '—'),
    td('In sync', {}, '—'),
    td('Round trip', { class: 'num nowrap' }, '—'),
    td('Last seen', { class: 'nowrap' }, 'never', master.since && h('span', { class: 'note' }, 'so since ', ago(master.since))),
    td('Version', {}, '—'),
    td('Addresses', { class: 'urls' }, (master.mesh_addrs ?? []).map((addr) => h('div', {}, h('code', {}, addr)))));
}

export function masterRow(master) {
  const self = master.status === 'self';
  if (master.status === 'never_met') return unmetRow(master);
  const skew = Math.abs(master.clock_skew_s ?? 0) >= 1;
  return h('tr', { role: 'row', 'data-master-id': master.id, 'data-status': master.status },
    td('Master', { class: 'name' }, h('strong', {}, master.name || master.id), id(master.id)),
    td('Status', { class: 'status' }, h('span', { class: 'chips' },
      badge(master.status, self ? 'this page comes from here' : undefined),
      master.partially_connected && badge('partial', master.reason),
      master.cause === 'identity_collision' && badge('identity twice', master.reason)), master.reason && h('span', { class: 'note' }, master.reason),
      (master.settings_differ ?? []).map((one) => h('span', { class: 'note', 'data-differs': one }, `setting ${one}`))),
    td('Nodes', { class: 'num' }, count(master.nodes)),
    td('Hears', { class: 'num' }, count(master.hears)),
    td('In sync', {}, self || master.in_sync
      ? h('span', { class: 'good' }, self ? '—' : 'yes')
      : h('span', { class: 'bad' }, 'no', master.differs > 0 && `, ${count(master.differs)} differ`, master.lag_s > 0 && `, for ${span(master.lag_s)}`)),
    td('Round trip', { class: 'num nowrap' }, master.rtt_ms > 0 ? `${master.rtt_ms < 10 ? master.rtt_ms.toFixed(2) : Math.round(master.rtt_ms)} ms` : '—'),
    td('Last seen', { class: 'nowrap' }, self ? 'now' : ago(master.last_seen),
      skew && h('span', { class: 'note' }, `clock ${span(Math.abs(master.clock_skew_s))} ${master.clock_skew_s > 0 ? 'ahead' : 'behind'}`)),
    td('Version', {}, master.version),
    td('Addresses', { class: 'urls' },
      (master.ui_urls ?? []).map((url) => h('div', {}, link(url))),
      (master.rpc_urls ?? []).map((url) => h('div', {}, h('code', {}, url)))));
}

/** eventRow is the row of what happened. */
export function eventRow(event) {
  return h('tr', { role: 'row', 'data-event-id': event.id, 'data-node-id': event.node_id, 'data-kind': event.kind },
    td('When', { class: 'nowrap' }, ago(event.at)),
    td('Type', { class: 'status' }, badge(event.type, event.kind)),
    td('Event', { class: 'told' }, event.text),
    td('Node', {}, event.node_id && h('button', { type: 'button', class: 'open', 'data-action': 'open' }, id(event.node_id))));
}

/** Pages of other masters that can be opened when this one does not answer. */
export function otherPages(masters) {
  return [...masters.values()]
    .filter((m) => m.status === 'alive')
    .flatMap((m) => (m.ui_urls ?? []).map(safeURL).filter(Boolean).slice(0, 1)
      .map((href) => h('a', { href }, m.name || href)));
}

/** The totals, as the server summed them up. */
export function totals(stats) {
  const { nodes, total, free, slices, vms, masters, convergence } = stats;
  const allMasters = Object.values(masters).reduce((sum, n) => sum + n, 0);
  const live = (masters.self ?? 0) + (masters.alive ?? 0);
  const others = ['suspect', 'offline', 'drained'].filter((s) => nodes[s] > 0).map((s) => `${count(nodes[s])} ${s}`);
  // What nodes have that are not online is part of the totals, and not free.
  const away = (key, text) => {
    const part = ['suspect', 'offline'].reduce((n, status) => n + (stats.by_status?.[status]?.[key] ?? 0), 0);
    return part > 0 && `${text(part)} on nodes that are not online`;
  };
  return [
    card('nodes', 'Nodes online', count(nodes.online), `of ${count(nodes.total)}`, others.join(', ')),
    card('cores', 'Cores free', count(free.cru), `of ${count(total.cru)}`, away('cru', count)),
    card('memory', 'Memory free', bytes(free.mru), `of ${bytes(total.mru)}`, away('mru', bytes)),
    (total.sru > 0 || !total.hru) && card('ssd', 'SSD free', bytes(free.sru), `of ${bytes(total.sru)}`, away('sru', bytes)),
    total.hru > 0 && card('hdd', 'HDD free', bytes(free.hru), `of ${bytes(total.hru)}`, away('hru', bytes)),
    slices.total > 0 && card('slices', 'Slices free', count(slices.free), `of ${count(slices.total)}`, away('slices', count)),
    card('vms', 'VMs running', count(vms.by_state?.running), `of ${count(vms.total)}`),
    card('masters', 'Masters alive', count(live), `of ${count(allMasters)}`,
      allMasters > 1 && (convergence.in_sync ? 'in sync' : `not in sync${convergence.lag_s > 0 ? ` for ${span(convergence.lag_s)}` : ''}`)),
  ].filter(Boolean);
}

function card(name, title, value, of, note) {
  return h('div', { class: 'card', 'data-total': name },
    h('dt', {}, title),
    h('dd', {}, h('span', { class: 'value' }, value), ' ', h('span', { class: 'of' }, of), note && h('span', { class: 'note' }, note)));
}
