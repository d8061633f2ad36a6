// Joins the files of ../../src into one page and prints it, after a line with the
// Content-Security-Policy that allows its style and its script and nothing else.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { parse } from 'acorn';
import { minify } from 'terser';

const read = name => readFileSync(new URL('../../src/' + name, import.meta.url), 'utf8');
const files = ['texts.en.js', 'texts.ar.js', 'base.js', 'api.js', 'grid.js', 'chart.js', 'curve.js', 'gateway.js', 'meter.js', 'main.js'];

const source = "(function () {\n'use strict';\n" + files.map(read).join('\n') + '})();\n';
parse(source, { ecmaVersion: 2015 }); // an old phone must understand it
const { code } = await minify(source, { ecma: 2015, compress: { passes: 2 }, mangle: true, format: { inline_script: true, ascii_only: false } });
parse(code, { ecmaVersion: 2015 });

const style = read('page.css').replace(/\/\*[^]*?\*\//g, '').replace(/\s+/g, ' ').replace(/ ?([{};,>]) ?/g, '$1').replace(/: /g, ':').replace(/;}/g, '}').trim();
const html = read('page.html').replace(/>\n\s*/g, '>').replace('/*STYLE*/', () => style).replace('/*SCRIPT*/', () => code);
const hash = text => "'sha256-" + createHash('sha256').update(text).digest('base64') + "'";
process.stdout.write(`default-src 'none'; script-src ${hash(code)}; style-src ${hash(style)}; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\n`);
process.stdout.write(html);
