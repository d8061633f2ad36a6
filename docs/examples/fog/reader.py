#!/usr/bin/env python3
"""A small fog: keeps every row of every gateway once, in readings.jsonl, and
tells the gateways.

usage: reader.py HOST PORT CA CERTIFICATE KEY
"""
import json
import os
import struct
import sys
from decimal import Decimal

import paho.mqtt.client as mqtt

import decode                # agent/batch/decode.py
from batch_pb2 import Batch  # protoc --python_out=. batch.proto

LANES = ["alarm", "billing", "interval", "instant"]


class Stream:
    """The numbers of a lane that are settled: stored, or declared lost."""

    def __init__(self):
        self.through, self.above = 0, set()

    def has(self, number):
        return number <= self.through or number in self.above

    def settle(self, number):
        if not self.has(number):
            self.above.add(number)
        while self.through + 1 in self.above:
            self.through += 1
            self.above.remove(self.through)


streams, catalogues, waiting = {}, {}, []


def stream(site, gateway, epoch, lane):
    return streams.setdefault((site, gateway, epoch, lane), Stream())


def value(kind, scale, bits, data):
    """The number that a row means, as text with all its digits."""
    if kind in (1, 2):
        number = Decimal(decode.signed(bits) if kind == 1 else bits)
    elif kind == 3:
        number = Decimal(repr(struct.unpack("<f", struct.pack("<I", bits))[0]))
    elif kind == 4:
        number = Decimal(repr(struct.unpack("<d", struct.pack("<Q", bits))[0]))
    else:
        return bool(bits) if kind == 5 else data.hex() or None
    return format(number.scaleb(scale), "f")


def take(client, payload):
    """Stores a batch; its PUBACK goes out when this has returned."""
    b = Batch.FromString(payload)
    if b.format != 2:
        raise ValueError("format %d: docs/formats.md says more" % b.format)
    raw = catalogues.get(b.catalogue)
    if raw is None:
        waiting.append(payload)
        return
    epoch, lane = "%016x" % b.epoch, LANES[b.lane]
    below = "gridgate/1/%s/%s/down/" % (b.site, b.gateway)
    known = stream(b.site, b.gateway, epoch, lane)
    numbers, number = [], 1
    for gap, count in zip(b.runs[::2], b.runs[1::2]):
        numbers += range(number + gap, number + gap + count)
        number += gap + count
    fresh = [n for n in numbers if not known.has(n)]
    if b.since and fresh:  # a delta (decode.Past decodes it): have the rows sent as they are
        ask = {"epoch": epoch, "first": fresh[0], "last": fresh[-1]}
        client.publish(below + "resend/" + lane, json.dumps(ask), qos=1)
        return
    place = {"site": b.site, "gateway": b.gateway, "epoch": epoch, "lane": lane}
    meters, channels = decode.catalogue(raw)
    rows = decode.rows(b.rows.SerializeToString(), meters, channels)[0] if fresh else []
    for n, (meter, channel, stamp, bits, data, *_) in zip(numbers, rows):
        name, kind, scale, _ = channels[channel]
        if not known.has(n):
            out.write(json.dumps({**place, "number": n, "meter": meters[meter][0], "serial": meters[meter][1], "channel": name,
                                  "time": stamp[0], "value": value(kind, scale, bits, data)}) + "\n")
    for h in b.holes:
        out.write(json.dumps({**place, "number": h.first, "lost_through": h.first + h.more, "reason": h.reason}) + "\n")
    out.flush()
    os.fsync(out.fileno())  # only now is it stored, and may be confirmed
    for n in numbers + [n for h in b.holes for n in range(h.first, h.first + h.more + 1)]:
        known.settle(n)
    client.publish(below + "ack/" + lane, json.dumps({"epoch": epoch, "sequence": known.through}), qos=1, retain=True)


def on_message(client, _, message):
    place, part = message.topic.split("/")[2:4], message.topic.split("/")[5:]
    if part[:1] == ["ack"] and message.retain:  # what a fog has confirmed no longer comes
        told = json.loads(message.payload)
        s = stream(*place, told["epoch"], part[1])
        s.through = max(s.through, told["sequence"])
        s.settle(s.through)
    elif part[:1] == ["readings"]:
        take(client, message.payload)
    elif part[:1] == ["catalog"] and message.payload:
        catalogues[bytes.fromhex(part[1])] = message.payload  # a real fog keeps them for good
        again, waiting[:] = waiting[:], []
        for payload in again:
            take(client, payload)


def on_connect(client, *_):
    client.subscribe([("gridgate/1/+/+/down/ack/+", 1), ("gridgate/1/+/+/up/#", 1)])
    print("connected", flush=True)


if __name__ == "__main__":
    host, port, ca, certificate, key = sys.argv[1:]
    out = open("readings.jsonl", "a+")
    out.seek(0)
    for line in out:  # what was stored before
        row = json.loads(line)
        for n in range(row["number"], row.get("lost_through", row["number"]) + 1):
            stream(row["site"], row["gateway"], row["epoch"], row["lane"]).settle(n)
    client = mqtt.Client("reader-py", clean_session=False)  # the broker keeps what comes while we are away
    client.tls_set(ca, certificate, key)
    client.on_connect, client.on_message = on_connect, on_message
    client.connect(host, int(port))
    client.loop_forever()
