// Joins the files of ../../src into one page and prints it, after a line with the
// Content-Security-Policy that allows its style and its script and nothing else.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { parse } from 'acorn';
import { minify } from 'terser';

const read = name => readFileSync(new URL('../../src/' + name, import.meta.url), 'utf8');
const hash = text => "'sha256-" + createHash('sha256').update(text).digest('base64') + "'";
const scripts = ['base.js', 'api.js', 'grid.js', 'chart.js', 'curve.js', 'gateway.js', 'meter.js', 'main.js'].map(read).join('\n');
const short = n => (n >= 26 ? short(Math.floor(n / 26) - 1) : '') + String.fromCharCode(97 + n % 26);

// One table for both languages, where a key that the scripts name whole is short.
function texts() {
	const table = (name, what) => new Function(read(name) + 'return ' + what)();
	const en = table('texts.en.js', 'EN'), ar = table('texts.ar.js', 'AR'), conditions = table('texts.ar.js', 'CONDITIONS');
	let code = scripts, n = 0;
	const rows = Object.keys(en).map(key => {
		const named = code.split(`'${key}'`).length - 1;
		const to = key.includes('.') && named ? short(n++) : key;
		if (to !== key) code = code.split(`'${key}'`).join(`'${to}'`);
		return [to, [en[key], ar[key]]];
	});
	return { code: 'const TEXTS = ' + JSON.stringify(Object.fromEntries(rows)) + ', CONDITIONS = ' + JSON.stringify(conditions) + ';\n' + code, keys: rows.map(r => r[0]) };
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

const { code: joined, keys } = texts();
if (new Set(keys).size !== keys.length) throw new Error('two texts have one key');
const source = `(function () {\n'use strict';\n${joined}})();\n`;
parse(source, { ecmaVersion: 2015 }); // an old phone must understand it
const { code } = await minify(source, {
	ecma: 2015, compress: { passes: 4, toplevel: true, unsafe: true, unsafe_arrows: true, keep_fargs: false, hoist_props: true },
	mangle: { properties: { regex: new RegExp(`^(${own(joined).join('|')})$`) } }, format: { inline_script: true }
});
parse(code, { ecmaVersion: 2015 });

let style = read('page.css').replace(/\/\*[^]*?\*\//g, '').replace(/\s+/g, ' ').replace(/ ?([{};,>]) ?/g, '$1').replace(/: /g, ':').replace(/;}/g, '}').replace(/\b0\./g, '.').trim();
[...new Set(style.match(/--[a-z-]+/g))].sort((a, b) => b.length - a.length).forEach((name, n) => { style = style.split(name).join('--' + short(n)); });
const html = read('page.html').replace(/>\n\s*/g, '>').replace('/*STYLE*/', () => style).replace('/*SCRIPT*/', () => code);
process.stdout.write(`default-src 'none'; script-src ${hash(code)}; style-src ${hash(style)}; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\n`);
process.stdout.write(html);
