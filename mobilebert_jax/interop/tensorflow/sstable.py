"""LevelDB's table of sorted keys, in which TensorFlow's checkpoints keep their index.

The file is a row of blocks and a footer of 48 bytes: where the index block lies, which says where
the others lie, and a magic number. Behind each block stand one byte, how it is compressed, and a
checksum of both. In a block a key gives only what differs from the key before it.

Source: LevelDB's table_format.md; TensorFlow's lib/io/table.
"""

from collections.abc import Iterator
from pathlib import Path

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.interop.tensorflow.crc32c import crc32c, masked

MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")
_FOOTER = 48
_TRAILER = 5
_COMPRESSION = {0: "none", 1: "snappy"}


def read(path: Path) -> dict[bytes, bytes]:
    """Returns all keys with their values in the order of the file.

    Raises InputError, naming the byte, for a file that is cut off, damaged, compressed or no table.
    """
    data = path.read_bytes()
    if len(data) < _FOOTER or not data.endswith(MAGIC):
        raise InputError(
            f"{path}: not the index of a TensorFlow checkpoint, or cut off: its {len(data)} bytes "
            f"do not end in the magic number {MAGIC.hex()}"
        )
    try:
        return _read(data)
    except ValueError as error:
        raise InputError(f"{path}: damaged index: {error}; copy the checkpoint anew") from None


def varint(data: bytes, at: int) -> tuple[int, int]:
    """Returns the number of 7-bit groups that begins at byte `at`, and where it ends.

    Raises ValueError where the data end inside it.
    """
    value = 0
    for length, byte in enumerate(data[at : at + 10]):
        value |= (byte & 0x7F) << 7 * length
        if byte < 0x80:
            return value, at + length + 1
    raise ValueError(f"a number is cut off at byte {at} of {len(data)}")


def _read(data: bytes) -> dict[bytes, bytes]:
    footer = data[-_FOOTER:]
    (meta_offset, meta_size), at = _handle(footer, 0)
    (offset, size), _ = _handle(footer, at)
    _block(data, meta_offset, meta_size)
    found: dict[bytes, bytes] = {}
    for _, value in _entries(_block(data, offset, size), offset):
        (offset, size), _ = _handle(value, 0)
        found.update(_entries(_block(data, offset, size), offset))
    return found


def _handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    offset, at = varint(data, at)
    size, at = varint(data, at)
    return (offset, size), at


def _block(data: bytes, offset: int, size: int) -> bytes:
    end = offset + size
    if end + _TRAILER > len(data) - _FOOTER:
        raise ValueError(
            f"a block of {size} bytes at byte {offset} does not fit into {len(data)} bytes"
        )
    stored = int.from_bytes(data[end + 1 : end + _TRAILER], "little")
    if masked(crc32c(data[offset : end + 1])) != stored:
        raise ValueError(f"the checksum of the block of {size} bytes at byte {offset} is wrong")
    if data[end]:
        kind = _COMPRESSION.get(data[end], f"kind {data[end]}")
        raise ValueError(
            f"the block at byte {offset} is compressed ({kind}), which only TensorFlow 1.1 did and "
            "is not read here; load and save the checkpoint with a later TensorFlow"
        )
    return data[offset:end]


def _entries(block: bytes, offset: int) -> Iterator[tuple[bytes, bytes]]:
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 * (restarts + 1)
    if len(block) < 4 or end < 0:
        raise ValueError(f"the block at byte {offset} has no room for its {restarts} restarts")
    key, at = b"", 0
    while at < end:
        start = at
        shared, at = varint(block, at)
        own, at = varint(block, at)
        length, at = varint(block, at)
        if shared > len(key) or at + own + length > end:
            raise ValueError(f"the entry at byte {offset + start} does not fit into its block")
        key = key[:shared] + block[at : at + own]
        at += own + length
        yield key, block[at - length : at]
