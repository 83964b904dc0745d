"""Whether products are rounded depends on the setting, the devices and the processor."""

import dataclasses
import platform
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from mobilebert_jax.config.execution import Execution
from mobilebert_jax.config.schema import Config
from mobilebert_jax.sharding import cpu_features


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    cpu_features.multiplies_bfloat16.cache_clear()
    yield
    cpu_features.multiplies_bfloat16.cache_clear()


def listed(monkeypatch: pytest.MonkeyPatch, folder: Path, flags: str) -> None:
    """Makes Linux say that both cores have `flags`."""
    cores = [f"processor : {n}\nflags\t\t: fpu {flags} sse\nbogomips : 5\n" for n in (0, 1)]
    (folder / "cpuinfo").write_text("\n".join(cores))
    monkeypatch.setattr(cpu_features, "CPU_LIST", folder / "cpuinfo")
    monkeypatch.setattr(platform, "system", lambda: "Linux")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("avx512_bf16", True), ("avx512f amx_bf16", True), ("avx512f avx512_fp16", False)],
)
def test_what_the_processor_lists(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: str, expected: bool
) -> None:
    listed(monkeypatch, tmp_path, flags)
    assert cpu_features.multiplies_bfloat16() is expected


def test_elsewhere_it_cannot_be_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    listed(monkeypatch, tmp_path, "avx512_bf16")
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert not cpu_features.multiplies_bfloat16()


@pytest.mark.parametrize(
    ("asked", "device", "flags", "expected"),
    [
        ("bfloat16", "cpu", "amx_bf16", True),
        ("bfloat16", "cpu", "", False),
        ("bfloat16", "tpu", "amx_bf16", False),
        ("float32", "cpu", "amx_bf16", False),
        ("auto", "cpu", "avx512_bf16", True),
        ("auto", "cpu", "avx512f", False),
        ("auto", "gpu", "amx_bf16", False),
    ],
)
def test_products_are_rounded_where_it_is_asked_for_and_faster(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    asked: Any,
    device: str,
    flags: str,
    expected: bool,
) -> None:
    listed(monkeypatch, tmp_path, flags)
    mesh = cast(Any, SimpleNamespace(devices=np.array([SimpleNamespace(platform=device)])))
    config = Config(execution=Execution(cpu_matmul_dtype=asked))
    assert cpu_features.uses_bfloat16_matmuls(config, mesh) is expected
    # Where all of a block is bfloat16 there is nothing left to round.
    whole = dataclasses.replace(config, precision="bfloat16")
    assert not cpu_features.uses_bfloat16_matmuls(whole, mesh)
