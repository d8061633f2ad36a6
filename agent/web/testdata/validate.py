"""Checks answers of the API against docs/openapi.yaml.

usage: validate.py OPENAPI < ANSWERS

Each line of ANSWERS is {"path": …, "status": N, "type": …, "body": …}: the path as the contract writes it, and the body
parsed where it is JSON. What the contract does not know is an error too: objects may have the properties that it
names, and no others. Prints what is wrong and exits with 1; else prints how many answers were right.
"""

import json
import re
import sys

import jsonschema
import yaml


FORMATS = jsonschema.FormatChecker()


@FORMATS.checks("date-time")
def is_time(text):
    """RFC 3339 in UTC with milliseconds at most."""
    return re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,3})?Z", text) is not None


def seal(schema):
    """Lets objects have the properties that are named, and no others."""
    if isinstance(schema, list):
        for s in schema:
            seal(s)
    if not isinstance(schema, dict):
        return
    for key, s in schema.items():
        if key in ("properties", "schemas"):
            for inner in s.values():
                seal(inner)
        elif key == "allOf":
            for part in s:
                seal(part.get("properties", {}) and {"properties": part["properties"]})
        elif key not in ("example", "examples", "enum", "const", "oneOf"):
            seal(s)
    if "allOf" in schema or schema.get("type") == "object" and "properties" in schema:
        schema["unevaluatedProperties"] = False


def open_parts(schemas, name):
    """A copy of a schema that stands in an allOf, not sealed itself."""
    copy = json.loads(json.dumps(schemas[name]))
    copy.pop("unevaluatedProperties", None)
    return copy


def main():
    with open(sys.argv[1], encoding="utf-8") as f:
        doc = yaml.safe_load(f)
    schemas = doc["components"]["schemas"]
    for s in list(schemas.values()):
        seal(s)
    for s in list(schemas.values()):
        for i, part in enumerate(s.get("allOf", [])):
            if "$ref" in part:
                s["allOf"][i] = open_parts(schemas, part["$ref"].rsplit("/", 1)[1])
            else:
                part.pop("unevaluatedProperties", None)
    wrong, right = 0, 0
    for line in sys.stdin:
        a = json.loads(line)
        responses = doc["paths"][a["path"]]["get"]["responses"]
        response = responses.get(str(a["status"]), responses.get("default"))
        if response is None:
            print(f"{a['path']}: {a['status']} is not in the contract")
            wrong += 1
            continue
        if "$ref" in response:
            response = doc["components"]["responses"][response["$ref"].rsplit("/", 1)[1]]
        kind = a["type"].split(";")[0]
        if kind not in response.get("content", {}):
            print(f"{a['path']}: {a['status']}: {kind} is not in the contract")
            wrong += 1
            continue
        if kind != "application/json":
            right += 1
            continue
        schema = json.loads(json.dumps(response["content"][kind]["schema"]))
        seal(schema)
        schema["components"] = doc["components"]
        validator = jsonschema.Draft202012Validator(schema, format_checker=FORMATS)
        errors = list(validator.iter_errors(a["body"]))
        for e in errors[:5]:
            print(f"{a['path']}: {a['status']}: at {'/'.join(map(str, e.absolute_path))}: {e.message[:300]}")
        wrong += len(errors) > 0
        right += not errors
    if wrong:
        sys.exit(1)
    print(f"{right} right")


main()
