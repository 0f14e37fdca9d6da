"""The tree of commands and options as plain records, for what is generated from it: completion and manual."""

from __future__ import annotations

import argparse
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Option:
    """``names`` is empty for a positional argument; ``value`` is empty for a switch."""

    names: tuple[str, ...]
    value: str
    help: str
    repeated: bool


@dataclass(frozen=True, slots=True)
class Command:
    """``path`` is empty for the program itself."""

    path: tuple[str, ...]
    help: str
    options: tuple[Option, ...]
    children: tuple[Command, ...]

    def walk(self) -> tuple[Command, ...]:
        """Itself and all below it, parents first."""
        return (self, *(deeper for child in self.children for deeper in child.walk()))


def tree(parser: argparse.ArgumentParser, path: tuple[str, ...] = (), help_text: str = "") -> Command:
    """What *parser* accepts."""
    options: list[Option] = []
    children: list[Command] = []
    for action in parser._actions:  # argparse shows its actions in no other way
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            children += [tree(p, (*path, name), helps.get(name, "")) for name, p in action.choices.items()]
        elif action.help != argparse.SUPPRESS:
            options.append(_option(action))
    return Command(path, help_text, tuple(options), tuple(children))


def _option(action: argparse.Action) -> Option:
    value = ""
    if action.nargs != 0:
        metavar = action.metavar if isinstance(action.metavar, str) else None
        value = metavar or action.dest.upper()
    repeated = action.nargs in {"*", "+"} or isinstance(action, argparse._AppendAction)
    return Option(tuple(action.option_strings), value, action.help or "", repeated)
