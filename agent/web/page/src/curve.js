// The card of a day's curve: channel, day, picture, table. Also what values mean.

// OBIS: what the group C measures; phases are 20 apart.
const MEASURES = { 1: ['active', 'import'], 2: ['active', 'export'], 3: ['reactive', 'import'], 4: ['reactive', 'export'], 9: ['apparent', 'import'], 10: ['apparent', 'export'],
	11: 'current', 12: 'voltage', 13: 'factor', 14: 'hertz', 16: 'sum' };
function obis(short) {
	const m = /^\d+-\d+:(\d+)\.(\d+)\.(\d+)/.exec(short);
	if (!m) return null;
	let c = Number(m[1]), phase = 0;
	const d = Number(m[2]), e = Number(m[3]);
	if (c > 20 && c < 80) { phase = Math.floor(c / 20); c %= 20; }
	const what = MEASURES[c];
	if (!what) return null;
	let text;
	if (typeof what === 'string') {
		if (d !== 7) return null;
		text = t('obis.' + what);
	} else {
		const how = { 4: 'demand', 5: 'demand', 6: 'peak', 7: 'power', 8: 'energy', 29: 'interval' }[d];
		if (!how) return null;
		text = t('obis.' + how, { kind: how === 'peak' && lang === 'en' ? t('obis.' + what[0]).toLowerCase() : t('obis.' + what[0]), way: t('obis.' + what[1]) });
	}
	if (phase) text = t('obis.phase', { what: text, n: phase });
	if (e && d !== 7) text = t('obis.tariff', { what: text, n: e });
	return text;
}
const numeric = v => typeof v.value === 'string' && /^-?\d/.test(v.value) && isFinite(Number(v.value)) && !/^0-0:(1|96)\./.test(v.short);
const qualityNames = q => !q || q === 'good' ? [] : q.split('+').map(k => known('q.' + k, k));
const qualityTags = q => qualityNames(q).map(n => h('span.tag', n));

// A profile captures registers and samples too: what a value is, its code says first.
const groupD = c => Number((/^\d+-\d+:\d+\.(\d+)/.exec(c.channel) || [])[1]);
const cumulative = c => c.cumulative || groupD(c) === 8;

// Curve shows the curves of path ('meters/ID' or 'me').
class Curve {
	constructor(path) {
		this.path = path;
		this.turn = 0;
		this.channels = '';
		this.data = null;
		this.mean = true;
		this.channel = h('select.field', { id: 'curve-channel', onchange: () => this.load() });
		this.day = h('input.field', { type: 'date', id: 'curve-day', required: true, value: local(now()).day, max: local(now()).day, onchange: () => { if (this.day.value) this.load(); } });
		const step = (by, name, icon) => h('button.tool', { type: 'button', 'aria-label': t(name), title: t(name), onclick: () => {
			const to = new Date(Date.parse(this.day.value) + by * 86400000).toISOString().slice(0, 10);
			if (to > local(now()).day) return;
			this.day.value = to;
			this.load();
		} }, glyph(icon, 'turn'));
		this.show = h('select.field', { id: 'curve-show', onchange: () => { this.mean = this.show.value === 'mean'; this.paint(); } },
			h('option', { value: 'mean' }, t('curve.mean')), h('option', { value: 'raw' }, t('curve.raw')));
		this.showing = h('span', { hidden: true }, label('curve-show', 'curve.show'), this.show);
		this.chart = new Chart(p => this.readout(p));
		this.out = h('p.readout');
		this.say = h('p.none', { role: 'status' });
		this.list = h('div.scroll', { tabindex: 0, role: 'group', 'aria-label': t('curve.table') });
		this.more = h('details', { ontoggle: () => this.tabulate() }, h('summary', t('curve.table')), this.list);
		this.el = card('curve', t('curve'),
			h('div.filters', label('curve-channel', 'curve.channel'), this.channel, this.showing,
				h('span.steps', step(-1, 'curve.before', 'back'), label('curve-day', 'curve.day'), this.day, step(1, 'curve.after', 'next'))),
		[this.chart.el, this.out, this.say, this.more]);
		this.quiet(t('curve.wait'));
	}

	close() { this.turn++; this.chart.close(); }

	quiet(text) { // text instead of a picture
		say(this.say, text || '');
		this.say.hidden = !text;
		this.chart.el.style.display = text ? 'none' : '';
		this.out.hidden = this.more.hidden = !!text;
	}

	// values offers the channels of which there are numbers, and takes what is new of the one shown.
	values(values) {
		const list = values.filter(numeric), key = list.map(v => v.channel).join(' ');
		this.el.hidden = !list.length;
		if (key !== this.channels) {
			const was = this.channel.value;
			this.channels = key;
			empty(this.channel);
			list.forEach(v => add(this.channel, h('option', { value: v.channel }, (obis(v.short) ? obis(v.short) + ' · ' : '') + apart(v.short))));
			const like = [/:1\.29\.0$/, /:1\.8\.0$/, /:16\.7\.0$/, /:1\.7\.0$/, /./];
			let best = list.filter(v => v.channel === was)[0];
			for (let i = 0; !best && i < like.length; i++) best = list.filter(v => like[i].test(v.short))[0];
			if (best) { this.channel.value = best.channel; if (best.channel !== was || !this.data) this.load(); }
		}
		const c = this.data;
		if (!c || c.day !== local(now()).day) return;
		list.forEach(v => {
			const last = c.points[c.points.length - 1];
			if (v.channel !== c.channel || last && ms(last.time) >= ms(v.time)) return;
			c.points.push({ time: v.time, value: v.value, quality: v.quality === 'good' ? undefined : v.quality });
			this.paint();
		});
	}

	load() {
		const turn = ++this.turn;
		if (!this.data) this.quiet(t('curve.wait'));
		get(this.path + '/curve?channel=' + encodeURIComponent(this.channel.value) + '&day=' + this.day.value).then(c => {
			if (turn !== this.turn) return;
			this.data = c;
			this.paint();
		}, e => {
			if (turn !== this.turn) return;
			this.data = null;
			this.quiet(t('curve.failed', { why: e.message }));
		});
	}

	paint() {
		const c = this.data;
		const rises = c && cumulative(c);
		this.showing.hidden = !rises;
		if (!c) return;
		const points = c.points.map(p => ({ at: ms(p.time), value: p.value === null ? null : Number(p.value), text: quantity(p.value, c.unit), quality: p.quality }));
		const from = ms(c.from), data = { key: c.channel + c.day + this.mean, from: from, to: ms(c.to), unit: c.unit, kind: 'line', points: points, zero: /^(k?W|k?var|k?VA)$/.test(c.unit) };
		let used = null;
		if (rises) {
			const given = points.filter(p => p.value !== null);
			if (given.length > 1) used = given[given.length - 1].value - given[0].value;
			if (this.mean && given.length > 1) { data.kind = 'step'; data.zero = true; data.unit = /h$/.test(c.unit) ? c.unit.slice(0, -1) : c.unit + '/h'; data.points = means(given, data.unit); }
		} else if (c.kind === 'interval' && groupD(c) !== 7) {
			data.kind = 'step'; data.zero = true;
			data.points = points.filter(p => p.at > from);
			data.points.forEach(p => { p.from = p.at - (c.period || 900) * 1000; });
			if (/h$/.test(c.unit) && data.points.length) used = data.points.reduce((n, p) => n + (p.value || 0), 0);
		}
		if (!data.points.length) { this.quiet(t('curve.none')); return; }
		this.quiet('');
		this.used = used === null || used < 0 ? '' : t('curve.used', { value: apart(about(used, c.unit)), from: local(data.points[0].from || points[0].at).clock, to: local(data.points[data.points.length - 1].at).clock });
		this.chart.set(data);
		this.tabulate();
	}

	readout(p) {
		empty(this.out);
		if (p) add(this.out, [num(pointTime(p)), ' · ', h('b', num(p.value === null ? '–' : p.text)), ' ', qualityTags(p.quality)]);
		else add(this.out, [this.used ? [h('b', this.used), ' · '] : null, this.data && this.data.thinned ? t('curve.thinned', { n: this.data.points.length }) + ' · ' : null, t('curve.hint')]);
	}

	tabulate() {
		if (!this.more.open || !this.chart.data) return;
		empty(this.list);
		add(this.list, h('table', columns(['val.time', 'val.value', 'val.quality'], [null, 'end']),
			h('tbody', this.chart.data.points.map(p => h('tr', h('td', num(pointTime(p))), h('td.end', num(p.value === null ? '–' : p.text)), h('td', p.quality ? qualityTags(p.quality) : h('span.soft', t('q.good'))))))));
	}
}

// means gives the mean power between readings of a register; where it fell there is
// none. Once there is an hour, readings within 5 minutes are passed over: a
// register has too few digits for a mean over seconds.
function means(points, unit) {
	const out = [], end = points.length - 1, apart = end > 0 && points[end].at - points[0].at > 3600000 ? 300000 : 1;
	let a = points[0];
	for (let i = 1; i <= end; i++) {
		const b = points[i];
		if (b.at - a.at < apart) continue;
		const rise = b.value - a.value, mean = rise < 0 ? null : rise / (b.at - a.at) * 3600000;
		out.push({ from: a.at, at: b.at, value: mean, text: mean === null ? '–' : about(mean, unit), quality: b.quality });
		a = b;
	}
	return out;
}
