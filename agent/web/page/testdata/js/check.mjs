// Looks at the page of a running gateway as people do; the test says what it found.
//   node check.mjs BASE TECHNICIAN CONSUMER METER METERS CASE
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { browser, live, open, strange, text, until } from './browser.mjs';

const [base, technician, consumer, meter, many, wanted] = process.argv.slice(2);
const total = Number(many), grouped = n => String(n).replace(/\B(?=(\d{3})+$)/g, ',');
const as = options => open(base, { token: technician, ...options });
const ids = page => page.$$eval('#devices tbody tr[data-id]', rows => rows.map(r => r.dataset.id));
const shown = (page, n) => until(page, want => document.querySelector('#devices [role=status]').textContent.startsWith(want + ' '), grouped(n));

const cases = {
	// Two requests show everything; the third is the stream of what changes.
	async load() {
		const page = await open(base, { hash: '#token=' + technician });
		await live(page);
		assert.deepEqual(page.asked.map(u => u.replace(/#.*/, '').replace(/=.*/, '=')), ['', 'api/1/start', 'api/1/events?after='], 'requests');
		assert.equal(await page.evaluate(() => location.hash), '#/', 'the token stays in the address');
		const seen = await page.evaluate(() => ({
			elements: document.getElementsByTagName('*').length, rows: document.querySelectorAll('#devices tbody tr[data-id]').length,
			count: document.querySelector('#devices table').getAttribute('aria-rowcount'), of: document.querySelector('#meters .big').textContent,
			files: performance.getEntriesByType('resource').concat(performance.getEntriesByType('navigation')).map(e => [e.name.replace(/.*\//, '').replace(/#.*/, ''), e.encodedBodySize, e.decodedBodySize]),
			ms: Math.round(performance.getEntriesByName('shown')[0].startTime)
		}));
		console.log(`time: all of ${total} meters shown after ${seen.ms} ms; ${seen.elements} elements; ` + seen.files.filter(f => !f[0].startsWith('events')).map(f => `${f[0] || 'page'} ${f[1]} of ${f[2]} octets`).join(', '));
		assert.equal(seen.count, String(total + 1));
		assert.match(seen.of, new RegExp('/ ' + grouped(total)));
		assert.ok(seen.rows > 5 && seen.rows < 80, `${seen.rows} rows are made`);
		assert.ok(seen.elements < 1800, `${seen.elements} elements are made`);
		const page0 = seen.files.find(f => f[0] === '');
		assert.ok(page0[1] > 0 && page0[1] < 30000, `the page takes ${page0[1]} octets`);
		if (process.env.PAGE_BUDGET_MS) assert.ok(seen.ms < Number(process.env.PAGE_BUDGET_MS), `${seen.ms} ms`);
		await page.done();
	},

	// What the meter shows comes by itself, and so does what came of it.
	async values() {
		const page = await as({ hash: '#/meter/' + meter });
		await live(page);
		await page.waitForSelector('#values tr[data-channel*="16.7.0"]');
		for (let n = 0; n < 2; n++) {
			const was = await page.$eval('#values tr[data-channel*="16.7.0"] .value', e => e.textContent);
			await until(page, w => document.querySelector('#values tr[data-channel*="16.7.0"] .value').textContent !== w, was);
		}
		assert.match(await text(page, '#values tr[data-channel*="16.7.0"] th'), /^Active power/);
		assert.match(await text(page, '#values tr[data-channel*="16.7.0"] .value'), /^\d[\d,.]* k?W$/);
		await page.select('#curve-channel', await page.$eval('#curve-channel option[value*=":16.7.0"]', e => e.value));
		await page.waitForSelector('#curve svg .trace, #curve svg .dot');
		await page.focus('#curve [role=slider]');
		await page.keyboard.press('End');
		await until(page, () => /W( \(|$)/.test(document.querySelector('#curve [role=slider]').getAttribute('aria-valuetext')));
		await page.click('#curve summary');
		await page.waitForSelector('#curve details table tbody tr');
		const rows = await page.$$eval('#curve details tbody tr', r => r.length);
		await until(page, n => document.querySelectorAll('#curve details tbody tr').length > n, rows); // it grows
		await page.select('#curve-channel', await page.$eval('#curve-channel option[value*=":1.8.0"]', e => e.value));
		await page.waitForSelector('#curve svg .step');
		await page.select('#curve-show', 'raw');
		await page.waitForSelector('#curve svg .trace, #curve svg .dot');
		for (let n = 0; n < 3; n++) await page.click('#curve button[aria-label="The day before"]');
		await until(page, () => document.querySelector('#curve .none').textContent === 'Nothing of this day is on the gateway.');
		await page.done();
	},

	async find() {
		const page = await as();
		await live(page);
		await shown(page, total);
		await page.type('#find', 'm-01');
		await shown(page, 100);
		assert.ok((await ids(page)).every(id => id.startsWith('m-01')));
		await page.type('#find', '7 100');
		await until(page, () => document.querySelectorAll('#devices tbody tr[data-id]').length < 12);
		await page.$eval('#find', e => { e.value = 'nowhere'; e.dispatchEvent(new Event('input')); });
		await until(page, () => !document.querySelector('#devices .none').hidden);
		await page.$eval('#find', e => { e.value = ''; e.dispatchEvent(new Event('input')); });
		await shown(page, total);
		const line = await page.$eval('#line option:nth-child(3)', e => e.value);
		await page.select('#line', line);
		await shown(page, total / 5);
		await page.select('#line', '');
		await page.click('.chip[data-state=ok]');
		await until(page, () => document.querySelector('.chip[data-state=ok]').getAttribute('aria-pressed') === 'true');
		await page.click('[data-tab=lines]');
		await shown(page, 5);
		await page.click('#devices tbody tr[data-id] a');
		await shown(page, total / 5);
		await page.done();
	},

	async sort() {
		const page = await as();
		await live(page);
		const head = name => page.evaluateHandle(n => [...document.querySelectorAll('#devices thead button')].find(b => b.textContent === n), name);
		const first = async () => (await ids(page))[0];
		await (await head('Meter')).click();
		assert.equal(await first(), 'm-0001');
		await (await head('Meter')).click();
		assert.equal(await first(), 'm-' + String(total).padStart(4, '0'));
		assert.equal(await page.$eval('#devices th[aria-sort]', e => e.getAttribute('aria-sort') + ' ' + e.textContent), 'descending Meter');
		await page.evaluate(() => window.scrollTo(0, document.body.scrollHeight));
		await until(page, () => document.querySelector('#devices tr[data-id="m-0001"]'));
		const n = (await ids(page)).length;
		assert.ok(n < 80, `${n} rows are made at the end`);
		assert.equal(await page.$eval('#devices tr[data-id="m-0001"]', e => e.getAttribute('aria-rowindex')), String(total + 1));
		await (await head('Last reading')).click();
		await page.evaluate(() => window.scrollTo(0, 0));
		await until(page, () => {
			const rows = [...document.querySelectorAll('#devices tbody tr[data-id] time')].map(e => e.getAttribute('datetime'));
			return rows.length > 5 && rows.every((r, i) => i === 0 || rows[i - 1] >= r);
		});
		await page.done();
	},

	async keys() {
		const page = await as();
		await live(page);
		await page.keyboard.press('Tab');
		assert.equal(await page.evaluate(() => document.activeElement.className), 'skip');
		await page.keyboard.press('Enter');
		assert.equal(await page.evaluate(() => document.activeElement.id), 'main');
		for (let n = 0; n < 30 && !await page.evaluate(() => document.activeElement.matches('a.meter')); n++) await page.keyboard.press('Tab');
		const id = await page.evaluate(() => document.activeElement.textContent);
		await page.keyboard.press('Enter');
		await until(page, want => document.activeElement.tagName === 'H1' && document.activeElement.textContent === want, id);
		for (let n = 0; n < 2; n++) { // what is around it is made anew, and it keeps the focus
			const was = await page.$eval('main .verdict time', e => e.getAttribute('datetime'));
			await until(page, w => document.querySelector('main .verdict time').getAttribute('datetime') !== w, was);
		}
		assert.equal(await page.evaluate(() => document.activeElement.tagName), 'H1');
		await page.done();
	},

	async axe() {
		const source = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
		const looks = [];
		for (const [lang, theme] of [['en', 'light'], ['en', 'dark'], ['ar', 'light']]) {
			looks.push([lang, theme, 'overview', { token: technician }], [lang, theme, 'meter', { token: technician, hash: '#/meter/' + meter }]);
		}
		looks.push(['en', 'light', 'consumer', { token: consumer }], ['ar', 'dark', 'consumer', { token: consumer }], ['en', 'light', 'gate', {}], ['ar', 'dark', 'gate', {}]);
		looks.push(['en', 'light', 'phone', { token: technician, width: 360, height: 740 }], ['ar', 'dark', 'phone meter', { token: technician, hash: '#/meter/' + meter, width: 360, height: 740 }]);
		for (const [lang, theme, name, options] of looks) {
			const page = await open(base, { lang, theme, ...options });
			if (options.token) {
				await live(page);
				if (name !== 'overview' && name !== 'phone') { await page.waitForSelector('#values tbody tr'); await page.click('#curve summary').catch(() => 0); }
			} else await page.waitForSelector('#token');
			await page.evaluate(source);
			const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations', 'incomplete'] }));
			const bad = found.violations.filter(v => v.impact === 'serious' || v.impact === 'critical');
			assert.deepEqual(bad.map(v => `${v.id}: ${v.nodes.map(n => n.html).join(' | ').slice(0, 400)}`), [], `${name}, ${lang}, ${theme}`);
			if (process.env.AXE_ALL) console.log('axe:', name, lang, theme, JSON.stringify(found.violations.map(v => [v.impact, v.id, v.nodes[0].html.slice(0, 150)])), JSON.stringify(found.incomplete.map(v => [v.id, v.nodes.length])));
			assert.ok(found.passes.length > 10, 'axe looked at nothing');
			await page.done();
		}
	},

	async narrow() {
		for (const lang of ['en', 'ar']) {
			for (const [name, options] of [['overview', { token: technician }], ['meter', { token: technician, hash: '#/meter/' + meter }], ['consumer', { token: consumer }], ['gate', {}]]) {
				const page = await open(base, { lang, width: 360, height: 740, ...options });
				if (options.token) await live(page);
				if (name === 'meter' || name === 'consumer') await page.waitForSelector('#values tbody tr');
				const wide = await page.evaluate(() => {
					const out = [...document.querySelectorAll('main *, header *')].filter(e => {
						const r = e.getBoundingClientRect();
						return r.width && (r.right > 361 || r.left < -1) && !e.closest('.chips, .scroll, .unseen');
					});
					return [document.documentElement.scrollWidth, window.innerWidth, out.slice(0, 3).map(e => e.outerHTML.slice(0, 120))];
				});
				assert.deepEqual(wide, [360, 360, []], `${name}, ${lang}`);
				await page.done();
			}
		}
	},

	async arabic() {
		const page = await as();
		await live(page);
		await page.click('#lang');
		await until(page, () => document.documentElement.dir === 'rtl' && document.documentElement.lang === 'ar');
		const seen = await page.evaluate(() => ({
			brand: document.querySelector('.brand').getBoundingClientRect().left, lang: document.querySelector('#lang').getBoundingClientRect().left,
			first: document.querySelector('#devices thead th').getBoundingClientRect().left, last: document.querySelector('#devices thead th:last-child').getBoundingClientRect().left,
			heads: [...document.querySelectorAll('h1, h2, thead th, dt')].map(e => e.textContent.trim()).filter(s => !/[\u0600-\u06ff]/.test(s)),
			num: getComputedStyle(document.querySelector('.num')).direction
		}));
		assert.ok(seen.brand > seen.lang, 'the brand is on the right');
		assert.ok(seen.first > seen.last, 'the first column is on the right');
		assert.deepEqual(seen.heads, [], 'not in Arabic');
		assert.equal(seen.num, 'ltr');
		await page.click('#lang');
		await until(page, () => document.documentElement.dir === 'ltr');
		await page.done();
	},

	async consumer() {
		const page = await open(base, { hash: '#token=' + consumer });
		await live(page);
		await page.waitForSelector('#import .num');
		assert.match(await text(page, '#import .num'), /^[\d,.]+ kWh$/);
		const was = await text(page, '#power .num');
		await until(page, w => document.querySelector('#power .num').textContent !== w, was);
		assert.equal(await page.$('#devices'), null, 'a consumer sees the list of meters');
		assert.equal((await page.evaluate(() => document.body.textContent)).includes('m-0002'), false);
		await page.done();
	},

	async gate() {
		const page = await open(base, {});
		await page.type('#token', 'wrong');
		await page.keyboard.press('Enter');
		await page.waitForSelector('[role=alert]');
		assert.match(await text(page, 'main [role=alert]'), /does not take this token/);
		await page.type('#token', technician);
		await page.keyboard.press('Enter');
		await live(page);
		await page.click('[aria-label="Forget the token"]');
		await page.waitForSelector('#token');
		assert.equal(await page.evaluate(() => sessionStorage.length), 0);
		await page.click('button[aria-pressed]');
		assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), 'dark');
		await page.done();
	},

	// The test takes meters and the gateway away, and gives the gateway back.
	async broken() {
		const page = await as();
		await live(page);
		console.log('say: take meters');
		await page.waitForSelector('.chip[data-state=failing]');
		assert.match(await text(page, '.alerts'), /do not answer/);
		await page.click('.chip[data-state=failing]');
		await until(page, () => /failing/.test(document.querySelector('#devices tbody tr[data-id] .c-state').textContent));
		console.log('say: take the gateway');
		await page.waitForSelector('[data-conn=stale]');
		assert.match(await text(page, '[role=alert]'), /The connection to the gateway is gone/);
		assert.ok((await ids(page)).length > 0, 'what was known is gone too');
		console.log('say: give the gateway');
		await live(page);
		await until(page, () => document.querySelector('.stale').hidden);
		const up = await text(page, '#store dl');
		await until(page, was => document.querySelector('#store dl').textContent !== was, up);
		await page.done();
	}
};

let failed = 0;
for (const name of Object.keys(cases).filter(n => wanted === 'all' ? n !== 'broken' : n === wanted)) {
	try {
		await cases[name]();
		assert.deepEqual(strange.splice(0), []);
		console.log('pass: ' + name);
	} catch (e) {
		failed++;
		console.log('fail: ' + name + ': ' + String(e.stack || e).replace(/\n/g, '\n  '));
	}
}
await browser.close();
process.exit(failed ? 1 : 0);
