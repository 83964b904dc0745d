"""Seals: any byte that is not what was saved is noticed and named."""

import random
from pathlib import Path

import pytest

from mobilebert_jax import checksums


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generator = random.Random(0)
    for name, size in (("params/data", 5000), ("params/.hidden", 1), ("opt_state/empty", 0)):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(generator.randbytes(size))
    checksums.write(tmp_path)
    return tmp_path


def test_a_folder_that_agrees_has_no_problems(folder: Path) -> None:
    assert checksums.problems(folder) == []
    checksums.write(folder)
    assert checksums.problems(folder) == []


def test_a_folder_without_checksums_was_not_complete(folder: Path) -> None:
    (folder / checksums.NAME).unlink()
    assert checksums.problems(folder) == ["it was not complete (it has no checksums)"]


@pytest.mark.parametrize("name", ["params/data", "params/.hidden", checksums.NAME])
def test_every_flipped_byte_is_noticed(folder: Path, name: str) -> None:
    path = folder / name
    content = path.read_bytes()
    for position in sorted(
        {0, len(content) // 3, len(content) // 2, len(content) - 2} & {*range(len(content))}
    ):
        flipped = bytearray(content)
        flipped[position] ^= 0x10
        path.write_bytes(bytes(flipped))
        assert checksums.problems(folder), position
    path.write_bytes(content)
    assert checksums.problems(folder) == []


@pytest.mark.parametrize("name", ["params/data", "params/.hidden", checksums.NAME])
def test_a_torn_file_is_noticed(folder: Path, name: str) -> None:
    path = folder / name
    content = path.read_bytes()
    for kept in {0, len(content) // 2}:
        path.write_bytes(content[:kept])
        assert checksums.problems(folder), kept


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "opt_state/empty").unlink()
    assert checksums.problems(folder) == ["its file opt_state/empty is missing"]


def test_a_longer_file_is_named_with_both_sizes(folder: Path) -> None:
    with (folder / "params/data").open("ab") as file:
        file.write(b"x")
    assert checksums.problems(folder) == ["its file params/data has 5001 bytes instead of 5000"]


def test_a_folder_that_is_gone_cannot_get_checksums(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        checksums.write(tmp_path / "gone")
