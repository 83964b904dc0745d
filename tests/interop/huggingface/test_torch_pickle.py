"""PyTorch's files: tensors come out as they went in, and nothing in the file is run."""

import collections
import os
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.interop.huggingface import safetensors as safetensors_files
from mobilebert_jax.interop.huggingface import torch_pickle
from tests.interop.huggingface import torch_writer
from tests.interop.huggingface.torch_writer import Call, Parameter, Storage, Tensor

Write = Callable[[Path, Any], None]
WRITERS: list[Write] = [torch_writer.write_zip, torch_writer.write_legacy]
ARRAYS = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "scalar": np.array(2.5, np.float64),
    "empty": np.zeros((0, 4), np.float32),
    "half": np.array([1.5, -2.0], np.float16),
    "brain": np.array([1.5, -2.0], ml_dtypes.bfloat16),
    "position_ids": np.arange(5, dtype=np.int64)[None],
    "mask": np.array([True, False]),
    **{name: np.array([1, 2], name) for name in ("int32", "int16", "int8", "uint8")},
}


@pytest.fixture(params=WRITERS, ids=["zip", "legacy"])
def write(request: pytest.FixtureRequest) -> Write:
    return request.param


def test_tensors_of_every_type_and_layout(write: Write, tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    state = collections.OrderedDict(torch_writer.tensors(ARRAYS))
    state._metadata = collections.OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]
    write(path, state)
    found = torch_pickle.read(path)
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_parameters_and_views_of_one_storage(write: Write, tmp_path: Path) -> None:
    storage = Storage("0", np.arange(10, dtype=np.float32))
    rows, column = Tensor(storage, (2, 3), (3, 1), 1), Tensor(storage, (3,), (3,), 0)
    write(tmp_path / "m.bin", {"rows": Parameter(rows), "column": column})
    found = torch_pickle.read(tmp_path / "m.bin")
    np.testing.assert_array_equal(found["rows"], [[1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(found["column"], [0, 3, 6])


def test_names_of_dataparallel_lose_their_prefix(write: Write, tmp_path: Path) -> None:
    arrays = {"module.a": ARRAYS["a.weight"], "module.module.b": ARRAYS["half"]}
    write(tmp_path / "pytorch_model.bin", torch_writer.tensors(arrays))
    found, _ = safetensors_files.read_folder(tmp_path)
    assert list(found) == ["a", "module.b"]


@pytest.mark.parametrize(
    ("function", "arguments"),
    [(os.system, ("touch RAN",)), (subprocess.run, (["touch", "RAN"],)), (eval, ("1",))],
)
def test_code_is_refused_by_name_and_not_run(
    write: Write, tmp_path: Path, monkeypatch: Any, function: Any, arguments: tuple[Any, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    state = {**torch_writer.tensors(ARRAYS), "x": Call(function, *arguments)}
    write(tmp_path / "m.bin", state)
    with pytest.raises(InputError, match=rf"names \w+\.{function.__name__}"):
        torch_pickle.read(tmp_path / "m.bin")
    assert not (tmp_path / "RAN").exists()


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ([1], "holds a list"),
        ({"model": {"a": 1}}, "entry 'model' is a dict"),
        ({"epoch": 3}, "entry 'epoch' is a int"),
        ({"a": Tensor(Storage("0", np.zeros(3, np.float32)), (4,), (1,))}, "beyond its storage"),
        ({"a": Tensor(Storage("0", np.zeros(3, np.float32)), (9, 9), (0, 0))}, "more numbers"),
        ({"a": Tensor(Storage("0", np.zeros(3, np.float32)), (2,), (-1,))}, "impossible shape"),
        ({"a": Tensor(Storage("0", np.zeros(3, np.float32)), (1,) * 70, (1,) * 70)}, "impossible"),
    ],
)
def test_what_is_no_state_dict_is_refused(
    write: Write, tmp_path: Path, state: Any, said: str
) -> None:
    write(tmp_path / "m.bin", state)
    with pytest.raises(InputError, match=said):
        torch_pickle.read(tmp_path / "m.bin")


def test_files_cut_off_anywhere_are_refused(write: Write, tmp_path: Path) -> None:
    path = tmp_path / "m.bin"
    write(path, torch_writer.tensors(ARRAYS))
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match=r"m\.bin cannot be read as tensors"):
            torch_pickle.read(path)


def test_a_flipped_bit_in_a_zip_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "m.bin"
    torch_writer.write_zip(path, torch_writer.tensors(ARRAYS))
    content = bytearray(path.read_bytes())
    content[content.index(ARRAYS["a.weight"].tobytes()) + 5] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match="CRC"):
        torch_pickle.read(path)


def test_a_compressed_file_cannot_grow_without_bounds(tmp_path: Path) -> None:
    state = torch_writer.tensors({"a": np.zeros(10**6, np.float32)})
    torch_writer.write_zip(tmp_path / "m.bin", state, zipfile.ZIP_DEFLATED)
    with pytest.raises(InputError, match="compressed"):
        torch_pickle.read(tmp_path / "m.bin")
