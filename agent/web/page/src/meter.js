// One meter, and what a consumer sees of his own.

// valueRow is the row of a value. What is not checked yet says so.
function valueRow(v) {
	const name = obis(v.short), shown = typeof v.value === 'string' && numeric(v) ? quantity(v.value, v.unit) : v.value === null || v.value === undefined ? '–' : String(v.value) + (v.unit ? ' ' + v.unit : '');
	return h('tr', { 'data-channel': v.channel },
		h('th', { scope: 'row', title: v.channel }, name ? [name, ' ', h('span.mono.soft.hide-s', english(v.short))] : h('span.mono', english(v.short))),
		h('td.end.value', num(shown)),
		h('td', v.unchecked ? h('span.soft', t('val.unchecked')) : v.quality === 'good' ? h('span.soft', t('q.good')) : qualityTags(v.quality)),
		h('td.end.soft', age(v.time), v.period ? [' · ', t('val.over', { age: span(v.period) })] : null));
}

// Values is the card of a meter's values. put takes those that changed.
class Values {
	constructor(name) {
		this.rows = {};
		this.list = [];
		this.body = h('tbody');
		this.table = h('div.scroll', { tabindex: 0, role: 'group', 'aria-labelledby': 't-values' }, h('table.vals', columns(['val.what', 'val.value', 'val.quality', 'val.time'], [null, 'end', null, 'end']), this.body));
		this.none = h('p.none', t('values.none'));
		this.el = card('values', name, null, [this.table, this.none]);
		this.put([]);
	}

	put(values, whole) {
		if (whole) { this.list = []; this.rows = {}; empty(this.body); }
		values.forEach(v => {
			const had = this.rows[v.channel], row = valueRow(v);
			if (had) {
				if (this.list[had.at].value !== v.value) row.querySelector('.value').setAttribute('class', 'end value flash');
				this.body.replaceChild(row, had.row);
				this.list[had.at] = v;
				had.row = row;
				return;
			}
			this.rows[v.channel] = { row: row, at: this.list.length };
			this.list.push(v);
			this.body.appendChild(row);
		});
		this.table.hidden = !this.list.length;
		this.none.hidden = !!this.list.length;
	}
}

function meterFacts(m) {
	const c = m.clock_detail, l = m.link;
	return facts(
		fact(t('col.last'), m.last ? age(m.last) : t('never')),
		fact(t('col.success'), m.success === undefined ? null : [rate(m), m.success_of ? h('span.soft', ' (', num(m.success_of), ')') : null]),
		fact(t('meter.serial'), m.serial ? num(m.serial) : null),
		m.configured_serial && m.configured_serial !== m.serial ? fact(t('meter.expected'), num(m.configured_serial, 'bad')) : null,
		fact(t('meter.model'), m.model ? english(m.model) : null),
		fact(t('meter.protocol'), m.protocol ? english(m.protocol) : null),
		fact(t('col.line'), h('a', { href: '#/line/' + encodeURIComponent(m.line) }, english(m.line))),
		fact(t('meter.groups'), m.groups && m.groups.length ? english(m.groups.join(', ')) : null),
		m.visits === undefined ? null : fact(t('meter.visits'), num(group(m.answered) + ' / ' + group(m.visits))),
		m.rows === undefined ? null : fact(t('meter.rows'), whole(m.rows)),
		m.gaps ? fact(t('meter.gaps'), span(m.gaps)) : null,
		c ? [
			fact(t('meter.offset'), [m.clock_bad ? [glyph('warn', 'warn'), ' '] : null, num(signed(c.offset), m.clock_bad ? 'warn' : null), ' ', h('span.soft', within(c.uncertainty))]),
			fact(t('meter.measured'), age(c.measured)),
			c.valid ? null : fact('', h('span.warn', t('meter.invalid'))),
			c.gateway_unsynchronised ? fact('', h('span.warn', t('meter.blind'))) : null,
			fact(t('meter.policy'), [known('policy.' + c.policy, c.policy), c.pending ? ' · ' + t('meter.pending') : null]),
			c.last_set ? fact(t('meter.set'), age(c.last_set)) : null,
			c.why ? fact(t('meter.why'), english(c.why)) : null
		] : m.clock === undefined ? null : fact(t('meter.offset'), num(signed(m.clock), m.clock_bad ? 'warn' : null)),
		l ? [
			fact(t('link.state'), english(l.state)), m.signal === undefined ? null : fact(t('col.signal'), [pips(m.signal), num(m.signal + ' %')]),
			l.rtt === undefined ? null : fact(t('link.rtt'), num(span(l.rtt, true))), fact(t('link.lost'), num(group(l.lost) + ' / ' + group(l.requests))),
			l.level === undefined ? null : fact(t('link.level'), num(l.level)), l.heard ? fact(t('link.heard'), age(l.heard)) : null
		] : null);
}

// MeterView shows one meter, and follows its values.
class MeterView {
	constructor(id) {
		this.id = id;
		this.meter = state.byId[id] || { id: id, line: '', state: 'waiting' };
		this.head = h('div');
		this.facts = h('div');
		this.reads = state.role === 'technician';
		this.values = new Values(t('values'));
		if (!this.reads) { say(this.values.none, t('values.hidden')); }
		this.curve = this.reads ? new Curve('meters/' + id) : null;
		if (this.curve) this.curve.el.hidden = true;
		this.el = h('div', h('a.back', { href: '#/' }, glyph('back'), t('nav.back')), this.head,
			h('div.pair', h('div', this.curve ? this.curve.el : null, this.values.el),
				card('facts', t('meter.facts'), null, h('div.body', this.facts))));
		this.gone = false;
		this.late = 0;
		this.update();
		this.load();
		if (this.reads && state.stream) state.stream.follow(id);
	}

	// load gets what the list of meters does not have of it.
	load() {
		clearTimeout(this.late);
		get('meters/' + this.id).then(m => {
			if (this.gone) return;
			this.meter = m;
			if (m.values) {
				this.values.put(m.values, true);
				this.curve.values(m.values);
			}
			this.update();
		}, e => {
			if (this.gone) return;
			if (e.status === 404) { empty(this.el); add(this.el, [h('a.back', { href: '#/' }, glyph('back'), t('nav.back')), h('p.none', t('meter.gone', { id: this.id }))]); }
		});
	}

	update() {
		const m = this.meter, bad = m.state === 'failing' || m.state === 'locked' || m.state === 'exchanged';
		swap(this.head, h('div', h('div.verdict', stateGlyph(m.state), h('div', h('h1', { tabindex: -1 }, english(m.id)), h('p', stateName(m.state), ' · ', m.last ? age(m.last) : t('never')))), m.error ? h('p.note.card', { class: bad ? null : 'warn' }, english(m.error)) : null));
		swap(this.facts, meterFacts(m));
	}

	event(type, data) {
		if (type === 'values' && data.meter === this.id) {
			this.values.put(data.values);
			this.curve.values(this.values.list);
		}
		if (type !== 'meters' || !data.meters.some(m => m.id === this.id)) return;
		const m = state.byId[this.id];
		Object.keys(m).forEach(k => { this.meter[k] = m[k]; });
		['error', 'last', 'success', 'signal', 'clock', 'clock_bad'].forEach(k => { if (m[k] === undefined) delete this.meter[k]; });
		this.update();
		if (!this.late) this.late = setTimeout(() => { this.late = 0; if (!this.gone) this.load(); }, 5000); // counts, clock, link
	}

	close() {
		this.gone = true;
		clearTimeout(this.late);
		if (this.curve) this.curve.close();
		if (this.reads && state.stream) state.stream.follow('');
	}
}

// MineView is the consumer's.
class MineView {
	constructor() {
		this.head = h('div');
		this.tiles = h('div');
		this.values = new Values(t('me.other'));
		this.curve = new Curve('me');
		this.el = h('div.mine', this.head, this.tiles, this.curve.el, this.values.el);
		this.take(state.me.values || [], true);
		this.update();
	}

	take(values, whole) {
		this.values.put(values, whole);
		this.curve.values(this.values.list);
	}

	update() {
		const m = state.me, of = (re) => this.values.list.filter(v => re.test(v.short) && numeric(v))[0];
		swap(this.head, h('div.verdict', stateGlyph(m.state), h('div', h('h1', { tabindex: -1 }, t('me.title')),
			h('p', h('bdi', t('me.serial', { serial: m.serial || m.id })), ' · ', stateName(m.state), ' · ', m.last ? t('me.now', { ago: ago(m.last) }) : t('never')))));
		const one = (id, name, v) => v ? tile(id, t(name), null, num(quantity(v.value, v.unit)), h('p.soft', age(v.time))) : null;
		swap(this.tiles, h('div.tiles', one('import', 'me.import', of(/:1\.8\.0$/)), one('export', 'me.export', of(/:2\.8\.0$/)), one('power', 'me.power', of(/:(16|1)\.7\.0$/)), one('volt', 'me.volt', of(/:(12|32)\.7\.0$/))));
	}

	event(type, data) {
		if (type === 'values') this.take(data.values);
		if (type === 'values' || type === 'me') this.update();
	}

	close() { this.curve.close(); }
}
