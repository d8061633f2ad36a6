// A table of any length of which only the rows in sight are made. Its rows are
// all of one height. cols: see col.
class Grid {
	constructor(cols, opts) {
		this.cols = cols;
		this.opts = opts; // {label, id(item), words(item), open(item), blank}
		this.items = [];
		this.shown = [];
		this.by = null; // the column that it is sorted by, or as they are given
		this.down = false;
		this.rows = {}; // by id: {tr, item, look}
		this.height = 36;
		this.top = h('td', { colspan: cols.length });
		this.bottom = h('td', { colspan: cols.length });
		this.above = h('tr.pad', { 'aria-hidden': 'true' }, this.top);
		this.below = h('tr.pad', { 'aria-hidden': 'true' }, this.bottom);
		this.body = h('tbody', { role: 'rowgroup' }, this.above, this.below);
		this.heads = cols.map(c => h('th.' + c.cls, { role: 'columnheader', scope: 'col' },
			h('button.sort', { type: 'button', onclick: () => this.sort(c, this.by === c ? !this.down : !!c.down) }, c.name, glyph('down'))));
		this.table = h('table.sheet', { role: 'table', 'aria-label': opts.label },
			h('thead', { role: 'rowgroup' }, h('tr', { role: 'row', 'aria-rowindex': 1 }, this.heads)), this.body);
		this.blank = h('p.none', { hidden: true }, t('none'));
		this.el = h('div', this.table, this.blank);
		this.frame = 0;
		this.look = () => { if (!this.frame) this.frame = requestAnimationFrame(() => { this.frame = 0; this.draw(); }); };
		window.addEventListener('scroll', this.look, { passive: true });
		window.addEventListener('resize', this.look);
	}

	close() {
		window.removeEventListener('scroll', this.look);
		window.removeEventListener('resize', this.look);
		cancelAnimationFrame(this.frame);
	}

	sort(col, down) {
		this.by = col;
		this.down = down;
		this.heads.forEach((th, i) => {
			if (this.cols[i] !== col) { th.removeAttribute('aria-sort'); return; }
			th.setAttribute('aria-sort', down ? 'descending' : 'ascending');
			th.querySelector('path').setAttribute('d', GLYPHS[down ? 'down' : 'up']);
		});
		if (this.opts.sorted) this.opts.sorted(col, down);
		this.update(this.items);
	}

	// update takes items anew; keep(item) is the filter.
	update(items, keep) {
		this.items = items;
		if (keep) this.keep = keep;
		const list = [];
		for (let i = 0; i < items.length; i++) if (!this.keep || this.keep(items[i])) list.push({ item: items[i], at: i, key: this.by ? this.by.sort(items[i]) : 0 });
		if (this.by) {
			const sign = this.down ? -1 : 1;
			list.sort((a, b) => {
				const none = (a.key === undefined) - (b.key === undefined); // what has none comes last, always
				if (none) return none;
				return (a.key < b.key ? -sign : a.key > b.key ? sign : 0) || a.at - b.at;
			});
		}
		this.shown = list.map(x => x.item);
		this.table.setAttribute('aria-rowcount', this.shown.length + 1);
		this.blank.hidden = this.shown.length > 0;
		this.table.hidden = this.shown.length === 0;
		this.draw();
	}

	draw() {
		if (!this.table.isConnected && !document.body.contains(this.table)) return;
		const ids = this.shown.length, spare = 6;
		const above = -this.above.getBoundingClientRect().top;
		let from = Math.max(0, Math.floor(above / this.height) - spare);
		from = Math.min(from, Math.max(0, ids - 1));
		const to = Math.min(ids, from + Math.ceil(window.innerHeight / this.height) + 2 * spare);
		const held = document.activeElement, fresh = {};
		let next = this.above.nextSibling;
		this.top.style.height = from * this.height + 'px';
		this.bottom.style.height = (ids - to) * this.height + 'px';
		for (let i = from; i < to; i++) {
			const row = this.row(this.shown[i], i);
			fresh[this.opts.id(this.shown[i])] = row;
			if (row.tr === next) next = next.nextSibling;
			else this.body.insertBefore(row.tr, next);
		}
		for (const id in this.rows) if (!fresh[id]) { const tr = this.rows[id].tr; if (tr.parentNode) this.body.removeChild(tr); }
		this.rows = fresh;
		if (held && held !== document.activeElement && this.body.contains(held)) held.focus();
		if (to > from) {
			const tall = fresh[this.opts.id(this.shown[from])].tr.getBoundingClientRect().height;
			if (tall > 0 && Math.abs(tall - this.height) > 0.5) { this.height = tall; this.look(); }
		}
	}

	row(item, i) {
		const id = this.opts.id(item);
		let row = this.rows[id];
		if (!row || row.item !== item) {
			const old = row ? row.tr : null;
			const tr = old || h('tr', { role: 'row', 'data-id': id, onclick: e => { if (!e.target.closest('a,button')) this.opts.open(item); } });
			const had = old && old.contains(document.activeElement);
			empty(tr);
			this.cols.forEach((c, k) => add(tr, h((k ? 'td.' : 'th.') + c.cls, { role: k ? 'cell' : 'rowheader', scope: k ? null : 'row' }, c.cell(item))));
			if (had) { const a = tr.querySelector('a'); if (a) a.focus(); }
			row = { tr: tr, item: item };
		}
		row.tr.setAttribute('aria-rowindex', i + 2);
		return row;
	}
}
