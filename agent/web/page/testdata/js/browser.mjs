// Chromium over the page, for check.mjs and pictures.mjs.
import puppeteer from 'puppeteer-core';

export const browser = await puppeteer.launch({
	executablePath: process.env.CHROMIUM || '/usr/bin/chromium', headless: true, pipe: true, protocolTimeout: 300000, timeout: 180000,
	args: ['--disable-dev-shm-usage', '--disable-gpu', '--force-color-profile=srgb', ...(process.getuid() === 0 ? ['--no-sandbox'] : [])]
});

export const strange = []; // what a page asked of others, or stumbled over

// open gives a page of its own: {hash, token, width, height, lang, theme, motion}.
export async function open(base, { hash = '#/', token = '', width = 1280, height = 900, lang = 'en', theme = 'light', scale = 1 } = {}) {
	const context = await browser.createBrowserContext();
	const page = await context.newPage();
	page.setDefaultTimeout(120000);
	page.asked = [];
	page.on('request', r => {
		if (r.url().startsWith('data:')) return;
		page.asked.push(r.url().replace(base, ''));
		if (!r.url().startsWith(base)) strange.push('asked for ' + r.url());
	});
	page.on('pageerror', e => strange.push('threw ' + (e.stack || e)));
	page.on('console', m => { if (/Content Security Policy/.test(m.text())) strange.push(m.text()); });
	await page.setViewport({ width, height, deviceScaleFactor: scale });
	await page.evaluateOnNewDocument((token, lang, theme) => {
		if (token) sessionStorage.setItem('gridgate.token', token);
		localStorage.setItem('gridgate.lang', lang);
		localStorage.setItem('gridgate.theme', theme);
	}, token, lang, theme);
	await page.goto(base + hash, { waitUntil: 'load' });
	page.done = () => context.close();
	return page;
}

export const live = page => page.waitForSelector('[data-conn=live]');
export const text = (page, selector) => page.$eval(selector, e => e.textContent);
// until waits until something is true in the page.
export const until = (page, what, ...args) => page.waitForFunction(what, { polling: 50 }, ...args);
