// The detail of one node, and what an operator can do to it.

import { call, operation } from './rpc.js';
import { $, ago, badge, bytes, count, fill, h, id, show, span, td, when } from './dom.js';
import { ask, toast } from './dialogs.js';
import { amounts, label, lastSeen, locality, masterName, nodeBadges, vmRow } from './rows.js';
import { vmAction } from './vms.js';

const dialog = $('#node-dialog');
const failed = $('.failed', dialog);
let shown; // the node, undefined while the dialog is closed
let told = 0; // how often something was told of it
let masters = new Map();
let changed = () => {};

/** onNode sets what is told of every answer that holds a node as it is now. */
export function onNode(tell) {
  changed = tell;
}

/** openNode shows a node, as far as it is known, and reads it anew. */
export async function openNode(nodeID, known) {
  shown = known ?? { node_id: nodeID };
  show(failed, undefined);
  render();
  if (!dialog.open) dialog.showModal();
  history.replaceState(null, '', `#node=${encodeURIComponent(nodeID)}`);
  await act(() => read(nodeID), nodeID);
}

/** refreshNode shows a node as it is now, if it is the one that is shown. */
export function refreshNode(node) {
  if (shown?.node_id !== node.node_id) return;
  told++;
  shown = node;
  render();
}

/** refreshMasters gives the names of the masters. */
export function refreshMasters(all) {
  masters = all;
  if (shown) render();
}

/** read reads a node; it resolves to nothing when something was told meanwhile, which may be newer. */
async function read(nodeID, options) {
  const before = told;
  const node = await call('get_node', { node_id: nodeID }, options);
  return told === before ? node : undefined;
}

/** reloadNode reads the node that is shown anew, in the background. */
export async function reloadNode() {
  const nodeID = shown?.node_id;
  if (nodeID === undefined) return;
  const node = await read(nodeID, { background: true }).catch(() => undefined);
  if (node) refreshNode(node);
}

dialog.addEventListener('close', () => {
  if (dialog.open) return; // the event comes later, and it was opened again
  shown = undefined;
  history.replaceState(null, '', location.pathname + location.search);
});

/** act runs a call that answers with the node or with nothing new, and shows that or the error. */
async function act(run, nodeID = shown?.node_id) {
  try {
    const node = await run();
    if (shown?.node_id === nodeID) {
      show(failed, undefined);
      if (node) refreshNode(node);
    }
    if (node) changed(node);
  } catch (error) {
    if (shown?.node_id === nodeID) show(failed, error);
  }
}

$('#node-actions').addEventListener('click', (e) => {
  const button = e.target.closest('button');
  if (!button || !shown) return;
  const node = shown;
  switch (button.dataset.action) {
    case 'drain':
    case 'undrain':
      busy(button, () => act(() => call(`${button.dataset.action}_node`, { node_id: node.node_id })));
      break;
    case 'deploy':
      deploy(node);
      break;
    case 'remove':
      remove(node);
      break;
  }
});

async function busy(button, run) {
  button.disabled = true;
  await run();
  button.disabled = false;
}

const nameOf = (node) => node.hostname || node.node_id;

function remove(node) {
  ask({
    title: `Remove ${nameOf(node)}?`,
    text: 'Every master forgets the node until it boots again. Its VMs are not touched, but are no longer listed.',
    fields: [{ name: 'reason', label: 'Reason, for the record (optional)', maxlength: 256 }],
    go: 'Remove',
    danger: true,
    run: async ({ reason }) => {
      const removed = await call('remove_node', reason ? { node_id: node.node_id, reason } : { node_id: node.node_id });
      changed(removed);
      dialog.close();
      toast(`${nameOf(node)} is removed.`);
    },
  });
}

function deploy(node) {
  const change = operation('deploy_vm');
  ask({
    title: `Deploy a VM on ${nameOf(node)}`,
    fields: [
      { name: 'name', label: 'Name', required: true, maxlength: 256 },
      { name: 'image', label: 'Image', placeholder: 'the node’s default', maxlength: 256 },
      { name: 'cpu_count', label: 'Cores', type: 'number', min: 1, value: 1, required: true },
      { name: 'memory_mb', label: 'Memory, MiB', type: 'number', min: 1, value: 1024, required: true },
      { name: 'slice_sid', label: 'Slice (optional)', maxlength: 256 },
      { name: 'secret', label: 'Secret', type: 'password', autocomplete: 'new-password', maxlength: 256, hint: 'Asked for by every later call. Empty protects nothing.' },
    ],
    go: 'Deploy',
    run: async (given) => {
      const params = { node_id: node.node_id, name: given.name, secret: given.secret };
      if (given.image) params.image = given.image;
      if (given.slice_sid) params.slice_sid = given.slice_sid;
      params.cpu_count = Number(given.cpu_count);
      params.memory_mb = Number(given.memory_mb);
      const vm = await change(params);
      toast(`${given.name} is deployed${vm?.sid ? ` as ${vm.sid}` : ''}. The list follows with the node’s next report.`);
    },
  });
}

$('#node-label-form').addEventListener('submit', (e) => {
  e.preventDefault();
  const form = e.target;
  const { name, value } = Object.fromEntries(new FormData(form));
  busy($('button', form), () => act(async () => {
    const node = await call('label_node', { node_id: shown.node_id, labels: { [name]: value } });
    form.reset();
    return node;
  }));
});

$('#node-labels').addEventListener('click', (e) => {
  const button = e.target.closest('button');
  if (button) busy(button, () => act(() => call('label_node', { node_id: shown.node_id, labels: { [button.dataset.label]: null } })));
});

$('#node-vms').addEventListener('click', (e) => {
  const button = e.target.closest('button');
  const sid = button?.closest('tr')?.dataset.vmSid;
  const vm = shown?.vms?.find((v) => v.sid === sid);
  if (vm) vmAction(button.dataset.action, { ...vm, node_id: shown.node_id });
});

function render() {
  const node = shown;
  $('#node-title').textContent = nameOf(node);
  dialog.dataset.nodeId = node.node_id;
  const gone = Boolean(node.removed_at);
  for (const button of $('#node-actions').children) {
    const action = button.dataset.action;
    button.hidden = gone || (action === 'drain' && node.drained) || (action === 'undrain' && !node.drained);
  }
  $('#node-label-form').hidden = gone;
  fill($('#node-facts'), facts(node));
  fill($('#node-labels'), labels(node, gone));
  fill($('#node-vms'), vms(node));
}

function facts(node) {
  if (!node.status) return h('p', { class: 'note' }, 'reading…');
  const { usage, total } = amounts(node);
  const at = node.location ?? {};
  const of = (used, all, format) => `${format(used)} of ${format(all)} used`;
  const rows = [
    ['Id', id(node.node_id)],
    ['Status', h('span', {}, nodeBadges(node), node.reason && h('span', { class: 'note' }, node.reason))],
    ['Last seen', lastSeen(node)],
    ['Heard by', observers(node.seen_by ?? [])],
    ['Cores', of(usage.cru, total.cru, count)],
    ['Memory', of(usage.mru, total.mru, bytes)],
    ['SSD', total.sru > 0 && of(usage.sru, total.sru, bytes)],
    ['HDD', total.hru > 0 && of(usage.hru, total.hru, bytes)],
    ['Slices', node.slices_total > 0 && of(usage.slices, node.slices_total, count)],
    ['Location', [locality(at), (at.latitude || at.longitude) && `${at.latitude}°, ${at.longitude}°`].filter(Boolean).join(' · ')],
    ['Compute', node.socket_path && h('code', {}, node.socket_path)],
    ['Mycelium', node.mycelium_ip && h('code', {}, node.mycelium_ip)],
    ['Tunnels', (node.tunnel ?? []).map((m) => masterName(masters, m)).join(', ')],
    ['Agent', node.version],
    ['Up for', node.uptime_s > 0 && span(node.uptime_s)],
    ['Signed', node.signed ? 'yes' : 'no'],
    ['Account', `boot ${node.boot}, ${node.seq}`],
    ['Known since', when(node.created_at) && ago(node.created_at)],
    ['Changed', when(node.updated_at) && ago(node.updated_at)],
    ['Removed', node.removed_at && ago(node.removed_at)],
  ];
  const list = h('dl', { class: 'facts' }, rows.filter(([, value]) => value).map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, value))));
  return h('div', {}, node.conflict && conflict(node.conflict), node.trouble?.length > 0 && trouble(node.trouble), list);
}

/** trouble shows what a node finds wrong with its own machine. */
const trouble = (all) => h('section', { class: 'trouble', role: 'alert' },
  h('h3', {}, 'Trouble on this machine'),
  h('ul', { class: 'bare' }, all.map((text) => h('li', {}, text))));

function observers(all) {
  if (!all.length) return 'nobody';
  return h('ul', { class: 'bare' }, all.map((w) => h('li', {},
    `${masterName(masters, w.master)}, ${span(w.age_s)} ago${w.reachable === false ? ' (not reachable now)' : ''}`)));
}

/** conflict shows who claims the node's id, whose account is shown, and since when. */
function conflict({ reason, since, claims }) {
  return h('section', { class: 'conflict', role: 'alert' },
    h('h3', {}, `${count(claims?.length)} machines claim this id`),
    h('p', {}, `${reason}; the latest came `, ago(since), '. What is shown below is one of them, and stays so. Give the other machine an id of its own, or remove the node and restart the right one.'),
    h('table', { role: 'table', 'aria-label': 'Claims' },
      h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' }, ['Host', 'Address', 'Key', 'Came', 'Account'].map((name) => h('th', { role: 'columnheader', scope: 'col' }, name)))),
      h('tbody', { role: 'rowgroup' }, (claims ?? []).map((c) => h('tr', { role: 'row', 'data-shown': c.shown && 'true' },
        td('Host', { class: 'name' }, h('strong', {}, c.hostname || 'no name'), c.shown && badge('shown', 'this account is the node’s record')),
        td('Address', {}, c.socket_path ? h('code', {}, c.socket_path) : h('span', { class: 'note' }, 'none')),
        td('Key', { class: 'key' }, c.public_key ? h('code', {}, c.public_key) : h('span', { class: 'note' }, 'unsigned')),
        td('Came', {}, ago(c.since)),
        td('Account', {}, `boot ${c.boot}, report ${c.seq}`))))));
}

function labels(node, gone) {
  const all = Object.entries(node.labels ?? {}).sort(([a], [b]) => (a < b ? -1 : 1));
  if (!all.length) return h('p', { class: 'note' }, 'none');
  return h('ul', { class: 'bare chips' }, all.map(([name, value]) => h('li', {}, label(name, value), !gone && h('button', {
    type: 'button', class: 'plain', 'data-action': 'unlabel', 'data-label': name, 'aria-label': `Take label ${name} away`,
  }, '✕'))));
}

function vms(node) {
  const all = node.vms ?? [];
  if (!all.length) return h('p', { class: 'note' }, 'none');
  return h('table', { role: 'table', 'aria-label': 'VMs of this node' },
    h('tbody', { role: 'rowgroup' }, all.map((vm) => vmRow({ ...vm, node_id: node.node_id }, false))));
}
