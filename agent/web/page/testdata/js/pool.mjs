// pool names what a script says often: texts, members and the browser's own objects
// are put into constants of few letters. It is what makes the page small without compression.
import { parse } from 'acorn';

export function pool(code) {
	const globals = ['document', 'window', 'location', 'encodeURIComponent', 'clearTimeout', 'setTimeout', 'String', 'Number', 'Math', 'Object'];
	const uses = new Map(), taken = new Set(code.match(/[\w$]+/g));
	const edits = []; // {start, end, to}
	const visit = (node, parent, key) => {
		if (!node || typeof node.type !== 'string') return;
		if (node.type === 'Literal' && typeof node.value === 'string') {
			const isKey = parent.type === 'Property' && key === 'key' && !parent.computed;
			note(node.value, node.start, node.end, isKey ? v => `[${v}]` : v => v);
		}
		if (node.type === 'MemberExpression' && !node.computed) note(node.property.name, code.lastIndexOf('.', node.property.start), node.property.end, v => `[${v}]`);
		if (node.type === 'Identifier' && globals.includes(node.name) && !(key === 'key' || (key === 'property' && !parent.computed))) note(node, node.start, node.end, v => v);
		if (node.type === 'VariableDeclaration' && node.kind === 'const') edits.push({ start: node.start, end: node.start + 5, to: 'let' });
		if (node.type === 'Literal' && node.raw === 'null' || node.type === 'UnaryExpression' && node.operator === 'void') {
			note({ name: code.slice(node.start, node.end) }, node.start, node.end, v => v);
			return;
		}
		for (const k of Object.keys(node)) {
			const child = node[k];
			if (Array.isArray(child)) child.forEach(c => visit(c, node, k));
			else if (child && typeof child === 'object') visit(child, node, k);
		}
	};
	const note = (what, start, end, as) => {
		const text = what.name || JSON.stringify(what);
		if (!uses.has(text)) uses.set(text, []);
		uses.get(text).push({ start, end, as });
	};
	visit(parse(code, { ecmaVersion: 2015 }), null, '');
	let n = 0;
	const next = () => {
		const letters = 'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789';
		let name;
		do { name = '$' + (n >= 62 ? letters[Math.floor(n / 62) - 1] : '') + letters[n % 62]; n++; } while (taken.has(name));
		return name;
	};
	const gain = (text, list) => list.reduce((sum, u) => sum + (u.end - u.start) - u.as('$a').length, 0) - text.length - 4;
	const names = [];
	[...uses].map(([text, list]) => [gain(text, list), text, list]).filter(x => x[0] > 1).sort((a, b) => b[0] - a[0]).forEach(([, text, list]) => {
		const name = next();
		names.push(`${name}=${text}`);
		list.forEach(u => edits.push({ ...u, to: u.as(name) }));
	});
	edits.sort((a, b) => b.start - a.start).forEach(e => {
		const before = /[\w$]/.test(code[e.start - 1] || '') && /^[\w$]/.test(e.to) ? ' ' : '', after = /[\w$]/.test(code[e.end] || '') && /[\w$]$/.test(e.to) ? ' ' : '';
		code = code.slice(0, e.start) + before + e.to + after + code.slice(e.end);
	});
	const [head, rest] = code.split(/^((?:!function\(\)\{|\(function\(\)\{|\(\(\)=>\{|!\(\(\)=>\{)"use strict";)/).slice(1);
	return `${head}let ${names.join(',')};${rest}`;
}
