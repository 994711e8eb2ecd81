// The page: four tables over the API of the master that serves it, kept fresh
// by its event stream.

import { $, fill, place, throttle } from './dom.js';
import { call, onUnauthorized } from './rpc.js';
import { follow } from './stream.js';
import { askToken } from './dialogs.js';
import { List } from './list.js';
import { banner } from './banner.js';
import { eventRow, masterKey, masterRow, nodeRow, otherPages, totals, vmRow } from './rows.js';
import { openNode, onNode, refreshMasters, refreshNode, reloadNode } from './node.js';
import { vmAction } from './vms.js';

const pause = 1_000; // between two readings of the totals, however much happens
const slow = 10_000; // between two readings of the page: figures that are no events

let masters = new Map(); // by id
let counted = {}; // what the totals last said
let splits = []; // masters that are apart
let preservation; // of nodes that are silent, where there is one

const vmKey = (vm) => `${vm.node_id}/${vm.sid}`;

const nodes = new List({
  section: $('#nodes'),
  method: 'list_nodes',
  field: 'nodes',
  key: (node) => node.node_id,
  row: (node) => nodeRow(node, masters),
  rowKey: (row) => row.dataset.nodeId,
  empty: 'No nodes yet. A worker agent that knows this master registers its machine here.',
});

const vms = new List({
  section: $('#vms'),
  method: 'list_vms',
  field: 'vms',
  key: vmKey,
  row: (vm) => vmRow(vm),
  rowKey: (row) => `${row.dataset.nodeId}/${row.dataset.vmSid}`,
  empty: 'No VMs yet. Open a node to deploy one.',
});

const events = new List({
  section: $('#events'),
  method: 'events',
  field: 'events',
  key: (event) => String(event.id),
  row: eventRow,
  rowKey: (row) => row.dataset.eventId,
  empty: 'Nothing has happened since this master was started.',
});

/** readTotals reads the totals and the masters, and the lists where the totals changed. */
async function readTotals() {
  try {
    const [stats, answer] = await Promise.all([
      call('stats', {}, { background: true }),
      call('masters', {}, { background: true }),
    ]);
    const before = counted;
    counted = { nodes: JSON.stringify(stats.nodes), vms: JSON.stringify(stats.vms) };
    fill($('#totals'), ...totals(stats));
    splits = stats.convergence.splits;
    preservation = stats.preservation;
    masters = new Map(answer.masters.map((m) => [masterKey(m), m]));
    renderMasters();
    if (before.nodes !== undefined && before.nodes !== counted.nodes) nodes.load({ background: true });
    if (before.vms !== undefined && before.vms !== counted.vms) vms.load({ background: true });
  } catch {
    // The lists say what is wrong, and the event stream whether anything answers.
  }
}

const totalsSoon = throttle(pause, readTotals);
const nodesSoon = throttle(pause, () => nodes.load({ background: true }));
const vmsSoon = throttle(pause, () => vms.load({ background: true }));
const eventsSoon = throttle(pause, () => events.load({ background: true }));

const everything = throttle(pause, () => {
  totalsSoon();
  nodesSoon();
  vmsSoon();
  eventsSoon();
  reloadNode();
});

function renderMasters() {
  place($('#masters tbody'), [...masters.values()].map(masterRow), (row) => row.dataset.masterId);
  $('#masters-count').textContent = masters.size;
  const lines = banner(splits, masters, preservation);
  fill($('#splits'), ...lines);
  $('#splits').hidden = lines.length === 0;
  nodes.render(); // they name masters
  refreshMasters(masters);
  renderLive();
}

function onEvent(kind, data) {
  switch (kind) {
    case 'snapshot':
      everything();
      break;
    case 'node':
      refreshNode(data);
      if (nodes.update(data) && data.removed_at) nodesSoon();
      totalsSoon();
      break;
    case 'vm':
      if (vms.update(data) && data.state === 'deleted') vmsSoon();
      totalsSoon();
      break;
    case 'master':
      if (masters.get(data.id)?.status === 'self' && data.status !== 'self') break;
      masters.set(masterKey(data), data);
      renderMasters();
      totalsSoon();
      break;
    case 'log':
      eventsSoon();
      break;
  }
}

onNode((node) => onEvent('node', node));

// The state of the connection, and who is at its other end.

let state = 'connecting';
let lostTimer;

function onState(next) {
  if (next === state) return;
  state = next;
  renderLive();
  clearTimeout(lostTimer);
  $('#notice').hidden = true;
  if (state === 'reconnecting') lostTimer = setTimeout(noticeLost, 3_000);
}

function renderLive() {
  const live = $('#live');
  const self = [...masters.values()].find((m) => m.status === 'self');
  const name = self?.name || self?.id;
  live.dataset.status = state;
  const text = {
    live: name ? `live · ${name}` : 'live',
    unauthorized: 'token needed',
  }[state] ?? state;
  if (live.textContent !== text) live.textContent = text;
  document.title = name ? `${name} · Hero Explorer` : 'Hero Explorer';
}

function noticeLost() {
  const pages = otherPages(masters).flatMap((a, i) => (i ? [', ', a] : [a]));
  const notice = $('#notice');
  notice.replaceChildren('This master does not answer. What is shown is what it said last. ');
  if (pages.length) notice.append('The same grid on another master: ', ...pages, '.');
  notice.hidden = false;
}

// What the user does.

$('#nodes tbody').addEventListener('click', (e) => {
  if (window.getSelection()?.toString() && !e.target.closest('button')) return; // text is being marked
  const nodeID = e.target.closest('tr')?.dataset.nodeId;
  if (nodeID) openNode(nodeID, nodes.items.get(nodeID));
});

$('#vms tbody').addEventListener('click', (e) => {
  const action = e.target.closest('button')?.dataset.action;
  const row = e.target.closest('tr');
  const vm = row && vms.items.get(vms.rowKey(row));
  if (!action || !vm) return;
  if (action === 'open') openNode(vm.node_id, nodes.items.get(vm.node_id));
  else vmAction(action, vm);
});

$('#events tbody').addEventListener('click', (e) => {
  const nodeID = e.target.closest('button') && e.target.closest('tr')?.dataset.nodeId;
  if (nodeID) openNode(nodeID, nodes.items.get(nodeID));
});

function openFromAddress() {
  const wanted = /^#node=(.+)$/.exec(location.hash)?.[1];
  if (!wanted) return;
  try {
    openNode(decodeURIComponent(wanted));
  } catch { /* not an address of ours */ }
}

onUnauthorized(askToken);
window.addEventListener('hashchange', openFromAddress);
document.addEventListener('visibilitychange', () => { if (!document.hidden) everything(); });
setInterval(() => { if (!document.hidden && state === 'live') everything(); }, slow);

renderLive();
follow({ onState, onEvent }); // first: a browser has six connections, and calls may hang
everything();
openFromAddress();
