// A small fog: keeps every row of every gateway once, in readings.jsonl, and tells
// the gateways.
//
// usage: node reader.mjs HOST PORT CA CERTIFICATE KEY
import { existsSync, fsyncSync, openSync, readFileSync, writeSync } from "node:fs";
import mqtt from "mqtt";
import { Batch, Catalogue, Dict, content, decodeRows } from "./decode.mjs"; // of agent/batch/testdata/js

const lanes = ["alarm", "billing", "interval", "instant"];

// A Stream is the numbers of a lane that are settled: stored, or declared lost.
class Stream {
  through = 0;
  above = new Set();

  has = (number) => number <= this.through || this.above.has(number);

  settle(number) {
    if (!this.has(number)) this.above.add(number);
    while (this.above.delete(this.through + 1)) this.through++;
  }
}

const [streams, catalogues, waiting] = [new Map(), new Map(), []];

function stream({ site, gateway, epoch, lane }) {
  const name = [site, gateway, epoch, lane].join("/");
  if (!streams.has(name)) streams.set(name, new Stream());
  return streams.get(name);
}

// value gives the number that a row means, as text with all its digits.
function value({ kind, scale }, { bits, data }) {
  if (kind === 1 || kind === 2) {
    const number = kind === 1 ? BigInt.asIntN(64, bits) : bits;
    const digits = (number < 0n ? -number : number).toString() + "0".repeat(Math.max(scale, 0));
    const places = Math.max(-scale, 0);
    const padded = digits.padStart(places + 1, "0");
    return (number < 0n ? "-" : "") + padded.slice(0, padded.length - places) + (places ? "." + padded.slice(-places) : "");
  }
  const view = new DataView(new ArrayBuffer(8));
  view.setBigUint64(0, bits);
  if (kind === 3) return String(view.getFloat32(4) * 10 ** scale);
  if (kind === 4) return String(view.getFloat64(0) * 10 ** scale);
  return kind === 5 ? bits === 1n : Buffer.from(data).toString("hex") || null;
}

const range = (first, count) => Array.from({ length: count }, (_, i) => first + i);

// take stores a batch. Its PUBACK goes out when this has returned.
function take(payload) {
  const b = Batch.decode(payload);
  if (b.format !== 2) throw new Error(`format ${b.format}: docs/formats.md says more`);
  const dict = catalogues.get(Buffer.from(b.catalogue).toString("hex"));
  if (!dict) return waiting.push(payload);
  const place = { site: b.site, gateway: b.gateway, epoch: BigInt(b.epoch.toString()).toString(16).padStart(16, "0"), lane: lanes[b.lane] };
  const below = `gridgate/1/${b.site}/${b.gateway}/down/`;
  const known = stream(place);
  const numbers = [];
  for (let i = 0, number = 1; i < b.runs.length; i += 2) {
    number += Number(b.runs[i]);
    numbers.push(...range(number, Number(b.runs[i + 1])));
    number += Number(b.runs[i + 1]);
  }
  const fresh = numbers.filter((n) => !known.has(n));
  if (Number(b.since) > 0 && fresh.length > 0) { // a delta: have the rows sent as they are
    client.publish(below + "resend/" + place.lane, JSON.stringify({ epoch: place.epoch, first: fresh[0], last: fresh.at(-1) }), { qos: 1 });
    return;
  }
  const rows = fresh.length > 0 ? decodeRows(b.rows, dict).rows : [];
  let text = "";
  rows.forEach((row, i) => {
    const [meter, channel] = [dict.meters[row.meter], dict.channels[row.channel]];
    if (known.has(numbers[i])) return;
    text += JSON.stringify({ ...place, number: numbers[i], meter: meter.id, serial: Buffer.from(meter.serial).toString("latin1"),
      channel: channel.name, time: Number(row.stamp.time), value: value(channel, row) }) + "\n";
  });
  for (const h of b.holes) {
    const [first, through] = [Number(h.first), Number(h.first) + Number(h.more)];
    text += JSON.stringify({ ...place, number: first, lost_through: through, reason: h.reason }) + "\n";
    numbers.push(...range(first, through - first + 1));
  }
  writeSync(out, text);
  fsyncSync(out); // only now is it stored, and may be confirmed
  numbers.forEach((n) => known.settle(n));
  client.publish(below + "ack/" + place.lane, JSON.stringify({ epoch: place.epoch, sequence: known.through }), { qos: 1, retain: true });
}

const [host, port, ca, cert, key] = process.argv.slice(2);
for (const line of existsSync("readings.jsonl") ? readFileSync("readings.jsonl", "utf8").split("\n") : []) {
  if (!line) continue;
  const row = JSON.parse(line); // what was stored before
  for (const n of range(row.number, (row.lost_through ?? row.number) - row.number + 1)) stream(row).settle(n);
}
const out = openSync("readings.jsonl", "a");
const client = mqtt.connect(`mqtts://${host}:${port}`, {
  clientId: "reader-mjs", clean: false, // the broker keeps what comes while we are away
  ca: readFileSync(ca), cert: readFileSync(cert), key: readFileSync(key),
});
client.handleMessage = ({ topic, payload, retain }, done) => {
  const [site, gateway, , kind, name] = topic.split("/").slice(2);
  if (kind === "ack" && retain) { // what a fog has confirmed no longer comes
    const { epoch, sequence } = JSON.parse(payload);
    const known = stream({ site, gateway, epoch, lane: name });
    known.through = Math.max(known.through, sequence);
    known.settle(known.through);
  }
  if (kind === "readings") take(payload);
  if (kind === "catalog" && payload.length > 0) {
    catalogues.set(name, Dict.decode(content(Catalogue.decode(payload)))); // a real fog keeps them for good
    waiting.splice(0).forEach(take);
  }
  done();
};
client.on("connect", () => client.subscribe(["gridgate/1/+/+/down/ack/+", "gridgate/1/+/+/up/#"], { qos: 1 }, () => console.log("connected")));
