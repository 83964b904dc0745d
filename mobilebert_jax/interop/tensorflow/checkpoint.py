"""TensorFlow's checkpoints in the V2 format, read without TensorFlow.

`PREFIX.index` is a table of tensor names and, for each, type, shape and where its bytes lie in
`PREFIX.data-00000-of-0000N`; the empty name holds how many such files there are. A variable that
was cut into parts has an entry that lists them, and one entry for each part.

Source: TensorFlow's tensor_bundle.proto, tensor_bundle.cc, saved_tensor_slice_util.cc and
ordered_code.cc.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np

from mobilebert_jax.config.schema import InputError, nearest
from mobilebert_jax.interop.tensorflow import sstable
from mobilebert_jax.interop.tensorflow.crc32c import crc32c, masked

DTYPES = {
    1: np.dtype("<f4"),
    2: np.dtype("<f8"),
    3: np.dtype("<i4"),
    4: np.dtype("u1"),
    5: np.dtype("<i2"),
    6: np.dtype("i1"),
    9: np.dtype("<i8"),
    10: np.dtype("?"),
    14: np.dtype(ml_dtypes.bfloat16),
    17: np.dtype("<u2"),
    19: np.dtype("<f2"),
    22: np.dtype("<u4"),
    23: np.dtype("<u8"),
}
"""Numbers of TensorFlow's types that are numbers here; strings and resources are none."""

_NEWEST_FORMAT = 1

Extent = tuple[int, int]
"""First index and length along one axis; length -1 for the whole axis."""


class Entry(NamedTuple):
    """What the index says of one tensor."""

    dtype: np.dtype | None
    """None for a type that is not in `DTYPES`."""
    type_number: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    """In bytes."""
    checksum: int
    parts: tuple[tuple[Extent, ...], ...]
    """Where the parts of a cut variable lie in the whole; empty for one in one piece."""


class Bundle(Mapping[str, np.ndarray]):
    """The tensors of one checkpoint by name; each is read, and its checksum tested, when asked for.

    Asking raises KeyError for an unknown name, InputError for a damaged or non-numeric tensor.
    """

    def __init__(
        self, prefix: Path, shards: int, entries: dict[str, Entry], parts: dict[bytes, Entry]
    ):
        self.prefix = prefix
        self.entries = entries
        self._shards = shards
        self._parts = parts

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __getitem__(self, name: str) -> np.ndarray:
        entry = self.entries[name]
        return self._assembled(name, entry) if entry.parts else self._read(name, entry)

    def _assembled(self, name: str, entry: Entry) -> np.ndarray:
        where = f"{self.prefix}.index: of tensor {name!r} {entry.shape}"
        parts: list[tuple[tuple[slice, ...], Entry]] = []
        for extents in entry.parts:
            part = self._parts.get(_part_key(name, extents))
            box = tuple(
                slice(start, size if length < 0 else start + length)
                for (start, length), size in zip(extents, entry.shape, strict=False)
            )
            shape = tuple(s.stop - s.start for s in box)
            if part is None or (part.dtype, part.shape) != (entry.dtype, shape):
                raise InputError(
                    f"{where} the part {extents} (start and length along each axis) is missing or "
                    "of another shape or type"
                )
            parts.append((box, part))
        held = sum(math.prod(part.shape) for _, part in parts)
        # Before memory is asked for, of which a damaged shape may want any amount.
        if held != math.prod(entry.shape):
            raise InputError(f"{where} the parts hold {held} of {math.prod(entry.shape)} numbers")
        whole = np.empty(entry.shape, entry.dtype)
        for box, part in parts:
            if whole[box].shape != part.shape:
                raise InputError(f"{where} a part {box} lies outside")
            whole[box] = self._read(name, part)
        return whole

    def _read(self, name: str, entry: Entry) -> np.ndarray:
        if entry.dtype is None:
            raise _not_numeric(self.prefix, name, entry)
        path = shard_path(self.prefix, entry.shard, self._shards)
        with path.open("rb") as file:
            file.seek(entry.offset)
            data = bytearray(file.read(entry.size))
        if len(data) != entry.size or masked(crc32c(data)) != entry.checksum:
            raise InputError(
                f"{path}: tensor {name!r} is damaged: the checksum of its {entry.size} bytes from "
                f"byte {entry.offset} is wrong; copy the checkpoint anew"
            )
        return np.frombuffer(data, entry.dtype).reshape(entry.shape)


def open(prefix: Path) -> Bundle:
    """Reads the index of the checkpoint `prefix`, the path without `.index`.

    Raises InputError, naming file, tensor and bytes, for what is no checkpoint of the V2 format, is
    damaged or cut off, or lacks a data file.
    """
    index = prefix.with_name(f"{prefix.name}.index")
    if not index.is_file():
        raise InputError(_no_index(prefix, index))
    table = sstable.read(index)
    header = table.pop(b"", None)
    if header is None:
        raise InputError(f"{index}: a table, but not of a checkpoint: it has no header entry ''")
    entries: dict[str, Entry] = {}
    parts: dict[bytes, Entry] = {}
    try:
        shards = _shards(header)
        for key, value in table.items():
            if key.startswith(b"\0"):
                parts[key] = _entry(value)
            else:
                entries[key.decode()] = _entry(value)
    except ValueError as error:
        raise InputError(f"{index}: {error}") from None
    stored = {name: entry for name, entry in entries.items() if not entry.parts}
    stored |= {f"part {key!r}": entry for key, entry in parts.items()}
    _check_data(prefix, shards, stored)
    return Bundle(prefix, shards, entries, parts)


def shard_path(prefix: Path, shard: int, shards: int) -> Path:
    """Returns the path of one data file."""
    return prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{shards:05d}")


def _no_index(prefix: Path, index: Path) -> str:
    if prefix.is_file():
        with prefix.open("rb") as file:
            file.seek(max(0, prefix.stat().st_size - len(sstable.MAGIC)))
            if file.read() == sstable.MAGIC:
                return (
                    f"{prefix}: a checkpoint in the V1 format, one file of TensorFlow before 0.12; "
                    "load and save it with tf.compat.v1.train.Saver of any later TensorFlow"
                )
        return f"{prefix}: not a TensorFlow checkpoint, which is a .index and .data-* files"
    found = [str(path)[: -len(".index")] for path in prefix.parent.glob("*.index")]
    if found:
        return f"there is no checkpoint {prefix} ({index.name} is missing); nearest: " + nearest(
            str(prefix), found
        )
    return f"there is no checkpoint {prefix}: {prefix.parent} has no .index file"


def _check_data(prefix: Path, shards: int, stored: Mapping[str, Entry]) -> None:
    sizes: dict[int, int] = {}
    for name, entry in stored.items():
        where = f"{prefix}.index: tensor {name!r}"
        if entry.dtype is not None and entry.size != math.prod(entry.shape) * entry.dtype.itemsize:
            raise InputError(
                f"{where} has {entry.size} bytes, which is not {entry.dtype} {entry.shape}"
            )
        if not 0 <= entry.shard < shards:
            raise InputError(f"{where} lies in data file {entry.shard}, but there are {shards}")
        path = shard_path(prefix, entry.shard, shards)
        if entry.shard not in sizes:
            if not path.is_file():
                raise InputError(
                    f"{path} is missing; it is data file {entry.shard + 1} of {shards} and holds, "
                    f"for one, tensor {name!r}"
                )
            sizes[entry.shard] = path.stat().st_size
        if entry.offset + entry.size > sizes[entry.shard]:
            raise InputError(
                f"{path} is cut off: tensor {name!r} lies in bytes {entry.offset} to "
                f"{entry.offset + entry.size}, but the file ends at {sizes[entry.shard]}"
            )


def _not_numeric(prefix: Path, name: str, entry: Entry) -> InputError:
    return InputError(
        f"{prefix}.index: tensor {name!r} is of TensorFlow's type {entry.type_number}, which is no "
        f"number type; known are {', '.join(f'{k} ({v})' for k, v in DTYPES.items())}"
    )


def _shards(header: bytes) -> int:
    fields = dict(_fields(header))
    if _integer(fields, 2):
        raise ValueError(
            "written on a big-endian machine, whose numbers are not read here; load and save the "
            "checkpoint on another one"
        )
    oldest_reader = _integer(dict(_fields(_message(fields, 3))), 2)
    if oldest_reader > _NEWEST_FORMAT:
        raise ValueError(f"in format {oldest_reader}; the newest known is {_NEWEST_FORMAT}")
    return _integer(fields, 1)


def _entry(message: bytes) -> Entry:
    pairs = list(_fields(message))
    fields = dict(pairs)
    axes = [value for number, value in _fields(_message(fields, 2)) if number == 2]
    shape = tuple(_integer(dict(_fields(axis)), 1) for axis in axes if isinstance(axis, bytes))
    parts = tuple(_extents(part) for n, part in pairs if n == 7 and isinstance(part, bytes))
    kind = _integer(fields, 1)
    shard, offset, size, checksum = (_integer(fields, number) for number in (3, 4, 5, 6))
    if min(*shape, offset, size, 0) < 0:
        raise ValueError(f"an entry has a negative size: {shape}, byte {offset}, {size} bytes")
    return Entry(DTYPES.get(kind), kind, shape, shard, offset, size, checksum, parts)


def _extents(message: bytes) -> tuple[Extent, ...]:
    extents = (dict(_fields(value)) for _, value in _fields(message) if isinstance(value, bytes))
    return tuple((_integer(e, 1), _integer(e, 2) if 2 in e else -1) for e in extents)


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yields number and value of each field of a protocol buffer."""
    at = 0
    while at < len(message):
        tag, at = sstable.varint(message, at)
        if tag & 7 == 0:
            value, at = sstable.varint(message, at)
            yield tag >> 3, value
            continue
        if tag & 7 not in (1, 2, 5):
            raise ValueError(f"an entry is no protocol buffer: wire type {tag & 7} at byte {at}")
        length = {1: 8, 5: 4}.get(tag & 7)
        if length is None:
            length, at = sstable.varint(message, at)
        content = message[at : at + length]
        if len(content) < length:
            raise ValueError(f"an entry is cut off at byte {at}")
        at += length
        yield tag >> 3, content if tag & 7 == 2 else int.from_bytes(content, "little")


def _integer(fields: Mapping[int, int | bytes], number: int) -> int:
    value = fields.get(number, 0)
    if not isinstance(value, int):
        raise ValueError(f"field {number} of an entry is not a number")
    return value - (1 << 64) if value >> 63 else value


def _message(fields: Mapping[int, int | bytes], number: int) -> bytes:
    value = fields.get(number, b"")
    if not isinstance(value, bytes):
        raise ValueError(f"field {number} of an entry is not a message")
    return value


def _part_key(name: str, extents: tuple[Extent, ...]) -> bytes:
    """Returns the key of one part of a cut variable: in TensorFlow's "ordered code", whose bytes
    sort as the numbers and strings do."""
    escaped = name.encode().replace(b"\0", b"\0\xff")
    numbers = b"".join(_ordered(number) for extent in extents for number in extent)
    rank = len(extents)
    return b"\0" + escaped + b"\0\1" + (bytes([1, rank]) if rank else b"\0") + numbers


def _ordered(number: int) -> bytes:
    """Returns a signed number in n bytes, of which the first n bits are turned around, and which
    leave 7n - 1 bits for the value."""
    length = (number if number >= 0 else ~number).bit_length() // 7 + 1
    turned = ((1 << length) - 1) << 7 * length
    return ((number & ((1 << 8 * length) - 1)) ^ turned).to_bytes(length, "big")
