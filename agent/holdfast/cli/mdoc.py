"""Manual pages in mdoc(7): the few macros that we use, and our documentation's Markdown turned into them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

_HEADING: Final = re.compile(r"(#+) (.*)")
_ROW: Final = re.compile(r"\|(.*)\|")
_RULE: Final = re.compile(r"\|[-:| ]+\|")
_INLINE: Final = re.compile(r"`([^`]*)`|\*\*([^*]*)\*\*|\[([^\]]*)\]\([^)]*\)")


def head(title: str, section: int, name: str, line: str, date: datetime) -> Iterator[str]:
    """What every page starts with."""
    yield f".Dd {date:%B} {date.day}, {date.year}"
    yield f".Dt {title} {section}"
    yield ".Os"
    yield ".Sh NAME"
    yield f".Nm {name}"
    yield f".Nd {escaped(line)}"


def escaped(text: str) -> str:
    """*text* as the rest of a line: nothing in it is a request, a macro or an escape."""
    return text.replace("\\", "\\e").replace("\N{RIGHTWARDS ARROW}", "->")


def paragraph(text: str) -> Iterator[str]:
    """A line for each sentence, as mdoc wants it; ``code``, **strong** and [links](x) are marked."""
    for sentence in re.split(r"(?<=[A-Za-z0-9)`\]\x22][.?!]) (?=\S)", " ".join(text.split())):
        yield from _text(_inline(sentence))


def _inline(text: str) -> str:
    def marked(found: re.Match[str]) -> str:
        code, strong, link = found.groups()
        if code is not None:
            return f"\\fB{escaped(code)}\\fR"
        return f"\\fI{escaped(strong or link or '')}\\fR"

    parts, at = [], 0
    for found in _INLINE.finditer(text):
        parts += [escaped(text[at : found.start()]), marked(found)]
        at = found.end()
    return "".join([*parts, escaped(text[at:])])


def _text(line: str) -> Iterator[str]:
    """One line of text; a leading dot or quote would be a request."""
    if line:
        yield f"\\&{line}" if line[0] in ".'" else line


def literal(lines: Sequence[str]) -> Iterator[str]:
    """Lines exactly as they are."""
    yield ".Bd -literal -offset indent"
    for line in lines:
        yield from _text(escaped(line)) if line else ("",)
    yield ".Ed"


def tagged(items: Sequence[tuple[str, str]]) -> Iterator[str]:
    """A list of terms, each with what it means in Markdown."""
    yield ".Bl -tag -width Ds"
    for term, meaning in items:
        yield f".It {macro_words(term)}"
        yield from paragraph(meaning)
    yield ".El"


def macro_words(text: str) -> str:
    """*text* as arguments of a macro: a word that is a macro's name, or punctuation, must not act as one."""
    return " ".join(f"\\&{escaped(w)}".replace('"', "\\(dq") for w in text.split())


def from_markdown(text: str, skip: Sequence[str] = ()) -> Iterator[str]:
    """The body of a page: everything below the first heading. Sections named in *skip* are left out."""
    opening, *parts = re.split(r"\n## ", text)
    yield ".Sh DESCRIPTION"
    yield from _blocks(opening.split("\n")[1:])
    for part in parts:
        title, _, rest = part.partition("\n")
        if title not in skip:
            yield f".Sh {_plain(title).upper()}"
            yield from _blocks(rest.split("\n"))


def _blocks(lines: Sequence[str]) -> Iterator[str]:
    """Paragraphs, tables, lists, code and headings of the third order."""
    at, first = 0, True
    while at < len(lines):
        line = lines[at]
        if not line.strip():
            at += 1
            continue
        if line.startswith("```"):
            end = next((n for n in range(at + 1, len(lines)) if lines[n].startswith("```")), len(lines))
            yield from literal(lines[at + 1 : end])
            at = end + 1
        elif heading := _HEADING.match(line):
            yield f".Ss {_plain(heading[2])}"
            at, first = at + 1, True
            continue
        elif _ROW.match(line):
            end = _end(lines, at, lambda text: bool(_ROW.match(text)))
            yield from _table(lines[at:end])
            at = end
        elif line.startswith("- "):
            end = _end(lines, at, lambda text: text.startswith(("- ", "  ")))
            yield from _list(lines[at:end])
            at = end
        else:
            end = _end(lines, at, lambda text: bool(text.strip()) and not text.startswith(("```", "|", "- ")))
            if not first:
                yield ".Pp"
            yield from paragraph(" ".join(lines[at:end]))
            at = end
        first = False


def _end(lines: Sequence[str], at: int, belongs: object) -> int:
    while at < len(lines) and callable(belongs) and belongs(lines[at]):
        at += 1
    return at


def _list(lines: Sequence[str]) -> Iterator[str]:
    yield ".Bl -bullet -compact"
    for item in re.split(r"\n(?=- )", "\n".join(lines)):
        yield ".It"
        yield from paragraph(item.removeprefix("- "))
    yield ".El"


def _table(rows: Sequence[str]) -> Iterator[str]:
    """The first column is the term; the others are told under their headings."""
    cells = [
        [c.strip() for c in re.split(r"(?<!\\)\|", row.strip("|"))]
        for row in rows
        if not _RULE.fullmatch(row)
    ]
    headings, *entries = cells
    items = []
    for entry in entries:
        *middle, last = entry[1:]
        told = [f"{h}: {c}." for h, c in zip(headings[1:], middle, strict=False) if c]
        items.append(
            (
                _plain(entry[0]),
                " ".join([last[:1].upper() + last[1:] + ("" if last.endswith(".") else "."), *told]),
            )
        )
    yield from tagged(items)


def _plain(text: str) -> str:
    """Without marks."""
    return _INLINE.sub(lambda m: m[1] or m[2] or m[3] or "", text)
