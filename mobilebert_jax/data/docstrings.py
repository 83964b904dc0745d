"""Prose out of docstrings: markup, code, tables and parameter headers go, paragraphs stay.

Docstrings come in four habits (reStructuredText, numpydoc, Google, plain), often mixed in one file,
so nothing here parses a format. Lines are taken away by what they look like, the rest is joined
into paragraphs, and a paragraph stays only if it reads as English. What is dropped by mistake costs
a little text; what is kept by mistake is learnt by the model, so doubt means dropping.
"""

import inspect
import re
from collections.abc import Iterator


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PROSE_DIRECTIVES = _words("""
    note warning tip hint important caution danger attention error admonition seealso deprecated
    versionadded versionchanged topic
""")
_FIELD_SECTIONS = _words("""
    parameters returns return yields receives attributes methods args arguments kwargs properties
    options fields
""") | {"other parameters", "keyword args", "keyword arguments", "class attributes"}
_DROPPED_SECTIONS = _words("""
    references bibliography signature usage authors raises raise warns exceptions
""") | {"see also"}
_SECTION_NAMES = (
    _FIELD_SECTIONS
    | _DROPPED_SECTIONS
    | {"examples", "example", "note", "notes", "warning", "warnings", "todo", "description"}
)

_DIRECTIVE = re.compile(r"\.\.\s+(?:([\w:-]+)::\s*(.*)|.*)$")
_FENCE = re.compile(r"(?:```|~~~)")
_UNDERLINE = re.compile(r"([=\-~^\"*#+`_])\1{2,}$")
_TABLE_BORDER = re.compile(r"[=\-]{2,}(?:\s+[=\-]{2,})+$|\+[-=+]{2,}|\|")
_SECTION_COLON = re.compile(r"([A-Za-z][A-Za-z ]{2,20}):$")
_BULLET = re.compile(r"(?:[-*+•]|\(?(?:\d{1,2}|[a-z]|[ivx]{1,4})[.)]|#\.)\s+(?=\S)")
_FIELD = re.compile(r"[:@](\w+)(?:\s+[^:]*)?:(?:\s+|$)")
_SPOKEN_FIELDS = _words("param parameter arg argument return returns keyword")
_ITEM = re.compile(r"[`*]*[\w.\[\]]+[`*]*(?:,\s*[`*]*[\w.]+[`*]*)*\s*(?:\([^()]*\)\s*)?:\s+(?=\S)")
_HEADER = re.compile(r"[`*]{0,3}[\w.\[\]]+[`*]*(?:\s*,\s*[`*\w.]+)*\s+:(?:\s|$)")

_INLINE = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(?:,?\s+(?:in|from|by|see|on|of|and))?\s*\[[#*\w-]+\]_+(?:,?\s*\[[\w-]+\]_+)*", ""),
        (r":[\w:.+-]+:`([^`<]*?)\s*<[^`>]*>`", r"\1"),
        (r"(?::[\w:.+-]+:)?`~[\w.]*\.(\w+[()]*)`", r"\1"),
        (r":[\w:.+-]+:`[~!]?([^`]*)`", r"\1"),
        (r"(?<=\w)\\(?=s\b)", ""),  # a plural joined to a role
        (r"!?\[([^\]\[]+)\]\((?:https?:|#|\.)[^)\s]*\)", r"\1"),
        (r"`([^`<]+?)\s*<[^`>]+>`_+", r"\1"),
        (r"``([^`]*)``", r"\1"),
        (r"`([^`]*)`_*", r"\1"),
        (r"(?<![\w*])\*\*([^*\s](?:[^*]*[^*\s])?)\*\*(?![\w*])", r"\1"),
        (r"(?<![\w*])\*([^*\s](?:[^*]*[^*\s])?)\*(?![\w*])", r"\1"),
        (r"\|(\w+)\|_*", r"\1"),
        (r"\\([*`_|<>'\"])", r"\1"),
        (r"^\((?:[^()]|\([^()]*\))*\)\s*:\s+", ""),  # a type before a description
        (r"\s+([,.;])(?=\s|$)", r"\1"),
        (r"::$", ":"),
    )
)

_MARKUP_SIGN = re.compile(r"[`*\[\]|\\(]|::$|\s[,.;]")

_COMMON_WORDS = _words("""
    the a an of to in is are be was were and or if for with that this it as by on from not at which
    when will can has have must should may all any each its you we use used
""")
_CODE_WORD = re.compile(r"[_=<>{}\[\]\\|@#$^~*/+]|\w\(|\w\.\w|[a-z][A-Z]|::|^-|\d\w*[a-z]\d|%\w")
_PLAIN_WORD = re.compile(r"[(\"'\u201c]*[A-Za-z][A-Za-z'\u2019-]*[.,;:!?)\"'\u201d\u2019]*$")
# Most paragraphs that begin or end otherwise were torn from code or a list.
_WHOLE = re.compile(r"[(\"'\u201c\u2018]?[A-Z].*[.!?][)\"'\u201d\u2019]*$", re.S)
# A last sentence with a colon announces code that was dropped.
_TAIL = re.compile(r"(?:^|(?<=[.!?] ))[^.!?]*(?:[.!?](?! )[^.!?]*)*:$")
_MIN_WORDS = 5
_MAX_CODE_SHARE = 0.15
_MIN_PLAIN_SHARE = 0.75


def paragraphs(docstring: str) -> list[str]:
    """Returns the prose paragraphs of `docstring`, one line each, in order; [] if it has none."""
    lines = inspect.cleandoc(docstring).expandtabs().splitlines()
    found = []
    for paragraph in _joined(list(_without_blocks(lines))):
        paragraph = " ".join(_without_markup(paragraph).split())
        if paragraph.endswith(":"):
            paragraph = _TAIL.sub("", paragraph).rstrip()
        if paragraph.count('"') == 1:
            paragraph = paragraph.strip('"')
        if reads_as_prose(paragraph):
            found.append(paragraph)
    return found


def reads_as_prose(paragraph: str) -> bool:
    """Whether `paragraph` looks like whole English sentences, not code, a table row or a name."""
    if not _WHOLE.match(paragraph):
        return False
    words = paragraph.split()
    if len(words) < _MIN_WORDS or paragraph.isupper():
        return False
    plain = sum(1 for word in words if _PLAIN_WORD.match(word))
    code = sum(1 for word in words if _CODE_WORD.search(word))
    if code > _MAX_CODE_SHARE * len(words) or plain < _MIN_PLAIN_SHARE * len(words):
        return False
    return any(word.lower().strip("(,.;:\"'") in _COMMON_WORDS for word in words)


def _without_markup(text: str) -> str:
    if _MARKUP_SIGN.search(text):  # most paragraphs have none, and the substitutions are slow
        for pattern, replacement in _INLINE:
            text = pattern.sub(replacement, text)
    return text.strip()


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _block_end(lines: list[str], start: int, indent: int) -> int:
    """The first line from `start` on that is neither blank nor indented deeper than `indent`."""
    while start < len(lines) and (not lines[start].strip() or _indent(lines[start]) > indent):
        start += 1
    return start


def _chunk_end(lines: list[str], start: int) -> int:
    """The first blank line from `start` on."""
    while start < len(lines) and lines[start].strip():
        start += 1
    return start


def _without_blocks(lines: list[str]) -> Iterator[str]:
    """Yields the lines outside code, doctests, tables and directives; titles as `==name`."""
    i = 0
    while i < len(lines):
        line, text = lines[i], lines[i].strip()
        indent = _indent(line)
        i += 1
        if _FENCE.match(text):
            while i < len(lines) and not _FENCE.match(lines[i].strip()):
                i += 1
            i += 1
        elif text.startswith((">>>", "In [", "$ ", "% ")):
            i = _chunk_end(lines, i)
        elif text.startswith(".. ") or text == "..":
            match = _DIRECTIVE.match(text)
            name, argument = (match.group(1), match.group(2)) if match else (None, "")
            if name in _PROSE_DIRECTIVES:
                yield ""
                if argument and not name.startswith(("version", "deprecated", "admonition")):
                    yield " " * (indent + 3) + argument
            else:
                i = _block_end(lines, i, indent)
        elif text and i < len(lines) and _UNDERLINE.match(lines[i].strip()):
            i += 1
            yield f"=={text.rstrip(':').lower()}"
        elif _UNDERLINE.match(text):
            yield ""
        elif _TABLE_BORDER.match(text):
            i = _chunk_end(lines, i)
            yield ""
        elif text.endswith("::"):
            yield line[: line.rindex("::")] + ":" if len(text) > 2 else ""
            yield ""
            i = _block_end(lines, i, indent)
        elif (match := _SECTION_COLON.match(text)) and match.group(1).lower() in _SECTION_NAMES:
            yield f"=={match.group(1).lower()}"
        else:
            yield line


def _joined(lines: list[str]) -> Iterator[str]:
    """Yields paragraphs: lines of one indent joined, list items and fields apart, headers gone."""
    parts: list[str] = []
    section, indent, hanging = "", 0, False
    for line in [*lines, ""]:
        text = line.strip()
        if line.startswith("=="):
            section, text = line[2:], ""
        if section in _DROPPED_SECTIONS:
            text = ""
        here = _indent(line)
        field = _FIELD.match(text)
        item = _BULLET.match(text) or field
        if not item and section in _FIELD_SECTIONS and not (parts and here > indent):
            item = _ITEM.match(text)
        header = section in _FIELD_SECTIONS and _HEADER.match(text)
        moved = here < indent or (here > indent and not hanging)
        if parts and (not text or item or header or moved):
            yield " ".join(parts)
            parts = []
        if not text or header or (field and field.group(1) not in _SPOKEN_FIELDS):
            continue
        if not parts:
            indent, hanging = here, bool(item)
        elif hanging and here > indent:
            indent, hanging = here, False
        parts.append(text[item.end() :] if item else text)
