"""``holdfast completion``: completion for bash, zsh and fish, made from the tree of commands."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any, Final

from holdfast.cli.commands import Command, Option, tree
from holdfast.cli.exits import EXIT_OK


def register(commands: Any) -> None:
    """Add the subcommand to argparse's collection of subparsers."""
    command = commands.add_parser("completion", help="print completion for a shell")
    command.add_argument("shell", choices=sorted(SHELLS), metavar="bash|fish|zsh", help="for which shell")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Writes the script to standard output."""
    from holdfast.cli.main import parser  # noqa: PLC0415 - main loads this module

    print(SHELLS[arguments.shell](tree(parser())), end="")
    return EXIT_OK


_IDENTITIES: Final = "holdfast identities --names 2>/dev/null"


def _takes(command: Command, word: str) -> bool:
    return any(word in o.value for o in command.options if not o.names)


def _words(command: Command) -> list[str]:
    return [*(c.path[-1] for c in command.children), *(name for o in command.options for name in o.names)]


def bash(top: Command) -> str:
    """One function; what may follow is looked up by the words so far that are commands."""
    cases = []
    for command in top.walk():
        more = ""
        if _takes(command, "IDENTITY"):
            more += f" $({_IDENTITIES})"
        if _takes(command, "CHECK"):
            more += " $(holdfast doctor --list 2>/dev/null | cut -d' ' -f1)"
        shells = " ".join(sorted(SHELLS)) if command.path == ("completion",) else ""
        words = " ".join([*_words(command), shells]).strip()
        cases.append(f'        "{" ".join(command.path)}") words="{words}{more}" ;;')
    paths = " ".join(f'["{" ".join(c.path)}"]=1' for c in top.walk() if c.path)
    files = "|".join(name for o in _all_options(top) if o.value in {"FILE", "PATH"} for name in o.names)
    return f"""# bash completion for holdfast: holdfast completion bash
_holdfast() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD - 1]}} path="" word words=""
    local -A known=({paths})
    case "$previous" in
        {files}) COMPREPLY=($(compgen -f -- "$current")); return ;;
        --renew) COMPREPLY=($(compgen -W "$({_IDENTITIES})" -- "$current")); return ;;
    esac
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        if [[ -n ${{known["${{path:+$path }}$word"]:-}} ]]; then path="${{path:+$path }}$word"; fi
    done
    case "$path" in
{chr(10).join(cases)}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
    if [[ $path == show && $current == */* ]]; then COMPREPLY+=($(compgen -f -- "$current")); fi
}}
complete -F _holdfast holdfast
"""


def zsh(top: Command) -> str:
    """A function for _arguments, one branch a command."""
    branches = []
    for command in top.walk():
        if not command.path or command.children:
            continue
        specs = " ".join(_zsh_option(o) for o in command.options if o.names)
        extra = ""
        if _takes(command, "IDENTITY"):
            extra = f" '*:identity:{{compadd -- ${{(f)\"$({_IDENTITIES})\"}}}}'"
        if command.path == ("completion",):
            extra = f" '1:shell:({' '.join(sorted(SHELLS))})'"
        branches.append(f'        "{" ".join(command.path)}") _arguments {specs}{extra} ;;')
    listed = "\n".join(f"        '{c.path[0]}:{_quoted(c.help)}'" for c in top.children)
    nested = "\n".join(
        f"        {c.path[0]}) sub=({' '.join(_quoted(n.path[-1]) for n in c.children)}) ;;"
        for c in top.children
        if c.children
    )
    options = " ".join(_zsh_option(o) for o in top.options if o.names)
    return f"""#compdef holdfast
# zsh completion for holdfast: holdfast completion zsh
_holdfast() {{
    local context state line
    local -a commands sub
    commands=(
{listed}
    )
    _arguments -C {options} '1: :->command' '*:: :->rest'
    case $state in
    command) _describe command commands ;;
    rest)
        local words_so_far=$line[1]
        case $words_so_far in
{nested}
        esac
        if (( $#sub )); then
            if (( CURRENT == 2 )); then compadd -a sub; return; fi
            words_so_far="$words_so_far $line[2]"
        fi
        case $words_so_far in
{chr(10).join(branches)}
        esac ;;
    esac
}}
if [[ $funcstack[1] == _holdfast ]]; then _holdfast "$@"; else compdef _holdfast holdfast; fi
"""


def fish(top: Command) -> str:
    """One line a word."""
    lines = ["# fish completion for holdfast: holdfast completion fish", "complete -c holdfast -f"]
    lines += [
        f"complete -c holdfast -n __fish_use_subcommand -a {c.path[0]} -d '{_quoted(c.help)}'"
        for c in top.children
    ]
    for command in top.walk():
        condition = " and ".join(f"__fish_seen_subcommand_from {word}" for word in command.path)
        when = f" -n '{condition.replace(' and ', '; and ')}'" if condition else ""
        for option in command.options:
            names = "".join(f" -l {n[2:]}" if n.startswith("--") else f" -s {n[1:]}" for n in option.names)
            needs = (" -r -F" if option.value in {"FILE", "PATH"} else " -x") if option.value else ""
            if names:
                lines.append(f"complete -c holdfast{when}{names}{needs} -d '{_quoted(option.help)}'")
        if len(command.path) == 1:
            lines += [
                f"complete -c holdfast{when} -a {child.path[-1]} -d '{_quoted(child.help)}'"
                for child in command.children
            ]
        if _takes(command, "IDENTITY"):
            lines.append(f"complete -c holdfast{when} -a '({_IDENTITIES})'")
        if command.path == ("completion",):
            lines.append(f"complete -c holdfast{when} -a '{' '.join(sorted(SHELLS))}'")
    return "\n".join(lines) + "\n"


SHELLS: Final[Mapping[str, Callable[[Command], str]]] = {"bash": bash, "fish": fish, "zsh": zsh}


def _all_options(top: Command) -> list[Option]:
    return [o for command in top.walk() for o in command.options]


def _zsh_option(option: Option) -> str:
    told = _quoted(option.help).replace("[", "(").replace("]", ")").replace(":", "\\:")
    value = ""
    if option.value:
        value = (
            f":{option.value.lower()}:_files"
            if option.value in {"FILE", "PATH"}
            else f":{option.value.lower()}:"
        )
    many = "*" if option.repeated else ""
    return " ".join(f"'{many}{name}[{told}]{value}'" for name in option.names)


def _quoted(text: str) -> str:
    """*text* for between single quotes, which all three shells understand alike."""
    return text.replace("\\", "").replace("'", "'\\''")
