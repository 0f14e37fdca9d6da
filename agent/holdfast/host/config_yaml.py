"""YAML to plain values, with the line of every key (the strict part of YAML that a configuration needs).

Refused: anchors and aliases (they can grow without bound), tags, a second document, a key given twice, keys
that are not text. Plain ``yes``, ``no`` and ``12:30`` stay text, as in YAML 1.2.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import yaml

MAX_DEPTH: Final = 16
KeyPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, where. ``line`` counts from 1."""

    line: int
    path: KeyPath
    message: str

    def __str__(self) -> str:
        return (
            f"{self.line}: {dotted(self.path)}: {self.message}"
            if self.path
            else f"{self.line}: {self.message}"
        )


def dotted(path: KeyPath) -> str:
    """``identities[0].key.algorithm``."""
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).lstrip(".")


@dataclass(frozen=True, slots=True)
class Document:
    """The values, the line of each key path, and what was wrong with the YAML itself."""

    data: Any
    lines: dict[KeyPath, int]
    faults: tuple[Fault, ...]

    def line(self, path: KeyPath) -> int:
        """The line of *path*, or of the nearest thing around it that is in the file."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


class _Resolver(yaml.SafeLoader):
    """The YAML 1.2 core types only."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own shape


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ("~", "n", "N", "")),
    ("int", r"[-+]?[0-9]{1,18}|0x[0-9a-fA-F]{1,16}", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]{1,18}|[0-9]{1,18}(\.[0-9]{0,18})?)([eE][-+]?[0-9]{1,3})?", "-+.0123456789"),
):
    _Resolver.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first)
    )


def parse(text: str) -> Document:
    """*text* as a document. Never raises for what is in it: faults are part of the result."""
    lines: dict[KeyPath, int] = {(): 1}
    try:
        refused = _refused(text)
        if refused:
            return Document(None, lines, refused)
        node = _Resolver(text).get_single_node()
    except yaml.YAMLError as error:
        return Document(None, lines, (_syntax(error, text),))
    if node is None:
        return Document(None, lines, (Fault(1, (), "the file is empty"),))
    faults: list[Fault] = []
    data = _value(node, (), lines, faults)
    return Document(data, lines, tuple(faults))


def _refused(text: str) -> tuple[Fault, ...]:
    """Features that are not read at all. Looked for in the events, before anything is built."""
    faults = []
    depth = documents = 0
    for event in yaml.parse(text, Loader=_Resolver):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            faults.append(Fault(line, (), "anchors (&) and aliases (*) are not allowed"))
        elif getattr(event, "tag", None):
            faults.append(Fault(line, (), "tags (!) are not allowed"))
        documents += isinstance(event, yaml.DocumentStartEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if documents > 1 or depth > MAX_DEPTH:
            what = (
                "a second document is not allowed" if documents > 1 else f"nested more than {MAX_DEPTH} deep"
            )
            return (*faults, Fault(line, (), what))
    return tuple(faults)


def _value(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], faults: list[Fault]) -> Any:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, lines, faults)
    if isinstance(node, yaml.SequenceNode):
        return [_value(child, (*path, n), lines, faults) for n, child in enumerate(node.value)]
    return _scalar(node)


def _mapping(
    node: yaml.MappingNode, path: KeyPath, lines: dict[KeyPath, int], faults: list[Fault]
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        key = key_node.value
        if key_node.tag != "tag:yaml.org,2002:str" or not isinstance(key, str):
            faults.append(Fault(line, path, "a key must be text"))
        elif key in values:
            faults.append(Fault(line, (*path, key), f"given twice, first on line {lines[(*path, key)]}"))
        else:
            lines[(*path, key)] = line
            values[key] = _value(value_node, (*path, key), lines, faults)
    return values


def _scalar(node: yaml.Node) -> Any:
    text = node.value
    match node.tag.rpartition(":")[2]:
        case "bool":
            return text.lower() == "true"
        case "null":
            return None
        case "int":
            return int(text, 16) if text.startswith("0x") else int(text)
        case "float":
            return float(text)
        case _:
            return text


def _syntax(error: yaml.YAMLError, text: str) -> Fault:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        return Fault(mark.line + 1 if mark else 1, (), f"not YAML: {error.problem or error.context}")
    position = getattr(error, "position", 0)
    return Fault(text.count("\n", 0, position) + 1, (), "not YAML: a character that is not allowed")
