// Decodes gridgate batches. protobufjs makes the messages of batch.proto; the
// rest is docs/formats.md in its order.
//
// usage: decode.mjs CATALOGUE BATCH...      prints a JSON object a row
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { inflateRawSync } from "node:zlib";
import protobuf from "protobufjs";

// Beside this file, where a fog keeps its copies, or in its place in the sources.
const schema = ["batch.proto", "../../batch.proto"].map((p) => new URL(p, import.meta.url).pathname).find(existsSync);
const proto = protobuf.loadSync(schema);
const lookup = (name) => proto.lookupType("gridgate.v1." + name);
export const [Batch, Columns, Catalogue, Dict] = ["Batch", "Columns", "Catalogue", "Dict"].map(lookup);

const big = (v) => BigInt(v.toString()); // of a number or a Long
const signed = (v) => BigInt.asIntN(64, v);
export const content = (m) => (m.deflated.length ? inflateRawSync(m.deflated) : m.plain);
const weights = Array.from({ length: 127 }, (_, i) => Math.floor(65536 / (i + 2)));

// crc32 is that of IEEE 802.3, as in zlib.
function crc32(bytes) {
  let crc = -1;
  for (const byte of bytes) {
    crc ^= byte;
    for (let k = 0; k < 8; k++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

// runs gives a column of runs over n rows or stamps.
function runs(pairs, n) {
  if (pairs.length === 0) return Array(n).fill(0);
  const out = [];
  for (let i = 0; i < pairs.length; i += 2) {
    for (let k = 0; k < pairs[i]; k++) out.push(pairs[i + 1]);
  }
  return out;
}

// A Model is the odds of numbers that are alike: zeros so far in 1/65536, and
// how many bits there were.
class Model {
  constructor() {
    for (const name of ["lengths", "signs", "tops"]) {
      this[name] = Array.from({ length: 64 }, () => ({ zero: 32768, seen: 0 }));
    }
  }
}

class Numbers {
  constructor(coded, bits) {
    Object.assign(this, { coded, bits, at: 0, bitAt: 0, size: 0xffffffff, code: 0 });
    for (let i = 0; i < 4; i++) this.shift();
  }

  shift() {
    this.code = this.code * 256 + (this.coded[this.at++] ?? 0);
  }

  bit(odds) {
    const split = (this.size >>> 12) * ((odds.zero >> 4) | 1);
    const weight = weights[odds.seen];
    let bit = 0;
    if (this.code < split) {
      this.size = split;
      odds.zero += Math.floor(((65536 - odds.zero) * weight) / 65536);
    } else {
      bit = 1;
      this.size -= split;
      this.code -= split;
      odds.zero -= Math.floor((odds.zero * weight) / 65536);
    }
    odds.seen = Math.min(odds.seen + 1, 126);
    while (this.size < 2 ** 24) {
      this.size *= 256;
      this.shift();
    }
    return bit;
  }

  low(n) {
    let value = 0n;
    for (let i = 0n; i < n; i++, this.bitAt++) {
      value |= BigInt((this.bits[this.bitAt >> 3] >> (this.bitAt & 7)) & 1) << i;
    }
    return value;
  }

  number(model) {
    let node = 1;
    while (node < 64) node = (node << 1) | this.bit(model.lengths[node]);
    const length = node - 64;
    if (length === 0) return 0n;
    if (length === 63) return signed(this.low(64n));
    const negative = this.bit(model.signs[length]);
    let magnitude = 1n;
    if (length > 1) {
      const top = BigInt(this.bit(model.tops[length]));
      magnitude = ((2n | top) << BigInt(length - 2)) | this.low(BigInt(length - 2));
    }
    return negative ? -magnitude : magnitude;
  }

  numbers(n) {
    const model = new Model();
    return Array.from({ length: n }, () => this.number(model));
  }
}

// stamps gives times and monos of stamps, from what they differ by.
function stamps(times, monos, meters, sources) {
  let [start, step, time, mono] = [0n, 0n, 0n, 0n];
  return meters.map((meter, i) => {
    const before = time;
    if (i > 0 && meter === meters[i - 1]) {
      time = signed(before + step + times[i]);
      step = signed(time - before);
    } else {
      time = start = signed(start + times[i]);
    }
    if (i > 0 && sources[i] === 0) mono += time - before;
    mono = signed(mono + monos[i]);
    return { time, mono };
  });
}

const view = new DataView(new ArrayBuffer(8));

function floatBits(kind, number, places) {
  const f = Number(number) / 10 ** (places - 1);
  if (kind === 3) {
    view.setFloat32(0, f);
    return BigInt(view.getUint32(0));
  }
  view.setFloat64(0, f);
  return view.getBigUint64(0);
}

// numberOf gives the number of a value that another body had, if it has one.
function numberOf(kind, bits, places) {
  if (!places) return signed(bits);
  if (kind === 3) view.setUint32(0, Number(bits));
  else view.setBigUint64(0, bits);
  const f = kind === 3 ? view.getFloat32(0) : view.getFloat64(0);
  const n = Math.floor(f * 10 ** (places - 1) + 0.5);
  return Math.abs(n) < 2 ** 53 ? BigInt(n) : undefined;
}

const part = (group, number) => signed(number * group.share) >> 6n;
const key = (channel, meter) => channel * 65536 + meter;

// seed gives the last numbers that a series had in the base, newest first, up
// to two.
function seed(base, group, other, meter) {
  const out = [];
  const beside = other && (base.get(key(other.channel, meter)) ?? []);
  for (const [i, bits] of (base.get(key(group.channel, meter)) ?? []).entries()) {
    let n = numberOf(group.kind, bits, group.places);
    if (other) {
      const a = i < beside.length ? numberOf(other.kind, beside[i], other.places) : undefined;
      n = n === undefined || a === undefined ? undefined : signed(n - part(group, a));
    }
    if (n === undefined) break;
    out.push(n);
  }
  return out;
}

// decodeRows gives the rows of a body, and the check of what was taken from base.
export function decodeRows(body, dict, base = new Map()) {
  const reader = new Numbers(body.coded, body.bits);
  const c = Columns.decode(content(body));
  const n = c.rows;

  // In the order of the rows.
  const meterOf = [];
  let meter = 0;
  c.meterCounts.forEach((count, i) => {
    meter += c.meterSteps[i];
    for (let k = 0; k < count; k++) meterOf.push(meter);
  });
  const channelOf = [];
  const after = new Map();
  const add = (channel) => {
    if (channelOf.length) after.set(channelOf.at(-1), channel);
    channelOf.push(channel);
  };
  let steps = 0;
  for (const foretold of c.channelCounts) {
    for (let k = 0; k < foretold; k++) add(after.get(channelOf.at(-1)));
    if (channelOf.length < n) add((channelOf.at(-1) ?? 0) + c.channelSteps[steps++]);
  }
  const count = c.stampCounts.length;
  let at = 0;
  const firsts = c.stampCounts.map((k) => meterOf[(at += k) - k]);
  const sources = runs(c.sources, count);
  const times = reader.numbers(count);
  const monos = reader.numbers(count);
  const [boots, bounds] = [runs(c.boots, count), runs(c.bounds, count)];
  const stampOf = stamps(times, monos, firsts, sources).flatMap((s, i) =>
    Array(c.stampCounts[i]).fill({ ...s, boot: boots[i], bound: bounds[i], source: sources[i] }));

  // In column order.
  const order = Array.from({ length: n }, (_, i) => i);
  order.sort((a, b) => channelOf[a] - channelOf[b] || meterOf[a] - meterOf[b] || a - b);
  const dataLengths = runs(c.dataLengths, n).map(Number);
  const [qualities, periods, occurrences, statuses, hasStatuses] =
    [c.qualities, c.periods, c.occurrences, c.statuses, c.hasStatuses].map((pairs) => runs(pairs, n));
  const out = Array(n);
  const groups = [];
  const checked = [];
  let [group, other, model, series, seen, last, step, data] = [];
  data = 0;
  order.forEach((i, place) => {
    const before = order[place - 1];
    if (place === 0 || channelOf[i] !== channelOf[before]) {
      const g = groups.length;
      group = {
        channel: channelOf[i], kind: dict.channels[channelOf[i]].kind, places: c.decimals[g] ?? 0, how: c.orders[g] ?? 0,
        base: big(c.bases[g] ?? 0), share: big(c.shares[g] ?? 0), numbers: new Map(),
      };
      other = c.besides[g] ? groups[g - c.besides[g]] : undefined;
      groups.push(group);
      model = new Model();
    }
    if (group.numbers.size === 0 || meterOf[i] !== meterOf[before]) {
      group.numbers.set(meterOf[i], (series = []));
      const had = seed(base, group, other, meterOf[i]);
      seen = had.length;
      last = had[0] ?? 0n;
      step = seen > 1 ? had[0] - had[1] : 0n;
      const past = base.get(key(group.channel, meterOf[i]));
      if (past) checked.push(past[0], past[1] ?? 0n);
    }
    let foretold = last;
    if (seen === 0 || group.how === 2) foretold = group.base;
    else if (group.how === 1 && seen >= 2) foretold = last + step;
    const left = signed(foretold + reader.number(model));
    [last, step, seen] = [left, left - last, seen + 1];
    const beside = other?.numbers.get(meterOf[i])?.[series.length];
    const number = beside === undefined ? left : signed(left + part(group, beside));
    series.push(number);
    out[i] = {
      meter: meterOf[i], channel: channelOf[i], stamp: stampOf[i],
      bits: group.places ? floatBits(group.kind, number, group.places) : BigInt.asUintN(64, number),
      data: c.data.slice(data, (data += dataLengths[place])),
      quality: qualities[place], period: periods[place], occurrence: occurrences[place],
      status: hasStatuses[place] ? big(statuses[place]) : null,
    };
  });
  const bytes = Buffer.alloc(8 * checked.length);
  checked.forEach((bits, i) => bytes.writeBigUInt64LE(bits, 8 * i));
  return { rows: out, check: crc32(bytes) };
}

// past is what batches in delta mode may be against: all rows that were decoded,
// by stream and number; null is a hole. A fog would look them up where it stores
// them.
const past = new Map();

function baseOf(stream, since, through) {
  const base = new Map();
  for (let n = since; n <= through; n++) {
    const row = past.get(stream + n);
    if (row === undefined) return undefined;
    if (row) {
      const k = key(row.channel, row.meter);
      base.set(k, [row.bits, ...(base.get(k) ?? []).slice(0, 1)]);
    }
  }
  return base;
}

function decodeBatch(raw, hash, dict, print) {
  const b = Batch.decode(raw);
  if (b.format !== 2) throw new Error(`format ${b.format}, this program reads 2`);
  if (!hash.equals(b.catalogue)) throw new Error(`needs the catalogue ${Buffer.from(b.catalogue).toString("hex")}`);
  const stream = [b.site, b.gateway, b.epoch, b.lane, ""].join("/");
  let base;
  if (big(b.since) > 0n) {
    base = baseOf(stream, big(b.since), big(b.through));
    if (!base) throw new Error(`a delta against the rows ${b.since} to ${b.through}, which are not all known`);
  }
  const { rows, check } = b.rows ? decodeRows(b.rows, dict, base) : { rows: [], check: 0 };
  if (base && check !== b.check) throw new Error("a delta against other rows");
  let number = 1n;
  let at = 0;
  for (let i = 0; i < b.runs.length; i += 2) {
    number += big(b.runs[i]);
    for (let k = big(b.runs[i + 1]); k > 0n; k--, number++, at++) {
      past.set(stream + number, rows[at]);
      print(number, rows[at]);
    }
  }
  for (const hole of b.holes) {
    for (let k = 0n; k <= big(hole.more); k++) past.set(stream + (big(hole.first) + k), null);
  }
}

function main(catalogueFile, ...batchFiles) {
  const raw = readFileSync(catalogueFile);
  const hash = createHash("sha256").update(raw).digest().subarray(0, 8);
  const dict = Dict.decode(content(Catalogue.decode(raw)));

  for (const file of batchFiles) {
    decodeBatch(readFileSync(file), hash, dict, (sequence, r) => {
      const meter = dict.meters[r.meter];
      const channel = dict.channels[r.channel];
      const quoted = (s) => JSON.stringify(s);
      console.log(`{"sequence":${sequence},"meter":${quoted(meter.id)},"serial":${quoted(Buffer.from(meter.serial).toString("latin1"))}` +
        `,"channel":${quoted(channel.name)},"kind":${channel.kind},"scale":${channel.scale},"unit":${channel.unit}` +
        `,"bits":${r.bits},"data":"${Buffer.from(r.data).toString("hex")}","time":${r.stamp.time},"mono":${r.stamp.mono}` +
        `,"boot":${r.stamp.boot},"bound":${r.stamp.bound},"source":${r.stamp.source}` +
        `,"quality":${r.quality},"period":${r.period},"occurrence":${r.occurrence},"status":${r.status}}`);
    });
  }
}

if (process.argv[1] === new URL(import.meta.url).pathname) main(...process.argv.slice(2));
