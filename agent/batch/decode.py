#!/usr/bin/env python3
"""Decode gridgate batches with the Python standard library only.

usage: decode.py CATALOGUE BATCH...      prints a JSON object a row

It is short on purpose: what docs/formats.md says, in the order it says it.
A program that uses batch.proto has the first two functions from its library.
"""
import hashlib
import json
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


class Bits:
    """The bits of a body, taken from the lowest bit of the first byte on."""

    def __init__(self, b):
        self.bits, self.at = int.from_bytes(b, "little"), 0

    def number(self, length):
        if length == 0:
            return 0
        low = self.bits >> self.at & ((1 << (length - 1)) - 1)
        self.at += length - 1
        return unzigzag(1 << (length - 1) | low)

    def numbers(self, lengths):
        return [self.number(length) for length in lengths]


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


def rows(body, meters, channels):
    m = message(body)
    bits = Bits(m.get(4, [b""])[0])
    columns = message(content(m))
    n = columns[1][0]

    def column(num):
        return columns.get(num, [b""])[0]

    # In the order of the rows.
    meter_of, meter = [], 0
    for count, step in zip(varints(column(2)), varints(column(3))):
        meter += unzigzag(step)
        meter_of += [meter] * count
    channel_of, channel = [], 0
    for step in varints(column(4)):
        channel += unzigzag(step)
        channel_of.append(channel)
    counts = varints(column(5))
    firsts = [sum(counts[:i]) for i in range(len(counts))]
    sources = runs(column(10), len(counts))
    times, monos = bits.numbers(column(6)), bits.numbers(column(7))
    boots, bounds = runs(column(8), len(counts)), runs(column(9), len(counts))
    stamp_of = []
    for i, (time, mono) in enumerate(stamps(times, monos, [meter_of[at] for at in firsts], sources)):
        stamp_of += [(time, mono, boots[i], bounds[i], sources[i])] * counts[i]

    # In column order.
    order = sorted(range(n), key=lambda i: (channel_of[i], meter_of[i], i))
    differences = bits.numbers(column(14))
    lengths = runs(column(15), n)
    rest = [runs(column(num), n) for num in (17, 19, 20, 21, 22)]
    orders, decimals, bases = column(11), column(12), varints(column(13))
    out, data, group = [None] * n, 0, -1
    for at, i in enumerate(order):
        if at == 0 or channel_of[i] != channel_of[order[at - 1]]:
            group += 1
            how = orders[group] if orders else 0
            places = decimals[group] if decimals else 0
            base = unzigzag(bases[group]) if bases else 0
            seen = 0
        elif meter_of[i] != meter_of[order[at - 1]]:
            seen = 0
        if seen == 0 or how == 2:
            foretold = base
        elif how == 1 and seen >= 2:
            foretold = last + step
        else:
            foretold = last
        number = signed(foretold + differences[at])
        step = number - last if seen else 0
        last, seen = number, seen + 1
        bits64 = number & ((1 << 64) - 1)
        kind = channels[channel_of[i]][1]
        if places and kind == 3:
            bits64 = struct.unpack("<I", struct.pack("<f", number / 10 ** (places - 1)))[0]
        elif places and kind == 4:
            bits64 = struct.unpack("<Q", struct.pack("<d", number / 10 ** (places - 1)))[0]
        text = column(16)[data:data + lengths[at]]
        data += lengths[at]
        out[i] = (meter_of[i], channel_of[i], stamp_of[i], bits64, text) + tuple(c[at] for c in rest)
    return out


def main(catalogue_file, *batch_files):
    with open(catalogue_file, "rb") as f:
        raw = f.read()
    meters, channels = catalogue(raw)
    for name in batch_files:
        with open(name, "rb") as f:
            b = message(f.read())
        if b[1][0] > 1:
            raise SystemExit("format %d is newer than this program reads" % b[1][0])
        if b[6][0] != hashlib.sha256(raw).digest()[:8]:
            raise SystemExit("%s needs the catalogue %s" % (name, b[6][0].hex()))
        numbers, number = [], 1
        pairs = varints(b.get(7, [b""])[0])
        for gap, count in zip(pairs[::2], pairs[1::2]):
            numbers += range(number + gap, number + gap + count)
            number += gap + count
        if 9 not in b:
            continue
        for sequence, row in zip(numbers, rows(b[9][0], meters, channels)):
            meter, channel, (time, mono, boot, bound, source), bits64, text = row[:5]
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
