// The overview: how the gateway does, what is wrong, its lines and meters.

const STATES = ['failing', 'locked', 'exchanged', 'partial', 'waiting', 'ok']; // what asks for attention first
const LOOK = { ok: ['ok', 'good'], partial: ['half', 'warn'], failing: ['fail', 'bad'], exchanged: ['turn', 'bad'], locked: ['lock', 'bad'], waiting: ['wait', 'idle'] };
const LEVEL = { ok: ['ok', 'good'], info: ['info', 'idle'], warn: ['warn', 'warn'], fail: ['fail', 'bad'] };
const level = l => LEVEL[l] || LEVEL.warn;
const stateGlyph = s => glyph((LOOK[s] || LOOK.waiting)[0], (LOOK[s] || LOOK.waiting)[1]);
const stateName = s => known('state.' + s, s);
const fact = (name, value) => value === null || value === undefined || value === '' ? null : [h('dt', name), h('dd', value)];
const size = (name, n) => n === undefined ? null : fact(name, num(bytes(n)));
const facts = function () { return h('dl.facts', Array.prototype.slice.call(arguments)); };
const whole = n => num(group(n));

function tile(id, name, lvl, big, rest, sub) {
	return h('section.card.tile', { 'aria-labelledby': 't-' + id, id: id }, h('h2', { id: 't-' + id }, name, lvl ? glyph(level(lvl)[0], level(lvl)[1]) : null),
		h('p.big', big), sub ? h('p.sub', sub) : null, rest);
}

// of gives the worst level of the conditions whose codes match.
function of(o, codes) {
	return ['fail', 'warn', 'info'].filter(l => o.conditions.some(c => c.level === l && codes.test(c.code)))[0] || 'ok';
}

function metersTile(o) {
	const m = o.meters;
	const part = (s, cls) => m[s] ? h('i.' + cls, { 'data-n': m[s] }) : null;
	const bar = h('div.bar', { 'aria-hidden': 'true' }, part('ok', 'good'), part('partial', 'warn'), part('exchanged', 'bad'), part('locked', 'bad'), part('failing', 'bad'), part('waiting', 'idle'));
	for (let i = bar.firstChild; i; i = i.nextSibling) i.style.flex = i.getAttribute('data-n') + ' 1 0px';
	const rest = STATES.filter(s => s !== 'ok' && m[s] > 0).map(s => fact(stateName(s), whole(m[s])));
	return tile('meters', t('tile.meters'), of(o, /^(meters|lines)-/), [num(group(m.ok)), ' ', h('small', num('/ ' + group(m.total)), ' ', stateName('ok'))], [bar, facts(rest)]);
}

const uplinkState = u => t(u.connected ? 'uplink.on' : u.broker ? 'uplink.off' : 'uplink.none');
function uplinkTile(o) {
	const u = o.uplink, m = o.modem, host = (u.broker || '').replace(/^\w+:\/\//, '');
	return tile('uplink', t('tile.uplink'), u.broker ? of(o, /^(uplink|budget)-/) : 'info',
		uplinkState(u),
		facts(fact(t('uplink.rows'), whole(u.rows)), size(t('uplink.bytes'), u.bytes),
			fact(t('uplink.again'), whole(u.reconnects)), size(t('uplink.day'), u.budget_day),
			size(t('uplink.month'), u.budget_month), m && fact(t('uplink.modem'), english([m.state, m.operator, m.signal_dbm && m.signal_dbm + ' dBm'].filter(Boolean).join(' · ')))), host ? h('bdi', { dir: 'ltr', title: u.broker }, host) : null);
}

function backlogTile(o) {
	const lanes = o.backlog, sum = lanes.reduce((n, l) => n + l.rows, 0), lost = lanes.reduce((n, l) => n + l.lost, 0);
	return tile('backlog', t('tile.backlog'), of(o, /^rows-/), [num(group(sum)), ' ', h('small', t('rows'))],
		facts(lanes.map(l => fact(t('lane.' + l.lane), whole(l.rows))), lost ? fact(t('backlog.lost'), whole(lost)) : null));
}

function clockTile(o) {
	const c = o.clock;
	return tile('clock', t('tile.clock'), of(o, /^clock-/), h('span', { title: t(c.bound === undefined ? 'clock.unknown' : 'clock.bound') }, c.bound === undefined ? num('± ?') : within(c.bound)),
		facts(fact(t('clock.site'), h('span.num', { 'data-clock': '' }, local(now()).full)),
			fact(t('clock.last'), c.last_sync ? age(c.last_sync) : t('never')),
			fact(t('clock.who'), t(c.discipline === 'agent' ? 'clock.agent' : 'clock.observe'))),
		[known('clock.' + c.state, c.state), c.source ? [' · ', h('span.num', { title: c.source }, c.source)] : null]);
}

function configTile(o) {
	const c = o.config;
	return tile('config', t('tile.config'), of(o, /^trial$/), t(c.trial ? 'config.trial' : 'config.runs'),
		facts(fact(t('config.hash'), num(c.hash.slice(0, 8), 'mono')),
			fact(t('config.trust'), c.trust ? t('config.version', { n: c.trust }) : t('config.notrust')),
			fact(t('config.last'), c.last ? h('bdi', { dir: 'ltr', title: c.last }, c.last) : null), fact(t('config.program'), english(o.version))),
		c.trial || c.layers.length ? h('bdi', { dir: 'ltr', title: c.layers.join('\n') }, c.trial || c.layers.join(', ')) : t('config.none'));
}

function storeTile(o) {
	const i = o.intake;
	return tile('store', t('tile.store'), of(o, /^(store|disk)-/), [num(bytes(o.disk.buffer)), ' ', h('small', t('store.buffer'))],
		facts(fact(t('store.last'), age(i.last)), fact(t('store.waiting'), whole(i.waiting)),
			i.dropped ? fact(t('store.dropped'), whole(i.dropped)) : null, size(t('store.written'), o.disk.written),
			size(t('store.memory'), o.memory.anonymous)), o.disk.free === undefined ? null : [t('store.free'), ' ', num(bytes(o.disk.free))]);
}

function verdict(o) {
	const l = level(o.health);
	return h('div.verdict', glyph(l[0], l[1]), h('div', h('h1', { tabindex: -1 }, t('health.' + o.health)),
		h('p', t('health.sum', { ok: group(o.meters.ok), total: group(o.meters.total) }), ' · ',
			t('tile.uplink') + ': ' + uplinkState(o.uplink), ' · ', t('health.up', { age: span(o.uptime) }))));
}

// conditions says what is wrong: the gateway's words are English.
function conditions(list) {
	if (!list.length) return h('div');
	return h('ul.alerts', { 'aria-label': t('conditions') }, list.map(c => {
		const l = level(c.level), name = CONDITIONS[c.code] || t('level.' + c.level);
		return h('li', glyph(l[0], l[1]), h('div', h('span.unseen', t('level.' + c.level), ': '),
			lang === 'en' ? c.text : [h('b', name, c.count ? [': ', whole(c.count)] : null), ' ', h('span.soft', english(c.text))]));
	}));
}

const eventName = e => e.channel.replace(/^event\./, '').replace(/-/g, ' ');
const eventText = e => e.value === null || e.value === true ? '' : String(e.value);
const meterLink = id => state.byId[id] ? h('a.meter', { href: '#/meter/' + id }, english(id)) : h('span.meter', english(id));
// latest is the event that came last, in one line.
function latest(e) {
	if (!e) return h('div');
	return h('p.latest', h('span.soft', t('alarms.last'), ' '), num(moment(e.time)), ' · ', meterLink(e.meter), ' · ', english(eventName(e)), eventText(e) ? [' · ', h('span.soft', english(eventText(e)))] : null);
}

function pips(share) {
	const n = share >= 95 ? 4 : share >= 85 ? 3 : share >= 60 ? 2 : share > 0 ? 1 : 0;
	return h('span.pips', { 'aria-hidden': 'true', class: n > 2 ? 'good' : n > 1 ? 'warn' : 'bad' }, [1, 2, 3, 4].map(k => h('i', { class: k <= n ? 'on' : null })));
}
const rate = x => x.success === undefined ? '–' : num(percent(x.success), x.success < 0.8 ? 'bad' : x.success < 0.95 ? 'warn' : null);

const stateCell = (s, error, more) => h('div.clip', stateGlyph(s), stateName(s) + (more ? ' · ' + more : ''), error ? [' · ', h('bdi.why', { title: error, lang: 'en' }, error)] : null);
// col is a column: its key, heading and class, whether it is sorted down at first, by what, and its cells.
const col = (key, name, cls, down, sort, cell) => ({ key: key, name: t(name), cls: cls, down: down, sort: sort, cell: cell });
function meterColumns() {
	return [
		col('id', 'col.meter', 'c-id', false, m => m.id, m => [h('a.meter', { href: '#/meter/' + m.id }, english(m.id)), m.serial ? h('span.soft', num(m.serial)) : null]),
		col('state', 'col.state', 'c-state', false, m => STATES.indexOf(m.state), m => stateCell(m.state, m.error)),
		col('line', 'col.line', 'c-line', false, m => m.line, m => h('span.soft', { title: m.line }, english(m.line))),
		col('last', 'col.last', 'c-age.end', true, m => m.last, m => m.last ? age(m.last) : t('never')),
		col('success', 'col.success', 'c-rate.end', false, m => m.success, rate),
		col('signal', 'col.signal', 'c-signal.end', false, m => m.signal, m => m.signal === undefined ? h('span.soft', '–') : [pips(m.signal), num(m.signal + ' %')]),
		col('clock', 'col.clock', 'c-clock.end', true, m => m.clock === undefined ? undefined : Math.abs(m.clock), m => m.clock === undefined ? h('span.soft', '–') : [m.clock_bad ? glyph('warn', 'warn') : null, num(signed(m.clock), m.clock_bad ? 'warn' : null)])
	];
}
const lineState = l => l.error || l.connected === false ? 'failing' : l.meters && l.ok < l.meters ? 'partial' : l.last ? 'ok' : 'waiting';
function lineColumns() {
	return [
		col('line', 'col.line', 'c-id', false, l => l.line, l => h('a.meter', { href: '#/line/' + encodeURIComponent(l.line) }, english(l.line))),
		col('state', 'col.state', 'c-state', false, l => STATES.indexOf(lineState(l)), l => stateCell(lineState(l), l.error, l.lent ? t('line.lent') : l.connected === false ? t('line.down') : '')),
		col('kind', 'col.kind', 'c-line', false, l => l.kind, l => [known('kind.' + l.kind, l.kind), l.nodes ? h('span.soft', ' · ', t('line.nodes', { n: l.nodes })) : null]),
		col('last', 'col.last', 'c-age.end', true, l => l.last, l => l.last ? age(l.last) : t('never')),
		col('success', 'col.success', 'c-rate.end', false, l => l.success, rate),
		col('meters', 'col.meters', 'c-signal.end', false, l => l.ok / (l.meters || 1), l => num(group(l.ok) + ' / ' + group(l.meters)))
	];
}
function eventColumns() {
	return [
		col('time', 'val.time', 'c-time', true, e => Number(e.id), e => num(moment(e.time))),
		col('meter', 'col.meter', 'c-id', false, e => e.meter, e => meterLink(e.meter)),
		col('event', 'col.event', 'c-state', false, e => e.channel, e => h('div.clip', english(eventName(e)), eventText(e) ? [' · ', h('bdi.why', { title: eventText(e), lang: 'en' }, eventText(e))] : null)),
		col('quality', 'val.quality', 'c-line', false, e => e.quality || '', e => e.quality ? qualityTags(e.quality) : null)
	];
}
