// The gateway's API: one start, then a stream of what changes. See docs/openapi.yaml.

const QUIET = 30000; // ms without an octet, after which a stream is dead
let token = '';

function takeToken() {
	const m = /^#token=(.+)$/.exec(location.hash);
	if (m) {
		token = decodeURIComponent(m[1]);
		store.set('sessionStorage', 'token', token);
		history.replaceState(null, '', location.pathname + '#/');
		return true;
	}
	token = token || store.get('sessionStorage', 'token') || '';
	return false;
}
function dropToken() {
	token = '';
	store.set('sessionStorage', 'token', null);
}

// Numbers of readings stay as they are written: a double would lose digits.
const exact = text => JSON.parse(text.replace(/"value":(-?\d[\d.eE+-]*)/g, '"value":"$1"'));

function ask(path) {
	return fetch('api/1/' + path, { headers: { Authorization: 'Bearer ' + token }, cache: 'no-store', credentials: 'omit' });
}
function refused(answer) {
	const e = new Error('HTTP ' + answer.status);
	e.status = answer.status;
	e.wait = Number(answer.headers.get('Retry-After')) || 0;
	return answer.text().then(text => {
		try { e.message = JSON.parse(text).error.message; } catch (x) { /* then it has none */ }
		throw e;
	});
}
function get(path) {
	return ask(path).then(a => a.ok ? a.text().then(exact) : refused(a));
}

// Stream follows the events after a place and begins again when they break.
// on = {event(type, data), state('live' | 'stale'), refused(error)}.
class Stream {
	constructor(place, on) {
		this.place = place;
		this.on = on;
		this.meter = '';
		this.turn = 0; // of the connection; what an older one brings is left out
		this.pause = 0;
		this.reader = null;
		this.timer = 0;
		this.watch = 0;
	}

	open() {
		const turn = this.stop();
		const again = e => { if (turn === this.turn) this.broken(e); };
		this.listen(turn);
		const query = 'events?after=' + encodeURIComponent(this.place) + (this.meter ? '&meter=' + this.meter : '');
		ask(query).then(answer => {
			if (turn !== this.turn) { if (answer.body) answer.body.cancel(); return; }
			if (!answer.ok) return refused(answer);
			this.reader = answer.body.getReader();
			this.pause = 0;
			this.on.state('live');
			return this.read(turn, new TextDecoder(), '');
		}).then(() => again(null), again);
	}

	read(turn, decoder, rest) {
		return this.reader.read().then(part => {
			if (turn !== this.turn || part.done) return;
			this.listen(turn);
			const blocks = (rest + decoder.decode(part.value, { stream: true })).split('\n\n');
			rest = blocks.pop();
			blocks.forEach(b => { if (turn === this.turn) this.take(b); });
			return turn === this.turn ? this.read(turn, decoder, rest) : undefined;
		});
	}

	take(block) {
		let type = '', data = '';
		block.split('\n').forEach(line => {
			if (line.slice(0, 6) === 'event:') type = line.slice(6).trim();
			else if (line.slice(0, 5) === 'data:') data += line.slice(5);
			else if (line.slice(0, 3) === 'id:') this.place = line.slice(3).trim();
		});
		if (type && data) this.on.event(type, exact(data));
	}

	listen(turn) { // a dead connection says nothing
		clearTimeout(this.watch);
		this.watch = setTimeout(() => { if (turn === this.turn) { this.stop(); this.broken(null); } }, QUIET);
	}

	broken(e) {
		this.stop();
		if (e && (e.status === 401 || e.status === 403 || e.status === 400)) { this.on.refused(e); return; }
		this.on.state('stale');
		this.pause = Math.min(Math.max(1000, this.pause * 2), 15000);
		this.timer = setTimeout(() => this.open(), Math.max(this.pause, (e && e.wait || 0) * 1000));
	}

	stop() {
		clearTimeout(this.timer);
		clearTimeout(this.watch);
		if (this.reader) this.reader.cancel().catch(() => 0);
		this.reader = null;
		return ++this.turn;
	}

	// follow also tells the values of a meter; an empty id ends that.
	follow(id) {
		clearTimeout(this.soon); // one view closes and another opens
		this.soon = setTimeout(() => {
			if (this.meter === id) return;
			this.meter = id;
			this.open();
		}, 50);
	}

	// hurry tries at once: the network is back, or somebody looks again.
	hurry() { if (!this.reader && this.timer) { this.pause = 0; this.open(); } }
}
