"""The shape of a configuration: its schema, its defaults, and a quick look that recognises a good one.

Commands that only look should start at once, and a schema library costs more than all that they do. So
:func:`fits` reads the few words of JSON Schema that our schema uses. It says yes only where a full validator
would; whatever it does not know or like is left to :mod:`holdfast.host.config_schema`, which finds the words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import cache
from importlib.resources import files
from typing import Any, Final

from holdfast.host.config_formats import FORMATS
from holdfast.host.config_yaml import Document, Fault


def schema_text() -> str:
    """The JSON Schema (draft 2020-12) of the configuration, as it is shipped."""
    return files("holdfast.host").joinpath("config.schema.json").read_text(encoding="utf-8")


@cache
def schema() -> Any:
    """The schema as plain values; not to be changed."""
    return json.loads(schema_text())


def faults_in(document: Document) -> list[Fault]:
    """What the schema has against *document*; no values are repeated, as one may be a misplaced secret."""
    if fits(schema(), document.data):
        return []
    from holdfast.host.config_schema import faults_of  # noqa: PLC0415 - a schema library: only for its words

    return faults_of(document)


def with_defaults(data: Any) -> Any:
    """A copy of *data*, which must be valid, with every default of the schema filled in."""
    return _filled(deepcopy(data), schema())


def _filled(value: Any, shape: Any) -> Any:
    if isinstance(value, dict):
        for key, child in shape.get("properties", {}).items():
            if key not in value and "default" in child:
                value[key] = deepcopy(child["default"])
            if key in value:
                value[key] = _filled(value[key], child)
    if isinstance(value, list):
        return [_filled(item, shape["items"]) for item in value]
    return value


def fits(shape: Mapping[str, Any], value: Any) -> bool:
    """Whether *value* is certainly valid by *shape*. False means: not certain."""
    return all(keyword in _KEYWORDS and _KEYWORDS[keyword](shape, value) for keyword in shape)


_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}


def _type(shape: Mapping[str, Any], value: Any) -> bool:
    wanted = _TYPES.get(shape["type"]) if isinstance(shape["type"], str) else None
    return wanted is not None and type(value) in wanted


def _properties(shape: Mapping[str, Any], value: Any) -> bool:
    children = shape["properties"]
    return not isinstance(value, dict) or all(fits(children[k], v) for k, v in value.items() if k in children)


def _known(shape: Mapping[str, Any], value: Any) -> bool:
    return (
        shape["additionalProperties"] is False and isinstance(value, dict) and value.keys() <= _names(shape)
    )


def _names(shape: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(shape.get("properties", {}))


def _format(shape: Mapping[str, Any], value: Any) -> bool:
    normal = FORMATS.get(shape["format"])
    if normal is None or not isinstance(value, str):
        return False
    try:
        return normal(value) is not None
    except ValueError:
        return False


def _items(shape: Mapping[str, Any], value: Any) -> bool:
    return isinstance(value, list) and all(fits(shape["items"], item) for item in value)


def _always(_shape: Mapping[str, Any], _value: Any) -> bool:
    return True


_KEYWORDS: Final[Mapping[str, Callable[[Mapping[str, Any], Any], bool]]] = {
    "$schema": _always,
    "title": _always,
    "description": _always,
    "default": _always,
    "type": _type,
    "enum": lambda s, v: isinstance(v, str) and v in s["enum"],
    "properties": _properties,
    "additionalProperties": _known,
    "required": lambda s, v: isinstance(v, dict) and all(k in v for k in s["required"]),
    "minProperties": lambda s, v: isinstance(v, dict) and len(v) >= s["minProperties"],
    "maxProperties": lambda s, v: isinstance(v, dict) and len(v) <= s["maxProperties"],
    "items": _items,
    "minItems": lambda s, v: isinstance(v, list) and len(v) >= s["minItems"],
    "maxItems": lambda s, v: isinstance(v, list) and len(v) <= s["maxItems"],
    "uniqueItems": lambda _, v: isinstance(v, list) and all(x not in v[:n] for n, x in enumerate(v)),
    "minLength": lambda s, v: isinstance(v, str) and len(v) >= s["minLength"],
    "maxLength": lambda s, v: isinstance(v, str) and len(v) <= s["maxLength"],
    "pattern": lambda s, v: isinstance(v, str) and re.search(s["pattern"], v) is not None,
    "format": _format,
    "minimum": lambda s, v: type(v) in _TYPES["number"] and v >= s["minimum"],
    "maximum": lambda s, v: type(v) in _TYPES["number"] and v <= s["maximum"],
}
