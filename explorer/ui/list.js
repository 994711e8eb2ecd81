// A table that shows one page of a list of the server: filtered, sorted and
// paged there, however long the list is.

import { call } from './rpc.js';
import { $, count, fill, h, place, renew, show } from './dom.js';

const pageSize = 50;
const unknownCursor = -32009;

export class List {
  /**
   * section is the element around the table; field the member of the answer that
   * holds the items; key and row tell an item's key and make its row, which says
   * its key as rowKey.
   */
  constructor({ section, method, field, key, row, rowKey, empty }) {
    Object.assign(this, { section, method, field, key, row, rowKey, empty });
    this.body = $('tbody', section);
    this.items = new Map(); // of the page that is shown, by key
    this.told = undefined; // while a load is under way: what was told of items meanwhile
    this.total = 0;
    this.filter = {};
    this.sort = '';
    this.cursors = []; // of the pages up to the one that is shown; the first has none
    this.next = '';
    this.#wireFilter($('form.filter', section));
    for (const th of section.querySelectorAll('th[data-sort]')) this.#wireSort(th);
    $('.pager', section).addEventListener('click', (e) => this.#turn(e.target.closest('button')?.dataset.action));
  }

  /**
   * load reads the page anew. In the background it waits for a load that is
   * under way; otherwise it takes that one's place.
   */
  async load({ background = false } = {}) {
    if (background && this.loading) {
      this.again = true;
      return;
    }
    this.loading?.abort();
    const mine = new AbortController();
    this.loading = mine;
    this.told = new Map();
    const params = { ...this.filter, limit: pageSize };
    if (this.sort) params.sort = this.sort;
    if (this.cursors.length) params.cursor = this.cursors.at(-1);
    try {
      const answer = await call(this.method, params, { signal: mine.signal, background });
      if (this.loading !== mine) return;
      this.#take(answer);
      show($('.failed', this.section), undefined);
    } catch (error) {
      if (this.loading !== mine) return;
      if (error.code === unknownCursor && this.cursors.length) {
        this.cursors = [];
        this.again = true;
      } else {
        show($('.failed', this.section), error);
      }
    } finally {
      if (this.loading === mine) {
        this.loading = undefined;
        this.told = undefined;
        if (this.again) {
          this.again = false;
          this.load({ background: true });
        }
      }
    }
  }

  /**
   * update shows an item as it is now, if it is on the page that is shown, and
   * says whether it is or may be in a moment.
   */
  update(item) {
    const key = this.key(item);
    this.told?.set(key, item);
    if (!this.items.has(key)) return this.told !== undefined;
    this.items.set(key, item);
    const before = [...this.body.children].find((row) => this.rowKey(row) === key);
    if (before) renew(before, this.row(item));
    return true;
  }

  /** render shows the page again, after something that its rows mention changed. */
  render() {
    place(this.body, [...this.items.values()].map(this.row), this.rowKey);
  }

  #take(answer) {
    const items = answer[this.field] ?? [];
    if (!items.length && this.cursors.length) { // the last of this page are gone
      this.cursors.pop();
      this.again = true;
      return;
    }
    // The answer may have been given before what was told since it was asked for.
    this.items = new Map(items.map((item) => [this.key(item), this.told.get(this.key(item)) ?? item]));
    this.total = answer.total; // where it is known
    this.next = answer.next_cursor ?? '';
    this.render();
    const filtered = Object.keys(this.filter).length > 0;
    $('.count', this.section).textContent = this.total === undefined ? '' : filtered ? `${count(this.total)} match` : count(this.total);
    const empty = $('.empty', this.section);
    empty.hidden = items.length > 0;
    empty.textContent = filtered ? 'Nothing matches the filter.' : this.empty;
    $('table', this.section).hidden = items.length === 0;
    this.#pager(items.length);
  }

  #pager(shown) {
    const pager = $('.pager', this.section);
    const from = this.cursors.length * pageSize + 1;
    pager.hidden = !this.next && !this.cursors.length;
    const had = pager.contains(document.activeElement) ? document.activeElement.dataset.action : undefined;
    fill(
      pager,
      h('button', { type: 'button', 'data-action': 'previous', disabled: !this.cursors.length }, '← Previous'),
      h('span', { class: 'where' }, `${count(from)} – ${count(from + shown - 1)}${this.total === undefined ? '' : ` of ${count(this.total)}`}`),
      h('button', { type: 'button', 'data-action': 'next', disabled: !this.next }, 'Next →'),
    );
    if (had) ($(`[data-action="${had}"]:enabled`, pager) ?? $('button:enabled', pager))?.focus();
  }

  #turn(action) {
    if (action === 'next' && this.next) this.cursors.push(this.next);
    else if (action === 'previous') this.cursors.pop();
    else return;
    this.load();
    this.section.scrollIntoView({ block: 'start' });
  }

  #wireFilter(form) {
    let timer;
    const apply = () => {
      clearTimeout(timer);
      this.filter = Object.fromEntries([...new FormData(form)].map(([k, v]) => [k, v.trim()]).filter(([, v]) => v));
      this.cursors = [];
      this.load();
    };
    form.addEventListener('input', (e) => {
      clearTimeout(timer);
      timer = setTimeout(apply, e.target.type === 'search' ? 200 : 0);
    });
    form.addEventListener('submit', (e) => {
      e.preventDefault();
      apply();
    });
    form.reset(); // browsers bring back what was typed before a reload
  }

  #wireSort(th) {
    const first = th.dataset.sort;
    const other = first.startsWith('-') ? first.slice(1) : `-${first}`;
    const button = h('button', { type: 'button', class: 'sort' }, th.textContent);
    th.replaceChildren(button);
    button.addEventListener('click', () => {
      this.sort = this.sort === first ? other : first;
      for (const each of this.section.querySelectorAll('th[data-sort]')) each.removeAttribute('aria-sort');
      th.setAttribute('aria-sort', this.sort.startsWith('-') ? 'descending' : 'ascending');
      this.cursors = [];
      this.load();
    });
  }
}
