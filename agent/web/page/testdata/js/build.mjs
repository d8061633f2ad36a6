// Joins the files of ../../src into one page and prints it, after a line with the
// Content-Security-Policy that allows its style and its script and nothing else.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { parse } from 'acorn';
import { minify } from 'terser';
import { pool } from './pool.mjs';

const read = name => readFileSync(new URL('../../src/' + name, import.meta.url), 'utf8');
const hash = text => "'sha256-" + createHash('sha256').update(text).digest('base64') + "'";
const scripts = ['base.js', 'api.js', 'grid.js', 'chart.js', 'curve.js', 'gateway.js', 'meter.js', 'main.js'].map(read).join('\n');
const short = n => (n >= 26 ? short(Math.floor(n / 26) - 1) : '') + String.fromCharCode(97 + n % 26);

// One table for both languages, where a key that the scripts name whole is short.
function texts() {
	const table = (name, what) => new Function(read(name) + 'return ' + what)();
	const en = table('texts.en.js', 'EN'), ar = table('texts.ar.js', 'AR'), conditions = table('texts.ar.js', 'CONDITIONS');
	let code = scripts, n = 0;
	const starts = {}; // of keys that are put together
	const replace = (from, to) => { code = code.split(from).join(to); };
	const rows = new Map(), same = {};
	Object.keys(en).forEach(key => {
		const [start, end] = key.split('.'), said = en[key] + '\n' + ar[key];
		let to = key;
		if (end && code.includes(`'${key}'`)) replace(`'${key}'`, `'${to = same[said] || (same[said] = short(n++))}'`);
		else if (end) {
			if (!starts[start]) replace(`'${start}.' + `, `'${starts[start] = short(n++) + '_'}' + `);
			to = starts[start] + end;
		}
		if (rows.has(to) && same[said] !== to) throw new Error(`${key}: another text has its short key`);
		rows.set(to, [en[key], ar[key]]);
	});
	return 'const TEXTS = ' + JSON.stringify(Object.fromEntries(rows)) + ', CONDITIONS = ' + JSON.stringify(conditions) + ';\n' + code;
}

// Members of our own objects get short names: what is said of `this`, and is
// neither in the API nor quoted anywhere.
function own(code) {
	const words = (text, pattern) => new Set([...text.matchAll(pattern)].map(m => m[1]));
	const api = words(readFileSync(new URL('../../../../../docs/openapi.yaml', import.meta.url), 'utf8'), /([a-z_]+): /g);
	const quoted = words(code, /'(\w+)'/g);
	const members = [...words(code, /\bthis\.(\w+)/g), ...words(code, /^\t(\w+)\(.*\) \{$/gm)];
	const names = [...new Set(members)].filter(w => !api.has(w) && !quoted.has(w));
	if (process.env.SHOW) console.error(names.join(" "));
	return names;
}

// Classes that stand only in h('tag.class') and in the style get short names too,
// but for those that the tests look for.
function classes(code, style) {
	const tests = ['check.mjs', 'pictures.mjs'].map(name => readFileSync(new URL(name, import.meta.url), 'utf8')).join('');
	const all = [...new Set([...style.matchAll(/\.([a-z][a-z-]*)/g)].map(m => m[1]))];
	const word = c => new RegExp(`(?<![\\w-])${c}(?![\\w-])`, 'g');
	const quoted = [...code.matchAll(/(h\()?'([^'\n]*)'/g)];
	let n = 0;
	all.filter(c => c.length > 2 && !tests.includes('.' + c) && quoted.every(([, tag, text]) => !word(c).test(text) || (tag && /^[a-z0-9]+(\.[\w-]+)+$/.test(text) && text.split('.')[0] !== c))).forEach(c => {
		const to = short(n++) + 'z';
		code = code.replace(/h\('[a-z0-9]+(\.[\w-]+)+'/g, text => text.split('.').map((part, i) => i ? part.replace(word(c), to) : part).join('.'));
		style = style.replace(new RegExp(`\\.${c}(?![\\w-])`, 'g'), '.' + to);
	});
	return [code, style];
}

const [joined, styled] = classes(texts(), read('page.css').replace(/\/\*[^]*?\*\//g, ''));
const source = `(function () {\n'use strict';\n${joined}})();\n`;
parse(source, { ecmaVersion: 2015 }); // an old phone must understand it
const { code: minified } = await minify(source, {
	ecma: 2015, compress: { passes: 4, toplevel: true, unsafe: true, unsafe_arrows: true, keep_fargs: false, hoist_props: true },
	mangle: { properties: { regex: new RegExp(`^(${own(joined).join('|')})$`) } }, format: { inline_script: true }
});
const code = pool(minified);
parse(code, { ecmaVersion: 2015 });

let style = styled.replace(/\s+/g, ' ').replace(/ ?([{};,>]) ?/g, '$1').replace(/: /g, ':').replace(/;}/g, '}').replace(/\b0\./g, '.').trim();
[...new Set(style.match(/--[a-z-]+/g))].sort((a, b) => b.length - a.length).forEach((name, n) => { style = style.split(name).join('--' + short(n)); });
const html = read('page.html').replace(/>\n\s*/g, '>').replace('/*STYLE*/', () => style).replace('/*SCRIPT*/', () => code);
process.stdout.write(`default-src 'none'; script-src ${hash(code)}; style-src ${hash(style)}; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\n`);
process.stdout.write(html);
