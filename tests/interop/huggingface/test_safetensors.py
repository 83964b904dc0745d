"""Files of tensors: what is written is read, and what is damaged is refused by name."""

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.interop import folders, reading
from mobilebert_jax.interop.huggingface import safetensors as safetensors_files

TENSORS = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.zeros((0, 4), np.float32),
    "ids": np.arange(3, dtype=np.int64),
    "half": np.array([1.5, -2.0], np.float16),
    "brain": np.array([1.5, -2.0], ml_dtypes.bfloat16),
}


def test_tensors_of_every_type_are_read_as_written(tmp_path: Path) -> None:
    safetensors_files.write(tmp_path / "model.safetensors", TENSORS, {"format": "pt"})
    found, where = safetensors_files.read_folder(tmp_path)
    assert where == tmp_path / "model.safetensors"
    assert {name: array.dtype for name, array in found.items()} == {
        name: array.dtype for name, array in TENSORS.items()
    }
    np.testing.assert_equal(found, TENSORS)


def test_transposed_arrays_are_written_as_they_are_indexed(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    safetensors_files.write(tmp_path / "t.safetensors", {"t": array}, {})
    np.testing.assert_array_equal(safetensors_files.read(tmp_path / "t.safetensors")["t"], array)


def test_files_cut_off_anywhere_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    safetensors_files.write(path, TENSORS, {"format": "pt"})
    content = path.read_bytes()
    for length in (0, 4, 8, 9, 100, len(content) - 30, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match=r"model\.safetensors: not a whole safetensors file"):
            safetensors_files.read_folder(tmp_path)
    for wrong in (content + b"x", b"garbage" * 50, b"\x02" + b"\0" * 7 + b"[]"):
        path.write_bytes(wrong)
        with pytest.raises(InputError, match="not a whole safetensors file"):
            safetensors_files.read(path)


def test_a_type_that_numpy_lacks_is_refused(tmp_path: Path) -> None:
    header = json.dumps({"x": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0")
    with pytest.raises(InputError, match="not a whole safetensors file"):
        safetensors_files.read(path)


def write_shards(folder: Path, index: dict[str, Any]) -> None:
    for name, stems in {"one": ["a.weight", "b"], "two": ["ids"]}.items():
        shard = {stem: TENSORS[stem] for stem in stems}
        safetensors_files.write(folder / f"{name}.safetensors", shard, {"format": "pt"})
    safetensors_files.write_json(folder / "model.safetensors.index.json", index)


WEIGHT_MAP = {"a.weight": "one.safetensors", "b": "one.safetensors", "ids": "two.safetensors"}


def test_shards_are_read_as_one(tmp_path: Path) -> None:
    write_shards(tmp_path, {"metadata": {"total_size": 1}, "weight_map": WEIGHT_MAP})
    found, where = safetensors_files.read_folder(tmp_path)
    assert where.name == "model.safetensors.index.json"
    np.testing.assert_equal(found, {name: TENSORS[name] for name in WEIGHT_MAP})


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ({"a.weight": "three.safetensors"}, "the shard three.safetensors is missing"),
        ({"a.weight": "../one.safetensors"}, "must be the name of a file in the same folder"),
        ({"a.weight": "/etc/passwd"}, "must be the name of a file in the same folder"),
        ({"a.weight": ".."}, "must be the name of a file in the same folder"),
        ({"a.weight": "two.safetensors"}, r"1 tensors are in no shard.*a\.weight.*two"),
        ({"a.weight": 3}, "weight_map"),
        (None, "weight_map"),
    ],
)
def test_wrong_indices_are_refused(places: Any, message: str, tmp_path: Path) -> None:
    write_shards(tmp_path, {"weight_map": places})
    with pytest.raises(InputError, match=rf"model\.safetensors\.index\.json: .*{message}"):
        safetensors_files.read_folder(tmp_path)


def test_a_folder_without_tensors_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "tf_model.h5").write_bytes(b"")
    with pytest.raises(InputError, match=r"no model\.safetensors .*pytorch_model\.bin.*tf_model"):
        safetensors_files.read_folder(tmp_path)


def test_only_types_that_float32_holds_become_float32() -> None:
    where = Path("file")
    for name in ("half", "brain", "a.weight"):
        found = safetensors_files.as_float32(name, TENSORS[name], where)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, TENSORS[name].astype(np.float32))
    for kind in (np.int64, np.int8, np.float64, np.bool_):
        with pytest.raises(InputError, match=r"file: tensor x has the type .*allowed are float32"):
            safetensors_files.as_float32("x", np.ones(2, kind), where)
    for value in (np.nan, np.inf):
        with pytest.raises(InputError, match="tensor x holds numbers that are infinite or none"):
            safetensors_files.as_float32("x", np.array([1.0, value], np.float32), where)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1,\n "b"}', "line 2, column 5"),
        (b"", "line 1, column 1"),
        (b"[1]", "must be a JSON object in braces, not list"),
        (b'{"a": "\xff"}', "not UTF-8 at byte 7"),
        (b'{"a": ' + b"[" * 100_000, "JSON that cannot be read"),
        (b'{"a": ' + b"1" * 5000 + b"}", "JSON that cannot be read"),
    ],
)
def test_damaged_json_is_located(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"config\.json: .*{message}"):
        safetensors_files.read_json(path)
    with pytest.raises(InputError, match=r"config\.json: "):
        reading.read(tmp_path)


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(KeyError), folders.written(tmp_path / "deep" / "folder") as temporary:
        (temporary / "file").write_text("half")
        raise KeyError
    assert list((tmp_path / "deep").iterdir()) == []
    (tmp_path / "deep" / "folder").mkdir()
    with folders.written(tmp_path / "deep" / "folder") as temporary:
        (temporary / "file").write_text("whole")
        assert not (tmp_path / "deep" / "folder" / "file").exists()
    assert (tmp_path / "deep" / "folder" / "file").read_text() == "whole"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["folder"]
    assert (tmp_path / "deep" / "folder").stat().st_mode & 0o777 == (
        (tmp_path / "deep").stat().st_mode & 0o777
    )


@pytest.mark.parametrize("make", [Path.touch, lambda path: (path / "mine").mkdir(parents=True)])
def test_what_is_already_there_is_kept(make: Any, tmp_path: Path) -> None:
    make(tmp_path / "there")
    with (
        pytest.raises(InputError, match="there already exists and is not an empty folder"),
        folders.written(tmp_path / "there"),
    ):
        raise AssertionError("must not be entered")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
