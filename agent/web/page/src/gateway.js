// The overview: how the gateway does, what is wrong, its lines and meters.

const STATES = ['failing', 'locked', 'exchanged', 'partial', 'waiting', 'ok']; // what asks for attention first
const LOOK = { ok: ['ok', 'good'], partial: ['half', 'warn'], failing: ['fail', 'bad'], exchanged: ['turn', 'bad'], locked: ['lock', 'bad'], waiting: ['wait', 'idle'] };
const LEVEL = { ok: ['ok', 'good'], info: ['info', 'idle'], warn: ['warn', 'warn'], fail: ['fail', 'bad'] };
const level = l => LEVEL[l] || LEVEL.warn;
const stateGlyph = s => glyph((LOOK[s] || LOOK.waiting)[0], (LOOK[s] || LOOK.waiting)[1]);
const stateName = s => known('state.' + s, s);
const fact = (name, value) => value === null || value === undefined || value === '' ? null : [h('dt', name), h('dd', value)];
const facts = function () { return h('dl.facts', Array.prototype.slice.call(arguments)); };
const whole = n => num(group(n));

function tile(id, name, lvl, big, rest) {
	return h('section.card.tile', { 'aria-labelledby': 't-' + id, id: id }, h('h2', { id: 't-' + id }, name, lvl ? glyph(level(lvl)[0], level(lvl)[1]) : null),
		h('p.big', big), rest);
}

function metersTile(m) {
	const part = (s, cls) => m[s] ? h('i.' + cls, { 'data-n': m[s] }) : null;
	const bar = h('div.bar', { 'aria-hidden': 'true' }, part('ok', 'good'), part('partial', 'warn'), part('exchanged', 'bad'), part('locked', 'bad'), part('failing', 'bad'), part('waiting', 'idle'));
	for (let i = bar.firstChild; i; i = i.nextSibling) i.style.flex = i.getAttribute('data-n') + ' 1 0px';
	const rest = STATES.filter(s => s !== 'ok' && m[s] > 0).map(s => fact(stateName(s), whole(m[s])));
	const wrong = m.failing + m.locked + m.exchanged;
	return tile('meters', t('tile.meters'), wrong ? 'fail' : m.partial ? 'warn' : m.ok ? 'ok' : 'info',
		[num(group(m.ok)), ' ', h('small', stateName('ok'), ' / ', num(group(m.total)))], [bar, facts(rest)]);
}

function uplinkTile(u) {
	const host = (u.broker || '').replace(/^\w+:\/\//, '');
	return tile('uplink', t('tile.uplink'), u.connected ? (u.budget_spent || u.unconfirmed ? 'warn' : 'ok') : u.broker ? 'fail' : 'info',
		t(u.connected ? 'uplink.on' : u.broker ? 'uplink.off' : 'uplink.none'),
		facts(fact(t('uplink.broker'), host ? h('span', { title: u.broker }, num(host, 'wrap')) : null), fact(t('uplink.rows'), whole(u.rows)), fact(t('uplink.bytes'), num(bytes(u.bytes))),
			fact(t('uplink.again'), whole(u.reconnects)), u.budget_day !== undefined ? fact(t('uplink.day'), num(bytes(u.budget_day))) : null,
			u.budget_month !== undefined ? fact(t('uplink.month'), num(bytes(u.budget_month))) : null));
}

function backlogTile(lanes, up) {
	const sum = lanes.reduce((n, l) => n + l.rows, 0), lost = lanes.reduce((n, l) => n + l.lost, 0);
	return tile('backlog', t('tile.backlog'), lost ? 'warn' : sum && !up ? 'warn' : 'ok', [num(group(sum)), ' ', h('small', t('rows'))],
		facts(lanes.map(l => fact(t('lane.' + l.lane), whole(l.rows))), lost ? fact(t('backlog.lost'), whole(lost)) : null));
}

function clockTile(c) {
	const lvl = { synchronised: 'ok', holdover: 'warn' }[c.state] || 'fail';
	return tile('clock', t('tile.clock'), lvl, c.bound === undefined ? t('clock.unknown') : h('span', { title: t('clock.bound') }, num('± ' + span(c.bound))),
		facts(fact(t('col.state'), known('clock.' + c.state, c.state)), fact(t('clock.site'), h('span.num', { 'data-clock': '' }, local(now()).full)),
			fact(t('clock.source'), c.source ? num(c.source, 'wrap') : null), fact(t('clock.last'), c.last_sync ? age(c.last_sync) : t('never')),
			fact(t('clock.who'), t(c.discipline === 'agent' ? 'clock.agent' : 'clock.observe'))));
}

function configTile(c, version) {
	return tile('config', t('tile.config'), c.trial ? 'warn' : 'ok', t(c.trial ? 'config.trial' : 'config.runs'),
		facts(c.trial ? fact(t('config.trial'), english(c.trial)) : null, fact(t('config.hash'), num(c.hash.slice(0, 8), 'mono')),
			fact(t('config.trust'), c.trust ? t('config.version', { n: c.trust }) : t('config.notrust')),
			fact(t('config.layers'), c.layers.length ? c.layers.map(l => h('div', english(l))) : t('config.none')),
			fact(t('config.last'), c.last ? english(c.last) : null), fact(t('config.program'), english(version))));
}

function storeTile(o) {
	const i = o.intake, bad = i.error || i.dropped;
	return tile('store', t('tile.store'), bad ? 'fail' : 'ok', [num(bytes(o.disk.buffer)), ' ', h('small', t('store.buffer'))],
		facts(fact(t('store.free'), o.disk.free === undefined ? null : num(bytes(o.disk.free))), fact(t('store.last'), age(i.last)), fact(t('store.waiting'), whole(i.waiting)),
			i.dropped ? fact(t('store.dropped'), whole(i.dropped)) : null, fact(t('store.written'), o.disk.written === undefined ? null : num(bytes(o.disk.written))),
			fact(t('store.memory'), o.memory.anonymous === undefined ? null : num(bytes(o.memory.anonymous)))));
}

function verdict(o) {
	const l = level(o.health);
	return h('div.verdict', glyph(l[0], l[1]), h('div', h('h1', { tabindex: -1 }, t('health.' + o.health)),
		h('p', t('health.sum', { ok: group(o.meters.ok), total: group(o.meters.total) }), ' · ',
			t('tile.uplink') + ': ' + t(o.uplink.connected ? 'uplink.on' : o.uplink.broker ? 'uplink.off' : 'uplink.none'), ' · ', t('health.up', { age: span(o.uptime) }))));
}

function conditions(list) {
	if (!list.length) return h('div');
	return h('ul.alerts', { 'aria-label': t('conditions') }, list.map(c => {
		const l = level(c.level), note = c.code === 'note', name = note ? t('level.' + c.level) : known('cond.' + c.code, c.code);
		return h('li', glyph(l[0], l[1]), h('div', h('span.unseen', t('level.' + c.level), ': '), h('b', name, c.count ? [': ', whole(c.count)] : null), ' ',
			h('span.soft', english(c.text))));
	}));
}

const eventName = e => e.channel.replace(/^event\./, '').replace(/-/g, ' ');
function events(list, all, flip) {
	const few = 4, show = all ? list : list.slice(0, few);
	return h('section.card', { 'aria-labelledby': 't-alarms', id: 'alarms' }, h('header', h('h2', { id: 't-alarms' }, t('alarms')), h('span.count.num', group(list.length))),
		list.length ? h('div.scroll', { tabindex: 0, role: 'group', 'aria-labelledby': 't-alarms' }, h('table', h('tbody', show.map(e => h('tr',
			h('td.soft', { style: null }, num(moment(e.time))), h('th', { scope: 'row' }, e.meter.length && state.byId[e.meter] ? h('a', { href: '#/meter/' + e.meter }, english(e.meter)) : english(e.meter)),
			h('td', english(eventName(e))), h('td.soft', e.value === null || e.value === true ? null : english(String(e.value))), h('td', e.quality ? qualityTags(e.quality) : null)))))) : h('p.none', t('alarms.none')),
		list.length > few ? h('div.body', h('button.chip', { type: 'button', 'aria-expanded': all ? 'true' : 'false', onclick: flip }, all ? t('alarms.few') : t('alarms.all', { n: list.length }))) : null);
}

function pips(share) {
	const n = share >= 95 ? 4 : share >= 85 ? 3 : share >= 60 ? 2 : share > 0 ? 1 : 0;
	return h('span.pips', { 'aria-hidden': 'true', class: n > 2 ? 'good' : n > 1 ? 'warn' : 'bad' }, [1, 2, 3, 4].map(k => h('i', { class: k <= n ? 'on' : null })));
}
const rate = x => x.success === undefined ? '–' : num(percent(x.success), x.success < 0.8 ? 'bad' : x.success < 0.95 ? 'warn' : null);

function meterColumns() {
	return [
		{ key: 'id', name: t('col.meter'), cls: 'c-id', sort: m => m.id, cell: m => [h('a.meter', { href: '#/meter/' + m.id }, english(m.id)), m.serial ? h('span.soft', num(m.serial)) : null] },
		{ key: 'state', name: t('col.state'), cls: 'c-state', sort: m => STATES.indexOf(m.state), cell: m => [stateGlyph(m.state), stateName(m.state), m.error ? h('span.why', { title: m.error }, ' · ', english(m.error)) : null] },
		{ key: 'line', name: t('col.line'), cls: 'c-line', sort: m => m.line, cell: m => h('span.soft', { title: m.line }, english(m.line)) },
		{ key: 'last', name: t('col.last'), cls: 'c-age.end', down: true, sort: m => m.last, cell: m => m.last ? age(m.last) : t('never') },
		{ key: 'success', name: t('col.success'), cls: 'c-rate.end', sort: m => m.success, cell: rate },
		{ key: 'signal', name: t('col.signal'), cls: 'c-signal.end', sort: m => m.signal, cell: m => m.signal === undefined ? h('span.soft', '–') : [pips(m.signal), num(m.signal + ' %')] },
		{ key: 'clock', name: t('col.clock'), cls: 'c-clock.end', down: true, sort: m => m.clock === undefined ? undefined : Math.abs(m.clock), cell: m => m.clock === undefined ? h('span.soft', '–') : [m.clock_bad ? glyph('warn', 'warn') : null, num(signed(m.clock), m.clock_bad ? 'warn' : null)] }
	];
}
const lineState = l => l.error || l.connected === false ? 'failing' : l.meters && l.ok < l.meters ? 'partial' : l.last ? 'ok' : 'waiting';
function lineColumns() {
	return [
		{ key: 'line', name: t('col.line'), cls: 'c-id', sort: l => l.line, cell: l => h('a.meter', { href: '#/line/' + encodeURIComponent(l.line) }, english(l.line)) },
		{ key: 'state', name: t('col.state'), cls: 'c-state', sort: l => STATES.indexOf(lineState(l)), cell: l => [stateGlyph(lineState(l)), stateName(lineState(l)),
			l.lent ? h('span.why', ' · ', t('line.lent')) : null, l.connected === false ? h('span.why', ' · ', t('line.down')) : null, l.error ? h('span.why', { title: l.error }, ' · ', english(l.error)) : null] },
		{ key: 'kind', name: t('col.kind'), cls: 'c-line', sort: l => l.kind, cell: l => [known('kind.' + l.kind, l.kind), l.nodes ? h('span.soft', ' · ', t('line.nodes', { n: l.nodes })) : null] },
		{ key: 'last', name: t('col.last'), cls: 'c-age.end', down: true, sort: l => l.last, cell: l => l.last ? age(l.last) : t('never') },
		{ key: 'success', name: t('col.success'), cls: 'c-rate.end', sort: l => l.success, cell: rate },
		{ key: 'meters', name: t('col.meters'), cls: 'c-signal.end', sort: l => l.ok / (l.meters || 1), cell: l => num(group(l.ok) + ' / ' + group(l.meters)) }
	];
}
