"""Resolves SenML packs (RFC 8428, JSON), one a line, and prints a line a record:
its name, time in milliseconds, unit and value. Whatever the RFC forbids ends it."""
import base64
import json
import re
import sys
from decimal import Decimal

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9\-:./_]*\Z")
FIELDS = {"bn": str, "bt": Decimal, "bu": str, "n": str, "u": str, "t": Decimal,
          "v": Decimal, "vs": str, "vb": bool, "vd": str}


def forbid(constant):
    sys.exit("no JSON number: " + constant)


def value(record):
    kinds = [k for k in ("v", "vs", "vb", "vd") if k in record]
    if len(kinds) != 1:
        sys.exit(f"a record has one value: {record}")
    kind = kinds[0]
    v = record[kind]
    if kind == "vb":
        return "vb", "true" if v else "false"
    if kind == "vd":
        if not re.fullmatch(r"[A-Za-z0-9_-]*", v):
            sys.exit("not base64url without padding: " + v)
        return "vd", base64.urlsafe_b64decode(v + "=" * (-len(v) % 4)).hex()
    if kind == "v":
        return "v", format(v, "f")
    return kind, v


for line in sys.stdin:
    pack = json.loads(line, parse_float=Decimal, parse_int=Decimal, parse_constant=forbid)
    base = {"bn": "", "bt": Decimal(0), "bu": ""}
    for record in pack:
        for key, v in record.items():
            if type(v) is not FIELDS.get(key):
                sys.exit(f"field {key}: {v!r}")
        base.update({k: v for k, v in record.items() if k in base})
        name = base["bn"] + record.get("n", "")
        if not NAME.match(name):
            sys.exit("name " + name)
        time = base["bt"] + record.get("t", Decimal(0))
        if time < 2**28:
            sys.exit(f"{name}: a time relative to now")
        kind, v = value(record)
        print(name, int(time * 1000), record.get("u", base["bu"]) or "-", kind, v)
