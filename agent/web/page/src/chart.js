// A day's curve as a picture that this draws itself: no library is this small.

const pointTime = p => p.from === undefined ? local(p.at).full : local(p.from).clock + '–' + local(p.at).clock;
// Chart draws into a box that is as wide as its parent. A reading at the cursor is
// told to onread(point). The box is a slider, so that keys move the cursor too.
class Chart {
	constructor(onread) {
		this.onread = onread;
		this.svg = h('svg.chart', { 'aria-hidden': 'true', focusable: 'false' });
		this.el = h('div.plot', { tabindex: 0, role: 'slider', 'aria-label': t('curve.cursor'), 'aria-orientation': 'horizontal' }, this.svg);
		this.data = null;
		this.at = -1;
		const pick = e => {
			const p = e.touches ? e.touches[0] : e;
			this.move(this.nearest(p.clientX - this.svg.getBoundingClientRect().left));
		};
		['mousemove', 'mousedown', 'touchstart', 'touchmove'].forEach(k => this.el.addEventListener(k, pick, { passive: true }));
		this.el.addEventListener('mouseleave', () => this.move(-1));
		this.el.addEventListener('keydown', e => {
			if (!this.data || !this.data.points.length) return;
			const n = this.data.points.length, at = this.at < 0 ? n - 1 : this.at;
			const to = { ArrowLeft: at - 1, ArrowDown: at - 1, ArrowRight: at + 1, ArrowUp: at + 1, PageUp: at + 12, PageDown: at - 12, Home: 0, End: n - 1 }[e.key];
			if (to === undefined) return;
			e.preventDefault();
			this.move(Math.max(0, Math.min(n - 1, this.at < 0 && e.key.slice(0, 5) === 'Arrow' ? n - 1 : to)));
		});
		this.look = () => this.draw();
		window.addEventListener('resize', this.look);
	}

	close() { window.removeEventListener('resize', this.look); }

	// set shows data: {from, to, kind: 'line' | 'step', unit, zero, points}. A point is
	// {at, value | null, text, quality}; of a step it also has the time it began, from.
	set(data) {
		const kept = this.at >= 0 && this.data && data && this.data.key === data.key ? this.data.points[this.at].at : null;
		this.data = data;
		this.at = -1;
		if (kept !== null) data.points.forEach((p, i) => { if (p.at === kept) this.at = i; });
		this.draw();
		this.tell();
	}

	nearest(px) {
		if (!this.data || !this.x) return -1;
		let best = -1, off = Infinity;
		this.data.points.forEach((p, i) => {
			const d = Math.abs(this.x(p.from === undefined ? p.at : (p.from + p.at) / 2) - px);
			if (d < off) { off = d; best = i; }
		});
		return best;
	}

	move(i) {
		if (i === this.at) return;
		this.at = i;
		this.hair();
		this.tell();
	}

	tell() {
		const n = this.data ? this.data.points.length : 0, p = this.data && this.data.points[this.at < 0 ? n - 1 : this.at];
		set(this.el, {
			'aria-valuemin': 0, 'aria-valuemax': Math.max(0, n - 1), 'aria-valuenow': this.at < 0 ? Math.max(0, n - 1) : this.at,
			'aria-valuetext': p ? pointText(p) : t('curve.none')
		});
		this.onread(this.at < 0 ? null : this.data.points[this.at]);
	}

	draw() {
		const d = this.data, svg = this.svg;
		empty(svg);
		this.x = null;
		if (!d) return;
		const box = svg.getBoundingClientRect(), w = box.width, tall = box.height;
		if (!w) return;
		const values = d.points.filter(p => p.value !== null).map(p => p.value);
		let lo = Math.min.apply(null, values), hi = Math.max.apply(null, values);
		if (!values.length) { lo = 0; hi = 1; }
		if (d.zero) { lo = Math.min(0, lo); hi = Math.max(0, hi); }
		const scale = ticks(lo, hi, tall > 220 ? 5 : 4), bottom = tall - 22;
			const k = POWER.test(d.unit) && Math.max(-scale[0], scale[scale.length - 1]) >= 10000 ? 1000 : 1;
		const texts = scale.map(v => about(v / k, ''));
		const left = 14 + 7 * texts.reduce((n, s) => Math.max(n, s.length), 2), top = 18;
		const y = v => bottom - (v - scale[0]) / (scale[scale.length - 1] - scale[0]) * (bottom - top);
		const x = at => left + (at - d.from) / (d.to - d.from) * (w - left - 6);
		this.x = x; this.y = y; this.bottom = bottom; this.above = top;
		add(svg, h('text.axis', { x: left, y: 9, 'text-anchor': 'start' }, (k > 1 ? 'k' : '') + d.unit));
		scale.forEach((v, i) => add(svg, [h('line.grid', { x1: left, x2: w - 6, y1: Math.round(y(v)), y2: Math.round(y(v)) }),
			h('text.axis', { x: left - 7, y: y(v) + 4, 'text-anchor': 'end' }, texts[i])]));
		const hours = w > 620 ? 2 : w > 420 ? 3 : 6;
		for (let at = d.from, n = 0; at <= d.to; at += 3600000, n++) {
			const clock = local(at).clock, hour = Number(clock.slice(0, 2));
			if (hour % hours || clock.slice(3) !== '00') continue;
			const end = d.to - at < 1800000;
			add(svg, [h('line.grid', { x1: Math.round(x(at)), x2: Math.round(x(at)), y1: bottom, y2: bottom + 4 }),
				h('text.axis', { x: x(at), y: tall - 4, 'text-anchor': n === 0 ? 'start' : end ? 'end' : 'middle' }, end ? '24:00' : clock)]);
		}
		if (d.kind === 'step') this.drawSteps(d, x, y);
		else this.drawLine(d, x, y);
		d.points.forEach(p => {
			if (p.quality) add(svg, h('path.flag', { d: 'M' + x(p.from === undefined ? p.at : (p.from + p.at) / 2).toFixed(1) + ' ' + (top - 1) + 'l-3.5 -6h7z' }));
		});
		this.cursor = h('g');
		add(svg, this.cursor);
		this.hair();
	}

	drawSteps(d, x, y) {
		const base = y(0);
		let path = '';
		d.points.forEach(p => {
			if (p.value === null) return;
			const a = x(p.from), b = x(p.at), edge = b - a > 4 ? 1 : 0;
			path += 'M' + a.toFixed(1) + ' ' + base.toFixed(1) + 'V' + y(p.value).toFixed(1) + 'H' + Math.max(b - edge, a + 0.6).toFixed(1) + 'V' + base.toFixed(1) + 'Z';
		});
		add(this.svg, h('path.step', { d: path }));
	}

	// drawLine joins readings, but not over a hole: over three times the usual distance.
	drawLine(d, x, y) {
		const apart = [];
		for (let i = 1; i < d.points.length; i++) apart.push(d.points[i].at - d.points[i - 1].at);
		apart.sort((a, b) => a - b);
		const hole = 3 * (apart[apart.length >> 1] || 0) + 1000;
		const runs = [];
		let run = null, before = 0;
		d.points.forEach(p => {
			if (p.value === null) { run = null; return; }
			if (!run || p.at - before > hole) runs.push(run = []);
			run.push([x(p.at).toFixed(1), y(p.value).toFixed(1)]);
			before = p.at;
		});
		runs.forEach(r => {
			const line = r.map(p => p.join(' ')).join('L');
			if (r.length === 1) { add(this.svg, h('circle.dot', { cx: r[0][0], cy: r[0][1], r: 2 })); return; }
			if (d.zero) add(this.svg, h('path.area', { d: 'M' + r[0][0] + ' ' + y(0).toFixed(1) + 'L' + line + 'L' + r[r.length - 1][0] + ' ' + y(0).toFixed(1) + 'Z' }));
			add(this.svg, h('path.trace', { d: 'M' + line }));
		});
	}

	hair() {
		if (!this.cursor) return;
		empty(this.cursor);
		const p = this.at >= 0 && this.x ? this.data.points[this.at] : null;
		if (!p) return;
		const px = this.x(p.from === undefined ? p.at : (p.from + p.at) / 2);
		add(this.cursor, h('line.hair', { x1: px, x2: px, y1: this.above, y2: this.bottom }));
		if (p.value !== null) add(this.cursor, h('circle.dot', { cx: px, cy: this.y(p.value), r: 4 }));
	}
}

const pointText = p => pointTime(p) + ' ' + (p.value === null ? '–' : p.text) + (p.quality ? ' (' + qualityNames(p.quality).join(', ') + ')' : '');

// ticks gives round numbers from at most lo to at least hi.
function ticks(lo, hi, want) {
	if (hi - lo < 1e-9) { const d = Math.abs(hi) * 0.01 || 1; lo -= d; hi += d; }
	const raw = (hi - lo) / want, ten = Math.pow(10, Math.floor(Math.log(raw) / Math.LN10)), r = raw / ten;
	const step = ten * (r <= 1 ? 1 : r <= 2 ? 2 : r <= 2.5 ? 2.5 : r <= 5 ? 5 : 10), out = [];
	for (let k = Math.floor(lo / step + 1e-9); k <= Math.ceil(hi / step - 1e-9); k++) out.push(Number((k * step).toPrecision(12)));
	return out;
}

