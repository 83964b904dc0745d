"""One unit of preparation: the documents of one piece of a source become two ArrayRecord files.

A unit is finished when its JSON is there. It is written last and names the work it belongs to, and
every file arrives under its name by a rename, so that a process killed at any instant leaves either
a finished unit or nothing that counts.
"""

import contextlib
import dataclasses
import errno
import functools
import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from mobilebert_jax.config import schema
from mobilebert_jax.config.schema import InputError
from mobilebert_jax.data import atomic, corpus, dataset, sentences, tokenizer
from mobilebert_jax.data.work_units import Unit

MAX_SENTENCE_TOKENS = 512
MAX_RECORD_TOKENS = 8192
EXAMPLES = 5
EXAMPLE_CHARACTERS = 40
"""How many unknown words a unit keeps for messages, and how much of each."""
_BATCH_CHARACTERS = 200_000


@dataclasses.dataclass
class Counts:
    """What a unit has put into one split."""

    documents: int = 0
    single_sentences: int = 0
    """Documents of one sentence, of which no pair of sentences in their order can be made."""
    records: int = 0
    sentences: int = 0
    tokens: int = 0
    unknown: int = 0
    """Tokens that the vocabulary does not know."""
    bytes: int = 0
    """Text, as UTF-8."""
    record_bytes: int = 0
    digest: str = ""
    """SHA-256 of the records."""


def is_held_out(lines: tuple[str, ...], share: float) -> bool:
    """Whether a document is kept from training: decided by its text alone, so that duplicates fall
    on one side and no document changes sides when others are added."""
    digest = hashlib.blake2b("\n".join(lines).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64 < share


def sample(unit: Unit) -> list[str]:
    """Returns the lines of the unit's training documents that `text_bytes` allows."""
    return [
        line
        for document in _documents(unit)
        if not is_held_out(document.lines, unit.held_out)
        for line in document.lines
    ]


def write(unit: Unit) -> dict[str, Any]:
    """Tokenises a unit into its files and returns what its JSON says.

    Raises InputError for text that cannot be read and OSError if the disk is full.
    """
    writers = {split: _SplitWriter(unit, split) for split in dataset.SPLITS}
    try:
        empty, unknown = _tokenize(unit, writers)
        counts = {split: dataclasses.asdict(writer.close()) for split, writer in writers.items()}
    except BaseException:
        for writer in writers.values():
            writer.abandon()
        raise
    report = {
        "key": unit.key,
        "splits": counts,
        "empty_documents": empty,
        "unknown": sorted(unknown),
    }
    atomic.write_json(report_path(unit.folder, unit.number), report)
    return report


def _tokenize(unit: Unit, writers: dict[str, "_SplitWriter"]) -> tuple[int, set[str]]:
    """Sends every document to the writer of its split.

    Returns how many held no token, and some of the words that the vocabulary does not know.
    """
    vocabulary = _load_tokenizer(unit.tokenizer, unit.tokenizer_digest)
    empty, unknown = 0, set[str]()
    for batch in _batches(_documents(unit)):
        split_lines = [[s for line in d.lines for s in sentences.split(line)] for d in batch]
        ids = iter(vocabulary.encode([s for document in split_lines for s in document]))
        for document, texts in zip(batch, split_lines, strict=True):
            pieces = _pieces(itertools.islice(ids, len(texts)))
            if pieces:
                split = dataset.SPLITS[is_held_out(document.lines, unit.held_out)]
                missing = sum(piece.count(vocabulary.unk) for piece in pieces)
                writers[split].add(pieces, _text_bytes(document), missing)
                if missing and len(unknown) < EXAMPLES:
                    unknown |= _unknown_words(texts, vocabulary)
            else:
                empty += 1
    return empty, unknown


def _unknown_words(texts: list[str], vocabulary: tokenizer.Tokenizer) -> set[str]:
    """Returns at most EXAMPLES of the pieces of `texts` that the vocabulary does not know."""
    found: set[str] = set()
    for text, (ids, spans) in zip(texts, vocabulary.encode_with_spans(texts), strict=True):
        for index, (begin, end) in zip(ids, spans, strict=True):
            if index == vocabulary.unk:
                found.add(text[begin:end][:EXAMPLE_CHARACTERS])
                if len(found) == EXAMPLES:
                    return found
    return found


def report_path(folder: Path, number: int) -> Path:
    """Returns the JSON that makes unit `number` finished."""
    return folder / f"{number:05d}.json"


def records_path(folder: Path, number: int, split: str) -> Path:
    """Returns the ArrayRecord file of a unit and split."""
    return folder / f"{number:05d}-{split}.array_record"


def counts_path(folder: Path, number: int, split: str) -> Path:
    """Returns what `dataset.counts_path` holds, of a unit's records of a split."""
    return folder / f"{number:05d}-{split}.npy"


def finish(
    folder: Path, source: corpus.Source, reports: list[dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Gives the shards of a source their final names and writes its metadata; returns the totals.

    Every step can be repeated after a kill in its middle. Raises InputError for an empty split.
    """
    partial = folder / "partial"
    _check_not_empty(source, reports)
    lengths: dict[str, list[int]] = {}
    totals: dict[str, dict[str, Any]] = {}
    for split in dataset.SPLITS:
        counts = [report["splits"][split] for report in reports]
        full = [number for number, count in enumerate(counts) if count["records"]]
        for index, number in enumerate(full):
            made = records_path(partial, number, split)
            final = dataset.shard_path(folder, split, index, len(full))
            if not final.exists():
                os.replace(made, final)
        counted = [np.load(counts_path(partial, number, split)) for number in full]
        atomic.write_array(dataset.counts_path(folder, split), np.concatenate(counted))
        lengths[split] = [counts[number]["records"] for number in full]
        totals[split] = {
            name: sum(count[name] for count in counts) for name in counts[0] if name != "digest"
        }
        totals[split]["digest"] = digest([counts[number]["digest"] for number in full])
    num_bytes = {split: totals[split]["record_bytes"] for split in dataset.SPLITS}
    dataset.write_metadata(folder, source.label, lengths, num_bytes)
    return totals


def _check_not_empty(source: corpus.Source, reports: list[dict[str, Any]]) -> None:
    found = {s: sum(report["splits"][s]["documents"] for report in reports) for s in dataset.SPLITS}
    empty = sum(report["empty_documents"] for report in reports)
    total = sum(found.values())
    if not total:
        raise InputError(
            f"data.source: {source.label} holds no text ({empty} documents without a token); check "
            "the pattern, and for jsonl and tfds the #FIELD"
        )
    for split in dataset.SPLITS:
        if not found[split]:
            advice = (
                "raise data.validation_fraction or give more documents (a blank line separates "
                "documents)"
                if split == "held_out"
                else "lower data.validation_fraction or give more documents"
            )
            raise InputError(
                f"data.source: none of the {total} documents of {source.label} falls into the "
                f"{split} split; {advice}"
            )


def digest(content: Any) -> str:
    """Returns the SHA-256 of what can be written as JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class _SplitWriter:
    """The records of one split of a unit."""

    def __init__(self, unit: Unit, split: str):
        self._path = records_path(unit.folder, unit.number, split)
        self._counts_path = counts_path(unit.folder, unit.number, split)
        self._temporary = atomic.temporary(self._path)
        self._writer = ArrayRecordWriter(os.fspath(self._temporary), "group_size:1")
        self._serialize = dataset.Serializer()
        self._hash = hashlib.sha256()
        self._counted: list[tuple[int, int]] = []
        self._counts = Counts()

    def add(self, pieces: list[list[int]], text_bytes: int, unknown: int) -> None:
        """Writes a document, given as token ids by sentence, `unknown` of which are [UNK]."""
        self._counts.documents += 1
        self._counts.single_sentences += len(pieces) == 1
        self._counts.unknown += unknown
        self._counts.bytes += text_bytes
        for number, part in enumerate(_parts(pieces)):
            tokens = list(itertools.chain.from_iterable(part))
            record = self._serialize(tokens, list(map(len, part)))
            with _disk_errors(self._path):
                self._writer.write(record)
            self._hash.update(record)
            self._counted.append((len(tokens), int(number > 0)))
            self._counts.sentences += len(part)
            self._counts.record_bytes += len(record)

    def close(self) -> Counts:
        """Puts the files in place and returns what they hold."""
        with _disk_errors(self._path):
            self._writer.close()
        atomic.publish(self._path)
        counted = np.array(self._counted, np.int64).reshape(-1, 2)
        atomic.write_array(self._counts_path, counted)
        self._counts.records = len(counted)
        self._counts.tokens = int(counted[:, 0].sum())
        self._counts.digest = self._hash.hexdigest()
        return self._counts

    def abandon(self) -> None:
        """Takes an unfinished file away, so that a full disk is not kept full by leftovers."""
        with contextlib.suppress(RuntimeError):
            self._writer.close()
        self._temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """Gives the writer's only error, a RuntimeError, the type of the disk's."""
    try:
        yield
    except RuntimeError as error:
        if os.strerror(errno.ENOSPC) in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path)) from error
        raise


def _documents(unit: Unit) -> Iterator[corpus.Document]:
    if not unit.text_bytes:
        yield from corpus.read(unit.shard)
        return
    read = 0
    for document in corpus.read(unit.shard):
        yield document
        read += _text_bytes(document)
        if read >= unit.text_bytes:
            return


def _text_bytes(document: corpus.Document) -> int:
    return len("\n".join(document.lines).encode()) + 1


def _batches(documents: Iterator[corpus.Document]) -> Iterator[list[corpus.Document]]:
    """Groups documents so that the tokenizer sees much text at a time, but never a whole file."""
    batch: list[corpus.Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += sum(map(len, document.lines))
        if characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _pieces(encoded: Iterable[list[int]]) -> list[list[int]]:
    """Returns the sentences that are not empty, longer ones cut into MAX_SENTENCE_TOKENS each."""
    pieces = [sentence for sentence in encoded if sentence]
    step = MAX_SENTENCE_TOKENS
    if max(map(len, pieces), default=0) <= step:  # all but one document in thousands
        return pieces
    return [piece[i : i + step] for piece in pieces for i in range(0, len(piece), step)]


def _parts(pieces: list[list[int]]) -> Iterator[list[list[int]]]:
    """Cuts a document at sentence borders into parts of at most MAX_RECORD_TOKENS."""
    part: list[list[int]] = []
    tokens = 0
    for piece in pieces:
        if part and tokens + len(piece) > MAX_RECORD_TOKENS:
            yield part
            part, tokens = [], 0
        part.append(piece)
        tokens += len(piece)
    yield part


@functools.lru_cache(maxsize=1)
def _load_tokenizer(folder: str, digest: str) -> tokenizer.Tokenizer:
    loaded = tokenizer.load(folder, schema.Tokenizer())
    if loaded.digest != digest:
        raise InputError(f"the tokenizer in {folder} was changed during preparation")
    return loaded
