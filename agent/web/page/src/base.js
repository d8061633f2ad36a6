// What everything else stands on: the language, elements, numbers and times.
// Written for browsers of 2017: ES2015, no modules, no build but joining the files.

const store = (function () { // of the browser; it may be forbidden
	const get = (s, k) => { try { return window[s].getItem('gridgate.' + k); } catch (e) { return null; } };
	const set = (s, k, v) => {
		try {
			if (v === null) window[s].removeItem('gridgate.' + k);
			else window[s].setItem('gridgate.' + k, v);
		} catch (e) { /* then it lasts as long as the page */ }
	};
	return { get: get, set: set };
})();

const root = document.documentElement;
let lang = store.get('localStorage', 'lang') || (/^ar\b/.test(navigator.language || '') ? 'ar' : 'en');

function t(key, put) {
	let text = TEXTS[key] ? TEXTS[key][lang === 'ar' ? 1 : 0] : key;
	if (put) text = text.replace(/\{(\w+)\}/g, (all, name) => put[name] === undefined ? all : put[name]);
	return text;
}
const known = (key, otherwise) => TEXTS[key] ? t(key) : otherwise;

function speak(to) {
	lang = to;
	root.lang = to;
	root.dir = to === 'ar' ? 'rtl' : 'ltr';
}

const systemDark = window.matchMedia ? window.matchMedia('(prefers-color-scheme: dark)') : { matches: false };
const isDark = () => root.getAttribute('data-theme') === 'dark';
function paint() {
	const chosen = store.get('localStorage', 'theme');
	root.setAttribute('data-theme', chosen || (systemDark.matches ? 'dark' : 'light'));
}
if (systemDark.addListener) systemDark.addListener(paint);

// h makes an element: h('p.soft', {title: 'x'}, 'text', child, [more]).
const SVG = 'http://www.w3.org/2000/svg';
const DRAWN = /^(svg|path|line|rect|circle|text|g|title)$/;
function h(what, with_) {
	const parts = what.split('.');
	const svg = DRAWN.test(parts[0]);
	const e = svg ? document.createElementNS(SVG, parts[0]) : document.createElement(parts[0]);
	if (parts.length > 1) e.setAttribute('class', parts.slice(1).join(' '));
	let from = 1;
	if (with_ && typeof with_ === 'object' && !with_.nodeType && !Array.isArray(with_)) {
		from = 2;
		Object.keys(with_).forEach(k => {
			const v = with_[k];
			if (v === null || v === undefined || v === false) return;
			if (k.slice(0, 2) === 'on') e.addEventListener(k.slice(2), v);
			else if (k === 'class') e.setAttribute('class', ((e.getAttribute('class') || '') + ' ' + v).trim());
			else if (k === 'value' && !svg && parts[0] !== 'option') e.value = v;
			else e.setAttribute(k, v === true ? '' : v);
		});
	}
	for (let i = from; i < arguments.length; i++) add(e, arguments[i]);
	return e;
}
function add(e, kid) {
	if (kid === null || kid === undefined || kid === false) return;
	if (Array.isArray(kid)) kid.forEach(k => add(e, k));
	else e.appendChild(kid.nodeType ? kid : document.createTextNode(String(kid)));
}
// set gives attributes, label names a field for those who do not see it, card is a section with a heading.
function set(e, with_) { Object.keys(with_).forEach(k => e.setAttribute(k, with_[k])); }
const label = (id, key) => h('label.unseen', { for: id }, t(key));
const pressed = is => is ? 'true' : 'false';
const card = (id, name, tools, content) => h('section.card', { 'aria-labelledby': 't-' + id, id: id }, h('header', h('h2', { id: 't-' + id }, name), tools), content);
const columns = (names, cls) => h('thead', h('tr', names.map((k, i) => h('th', { scope: 'col', class: cls[i] }, t(k)))));
function empty(e) { while (e.firstChild) e.removeChild(e.firstChild); }

// swap puts new content into a place if it differs from what is there, so that
// what did not change keeps its focus and is not read out again; a heading or a
// link that has the focus hands it on.
function swap(place, fresh) {
	const old = place.firstChild, held = document.activeElement;
	if (old && old.outerHTML === fresh.outerHTML) return;
	const again = place.contains(held) && held.tagName;
	empty(place);
	place.appendChild(fresh);
	if (again && fresh.querySelector(again)) fresh.querySelector(again).focus();
}
function say(e, text) { if (e.textContent !== text) e.textContent = text; }

const GLYPHS = {
	ok: 'M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18M8 12.5l2.7 2.7L16 9.5',
	warn: 'M12 3.5 2.5 20h19zM12 10v4.5M12 17.2v.1',
	fail: 'M8 3h8l5 5v8l-5 5H8l-5-5V8zM9 9l6 6M15 9l-6 6',
	info: 'M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18M12 11v5.5M12 7.6v.1',
	wait: 'M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18M12 7v5l3 2',
	half: 'M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18zM12 3v18',
	lock: 'M6 11h12v9H6zM8.5 11V8a3.5 3.5 0 0 1 7 0v3',
	turn: 'M4 8h15l-4-4M20 16H5l4 4',
	back: 'M14.5 5 8 12l6.5 7',
	next: 'M9.5 5 16 12l-6.5 7',
	up: 'M5 15.5 12 8l7 7.5', down: 'M5 8.5 12 16l7-7.5',
	sun: 'M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8M12 2.5v2M12 19.5v2M2.5 12h2M19.5 12h2M5.3 5.3l1.4 1.4M17.3 17.3l1.4 1.4M18.7 5.3l-1.4 1.4M6.7 17.3l-1.4 1.4',
	moon: 'M20 14.5A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.5z',
	leave: 'M10 4H5v16h5M10 12h11M17 8l4 4-4 4',
	mark: 'M4 4h16v16H4zM4 12h3.5l2.5-5 4 10 2.5-5H20'
};
const glyph = (name, cls) => h('svg.glyph', { viewBox: '0 0 24 24', 'aria-hidden': 'true', focusable: 'false', class: cls }, h('path', { d: GLYPHS[name] }));

// num keeps a number, its sign and its unit together, also in a line from right to left.
const num = (text, cls) => h('span.num', { class: cls }, text);
const english = text => h('bdi', { lang: 'en', dir: 'ltr' }, text);

// group sets apart the thousands of a number that is written out.
function group(digits) {
	const m = /^(-?)(\d+)(.*)$/.exec(String(digits));
	if (!m) return String(digits);
	return (m[1] ? '−' : '') + m[2].replace(/\B(?=(\d{3})+$)/g, ',') + m[3];
}

// kilo is a thousandth of a number that is written out, by no more than moving its
// point: no digit comes or goes but zeros.
function kilo(digits) {
	const m = /^(-?)(\d+)(?:\.(\d+))?$/.exec(digits);
	if (!m) return null;
	const all = '000' + m[2], at = all.length - 3;
	const whole = all.slice(0, at).replace(/^0+(?=\d)/, '') || '0';
	return m[1] + whole + '.' + all.slice(at) + (m[3] || '');
}

const POWER = /^(Wh|varh|VAh|W|var|VA)$/;

// quantity gives a value with its unit. Large energies and powers are in
// thousands, as meters show them, with every digit that the meter gave.
function quantity(value, unit) {
	if (value === null || value === undefined) return '–';
	const s = String(value);
	const k = POWER.test(unit) && Math.abs(Number(s)) >= 10000 ? kilo(s) : null;
	return (k === null ? group(s) : group(k)) + (unit ? ' ' + (k === null ? '' : 'k') + unit : '');
}
// about rounds what was computed here, for a scale or a mean.
function about(x, unit) {
	if (Math.abs(x) >= 10000 && POWER.test(unit)) return about(x / 1000, 'k' + unit);
	const digits = x === 0 ? 0 : Math.max(0, Math.min(3, 3 - Math.floor(Math.log(Math.abs(x)) / Math.LN10)));
	return group(String(Number(x.toFixed(digits)))) + (unit ? ' ' + unit : '');
}
function bytes(n) {
	const units = ['B', 'kB', 'MB', 'GB', 'TB'];
	let i = 0;
	while (n >= 999.5 && i < units.length - 1) { n /= 1000; i++; }
	return (i === 0 || n >= 100 ? Math.round(n) : n.toFixed(1)) + ' ' + units[i];
}
const percent = share => (share === 1 || share === 0 ? share * 100 : Math.min(99.9, Math.max(0.1, share * 100)).toFixed(1)) + ' %';

// span gives a duration in seconds; si for among other numbers.
function span(s, si) {
	const a = Math.abs(s), say = (n, unit) => n + ' ' + (si ? unit : t('unit.' + unit));
	if (a < 1) return say(a < 0.01 ? Number((a * 1000).toFixed(1)) : Math.round(a * 1000), 'ms');
	if (a < 10) return say(Number(a.toFixed(1)), 's');
	if (a < 90) return say(Math.round(a), 's');
	if (a < 5400) return say(Math.round(a / 60), 'min');
	if (a < 172800) return say(Math.round(a / 3600), 'h');
	return say(Math.round(a / 86400), 'd');
}
const signed = s => (s < 0 ? '−' : '+') + span(s, true);
const within = s => num('± ' + span(s, true));
// apart keeps what reads from left to right so where there are no elements.
const apart = text => '\u2066' + text + '\u2069';

// Times. The browser's clock may be wrong: ages are by the gateway's.
let skew = 0, zone = 'UTC', clockFormat = null;
const now = () => Date.now() + skew;
const ms = text => text ? Date.parse(text) : NaN;
function setZone(name, offset) {
	const make = z => new Intl.DateTimeFormat('en-GB', { timeZone: z, hour12: false, year: 'numeric', month: '2-digit', day: '2-digit', hour: '2-digit', minute: '2-digit', second: '2-digit' });
	try { clockFormat = make(name); zone = name; } catch (e) { // a browser that does not know it
		clockFormat = { format: at => make('UTC').format(new Date(at.getTime() + (offset || 0) * 1000)) };
		zone = name;
	}
}
setZone('UTC');
function local(at) { // of the site
	const m = /(\d+)\D+(\d+)\D+(\d+)\D+(\d+):(\d+):(\d+)/.exec(clockFormat.format(new Date(at)));
	const hour = m[4] === '24' ? '00' : m[4];
	return { day: m[3] + '-' + m[2] + '-' + m[1], clock: hour + ':' + m[5], full: hour + ':' + m[5] + ':' + m[6] };
}
function moment(text) { // in full, without the day where that is today
	if (!text) return t('never');
	const l = local(ms(text));
	return (l.day === local(now()).day ? '' : l.day + ' ') + l.full;
}
function ago(text) {
	if (!text) return t('never');
	const s = (now() - ms(text)) / 1000;
	return s < 1 ? t('now') : t('ago', { age: span(Math.floor(s)) });
}
// A time that goes on by itself: tick renews it.
const age = text => h('time', { datetime: text, 'data-age': text, title: text ? moment(text) : null }, ago(text));
function tick() {
	const all = document.querySelectorAll('[data-age]');
	for (let i = 0; i < all.length; i++) say(all[i], ago(all[i].getAttribute('data-age')));
	const clocks = document.querySelectorAll('[data-clock]');
	for (let i = 0; i < clocks.length; i++) say(clocks[i], local(now()).full);
}
