"""Writes checkpoints of TensorFlow's V2 format as TensorFlow does, for tests of their reading."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mobilebert_jax.interop.tensorflow.checkpoint import DTYPES, shard_path
from mobilebert_jax.interop.tensorflow.crc32c import crc32c, masked

MAGIC = bytes.fromhex("57fb808b247547db")
RESTART_EVERY = 16


def write(
    prefix: Path,
    tensors: Mapping[str, np.ndarray],
    *,
    shards: int = 1,
    block_bytes: int = 4096,
    partitions: Mapping[str, int] | None = None,
    header: bytes | None = None,
    compression: int = 0,
) -> None:
    """Writes `prefix`.index and `shards` data files; `partitions` cuts variables along the rows.

    Tensors go to the data files in turn. `header` replaces the header's protocol buffer, and
    `compression` is what blocks say of themselves.
    """
    table: dict[bytes, bytes] = {}
    files = [bytearray() for _ in range(shards)]

    def store(array: np.ndarray, turn: int) -> bytes:
        file = files[turn % shards]
        entry = _entry(array, turn % shards, len(file))
        file += array.tobytes()
        return entry

    for turn, (name, array) in enumerate(tensors.items()):
        cuts = (partitions or {}).get(name, 1)
        if cuts == 1:
            table[name.encode()] = store(array, turn)
            continue
        slices, first = b"", 0
        for index, rows in enumerate(np.array_split(array, cuts)):
            extents = [(first, len(rows)), *[(0, None)] * (array.ndim - 1)]
            slices += _field(7, b"".join(_field(1, _extent(*extent)) for extent in extents))
            table[_part_key(name, extents)] = store(rows, turn + index)
            first += len(rows)
        table[name.encode()] = _type_and_shape(array) + slices
    table[b""] = _number(1, shards) + _field(3, _number(1, 1)) if header is None else header
    for shard, content in enumerate(files):
        shard_path(prefix, shard, shards).write_bytes(content)
    index = table_bytes(dict(sorted(table.items())), block_bytes, compression)
    prefix.with_name(f"{prefix.name}.index").write_bytes(index)


def table_bytes(
    table: Mapping[bytes, bytes], block_bytes: int = 4096, compression: int = 0
) -> bytes:
    """Returns a table of sorted keys, in blocks of about `block_bytes`."""
    content, handles, rows = bytearray(), {}, {}
    for key, value in table.items():
        rows[key] = value
        if sum(len(k) + len(v) for k, v in rows.items()) >= block_bytes:
            handles[key] = _append_block(content, rows, compression)
            rows = {}
    if rows:
        handles[key] = _append_block(content, rows, compression)
    meta = _append_block(content, {}, compression)
    index = _append_block(content, handles, compression)
    return bytes(content) + (meta + index).ljust(40, b"\0") + MAGIC


def varint(value: int) -> bytes:
    """Returns `value` in 7-bit groups, the lowest first."""
    groups = b""
    while value > 0x7F:
        groups += bytes([value & 0x7F | 0x80])
        value >>= 7
    return groups + bytes([value])


def _append_block(content: bytearray, rows: Mapping[bytes, bytes], compression: int) -> bytes:
    block, restarts, previous = b"", [], b""
    for index, (key, value) in enumerate(rows.items()):
        shared = 0
        if index % RESTART_EVERY:
            while shared < min(len(key), len(previous)) and key[shared] == previous[shared]:
                shared += 1
        else:
            restarts.append(len(block))
        block += varint(shared) + varint(len(key) - shared) + varint(len(value))
        block += key[shared:] + value
        previous = key
    restarts = restarts or [0]
    block += np.array([*restarts, len(restarts)], "<u4").tobytes()
    handle = varint(len(content)) + varint(len(block))
    block += bytes([compression])
    content += block + masked(crc32c(block)).to_bytes(4, "little")
    return handle


def _number(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value) if value else b""


def _field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def _type_and_shape(array: np.ndarray) -> bytes:
    kind = next(number for number, dtype in DTYPES.items() if dtype == array.dtype)
    axes = b"".join(_field(2, _number(1, size)) for size in array.shape)
    return _number(1, kind) + _field(2, axes)


def _entry(array: np.ndarray, shard: int, offset: int) -> bytes:
    checksum = masked(crc32c(array.tobytes())).to_bytes(4, "little")
    place = _number(3, shard) + _number(4, offset) + _number(5, array.nbytes)
    return _type_and_shape(array) + place + varint(6 << 3 | 5) + checksum


def _extent(first: int, length: int | None) -> bytes:
    return _number(1, first) + (b"" if length is None else varint(2 << 3) + varint(length))


def _part_key(name: str, extents: list[tuple[int, int | None]]) -> bytes:
    key = b"\0" + name.encode() + b"\0\1" + bytes([1, len(extents)])
    for first, length in extents:
        key += _ordered(first) + (b"\x7f" if length is None else _ordered(length))
    return key


def _ordered(value: int) -> bytes:
    """Returns a number from 0 to 1,048,575 in TensorFlow's ordered code."""
    if value < 1 << 6:
        return bytes([0x80 | value])
    if value < 1 << 13:
        return (0xC000 | value).to_bytes(2, "big")
    return (0xE00000 | value).to_bytes(3, "big")
