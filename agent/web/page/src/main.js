// The page: what is known, which view shows it, and the bar on top.

const state = { role: '', overview: null, lines: [], meters: [], byId: {}, at: {}, events: [], me: null, stream: null, conn: 'connecting' };
const app = document.getElementById('app');
let view = null, bar = null, main = null, fresh = true;

function learn(start) {
	state.role = start.role;
	setZone(start.time_zone, start.utc_offset);
	skew = ms(start.now) - Date.now();
	state.overview = start.overview || null;
	state.lines = start.lines || [];
	state.meters = start.meters || [];
	state.events = start.alarms ? start.alarms.events : [];
	state.me = start.me || null;
	index();
}
function index() {
	state.byId = {};
	state.at = {};
	state.meters.forEach((m, i) => { state.byId[m.id] = m; state.at[m.id] = i; });
}

// take puts what changed into what is known; the view then shows it.
function take(type, data) {
	if (type === 'reset') { begin(); return; }
	if (type === 'now' || type === 'overview') skew = ms(data.now) - Date.now();
	if (type === 'overview') state.overview = data;
	if (type === 'meters') {
		data.meters.forEach(m => {
			if (state.at[m.id] === undefined) { state.at[m.id] = state.meters.length; state.meters.push(m); } else state.meters[state.at[m.id]] = m;
			state.byId[m.id] = m;
		});
	}
	if (type === 'lines') {
		data.lines.forEach(l => {
			const i = state.lines.map(x => x.line).indexOf(l.line);
			if (i < 0) state.lines.push(l); else state.lines[i] = l;
		});
	}
	if (type === 'alarm') state.events = [data].concat(state.events.filter(e => e.id !== data.id)).slice(0, 100);
	if (type === 'me') Object.keys(data).forEach(k => { state.me[k] = data[k]; });
	if (view && view.event) view.event(type, data);
}

// HomeView is the overview.
class HomeView {
	constructor() {
		const q = HomeView.kept; // what was looked for, when one comes back
		this.top = h('div');
		this.tiles = h('div');
		this.alarms = h('div');
		this.find = h('input.field.grow', { type: 'search', id: 'find', value: q.find, oninput: () => { q.find = this.find.value; this.list(); } });
		this.line = h('select.field', { id: 'line', onchange: () => { q.line = this.line.value; this.list(); } });
		this.order = h('select.field.small', { id: 'order', onchange: () => {
			const at = Number(this.order.value), c = this.grid.cols[at];
			if (c) this.grid.sort(c, !!c.down);
		} });
		this.chips = h('span.chips', { role: 'group', 'aria-label': t('col.state') });
		this.count = h('span.count', { role: 'status' });
		this.tabs = KINDS.map(k => h('button.tab', { type: 'button', 'data-tab': k, onclick: () => { q.tab = k; q.sort = null; q.state = ''; this.build(); } }, t('tab.' + k), ' ', h('span.num.soft')));
		this.place = h('div');
		this.more = h('button.chip.small', { type: 'button', onclick: () => { q.more = !q.more; this.update(); } });
		this.el = h('div', this.top, this.tiles, this.more, this.alarms,
			h('section.card', { 'aria-labelledby': 't-devices', id: 'devices' },
				h('header', h('h2.unseen', { id: 't-devices' }, t('devices')), h('div.tabs', this.tabs),
					h('div.filters', label('find', 'find'), this.find, label('line', 'line.pick'), this.line,
						label('order', 'sort.by'), this.order)),
				h('div.under', this.chips, this.count), this.place));
		this.update();
		this.build();
	}

	close() { this.grid.close(); }

	update() {
		const o = state.overview, q = HomeView.kept;
		swap(this.top, h('div', verdict(o), conditions(o.conditions)));
		swap(this.tiles, h('div.tiles', { class: q.more ? 'more' : null }, metersTile(o), uplinkTile(o), backlogTile(o), clockTile(o), storeTile(o), configTile(o)));
		this.more.setAttribute('aria-expanded', pressed(q.more));
		say(this.more, t(q.more ? 'less' : 'more'));
		swap(this.alarms, latest(state.events[0]));
	}

	// build makes the table that is chosen.
	build() {
		const q = HomeView.kept, kind = listed[q.tab];
		if (this.grid) this.grid.close();
		this.tabs.forEach(b => b.setAttribute('aria-pressed', pressed(b.getAttribute('data-tab') === q.tab)));
		this.find.placeholder = t('find.' + q.tab);
		const cols = kind.cols().filter(c => (c.key !== 'signal' && c.key !== 'clock') || state.meters.some(m => m[c.key] !== undefined));
		this.grid = new Grid(cols, {
			label: t('tab.' + q.tab), id: kind.id, open: x => { const to = kind.go(x); if (to) location.hash = to; },
			sorted: (c, down) => { q.sort = { key: c.key, down: down }; this.order.value = cols.indexOf(c); }
		});
		empty(this.order);
		cols.forEach((c, i) => add(this.order, h('option', { value: i }, t('sort.by') + ': ' + c.name)));
		empty(this.line);
		add(this.line, h('option', { value: '' }, t('line.any')));
		state.lines.forEach(l => add(this.line, h('option', { value: l.line }, apart(l.line))));
		if (state.lines.some(l => l.line === q.line)) this.line.value = q.line; else q.line = '';
		this.line.hidden = q.tab !== 'meters' || state.lines.length < 2;
		empty(this.place);
		this.place.appendChild(this.grid.el);
		this.grid.keep = () => false;
		const by = cols.filter(c => c.key === (q.sort ? q.sort.key : kind.by))[0];
		this.grid.sort(by, q.sort ? q.sort.down : !!by.down);
		this.list();
	}

	list() {
		const q = HomeView.kept, kind = listed[q.tab], items = state[q.tab], meters = q.tab === 'meters';
		const words = q.find.toLowerCase().split(/\s+/).filter(w => w);
		const found = x => {
			if (meters && q.line && x.line !== q.line) return false;
			const text = words.length ? kind.words(x).join(' ').toLowerCase() : '';
			return words.every(w => text.indexOf(w) >= 0);
		};
		const counts = {};
		let all = 0;
		items.forEach(x => { if (found(x)) { all++; counts[kind.state(x)] = (counts[kind.state(x)] || 0) + 1; } });
		this.chip(all, counts);
		this.tabs.forEach(b => say(b.lastChild, group(state[b.getAttribute('data-tab')].length)));
		this.grid.update(items, x => (!q.state || kind.state(x) === q.state) && found(x));
		say(this.count, t('shown', { n: group(this.grid.shown.length), total: group(items.length) }));
	}

	chip(all, counts) {
		const q = HomeView.kept;
		const one = (s, n) => h('button.chip', { type: 'button', 'data-state': s, 'aria-pressed': pressed(q.state === s) }, s ? stateGlyph(s) : null, s ? stateName(s) : t('state.all'), '\u00a0 ', h('span.num.soft', group(n)));
		const fresh = h('span.chips', one('', all), STATES.filter(s => counts[s] || s === q.state).map(s => one(s, counts[s] || 0)));
		if (fresh.innerHTML === this.chips.innerHTML) return;
		const held = this.chips.contains(document.activeElement) ? document.activeElement.getAttribute('data-state') : null;
		empty(this.chips);
		while (fresh.firstChild) this.chips.appendChild(fresh.firstChild);
		this.chips.onclick = e => { const b = e.target.closest('button'); if (b) { q.state = b.getAttribute('data-state'); this.list(); } };
		if (held !== null) { const b = this.chips.querySelector('[data-state="' + held + '"]'); if (b) b.focus(); }
	}

	event(type) {
		if (type === 'overview' || type === 'alarm') this.update();
		if (type === HomeView.kept.tab || type === 'alarm') this.list();
	}
}

HomeView.kept = { find: '', state: '', line: '', tab: 'meters', sort: null };
// The tables that share a place: what is listed, and how.
const KINDS = ['meters', 'lines', 'events'];
const listed = {
	meters: { cols: meterColumns, id: m => m.id, state: m => m.state, words: m => [m.id, m.serial, m.line, m.error, m.protocol], by: 'state', go: m => '#/meter/' + m.id },
	lines: { cols: lineColumns, id: l => l.line, state: l => lineState(l), words: l => [l.line, l.error, l.kind], by: 'state', go: l => '#/line/' + encodeURIComponent(l.line) },
	events: { cols: eventColumns, id: e => e.id, state: () => '', words: e => [e.meter, eventName(e), eventText(e)], by: 'time', go: e => state.byId[e.meter] ? '#/meter/' + e.meter : '' }
};

// The bar on top.
function header() {
	const o = state.overview, me = state.me;
	const dark = h('button.tool', { type: 'button', 'aria-label': t('theme.dark'), title: t('theme.dark'), 'aria-pressed': pressed(isDark()), onclick: () => {
		const to = isDark() ? 'light' : 'dark';
		store.set('localStorage', 'theme', to === (systemDark.matches ? 'dark' : 'light') ? null : to);
		paint();
		dark.setAttribute('aria-pressed', pressed(isDark()));
		empty(dark);
		dark.appendChild(glyph(isDark() ? 'sun' : 'moon'));
	} }, glyph(isDark() ? 'sun' : 'moon'));
	const link = h('span.link', { role: 'status', id: 'conn' });
	const banner = h('div.stale', { hidden: true, role: 'alert' });
	const other = lang === 'ar' ? 'en' : 'ar';
	const el = h('header.top', h('div.wide', h('a.brand', { href: '#/', 'aria-label': t('nav.home') }, glyph('mark', 'mark'), h('span.hide-xs', 'gridgate')),
		o ? h('div.place', '/ ', english(o.site), ' / ', h('b', english(o.gateway))) : me ? h('div.place', '/ ', english(me.site)) : null, h('div.room'), link,
		h('button.tool', { type: 'button', id: 'lang', lang: other, onclick: () => { store.set('localStorage', 'lang', other); speak(other); render(); } }, t('lang.other')), dark,
		token ? h('button.tool', { type: 'button', 'aria-label': t('leave'), title: t('leave'), onclick: () => { dropToken(); if (state.stream) state.stream.stop(); state.stream = null; gate(''); } }, glyph('leave', 'turn')) : null), banner);
	return { el: el, link: link, banner: banner };
}
function showConn() {
	if (!bar) return;
	const look = { live: ['ok', 'good'], stale: ['warn', 'warn'], connecting: ['wait', 'idle'] }[state.conn];
	swap(bar.link, h('span.link', { class: look[1] }, glyph(look[0]), t('conn.' + state.conn)));
	const stale = state.conn === 'stale';
	if (stale && bar.banner.hidden) { empty(bar.banner); add(bar.banner, h('div.wide', t('conn.banner', { time: local(state.heard || now()).full }))); }
	bar.banner.hidden = !stale;
	root.setAttribute('data-conn', state.conn);
}
function connection(to) {
	if (to === 'stale' && state.conn !== 'stale') state.heard = state.last;
	state.conn = to;
	showConn();
}

// frame lays the bar and a place for the view.
function frame(content) {
	bar = header();
	main = h('main.wide', { id: 'main', tabindex: -1 }, content);
	empty(app);
	add(app, [h('a.skip', { href: '#main', onclick: e => { e.preventDefault(); main.focus(); } }, t('skip')), bar.el, main]);
	if (state.stream) showConn();
}
function gate(why) {
	if (view) { view.close(); view = null; }
	const box = h('input.field', { type: 'password', id: 'token', autocomplete: 'off', spellcheck: 'false', required: true });
	const form = h('form', { onsubmit: e => {
		e.preventDefault();
		token = box.value.trim();
		store.set('sessionStorage', 'token', token);
		begin();
	} }, h('h1', t('gate.title')), h('p', t('gate.why')), h('label', { for: 'token' }, t('gate.label')), box, why ? h('p.bad', { role: 'alert' }, why) : null, h('button.primary', { type: 'submit' }, t('gate.go')));
	frame(h('div.card.gate', form));
}

// render shows the view that the address asks for.
function render() {
	const m = /^#\/(meter|line)\/(.+)$/.exec(location.hash);
	if (view) { view.close(); view = null; }
	if (!state.role) { if (token) { frame(h('p.wait', { role: 'status' }, t('loading'))); return; } gate(''); return; }
	if (m && m[1] === 'line') {
		const line = decodeURIComponent(m[2]);
		HomeView.kept = { find: '', state: '', line: line, tab: 'meters', sort: null, more: HomeView.kept.more };
		history.replaceState(null, '', location.pathname + '#/');
	}
	frame(null);
	view = state.role === 'consumer' ? new MineView() : m && m[1] === 'meter' ? new MeterView(decodeURIComponent(m[2])) : new HomeView();
	main.appendChild(view.el);
	main.appendChild(h('footer.foot', h('span', t('curve.zone'), ' ', english(zone)), state.overview ? h('span', english('gridgate ' + state.overview.version)) : null));
	if (view.grid) view.grid.draw();
	if (view.curve && view.curve.chart) view.curve.chart.draw();
	if (fresh) { fresh = false; return; }
	window.scrollTo(0, m && m[1] === 'line' ? document.getElementById('devices').offsetTop - 60 : 0);
	const title = main.querySelector('h1');
	if (title) title.focus();
}

// begin asks for everything, and follows it.
let turn = 0;
function begin(tries) {
	const mine = ++turn;
	if (state.stream) state.stream.stop();
	if (!state.role) render();
	get('start').then(start => {
		if (mine !== turn) return;
		learn(start);
		state.last = now();
		state.stream = new Stream(start.place, { event: (type, data) => { state.last = now(); take(type, data); }, state: connection, refused: turnedAway });
		render();
		state.stream.open();
		performance.mark && performance.mark('shown');
	}, e => {
		if (mine !== turn) return;
		if (e.status === 401 || e.status === 403) { turnedAway(e); return; }
		if (state.role) connection('stale');
		else frame(h('p.wait', { role: 'alert' }, e.wait ? t('gate.busy', { n: e.wait }) : t('gate.failed')));
		setTimeout(() => { if (mine === turn) begin(Math.min(4, (tries || 0) + 1)); }, Math.max(Math.min(15000, 1000 << (tries || 0)), (e.wait || 0) * 1000));
	});
}
function turnedAway(e) {
	if (e.status === 400) { begin(); return; }
	turn++;
	state.role = '';
	state.stream = null;
	dropToken();
	gate(t('gate.wrong'));
}

speak(lang);
paint();
takeToken();
window.addEventListener('hashchange', () => {
	if (takeToken()) { state.role = ''; begin(); } else render();
});
window.addEventListener('online', () => { if (state.stream) state.stream.hurry(); });
document.addEventListener('visibilitychange', () => { if (!document.hidden && state.stream) state.stream.hurry(); });
setInterval(tick, 1000);
if (token) begin(); else render();
