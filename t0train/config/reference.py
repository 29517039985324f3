"""What a configuration file may hold: every key with its meaning, for people; a JSON schema, for editors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import BaseModel

from t0train.config.load import INCLUDES
from t0train.config.paths import ConfigPath
from t0train.config.values import path_keys

_REFERENCE = {"type": "string", "pattern": r"\$\{[^}]+\}"}


@dataclass(frozen=True)
class Key:
    """One key of a configuration.

    Attributes:
        name: dotted; `[]` means each item of a list.
        default: a JSON value; None for keys that are required, too.
        required: whether the key must be given.
        takes: which values it takes, in words.
        meaning: its description.
        source: where T0's value is written down; empty for keys that do not change what is learned.
    """

    name: str
    default: Any
    required: bool
    takes: str
    meaning: str
    source: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def config_keys(model: type[BaseModel]) -> Iterator[Key]:
    """Every key of a kind of configuration file, in the schema's order."""
    schema = model.model_json_schema()
    yield from _keys(schema, schema.get("$defs", {}), "", path_keys(model))


def _keys(
    section: dict[str, Any], sections: dict[str, Any], prefix: str, paths: dict[str, ConfigPath]
) -> Iterator[Key]:
    for name, field in section["properties"].items():
        key = f"{prefix}{name}"
        if inner := _reference(field):
            yield from _keys(sections[inner], sections, f"{key}.", paths)
            continue
        inner = _reference(field.get("items", {}))
        takes = "list of sections" if inner else _takes(field)
        if key in paths:
            takes = f"{'list of ' if field.get('type') == 'array' else ''}{_takes_path(paths[key])}"
        required = name in section.get("required", ())
        yield Key(key, field.get("default"), required, takes, field.get("description", ""), field.get("source", ""))
        if inner:
            yield from _keys(sections[inner], sections, f"{key}[].", paths)


def _reference(schema: Any) -> str:
    """The name of the section that a part of a JSON schema describes; empty if it is none."""
    return str(schema.get("$ref", "")).rpartition("/")[2] if isinstance(schema, dict) else ""


def _takes_path(path: ConfigPath) -> str:
    return ", ".join([*path.words, *([path.other] if path.other else []), "path"])


def _takes(schema: dict[str, Any]) -> str:
    """Which values part of a JSON schema allows, in words."""
    if "anyOf" in schema:
        return ", ".join(map(_takes, schema["anyOf"]))
    if "const" in schema or "enum" in schema:
        return ", ".join(map(str, schema.get("enum", [schema.get("const")])))
    if "prefixItems" in schema:
        return f"list of {len(schema['prefixItems'])}: {_takes(schema['prefixItems'][0])}"
    kind = schema.get("type")
    if kind == "array":
        return f"list of {_takes(schema['items'])}"
    if kind == "object":
        values = schema.get("additionalProperties")
        return f"map to {_takes(values)}" if isinstance(values, dict) else "map"
    names = {"string": "text", "boolean": "true, false", "null": "nothing", None: "anything"}
    return names[kind] if kind in names else f"{kind}{_range(schema)}"


def _range(schema: dict[str, Any]) -> str:
    bounds = (("minimum", "from"), ("exclusiveMinimum", "above"), ("maximum", "to"), ("exclusiveMaximum", "below"))
    return "".join(f" {word} {_number(schema[bound])}" for bound, word in bounds if bound in schema)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def json_schema(model: type[BaseModel], title: str) -> dict[str, Any]:
    """A JSON schema of a kind of configuration file, by which editors complete keys, explain and check them.

    It lets pass what a file may hold and validation never sees: `defaults`, `${key}` for any single value, a number
    where a text is expected, and nothing at all for an empty list, map or text.
    """
    schema = model.model_json_schema()
    for section in (schema, *schema.get("$defs", {}).values()):
        section.pop("title", None)
        section["properties"] = {name: _as_written(field) for name, field in section["properties"].items()}
    schema["properties"] = {
        INCLUDES: {
            "description": "files or names of shipped configurations that this file is laid over, the last one on top",
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
        },
        **schema["properties"],
    }
    if required := schema.pop("required", None):
        schema["anyOf"] = [{"required": required}, {"required": [INCLUDES]}]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **schema}


def _as_written(field: dict[str, Any]) -> dict[str, Any]:
    """The schema of a key as it may stand in a file, with the source of T0's value in its description."""
    if _reference(field):
        return field
    source = field.pop("source", "")
    field = {name: value for name, value in field.items() if name not in ("title", "recipe")}
    about: dict[str, Any] = {name: field.pop(name) for name in ("description", "default") if name in field}
    if source:
        about["description"] += f". Default: T0's ({source})"
    return {**about, **_written_value(field, about.get("default"))}


def _written_value(schema: dict[str, Any], default: Any = None) -> dict[str, Any]:
    if "anyOf" in schema:
        return {"anyOf": [*schema["anyOf"], _REFERENCE]}
    kind = schema.get("type")
    if kind == "array" and "prefixItems" not in schema:
        items = schema["items"] if _reference(schema["items"]) else _written_value(schema["items"])
        return {**schema, "type": ["array", "null"], "items": items}
    if kind == "object":
        values = schema.get("additionalProperties")
        values = {"anyOf": [_written_value(values), {"type": "null"}]} if isinstance(values, dict) else True
        return {**schema, "type": ["object", "null"], "additionalProperties": values}
    if kind == "string" and "enum" not in schema and "const" not in schema:
        return {**schema, "type": ["string", "number", "boolean", *(["null"] if default == "" else [])]}
    return {"anyOf": [schema, _REFERENCE]} if kind in ("integer", "number", "boolean", "string") else schema
