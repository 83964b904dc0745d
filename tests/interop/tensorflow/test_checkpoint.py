"""Checkpoints of TensorFlow's V2 format are read bit by bit, and damaged ones refused."""

import base64
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.interop.tensorflow import checkpoint as tensor_bundle
from mobilebert_jax.interop.tensorflow import sstable
from mobilebert_jax.interop.tensorflow.crc32c import crc32c
from tests.interop.tensorflow import checkpoint_writer

FROM_TENSORFLOW = base64.b64decode(
    "AAAGCAMaAggBAA8WAHRhYmxlAAEBAoDAQYB/CAMSCBICCEESAggCGAEoiAQ1Dlg5jQoFFcBBhYB/CAMSCBICCAUSAggC"
    "GAIoKDWlu9Y0AAkTYmVydC9iaWFzCAESBBICCAEYAiAoKAQ1Xi/hpwUGE2tlcm5lbAgBEggSAggCEgIIAygYNcDbPRcA"
    "Cw1nbG9iYWxfc3RlcAgJEgAgGCgINdzgTAoABBFoYWxmCBMSBBICCAIgICgENZMvM00ABSB0YWJsZQgDEggSAghGEgII"
    "AhgBOgYKAhBBCgA6CAoECEEQBQoAAAAAAAEAAAAAmTeeHQAAAAABAAAAAMDyobAAAQN1AOwBAAAAAAEAAAAAUfawAPEB"
    "CP4BDwAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAABX+4CLJHVH2w=="
)
"""An index that TensorFlow 2.21 merged from three files; "table" is cut after row 65."""

TENSORS = {
    "bert/bias": np.array([1.5], np.float32),
    "bert/kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
    "global_step": np.array(-7, np.int64),
    "half": np.array([0.5, -2], np.float16),
    "table": np.arange(140, dtype=np.int32).reshape(70, 2),
}


def several() -> dict[str, np.ndarray]:
    """Returns tensors of every type, with names that share beginnings."""
    generator = np.random.default_rng(0)
    found = {
        f"bert/layer_{i}/{kind}/kernel": generator.normal(size=(i % 5, 3)).astype(kind)
        for i, kind in enumerate(["float32", "float64", "float16", "int32", "int64"] * 8)
    }
    found["bfloat16"] = np.array([[1.5, -2], [0, 3]], ml_dtypes.bfloat16)
    found["step"] = np.array(12, np.int64)
    found["table"] = generator.normal(size=(300, 4)).astype(np.float32)
    return found


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.tobytes() == expected.tobytes()


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    return tmp_path / "model.ckpt-10"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (b"", 0),
    ],
)
def test_checksums_are_those_of_the_rfc(data: bytes, expected: int) -> None:
    assert crc32c(data) == expected


def test_the_checksum_of_every_length_is_that_of_one_bit_after_another() -> None:
    data = np.random.default_rng(0).bytes(300)
    register = 0xFFFFFFFF
    for length, byte in enumerate(data):
        assert crc32c(data[:length]) == register ^ 0xFFFFFFFF
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)


def test_a_checkpoint_of_tensorflow_is_read(prefix: Path) -> None:
    prefix.with_name(f"{prefix.name}.index").write_bytes(FROM_TENSORFLOW)
    files = [("bert/kernel", "global_step", "half"), (), ("bert/bias",)]
    parts = [b"", TENSORS["table"][:65].tobytes(), TENSORS["table"][65:].tobytes()]
    for shard, (names, part) in enumerate(zip(files, parts, strict=True)):
        content = part + b"".join(TENSORS[name].tobytes() for name in names)
        tensor_bundle.shard_path(prefix, shard, 3).write_bytes(content)
    bundle = tensor_bundle.open(prefix)
    assert list(bundle) == list(TENSORS)
    for name, tensor in TENSORS.items():
        assert_same(bundle[name], tensor)


def test_the_writer_of_the_tests_describes_tensors_as_tensorflow_does(
    prefix: Path, tmp_path: Path
) -> None:
    (tmp_path / "theirs").write_bytes(FROM_TENSORFLOW)
    theirs = sstable.read(tmp_path / "theirs")
    names = ("bert/kernel", "global_step", "half")
    checkpoint_writer.write(prefix, {name: TENSORS[name] for name in names})
    ours = sstable.read(prefix.with_name(f"{prefix.name}.index"))
    for name in names:
        assert ours[name.encode()] == theirs[name.encode()], name


@pytest.mark.parametrize(("shards", "block_bytes"), [(1, 4096), (3, 1), (2, 200)])
def test_what_was_written_is_read(prefix: Path, shards: int, block_bytes: int) -> None:
    tensors = several()
    cuts = {"table": 4, "bert/layer_3/int32/kernel": 2}
    checkpoint_writer.write(
        prefix, tensors, shards=shards, block_bytes=block_bytes, partitions=cuts
    )
    bundle = tensor_bundle.open(prefix)
    assert sorted(bundle) == sorted(tensors)
    assert len(bundle) == len(tensors)
    assert "table" in bundle
    assert "nothing" not in bundle
    for name, tensor in tensors.items():
        assert (bundle.entries[name].dtype, bundle.entries[name].shape) == (
            tensor.dtype,
            tensor.shape,
        )
        assert_same(bundle[name], tensor)


def test_long_parts_have_keys_of_more_bytes(prefix: Path) -> None:
    table = np.arange(17_000, dtype=np.int32)
    checkpoint_writer.write(prefix, {"table": table}, partitions={"table": 3})
    assert_same(tensor_bundle.open(prefix)["table"], table)


def test_a_flipped_or_missing_byte_of_the_index_is_noticed(prefix: Path) -> None:
    checkpoint_writer.write(prefix, several(), block_bytes=200)
    index = prefix.with_name(f"{prefix.name}.index")
    content = index.read_bytes()
    used = len(content) - 48 + len((content[-48:-8]).rstrip(b"\0"))  # then zeros nobody reads
    for at in [*range(0, used, 7), used - 1, len(content) - 8, len(content) - 1]:
        index.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
        with pytest.raises(InputError, match=r"ckpt-10\.index"):
            tensor_bundle.open(prefix)
    for length in [0, 1, 47, 48, len(content) // 2, len(content) - 1]:
        index.write_bytes(content[:length])
        with pytest.raises(InputError, match=rf"ckpt-10\.index: .*{length} bytes"):
            tensor_bundle.open(prefix)


def test_cut_off_data_are_noticed_before_anything_is_read(prefix: Path) -> None:
    checkpoint_writer.write(prefix, several())
    data = tensor_bundle.shard_path(prefix, 0, 1)
    content = data.read_bytes()
    for length in [0, len(content) // 2, len(content) - 1]:
        data.write_bytes(content[:length])
        with pytest.raises(InputError, match=rf"00000-of-00001 is cut off.*ends at {length}"):
            tensor_bundle.open(prefix)


@pytest.mark.parametrize("at", [0, 30, -1])
def test_a_flipped_byte_of_the_data_is_noticed_in_its_tensor(prefix: Path, at: int) -> None:
    checkpoint_writer.write(prefix, {"first": np.ones(10, np.float32), "last": np.ones(3)})
    data = tensor_bundle.shard_path(prefix, 0, 1)
    content = bytearray(data.read_bytes())
    content[at] ^= 1
    data.write_bytes(content)
    bundle = tensor_bundle.open(prefix)
    damaged, whole = ("last", "first") if at < 0 else ("first", "last")
    assert bundle[whole].all()
    with pytest.raises(InputError, match=f"tensor '{damaged}' is damaged"):
        bundle[damaged]


def test_a_missing_data_file_is_named(prefix: Path) -> None:
    checkpoint_writer.write(prefix, several(), shards=3)
    tensor_bundle.shard_path(prefix, 1, 3).unlink()
    with pytest.raises(InputError, match=r"data-00001-of-00003 is missing; it is data file 2 of 3"):
        tensor_bundle.open(prefix)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"\x08\x01\x10\x01", "big-endian"),
        (b"\x08\x01\x1a\x02\x10\x02", "in format 2; the newest known is 1"),
        (b"\x10", "a number is cut off"),
        (b"\x1a\x05\x08", "an entry is cut off at byte 2"),
        (b"\x0b", "no protocol buffer: wire type 3"),
        (b"\x08\x00", "lies in data file 0, but there are 0"),
    ],
)
def test_a_header_that_cannot_be_served_is_refused(
    prefix: Path, header: bytes, message: str
) -> None:
    checkpoint_writer.write(prefix, several(), header=header)
    with pytest.raises(InputError, match=rf"ckpt-10\.index: .*{message}"):
        tensor_bundle.open(prefix)


def test_compressed_blocks_are_refused(prefix: Path) -> None:
    checkpoint_writer.write(prefix, several(), compression=1)
    with pytest.raises(InputError, match=r"compressed \(snappy\)"):
        tensor_bundle.open(prefix)


def test_a_lost_part_of_a_cut_tensor_is_named(prefix: Path) -> None:
    checkpoint_writer.write(prefix, several(), partitions={"table": 4})
    index = prefix.with_name(f"{prefix.name}.index")
    table = sstable.read(index)
    lost = [key for key in table if key.startswith(b"\0table")][2]
    index.write_bytes(checkpoint_writer.table_bytes({k: v for k, v in table.items() if k != lost}))
    with pytest.raises(InputError, match=r"tensor 'table' \(300, 4\) the part \(\(150, 75\)"):
        tensor_bundle.open(prefix)["table"]


@pytest.mark.parametrize(
    ("was", "becomes", "message"),
    [
        (b"\x08\x06", b"\x08\x07", r"'t' \(7, 2\) the parts hold 12 of 14 numbers"),
        (b"\x08\x03\x10", b"\x08\x04\x10", r"the part \(\(4, 3\), \(0, -1\)\).* is missing"),
    ],
)
def test_parts_that_do_not_make_up_the_whole_are_refused(
    prefix: Path, was: bytes, becomes: bytes, message: str
) -> None:
    checkpoint_writer.write(prefix, {"t": np.ones((6, 2), np.float32)}, partitions={"t": 2})
    index = prefix.with_name(f"{prefix.name}.index")
    table = sstable.read(index)
    assert was in table[b"t"]
    table[b"t"] = table[b"t"].replace(was, becomes)
    index.write_bytes(checkpoint_writer.table_bytes(table))
    with pytest.raises(InputError, match=message):
        tensor_bundle.open(prefix)["t"]


def test_strings_are_listed_but_not_read(prefix: Path) -> None:
    checkpoint_writer.write(prefix, {"note": np.zeros(4, np.uint8), "x": np.ones(2)})
    index = prefix.with_name(f"{prefix.name}.index")
    table = sstable.read(index)
    table[b"note"] = table[b"note"].replace(b"\x08\x04\x12", b"\x08\x07\x12")
    index.write_bytes(checkpoint_writer.table_bytes(table))
    bundle = tensor_bundle.open(prefix)
    assert bundle.entries["note"].dtype is None
    assert bundle["x"].all()
    with pytest.raises(InputError, match="tensor 'note' is of TensorFlow's type 7"):
        bundle["note"]


def test_a_size_that_contradicts_the_shape_is_refused(prefix: Path) -> None:
    checkpoint_writer.write(prefix, {"x": np.ones((3, 2), np.float32)})
    index = prefix.with_name(f"{prefix.name}.index")
    table = sstable.read(index)
    table[b"x"] = table[b"x"].replace(b"\x08\x03", b"\x08\x02")
    index.write_bytes(checkpoint_writer.table_bytes(table))
    with pytest.raises(InputError, match=r"'x' has 24 bytes, which is not float32 \(2, 2\)"):
        tensor_bundle.open(prefix)


def test_what_is_no_checkpoint_is_told_apart(prefix: Path) -> None:
    with pytest.raises(InputError, match=r"has no \.index file"):
        tensor_bundle.open(prefix)
    prefix.write_bytes(checkpoint_writer.table_bytes({b"": b"\x0a\x00"}))
    with pytest.raises(InputError, match="V1 format"):
        tensor_bundle.open(prefix)
    prefix.write_bytes(b"PK\3\4 something else")
    with pytest.raises(InputError, match="not a TensorFlow checkpoint"):
        tensor_bundle.open(prefix)
    index = prefix.with_name(f"{prefix.name}.index")
    index.write_bytes(b"<html>404</html>" * 10)
    with pytest.raises(InputError, match="not the index of a TensorFlow checkpoint"):
        tensor_bundle.open(prefix)
    index.write_bytes(checkpoint_writer.table_bytes({b"a": b"b"}))
    with pytest.raises(InputError, match="no header entry"):
        tensor_bundle.open(prefix)


def test_a_misspelt_prefix_is_answered_with_the_nearest(prefix: Path) -> None:
    checkpoint_writer.write(prefix, {"x": np.ones(2)})
    with pytest.raises(InputError, match=r"nearest: .*model\.ckpt-10$"):
        tensor_bundle.open(prefix.with_name("model.ckpt-11"))
