"""How the text of a source is divided into units of work.

The division depends on the text and the settings alone, so that the records do not depend on the
number of workers.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from mobilebert_jax.data import compressed, corpus

SHARD_BYTES = 4 << 20
"""Text of one unit: small enough that two cores share a small corpus evenly."""
MAX_UNITS = 512
"""Units of one source; beyond it units grow, because readers keep every shard open."""

_UNBOUNDED = 1 << 50


@dataclasses.dataclass(frozen=True)
class Unit:
    """A piece of a source and what to do with it; all that a worker process gets."""

    shard: corpus.Shard
    number: int
    text_bytes: int
    """Stop after the document that reaches this much text; 0 reads all."""
    held_out: float
    folder: Path
    """Where the unit's files go."""
    key: str = ""
    """Digest of everything that decides what the files hold."""
    tokenizer: str = ""
    """The tokenizer's folder."""
    tokenizer_digest: str = ""


def plan(source: corpus.Source, held_out: float, folder: Path, max_bytes: int) -> list[Unit]:
    """Returns the units of `source`, whose files go into `folder`.

    With `max_bytes` above 0 they read about as much text together, a part of each. Raises
    InputError if there is nothing to read.
    """
    pieces = corpus.plan_shards(source, SHARD_BYTES)
    if len(pieces) > MAX_UNITS:
        growth = -(-len(pieces) // MAX_UNITS)
        pieces = corpus.plan_shards(source, SHARD_BYTES * growth)
    limits = _shares(max_bytes, [_most_text(piece) for piece in pieces])
    return [
        Unit(piece, number, limit, held_out, folder)
        for number, (piece, limit) in enumerate(zip(pieces, limits, strict=True))
    ]


def limited(units: Sequence[Unit], max_bytes: int) -> list[Unit]:
    """Returns the units, reading `max_bytes` of text together at most: a sample of all of them."""
    limits = _shares(max_bytes, [unit.text_bytes or _most_text(unit.shard) for unit in units])
    return [
        dataclasses.replace(unit, text_bytes=limit)
        for unit, limit in zip(units, limits, strict=True)
    ]


def _most_text(shard: corpus.Shard) -> int:
    """Bytes of text that a shard holds at most; its file's size where that is known to bound it."""
    packed = any(part.path.endswith(compressed.ENDINGS) for part in shard.parts)
    if shard.source.kind in ("python_docs", "tfds") or packed:
        return _UNBOUNDED
    return sum(part.stop - part.start for part in shard.parts)


def _shares(total: int, sizes: list[int]) -> list[int]:
    """Divides `total` bytes: the same to every piece, and what small ones cannot use to the others.

    All are 0, no limit, if `total` is.
    """
    shares = [0] * len(sizes)
    if not total:
        return shares
    left = total
    order = sorted(range(len(sizes)), key=sizes.__getitem__)
    for position, i in enumerate(order):
        shares[i] = max(1, min(sizes[i], left // (len(order) - position)))
        left -= shares[i]
    return shares
