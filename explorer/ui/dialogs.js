// The dialogs: a question with fields, and the token.

import { $, h, show } from './dom.js';

for (const dialog of document.querySelectorAll('dialog')) {
  let pressed; // text that is marked may end outside
  dialog.addEventListener('pointerdown', (e) => { pressed = e.target; });
  dialog.addEventListener('click', (e) => {
    if ((e.target === dialog && pressed === dialog) || e.target.closest('[data-action="close"]')) dialog.close();
  });
}

const askDialog = $('#ask-dialog');
let asked;

/**
 * ask opens a dialog with fields, and runs what was asked for with their values.
 * It stays open while that fails, and shows why. fields are attributes of inputs,
 * with a label; danger marks what cannot be undone.
 */
export function ask({ title, text = '', fields = [], go, danger = false, run }) {
  asked = run;
  $('#ask-title').textContent = title;
  $('#ask-text').textContent = text;
  $('#ask-fields').replaceChildren(...fields.map(({ label, hint, ...input }) => h('label', {},
    label, h('input', { type: 'text', autocomplete: 'off', spellcheck: 'false', ...input }), hint && h('span', { class: 'hint' }, hint))));
  const button = $('#ask-go');
  button.textContent = go;
  button.className = danger ? 'danger' : 'primary';
  button.disabled = false;
  show($('.failed', askDialog), undefined);
  askDialog.showModal();
  (askDialog.querySelector('input') ?? button).focus();
}

$('form', askDialog).addEventListener('submit', async (e) => {
  e.preventDefault();
  const button = $('#ask-go');
  if (button.disabled) return;
  button.disabled = true;
  const mine = asked;
  try {
    await mine(Object.fromEntries(new FormData(e.target)));
    if (asked === mine) askDialog.close();
  } catch (error) {
    if (asked === mine) show($('.failed', askDialog), error);
  } finally {
    if (asked === mine) button.disabled = false;
  }
});

askDialog.addEventListener('close', () => {
  if (askDialog.open) return; // the event comes later, and it was opened again
  asked = undefined;
  $('#ask-fields').replaceChildren(); // with the secrets in them
});

const tokenDialog = $('#token-dialog');

/** askToken asks for a token; it resolves to nothing when the user gives none. */
export function askToken(error) {
  $('#token-text').textContent = [error.message, error.hint].filter(Boolean).join('. ');
  const input = $('#token');
  input.value = '';
  tokenDialog.showModal();
  input.focus();
  return new Promise((resolve) => {
    let given;
    const submit = (e) => {
      e.preventDefault();
      given = input.value.trim();
      tokenDialog.close();
    };
    $('#token-form').addEventListener('submit', submit);
    tokenDialog.addEventListener('close', () => {
      $('#token-form').removeEventListener('submit', submit);
      input.value = '';
      resolve(given);
    }, { once: true });
  });
}

const toasts = $('#toasts');

/** toast says that something was done. */
export function toast(text) {
  const note = h('p', {}, text);
  toasts.append(note);
  toasts.hidePopover();
  toasts.showPopover(); // above a dialog that was opened meanwhile
  setTimeout(() => {
    note.remove();
    if (!toasts.childElementCount) toasts.hidePopover();
  }, 8_000);
}
