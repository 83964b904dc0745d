"""Sources of documents: what the setting `data.source` means, and how it is read in parallel.

A source is planned into shards, each a piece of work that any process can read on its own. A
document is a tuple of lines, each a sentence or a paragraph.
"""

import dataclasses
import glob
import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mobilebert_jax import storage
from mobilebert_jax.config.schema import InputError, nearest
from mobilebert_jax.data import compressed, python_docs, text_files, tfds_source
from mobilebert_jax.data.text_files import Part

KINDS = ("python_docs", "text", "wikiextractor", "jsonl", "tfds")
_FIELD_KINDS = ("jsonl", "tfds")
_DEFAULT_FIELD = "text"
_TERM = re.compile(r"(?:([-+]?\d\S*)\s+)?([^:]+)(?::(.*))?$", re.S)
# Parsing Python takes fifty times as long as reading text, so its shards are made of less.
_MODULE_SHARD_BYTES = 8 << 20
_COMPRESSION = 4  # text is about this much larger than its compressed file


@dataclasses.dataclass(frozen=True)
class Source:
    """One term of `data.source`; `weight` is its share of examples, relative to the others."""

    weight: float
    kind: str
    pattern: str = ""
    field: str = _DEFAULT_FIELD

    @property
    def label(self) -> str:
        """The term without its weight, for messages and manifests."""
        field = f"#{self.field}" if self.field != _DEFAULT_FIELD else ""
        return f"{self.kind}:{self.pattern}{field}" if self.pattern else self.kind


@dataclasses.dataclass(frozen=True)
class Shard:
    """A piece of work: some documents of a source, in a fixed order."""

    source: Source
    parts: tuple[Part, ...]

    @property
    def digest(self) -> str:
        """Identity of the piece: the same whenever the same bytes would be read."""
        parts = [[p.name, p.size, p.start, p.stop] for p in self.parts]
        return hashlib.sha256(json.dumps([self.source.label, parts]).encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class Document:
    """The lines of one document and where they stood: `file:line`, a module or a record."""

    lines: tuple[str, ...]
    origin: str


def parse_sources(spec: str) -> tuple[Source, ...]:
    """Returns the terms of `data.source`, such as `0.7 text:wiki/*.txt + 0.3 python_docs`.

    Looks at the text alone, not at files. Raises InputError naming the term that is wrong.
    """
    return tuple(_parse_term(term.strip(), spec) for term in re.split(r"\s\+\s", f" {spec} "))


def fingerprint(source: Source) -> dict[str, Any]:
    """Returns the identity of the source's content, to be written as JSON.

    Files are hashed whole, at every start: size and time of a file may be those of another text.
    Those in a bucket have a checksum there. Raises InputError if there is nothing to read.
    """
    if source.kind == "python_docs":
        return {"source": source.label, **python_docs.fingerprint()}
    if source.kind == "tfds":
        return {"source": source.label, **tfds_source.fingerprint(source.pattern)}
    if storage.is_remote(source.pattern):
        return {"source": source.label, "files": [list(file[1:]) for file in _files(source)]}
    found = _files(source)
    # Hashing releases the interpreter's lock: 1 to 2 GB/s a core where files are in memory.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        hashes = pool.map(text_files.sha256, (path for path, *_ in found))
        files = [
            [name, size, digest] for (_, name, size, _), digest in zip(found, hashes, strict=True)
        ]
    return {"source": source.label, "files": files}


def fingerprints(spec: str) -> list[dict[str, Any]]:
    """Returns the identity of every term of `data.source`; raises InputError as `fingerprint`."""
    return [fingerprint(source) for source in parse_sources(spec)]


def plan_shards(source: Source, shard_bytes: int) -> list[Shard]:
    """Returns the shards of `source`, each about `shard_bytes` of text where it can be cut.

    Plain text is cut at blank lines, other files stay whole, small files go together. The shards of
    `python_docs` mix the packages: any leading part of them is a sample of them all. Raises
    InputError if there is nothing to read.
    """
    if source.kind == "tfds":
        name, records, size = tfds_source.size(source.pattern)
        step = max(1, shard_bytes * records // max(size, 1))
        parts = [
            Part("", name, records, start, min(start + step, records))
            for start in range(0, records, step)
        ]
        return [Shard(source, (part,)) for part in parts]
    if source.kind == "python_docs":
        modules = [Part(path, name, size, 0, size) for name, path, size in python_docs.modules()]
        return _grouped(source, modules, min(shard_bytes, _MODULE_SHARD_BYTES))
    if source.kind == "text":
        parts = [
            part
            for path, name, size, _ in _files(source)
            for part in text_files.cut(path, name, size, shard_bytes)
        ]
    else:
        parts = [text_files.whole(path, name, size) for path, name, size, _ in _files(source)]
    return _grouped(source, parts, shard_bytes)


def read(shard: Shard) -> Iterator[Document]:
    """Yields the documents of `shard` as a stream.

    Raises InputError, naming the place, for text that cannot be read and for a file that has gone
    or changed since the shard was planned.
    """
    source = shard.source
    for part in shard.parts:
        if source.kind == "python_docs":
            text_files.check_unchanged(part)
            found: Iterable[tuple[str, tuple[str, ...]]] = python_docs.documents(
                part.name, part.path
            )
        elif source.kind == "tfds":
            found = tfds_source.documents(source.pattern, source.field, part.start, part.stop)
        else:
            numbered = text_files.documents(source.kind, source.field, part)
            found = ((f"{part.path}:{line}", lines) for line, lines in numbered)
        for origin, lines in found:
            yield Document(lines, origin)


def _parse_term(term: str, spec: str) -> Source:
    match = _TERM.match(term)
    if not match:
        raise InputError(
            f"data.source={spec!r} has an empty term; write KIND:PATTERN + KIND:PATTERN"
        )
    weight_text, kind, pattern = match.group(1) or "1", match.group(2).strip(), match.group(3) or ""
    try:
        weight = float(weight_text)
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise InputError(
            f"data.source: weight {weight_text!r} of {term!r} must be a number above 0"
        )
    if kind not in KINDS:
        raise InputError(
            f"data.source: there is no kind {kind!r} (in {term!r}); kinds are {', '.join(KINDS)}; "
            f"the nearest is {nearest(kind, KINDS)!r}"
        )
    field = _DEFAULT_FIELD
    if kind in _FIELD_KINDS and "#" in pattern:
        pattern, field = pattern.rsplit("#", 1)
    if kind == "python_docs" and match.group(3) is not None:
        raise InputError(f"data.source: python_docs takes nothing after it, but {term!r} was given")
    if kind != "python_docs" and not (pattern and field):
        wanted = {"tfds": "tfds:NAME[#FIELD]", "jsonl": "jsonl:GLOB[#FIELD]"}
        raise InputError(
            f"data.source: {term!r} is incomplete; write {wanted.get(kind, kind + ':GLOB')}"
        )
    return Source(weight, kind, pattern, field)


def _grouped(source: Source, parts: list[Part], shard_bytes: int) -> list[Shard]:
    """Shards of consecutive parts, each as many as stay within `shard_bytes`, at least one."""
    shards: list[Shard] = []
    held: list[Part] = []
    size = 0
    for part in parts:
        weight = part.stop - part.start
        if part.path.endswith(compressed.ENDINGS):
            weight *= _COMPRESSION
        if held and size + weight > shard_bytes:
            shards.append(Shard(source, tuple(held)))
            held, size = [], 0
        held.append(part)
        size += weight
    return [*shards, Shard(source, tuple(held))] if held else shards


def _root(pattern: str) -> str:
    """The folders of `pattern` before its first wildcard; for a plain path the file's folder."""
    folders = pattern.split("/")[:-1]
    plain = next((i for i, name in enumerate(folders) if glob.has_magic(name)), len(folders))
    return "/".join(folders[:plain]) or ("/" if pattern.startswith("/") else ".")


def _is_broken_link(path: str, source: Source) -> bool:
    if os.path.islink(path) and not os.path.exists(path):
        raise InputError(
            f"{source.label} matches {path}, a link to {os.readlink(path)}, which is not there; "
            "mend or remove the link"
        )
    return False


def _files(source: Source) -> list[tuple[str, str, int, str]]:
    """`(path, name, bytes, checksum)` of the files that the pattern matches, sorted by name.

    Only those in a bucket have a checksum, which is listed with them.
    """
    pattern = os.path.expanduser(source.pattern)
    root = _root(pattern)
    remote = storage.is_remote(pattern)
    found = (
        storage.matches(pattern)
        if remote
        else [
            (path, os.path.getsize(path), "")
            for path in glob.glob(pattern, recursive=True)
            if os.path.isfile(path) or _is_broken_link(path, source)
        ]
    )
    if found:
        named = {Path(os.path.relpath(file[0], root)).as_posix(): file for file in found}
        return [(named[name][0], name, *named[name][1:]) for name in sorted(named)]
    message = f"{source.label} matches no file"
    while not remote and not os.path.isdir(root):
        message = f"{message}: there is no folder {root}"
        root = os.path.dirname(root) or "."
    names = storage.names(storage.path(root))
    shown = root if remote else os.path.abspath(root)
    if names:
        like = nearest(os.path.relpath(pattern, root), names)
        message = f"{message}; the nearest in {shown} is {like!r}"
    else:
        message = f"{message}; {shown} is empty"
    raise InputError(message)
