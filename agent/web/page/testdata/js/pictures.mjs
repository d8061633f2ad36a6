// Draws the pictures of the docs: node pictures.mjs BASE TECHNICIAN CONSUMER FOLDER
import { browser, live, open, until } from './browser.mjs';

const [base, technician, consumer, folder] = process.argv.slice(2);
const settled = async page => {
	await live(page);
	await page.evaluate(() => new Promise(done => setTimeout(done, 2500)));
	await page.evaluate(() => { document.activeElement.blur(); window.scrollTo(0, 0); });
};
async function picture(name, options, ready) {
	const page = await open(base, { token: technician, ...options });
	await settled(page);
	if (ready) await ready(page);
	await settled(page);
	const shot = await page.screenshot({ path: name ? `${folder}/${name}.png` : undefined, encoding: name ? 'binary' : 'base64' });
	await page.done();
	return shot;
}
const curve = (page, like) => async () => {
	await until(page, l => [...document.querySelectorAll('#curve-channel option')].some(o => o.textContent.includes(l)), like);
	const value = await page.$$eval('#curve-channel option', (all, l) => all.find(o => o.textContent.includes(l)).value, like);
	await page.select('#curve-channel', value);
	await page.waitForSelector('#curve svg .step');
};

// All meters were visited, and the load profiles are there.
const first = await open(base, { token: technician });
await live(first);
await until(first, () => !document.querySelector('.chip[data-state=waiting]') && /^\d/.test(document.querySelector('#uplink dd').textContent) && document.querySelector('#uplink dd').textContent.length > 4);
await first.done();

await picture('page-overview', { width: 1280, height: 800 });
await picture('page-meter', { hash: '#/meter/house-03', width: 1280, height: 800, theme: 'dark' }, page => curve(page, '1.8.0')());
await picture('page-arabic', { width: 1280, height: 800, lang: 'ar' });
const phone = { width: 360, height: 640, scale: 1.5 };
const three = [
	await picture('', phone), await picture('', { ...phone, hash: '#/meter/house-05', theme: 'dark' }, page => curve(page, '1.8.0')()),
	await picture('', { ...phone, token: consumer, lang: 'ar' }, page => curve(page, '1.8.0')())
];
const side = await browser.newPage();
await side.setViewport({ width: 3 * 360 + 2 * 24, height: 640, deviceScaleFactor: 1 });
await side.setContent('<body style="margin:0;display:flex;gap:24px;background:#e4e7e0">' + three.map(b => `<img width=360 height=640 src="data:image/png;base64,${b}">`).join(''));
await side.evaluate(() => Promise.all([...document.images].map(i => i.decode())));
await side.screenshot({ path: `${folder}/page-phone.png` });
await browser.close();
