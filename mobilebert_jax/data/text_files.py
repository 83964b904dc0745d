"""Documents out of text files, read as a stream: plain text, WikiExtractor output, JSON lines.

Files may be compressed (`.gz`, `.zst`). Every mistake in a file is an InputError that says where.
"""

import dataclasses
import hashlib
import html
import re
from collections.abc import Iterator
from typing import Any

from mobilebert_jax import storage
from mobilebert_jax.config.schema import InputError
from mobilebert_jax.data import compressed, json_lines

MAX_LINE_BYTES = 16 << 20
"""A longer line is taken for a file that is no text of lines, and refused."""
MAX_DOCUMENT_CHARACTERS = 1 << 20
"""Plain text without a blank line for this long is handed out in pieces, to bound memory."""

_READ_BYTES = 256 << 10  # of a compressed file this can become 256 MB at once, at the very worst
_UNREADABLE = (".bz2", ".xz", ".zip", ".7z", ".tar", ".tgz", ".lz4", ".parquet", ".pdf")
_DOC_OPEN = re.compile(r"<doc\b(?:.*?\btitle=\"(.*)\")?.*>$")

Numbered = tuple[int, tuple[str, ...]]
"""Number of a document's first line in its file, counted from 1, and its lines."""


@dataclasses.dataclass(frozen=True)
class Part:
    """A piece of one file as it was when the work was planned."""

    path: str
    name: str
    """The path relative to the root of the pattern: the same on every machine."""
    size: int
    """Bytes of the whole file."""
    start: int
    stop: int
    """Range to read: bytes of a file, records of a TFDS dataset."""
    line: int = 1
    """Number of the line that begins at `start`."""


def whole(path: str, name: str, size: int) -> Part:
    """Returns the part that is all of the file at `path`."""
    return Part(path, name, size, 0, size)


def cut(path: str, name: str, size: int, part_bytes: int) -> list[Part]:
    """Returns parts of about `part_bytes` that begin and end at blank lines of a plain text file.

    A compressed file cannot be entered in the middle and stays whole.
    """
    file = whole(path, name, size)
    if path.endswith(compressed.ENDINGS) or file.size <= part_bytes:
        return [file]
    parts, line = [], 1
    with storage.open_bytes(path) as stream:
        while (start := stream.tell()) < file.size:
            first_line = line
            while stream.tell() < start + part_bytes and (
                chunk := stream.read(min(_READ_BYTES, start + part_bytes - stream.tell()))
            ):
                line += chunk.count(b"\n")
            line += _skip_to_blank_line(stream)
            parts.append(
                dataclasses.replace(file, start=start, stop=stream.tell(), line=first_line)
            )
    return parts


def documents(kind: str, field: str, part: Part) -> Iterator[Numbered]:
    """Yields the documents of `part`, a file of `kind` `text`, `wikiextractor` or `jsonl`.

    Raises InputError for a file that has gone or changed since it was planned, is damaged, is not
    UTF-8 or not of that kind, each with the place.
    """
    check_unchanged(part)
    if part.path.endswith(_UNREADABLE):
        raise InputError(f"{part.path} cannot be read; allowed are plain text, .gz and .zst files")
    lines = _lines(part)
    if kind == "text":
        return _plain(lines)
    if kind == "wikiextractor":
        return _wikiextractor(lines, part.path)
    return _jsonl(lines, part.path, field)


def check_unchanged(part: Part) -> None:
    """Raises InputError unless the file of `part` is there with the size it was planned with."""
    try:
        size = storage.size(part.path)
    except OSError as error:
        raise InputError(
            f"{part.path} was there when the work was planned and cannot be opened now: "
            f"{error.strerror or error}"
        ) from error
    if size != part.size:
        raise InputError(
            f"{part.path} has changed while it was being read: {part.size} bytes when the work "
            f"was planned, {size} now; start again when nothing writes to it"
        )


def sha256(path: str) -> str:
    """Returns the SHA-256 of a file's bytes; raises InputError if it cannot be read."""
    try:
        with storage.open_bytes(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def _skip_to_blank_line(stream: Any) -> int:
    """Moves `stream` behind the next blank line, or to the end; returns the lines passed."""
    passed, at_line_start = 0, False  # the rest of a line is not blank, however short it is
    while piece := stream.readline(_READ_BYTES):
        blank = at_line_start and not piece.strip()
        at_line_start = piece.endswith(b"\n")
        passed += at_line_start
        if blank:
            break
    return passed


def _chunks(part: Part) -> Iterator[bytes]:
    left = part.stop - part.start
    with storage.open_bytes(part.path) as stream:
        stream.seek(part.start)
        while left and (chunk := stream.read(min(_READ_BYTES, left))):
            left -= len(chunk)
            yield chunk
    if left:
        raise InputError(f"{part.path} became shorter while it was being read")


def _lines(part: Part) -> Iterator[tuple[int, str]]:
    """Yields `(number, line)` without the white space around the line; blank lines too."""
    number, offset, rest = part.line, part.start, b""
    for chunk in compressed.content(part.path, _chunks(part)):
        data = rest + chunk
        end = data.rfind(b"\n") + 1
        block, rest = data[:end], data[end:]
        if len(rest) > MAX_LINE_BYTES:
            raise InputError(
                f"line {number + block.count(10)} of {part.path} is longer than "
                f"{MAX_LINE_BYTES >> 20} MB; write one sentence or paragraph a line"
            )
        if block:
            for line in _decoded(block, part.path, offset, number).split("\n")[:-1]:
                yield number, line.strip()
                number += 1
            offset += end
    if rest:
        yield number, _decoded(rest, part.path, offset, number).strip()


def _decoded(block: bytes, path: str, offset: int, number: int) -> str:
    try:
        text = block.decode()
    except UnicodeDecodeError as error:
        where = "decompressed " if path.endswith(compressed.ENDINGS) else ""
        raise InputError(
            f"{path} is not UTF-8: byte 0x{block[error.start]:02x} at {where}offset "
            f"{offset + error.start} (line {number + block.count(10, 0, error.start)}); convert it "
            "first, for example with: iconv -f ISO-8859-1 -t UTF-8"
        ) from error
    return text.removeprefix("\ufeff") if offset == 0 else text


def _plain(lines: Iterator[tuple[int, str]]) -> Iterator[Numbered]:
    first, size = 0, 0
    held: list[str] = []
    for number, line in lines:
        if line:
            first = first if held else number
            held.append(line)
            size += len(line)
        if held and (not line or size >= MAX_DOCUMENT_CHARACTERS):
            yield first, tuple(held)
            held, size = [], 0
    if held:
        yield first, tuple(held)


def _wikiextractor(lines: Iterator[tuple[int, str]], path: str) -> Iterator[Numbered]:
    first, title, inside = 0, "", False
    held: list[str] = []
    for number, line in lines:
        opening = _DOC_OPEN.match(line)
        if opening and not inside:
            first, title, held, inside = number, opening.group(1) or "", [], True
        elif opening:
            raise InputError(f"{path}:{number}: <doc> opens inside the <doc> of line {first}")
        elif line == "</doc>" and inside:
            if held and held[0] in (title, html.unescape(title)):
                del held[0]
            if held:
                yield first, tuple(held)
            inside = False
        elif line and inside:
            held.append(line)
        elif line:
            raise InputError(
                f"{path}:{number}: text outside <doc ...> and </doc>; if this is not the output of "
                "WikiExtractor, read it as text:GLOB (or jsonl:GLOB if it was written with --json)"
            )
    if inside:
        raise InputError(
            f"{path}: the <doc> of line {first} is never closed; is the file complete?"
        )


def _jsonl(lines: Iterator[tuple[int, str]], path: str, field: str) -> Iterator[Numbered]:
    for number, line in lines:
        if not line:
            continue
        where = f"{path}:{number}"
        if held := lines_of(json_lines.text(json_lines.parse(line, where), field, where)):
            yield number, held


def lines_of(text: str) -> tuple[str, ...]:
    """Returns the lines of one document's text that are not blank."""
    return tuple(stripped for line in text.split("\n") if (stripped := line.strip()))
