"""Every fault that the schema finds, in words for the person who wrote the file. Loaded if there is one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from functools import cache
from typing import Any, Final

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import ValidationError

from holdfast.host.config_formats import FORMATS
from holdfast.host.config_shape import schema
from holdfast.host.config_yaml import Document, Fault, KeyPath

_TYPES: Final = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
}
_SECRET: Final = re.compile(r"pass|secret|token|(^|-)(pin|auth)($|-)")


def faults_of(document: Document) -> list[Fault]:
    """What the schema has against *document*; no values are repeated, as one may be a misplaced secret."""
    return [fault for error in _validator().iter_errors(document.data) for fault in _faults(error, document)]


@cache
def _validator() -> Draft202012Validator:
    checker = FormatChecker(formats=())
    for name, normal in FORMATS.items():
        checker.checks(name, raises=ValueError)(_only_text(normal))
    return Draft202012Validator(schema(), format_checker=checker)


def _only_text(normal: Any) -> Any:
    # A value of another type is the business of "type".
    return lambda value: not isinstance(value, str) or normal(value) is not None


def _faults(error: ValidationError, document: Document) -> Iterator[Fault]:
    path: KeyPath = tuple(error.absolute_path)
    schema: Any = error.schema
    value: Any = error.instance
    match error.validator:
        case "additionalProperties":
            known = list(schema["properties"])
            for key in (k for k in value if k not in known):
                yield Fault(document.line((*path, key)), (*path, key), _unknown(key, known))
        case "required":
            missing = next(k for k in schema["required"] if k not in value and f"'{k}'" in error.message)
            yield Fault(document.line(path), (*path, missing), "is missing")
        case _:
            yield Fault(document.line(path), path, _message(error, schema, value))


def _unknown(key: str, known: list[str]) -> str:
    near = get_close_matches(key, known, 1)
    files_for = [k for k in known if k.endswith("-file") and _SECRET.search(k)]
    if _SECRET.search(key) and key not in files_for and not (near and near[0].endswith("-credential")):
        how = f"; name the file that holds it: {', '.join(files_for)}" if files_for else ""
        return f"a secret never stands in the configuration{how}"
    return f"unknown key; did you mean {near[0]}?" if near else f"unknown key; known are {', '.join(known)}"


def _message(error: ValidationError, schema: dict[str, Any], value: Any) -> str:
    bound: Any = error.validator_value
    if error.validator == "enum":
        near = get_close_matches(value, bound, 1) if isinstance(value, str) else []
        return f"must be one of {', '.join(bound)}" + (f"; did you mean {near[0]}?" if near else "")
    words: dict[str, Callable[[], str]] = {
        "type": lambda: f"must be {_TYPES[bound]}",
        "minimum": lambda: f"must be at least {_number(schema, bound)}",
        "maximum": lambda: f"must be at most {_number(schema, bound)}",
        "format": lambda: str(error.cause),
        "pattern": lambda: f"must be: {schema.get('description', bound)}",
        "uniqueItems": lambda: "holds the same entry twice",
        "minItems": lambda: f"must have at least {bound} entry",
        "maxItems": lambda: f"must have at most {bound}",
        "minLength": lambda: "must not be empty",
        "maxLength": lambda: f"must have at most {bound} characters",
        "minProperties": lambda: "must not be empty",
        "maxProperties": lambda: f"must have exactly one of {', '.join(schema['properties'])}",
    }
    return words[str(error.validator)]()


def _number(schema: dict[str, Any], bound: Any) -> str:
    return f"{bound:#010x}" if schema["type"] == "integer" and bound >= 1 << 24 else str(bound)
