"""proto/asyncapi.json, by which every frame is judged that a stock client gets."""

import copy
import json

from jsonschema import Draft7Validator

from server import ROOT

DOCUMENT = json.loads((ROOT / "proto/asyncapi.json").read_text())
SCHEMAS = DOCUMENT["components"]["schemas"]
MESSAGES = DOCUMENT["components"]["messages"]


def bases(schema):
    """The names of the schemas that this one builds on."""
    return [part["$ref"].rsplit("/", 1)[1] for part in schema.get("allOf", []) if "$ref" in part]


def fields(schema):
    """What the schema and its bases list."""
    return {*schema.get("properties", {})}.union(*(fields(SCHEMAS[base]) for base in bases(schema)))


def tighten(schema, is_base=False):
    """Closes the schema, and what it nests, to fields that neither it nor a base lists. A base is left open: what
    builds on it adds fields. As published all are open, for the sake of newer servers."""
    if not isinstance(schema, dict):
        return
    listed = fields(schema)
    for nested in [*schema.get("properties", {}).values(), schema.get("items")]:
        tighten(nested)
    if listed and not is_base:
        schema["properties"] = {**dict.fromkeys(listed, True), **schema.get("properties", {})}
        schema["additionalProperties"] = False


def tightened():
    schemas = copy.deepcopy(SCHEMAS)
    every_base = {base for schema in SCHEMAS.values() for base in bases(schema)}
    for name, schema in schemas.items():
        tighten(schema, name in every_base)
    return schemas


TIGHT = {"components": {"schemas": tightened()}}
VALIDATORS = {name: Draft7Validator({**TIGHT, "allOf": [message["payload"]]}) for name, message in MESSAGES.items()}


def checked(frame):
    """The frame, which is valid for the message of its type and has no field that the document does not list."""
    validator = VALIDATORS.get("custom" if "custom" in frame else frame.get("type"))
    assert validator, f"the document has no message for {frame}"
    errors = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(frame)]
    assert not errors, f"not as proto/asyncapi.json says: {errors}: {frame}"
    return frame
