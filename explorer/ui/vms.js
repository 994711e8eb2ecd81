// What can be done to a VM. The call goes to its node, which asks for the VM's
// secret.

import { operation } from './rpc.js';
import { ask, toast } from './dialogs.js';
import { verb } from './rows.js';

const consequence = {
  start: '',
  stop: 'The machine is shut down.',
  restart: 'The machine is shut down and booted again.',
  delete: 'The machine and all that is on it are gone for good.',
};

/** vmAction asks for the secret and does what the button says. */
export function vmAction(action, vm) {
  if (!Object.hasOwn(consequence, action)) return;
  const name = vm.name || vm.sid;
  const change = operation(`${action}_vm`);
  ask({
    title: `${verb(action)} ${name}?`,
    text: consequence[action],
    fields: [{ name: 'secret', label: 'Secret of the VM', type: 'password', maxlength: 256, hint: 'Leave empty if it has none.' }],
    go: verb(action),
    danger: action === 'delete',
    run: async ({ secret }) => {
      const answer = await change({ node_id: vm.node_id, sid: vm.sid, secret });
      const state = typeof answer?.state === 'string' ? `: ${answer.state}` : '';
      toast(`${verb(action)} ${name}${state}. The list follows with the node’s next report.`);
    },
  });
}
