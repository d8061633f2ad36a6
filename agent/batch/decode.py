#!/usr/bin/env python3
"""Decode gridgate batches with the Python standard library only.

usage: decode.py CATALOGUE BATCH...      prints a JSON object a row

It is short on purpose: what docs/formats.md says, in the order it says it.
A program that uses batch.proto has the first two functions from its library.
"""
import hashlib
import json
import math
import struct
import sys
import zlib


def varints(b):
    """The varints of a packed column."""
    out, value, shift = [], 0, 0
    for byte in b:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            out.append(value)
            value, shift = 0, 0
    return out


def message(b):
    """The fields of a message: {number: [values]}."""
    fields, at = {}, 0

    def varint():
        nonlocal at
        value, shift = 0, 0
        while True:
            byte = b[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(b):
        tag = varint()
        if tag & 7 == 0:
            value = varint()
        elif tag & 7 == 1:
            value, at = struct.unpack_from("<Q", b, at)[0], at + 8
        elif tag & 7 == 2:
            size = varint()
            value, at = b[at:at + size], at + size
        else:
            raise ValueError("wire type %d" % (tag & 7))
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def unzigzag(z):
    return z >> 1 if z & 1 == 0 else -(z >> 1) - 1


def signed(v):
    """v modulo 2^64, as a signed number."""
    v &= (1 << 64) - 1
    return v - (1 << 64) if v >> 63 else v


def content(m):
    """What a Body or a Catalogue holds, inflated if need be."""
    if 3 in m:
        return zlib.decompress(m[3][0], -15)
    return m[1][0]


def catalogue(b):
    dictionary = message(content(message(b)))
    meters = []
    for raw in dictionary.get(1, []):
        m = message(raw)
        meters.append((m.get(1, [b""])[0].decode(), m.get(2, [b""])[0].decode("latin-1")))
    channels = []
    for raw in dictionary.get(2, []):
        m = message(raw)
        channels.append((m.get(1, [b""])[0].decode(), m.get(2, [0])[0], unzigzag(m.get(3, [0])[0]), m.get(4, [0])[0]))
    return meters, channels


def runs(b, n):
    """A column of runs, over n rows or stamps."""
    pairs = varints(b)
    out = []
    for count, value in zip(pairs[::2], pairs[1::2]):
        out += [value] * count
    return out or [0] * n


WEIGHTS = [65536 // (i + 2) for i in range(127)]


class Odds:
    """The share of zeros among bits so far, in 1/65536, and how many there were."""

    __slots__ = ("zero", "seen")

    def __init__(self):
        self.zero, self.seen = 32768, 0


class Model:
    """The odds of numbers that are alike."""

    def __init__(self):
        self.lengths = [Odds() for _ in range(64)]
        self.signs = [Odds() for _ in range(64)]
        self.tops = [Odds() for _ in range(64)]


class Numbers:
    """The numbers of a body: what is coded by odds, and the bits below."""

    def __init__(self, coded, bits):
        self.coded, self.at = coded + bytes(4), 4
        self.size, self.code = 0xFFFFFFFF, int.from_bytes(self.coded[:4], "big")
        self.bits, self.bit_at = int.from_bytes(bits, "little"), 0

    def bit(self, odds):
        split = (self.size >> 12) * (odds.zero >> 4 | 1)
        weight = WEIGHTS[odds.seen]
        if self.code < split:
            bit, self.size = 0, split
            odds.zero += (65536 - odds.zero) * weight >> 16
        else:
            bit, self.size, self.code = 1, self.size - split, self.code - split
            odds.zero -= odds.zero * weight >> 16
        odds.seen = min(odds.seen + 1, 126)
        while self.size < 1 << 24:
            self.size <<= 8
            self.code = self.code << 8 | self.coded[self.at]
            self.at += 1
        return bit

    def low(self, n):
        value = self.bits >> self.bit_at & ((1 << n) - 1)
        self.bit_at += n
        return value

    def number(self, model):
        node = 1
        while node < 64:
            node = node << 1 | self.bit(model.lengths[node])
        length = node - 64
        if length == 0:
            return 0
        if length == 63:
            return signed(self.low(64))
        negative, magnitude = self.bit(model.signs[length]), 1
        if length > 1:
            top = self.bit(model.tops[length])
            magnitude = (2 | top) << (length - 2) | self.low(length - 2)
        return -magnitude if negative else magnitude

    def numbers(self, n):
        model = Model()
        return [self.number(model) for _ in range(n)]


def stamps(times, monos, meters, sources):
    """Times and monos of stamps, from what they differ by."""
    out = []
    start = step = time = mono = 0
    for i, meter in enumerate(meters):
        before = time
        if i > 0 and meter == meters[i - 1]:
            time = signed(before + step + times[i])
            step = signed(time - before)
        else:
            time = start = signed(start + times[i])
        if i > 0 and sources[i] == 0:
            mono += time - before
        mono = signed(mono + monos[i])
        out.append((time, mono))
    return out


def float_bits(kind, number, places):
    if kind == 3:
        return struct.unpack("<I", struct.pack("<f", number / 10 ** (places - 1)))[0]
    return struct.unpack("<Q", struct.pack("<d", number / 10 ** (places - 1)))[0]


def number_of(kind, bits64, places):
    """The number of a value that another body had; None if it has none."""
    if not places:
        return signed(bits64)
    f = struct.unpack("<f", struct.pack("<I", bits64))[0] if kind == 3 else struct.unpack("<d", struct.pack("<Q", bits64))[0]
    n = f * 10.0 ** (places - 1) + 0.5
    return math.floor(n) if abs(n) < 1 << 54 and abs(math.floor(n)) < 1 << 53 else None


class Group:
    """The rows of one channel, in column order."""

    def __init__(self, channel, kind, places, beside, share):
        self.channel, self.kind, self.places, self.beside, self.share = channel, kind, places, beside, share
        self.numbers = {}  # by meter

    def part(self, number):
        return signed(signed(number * self.share) >> 6)


def seed(base, group, other, meter):
    """The last numbers that a series had in the base, newest first, up to two."""
    had = base.get((group.channel, meter), [])
    beside = base.get((other.channel, meter), []) if other else None
    out = []
    for i, bits64 in enumerate(had):
        n = number_of(group.kind, bits64, group.places)
        if other:
            a = number_of(other.kind, beside[i], other.places) if i < len(beside) else None
            n = None if n is None or a is None else signed(n - group.part(a))
        if n is None:
            break
        out.append(n)
    return out


def rows(body, meters, channels, base=None):
    """The rows of a body, and the check of what was taken from base: by channel
    and meter the bits of the last values, newest first, up to two."""
    m = message(body)
    reader = Numbers(m.get(6, [b""])[0], m.get(4, [b""])[0])
    columns = message(content(m))
    n = columns.get(1, [0])[0]

    def column(num):
        return columns.get(num, [b""])[0]

    # In the order of the rows.
    meter_of, meter = [], 0
    for count, step in zip(varints(column(2)), varints(column(3))):
        meter += unzigzag(step)
        meter_of += [meter] * count
    channel_of, after = [], {}

    def add(channel):
        if channel_of:
            after[channel_of[-1]] = channel
        channel_of.append(channel)

    steps = iter(varints(column(4)))
    for foretold in varints(column(25)):
        for _ in range(foretold):
            add(after[channel_of[-1]])
        if len(channel_of) < n:
            add((channel_of[-1] if channel_of else 0) + unzigzag(next(steps)))
    counts = varints(column(5))
    firsts = [sum(counts[:i]) for i in range(len(counts))]
    sources = runs(column(10), len(counts))
    times, monos = reader.numbers(len(counts)), reader.numbers(len(counts))
    boots, bounds = runs(column(8), len(counts)), runs(column(9), len(counts))
    stamp_of = []
    for i, (time, mono) in enumerate(stamps(times, monos, [meter_of[at] for at in firsts], sources)):
        stamp_of += [(time, mono, boots[i], bounds[i], sources[i])] * counts[i]

    # In column order.
    order = sorted(range(n), key=lambda i: (channel_of[i], meter_of[i], i))
    lengths = runs(column(15), n)
    rest = [runs(column(num), n) for num in (17, 19, 20, 21, 22)]
    orders, decimals, bases = column(11), column(12), [unzigzag(z) for z in varints(column(13))]
    besides, shares = column(23), [unzigzag(z) for z in varints(column(24))]
    out, data, groups, check = [None] * n, 0, [], b""
    for at, i in enumerate(order):
        before = order[at - 1]
        if at == 0 or channel_of[i] != channel_of[before]:
            g = len(groups)
            how, first = orders[g] if orders else 0, bases[g] if bases else 0
            group = Group(channel_of[i], channels[channel_of[i]][1], decimals[g] if decimals else 0,
                          besides[g] if besides else 0, shares[g] if shares else 0)
            groups.append(group)
            other = groups[g - group.beside] if group.beside else None
            model = Model()
        if not group.numbers or meter_of[i] != meter_of[before]:
            series = group.numbers[meter_of[i]] = []
            had = seed(base or {}, group, other, meter_of[i])
            seen = len(had)
            last, step = (had[0] if seen else 0), (had[0] - had[1] if seen > 1 else 0)
            if base and (group.channel, meter_of[i]) in base:
                check += struct.pack("<QQ", *(base[group.channel, meter_of[i]] + [0])[:2])
        if seen == 0 or how == 2:
            foretold = first
        elif how == 1 and seen >= 2:
            foretold = last + step
        else:
            foretold = last
        left = signed(foretold + reader.number(model))
        last, step, seen = left, left - last, seen + 1
        beside = other.numbers.get(meter_of[i], []) if other else []
        number = signed(left + group.part(beside[len(series)])) if len(beside) > len(series) else left
        series.append(number)
        bits64 = float_bits(group.kind, number, group.places) if group.places else number & ((1 << 64) - 1)
        text = column(16)[data:data + lengths[at]]
        data += lengths[at]
        out[i] = (meter_of[i], channel_of[i], stamp_of[i], bits64, text) + tuple(c[at] for c in rest)
    return out, zlib.crc32(check)


class Past:
    """The rows that batches in delta mode may be against: all that were decoded.
    A fog would look them up where it stores them."""

    def __init__(self):
        self.bits, self.known = {}, set()

    def learn(self, lane, number, series, bits64):
        self.bits[lane, number] = (series, bits64)

    def base(self, lane, since, through):
        """The last values by series among the rows since to through; None when
        one of them is not known."""
        out = {}
        for number in range(since, through + 1):
            if (lane, number) not in self.known:
                return None
            if (lane, number) in self.bits:
                series, bits64 = self.bits[lane, number]
                out[series] = [bits64] + out.get(series, [])[:1]
        return out


def main(catalogue_file, *batch_files):
    with open(catalogue_file, "rb") as f:
        raw = f.read()
    meters, channels = catalogue(raw)
    past = Past()
    for name in batch_files:
        with open(name, "rb") as f:
            b = message(f.read())
        if b[1][0] != 2:
            raise SystemExit("%s is of format %d, this program reads 2" % (name, b[1][0]))
        if b[6][0] != hashlib.sha256(raw).digest()[:8]:
            raise SystemExit("%s needs the catalogue %s" % (name, b[6][0].hex()))
        lane = (b[2][0], b[3][0], b[4][0], b.get(5, [0])[0])
        numbers, number = [], 1
        pairs = varints(b.get(7, [b""])[0])
        for gap, count in zip(pairs[::2], pairs[1::2]):
            numbers += range(number + gap, number + gap + count)
            number += gap + count
        base = None
        if 10 in b:
            base = past.base(lane, b[10][0], b[11][0])
            if base is None:
                raise SystemExit("%s is a delta against the rows %d to %d, which are not all known" % (name, b[10][0], b[11][0]))
        decoded, check = rows(b[9][0], meters, channels, base) if 9 in b else ([], 0)
        if base is not None and check != b.get(12, [0])[0]:
            raise SystemExit("%s is a delta against other rows" % name)
        past.known.update((lane, number) for number in numbers)
        for hole in map(message, b.get(8, [])):
            past.known.update((lane, hole[1][0] + i) for i in range(hole.get(2, [0])[0] + 1))
        for sequence, row in zip(numbers, decoded):
            meter, channel, (time, mono, boot, bound, source), bits64, text = row[:5]
            past.learn(lane, sequence, (channel, meter), bits64)
            name, kind, scale, unit = channels[channel]
            print(json.dumps({
                "sequence": sequence, "meter": meters[meter][0], "serial": meters[meter][1], "channel": name,
                "kind": kind, "scale": scale, "unit": unit, "bits": bits64, "data": text.hex(),
                "time": time, "mono": mono, "boot": boot, "bound": bound, "source": source,
                "quality": row[5], "period": row[6], "occurrence": row[7],
                "status": row[8] if row[9] else None,
            }))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
