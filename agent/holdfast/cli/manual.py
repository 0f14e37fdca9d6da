"""The manual pages, made from the tree of commands, the table of exit statuses, the schema and ``docs/``.

``python -m holdfast.cli.manual DOCS`` writes ``DOCS/man/*`` (``make docs``); a test finds stale ones.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from holdfast.cli import mdoc
from holdfast.cli.commands import Command, Option, tree
from holdfast.cli.completion import SHELLS
from holdfast.cli.exits import MEANING
from holdfast.cli.main import DEFAULT_CONFIG, parser
from holdfast.host.clock import BUILD_TIME
from holdfast.host.config import schema_text

_EXAMPLES: Final = (
    ("holdfast status", "What the device has and what it is doing."),
    ("holdfast why ldevid", "Why that identity waits, until when, and what you can do about it."),
    ("holdfast doctor --json", "Every check, for a program."),
    ("holdfast renew ldevid", "A new certificate now."),
    ("source <(holdfast completion bash)", "Completion in this shell."),
)


def pages(docs: Path) -> dict[str, str]:
    """File names below ``man/`` and their contents, from the pages in *docs*."""
    made = {"holdfast.1": "\n".join(_commands()) + "\n"}
    configuration = (docs / "configuration.md").read_text(encoding="utf-8")
    made["holdfast.yaml.5"] = "\n".join(_configuration(configuration)) + "\n"
    service = (docs / "service.md").read_text(encoding="utf-8")
    made["holdfastd.8"] = "\n".join(_daemon(service)) + "\n"
    return made


def completions() -> dict[str, str]:
    """File names as the shells' packages want them, below ``completion/``."""
    names = {"bash": "holdfast", "fish": "holdfast.fish", "zsh": "_holdfast"}
    top = tree(parser())
    return {names[shell]: make(top) for shell, make in SHELLS.items()}


# --- holdfast(1) -------------------------------------------------------------------------------------


def _commands() -> Iterator[str]:
    top = tree(parser())
    yield from mdoc.head("HOLDFAST", 1, "holdfast", "give a gateway its identity and keep it", BUILD_TIME)
    yield ".Sh SYNOPSIS"
    yield ".Nm"
    yield from (_optional(o) for o in top.options if o.names)
    yield ".Ar COMMAND"
    yield ".Op Ar argument ..."
    yield ".Sh DESCRIPTION"
    yield from mdoc.paragraph(
        "Holdfast finds out whose device this is, asks for its certificates, and renews them for as long as"
        " it lives. The commands below show what it does and let a person take part. Every one of them that"
        " tells something can tell it as JSON."
    )
    yield ".Pp"
    yield "The options are as follows:"
    yield from _options(top)
    yield ".Sh COMMANDS"
    yield ".Bl -tag -width Ds"
    for command in top.walk():
        if command.path and not command.children:
            yield from _command(command)
    yield ".El"
    yield ".Sh ENVIRONMENT"
    yield from mdoc.tagged(
        [
            ("HOLDFAST_CONFIG", "The configuration file, where `--config` names none."),
            ("NO_COLOR", "If set, no colour is used on a terminal."),
            ("COLUMNS", "The width that paragraphs are filled to."),
        ]
    )
    yield ".Sh FILES"
    yield from mdoc.tagged(
        [
            (str(DEFAULT_CONFIG), "The configuration; see holdfast.yaml(5)."),
            ("/var/lib/holdfast", "The device's record, its wrapped keys, and the files for other programs."),
        ]
    )
    yield ".Sh EXIT STATUS"
    yield from mdoc.tagged([(str(code), _sentence(meaning)) for code, meaning in MEANING.items()])
    yield ".Sh EXAMPLES"
    for line, told in _EXAMPLES:
        yield from mdoc.paragraph(told)
        yield f".Dl {mdoc.escaped(line)}"
    yield ".Sh SEE ALSO"
    yield ".Xr journalctl 1 ,"
    yield ".Xr holdfast.yaml 5 ,"
    yield ".Xr holdfastd 8"


def _command(command: Command) -> Iterator[str]:
    operands = " ".join(_operand(o) for o in command.options if not o.names)
    flags = " ".join(_flag(o) for o in command.options if _told(o))
    words = " ".join(f"Cm {word}" for word in command.path)
    yield " ".join(f".It {words} {flags} {operands}".split())
    yield from mdoc.paragraph(_sentence(command.help))
    told = [o for o in command.options if _told(o)]
    if told:
        yield ".Bl -tag -width Ds -compact"
        for option in told:
            yield f".It {_names(option)}"
            yield from mdoc.paragraph(_sentence(option.help))
        yield ".El"


def _told(option: Option) -> bool:
    return bool(option.names) and option.names[0] != "-h"


def _options(command: Command) -> Iterator[str]:
    yield ".Bl -tag -width Ds"
    for option in command.options:
        if option.names:
            yield f".It {_names(option)}"
            yield from mdoc.paragraph(_sentence(option.help))
    yield ".El"


def _names(option: Option) -> str:
    value = f" Ar {option.value}" if option.value else ""
    return " , ".join(f"Fl {name[1:]}{value}" for name in option.names)


def _flag(option: Option) -> str:
    value = f" Ar {option.value}" if option.value else ""
    return f"Oo Fl {option.names[-1][1:]}{value} Oc"


def _optional(option: Option) -> str:
    value = f" Ar {option.value}" if option.value else ""
    return f".Op Fl {option.names[0][1:]}{value}"


def _operand(option: Option) -> str:
    dots = " ..." if option.repeated else ""
    return f"Oo Ar {option.value.replace('|', ' | ')}{dots} Oc"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""


# --- holdfast.yaml(5) --------------------------------------------------------------------------------


def _configuration(page: str) -> Iterator[str]:
    yield from mdoc.head("HOLDFAST.YAML", 5, "holdfast.yaml", "configuration of holdfast", BUILD_TIME)
    yield from mdoc.from_markdown(page)
    yield ".Sh ALL KEYS"
    yield from mdoc.tagged(list(_keys(json.loads(schema_text()))))
    yield ".Sh FILES"
    yield f".Bl -tag -width Ds\n.It Pa {DEFAULT_CONFIG}\nThe configuration.\n.El"
    yield ".Sh SEE ALSO"
    yield ".Xr holdfast 1 ,"
    yield ".Xr holdfastd 8"


def _keys(shape: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Every key with its kind, bounds and default, in the order of the schema."""
    for name, child in shape.get("properties", {}).items():
        here = f"{path}.{name}" if path else name
        yield here, _meaning(child)
        yield from _keys(child, here)
        if "items" in child:
            yield from _keys(child["items"], f"{here}[]")


def _meaning(child: Mapping[str, Any]) -> str:
    said = str(child.get("description", "")).rstrip(".")
    kind = f"one of {', '.join(child['enum'])}" if "enum" in child else str(child.get("type", "anything"))
    bounds = [
        f"{word} {child[key]}" for key, word in (("minimum", "from"), ("maximum", "to")) if key in child
    ]
    default = child.get("default")
    shown = default is not None and default not in ({}, [])
    more = [", ".join([kind, *bounds]), *([f"default {json.dumps(default)}"] if shown else [])]
    return f"{said + '. ' if said else ''}{_sentence('; '.join(more))}"


# --- holdfastd(8) ------------------------------------------------------------------------------------


def _daemon(page: str) -> Iterator[str]:
    yield from mdoc.head("HOLDFASTD", 8, "holdfastd", "resident agent of holdfast", BUILD_TIME)
    yield ".Sh SYNOPSIS"
    yield ".Nm"
    yield ".Op Fl c Ar FILE"
    yield ".Op Fl -socket Ar PATH"
    yield from mdoc.from_markdown(page)
    yield ".Sh SIGNALS"
    yield from mdoc.tagged(
        [
            ("SIGHUP", "Read the configuration anew."),
            ("SIGTERM, SIGINT", "End, with the worker; what was under way is taken up by the next start."),
        ]
    )
    yield ".Sh EXIT STATUS"
    yield from mdoc.tagged(
        [
            ("0", "It was told to end."),
            ("1", "It cannot listen at its control socket."),
            ("2", "It does not know an argument."),
        ]
    )
    yield ".Sh SEE ALSO"
    yield ".Xr holdfast 1 ,"
    yield ".Xr holdfast.yaml 5 ,"
    yield ".Xr systemd.exec 5"


def main(docs: Path) -> None:
    """Write every page and completion below *docs*."""
    for folder, made in (("man", pages(docs)), ("completion", completions())):
        place = docs / folder
        place.mkdir(exist_ok=True)
        for name, content in made.items():
            (place / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
