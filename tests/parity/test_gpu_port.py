"""Hugging Face's side of the ten minutes on a GPU, rehearsed on a CPU with a tiny network."""

import math
from pathlib import Path

import pytest

from benchmarks import best_batch, gpu_port
from benchmarks.gpu_cases import TINY
from benchmarks.gpu_port import Variant
from benchmarks.kept_rows import KeptRows

pytestmark = pytest.mark.parity

# torch.compile needs a C++ compiler on a CPU, and minutes.
UNCOMPILED = [Variant(16, attention, compiled=False) for attention in ("sdpa", "eager")]


@pytest.fixture(autouse=True)
def short_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(best_batch, "WINDOW_SECONDS", 1e-3)
    monkeypatch.setattr(gpu_port, "variants", lambda scale: UNCOMPILED)


def test_every_variant_is_measured_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = KeptRows(tmp_path / "rows.json")
    assert not gpu_port.run(kept, TINY, until=0.0, call=0)  # there is no time
    assert kept.rows("port") == {}
    assert gpu_port.run(kept, TINY, until=math.inf, call=0)
    rows = kept.rows("port")
    assert [row["variant"] for row in rows.values()] == [variant.label for variant in UNCOMPILED]
    for row in rows.values():
        assert row["tokens_per_s"] > 0 and row["teraflops"] > 0
    capsys.readouterr()
    assert gpu_port.run(kept, TINY, until=math.inf, call=1)
    assert capsys.readouterr().out == ""
    assert KeptRows(tmp_path / "rows.json").rows("port") == rows


def test_the_batch_is_the_students_and_halves_where_memory_ends(tmp_path: Path) -> None:
    kept = KeptRows(tmp_path / "rows.json")
    student = {"case": "student, length 16, xla", "batch": 4, "sequences_per_s": 9.0}
    kept.keep("steps", "any", student)
    opened = dict(gpu_port.open_variants(kept, TINY))
    assert opened == dict.fromkeys(UNCOMPILED, 4)
    first, second = UNCOMPILED
    kept.keep("port", gpu_port.key_of(first, 4), {"out_of_memory": True})
    kept.keep("port", gpu_port.key_of(second, 4), {"failed": "RuntimeError: no"})
    assert dict(gpu_port.open_variants(kept, TINY)) == {first: 2}
