"""A run with fused attention: what it refuses, and the stages that it then computes so."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest

from mobilebert_jax.config.schema import Config, InputError
from mobilebert_jax.pipeline import runner
from tests import miniature

pytestmark = pytest.mark.usefixtures("quick")

ONE_HEAD = {
    "precision": "bfloat16",
    "student__num_attention_heads": 1,
    "teacher__model__num_attention_heads": 1,
}
FUSED = {**ONE_HEAD, "execution__attention_implementation": "cudnn"}


def refusal(config: Config) -> str:
    with pytest.raises(InputError) as error:
        runner.run(config, miniature.console())
    return str(error.value)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """This machine passes for one with a GPU of NVIDIA; holds what JAX's function was asked for."""
    implementations: list[str] = []
    original = jax.nn.dot_product_attention

    def instead(*arrays: jax.Array, implementation: str, **options: Any) -> jax.Array:
        implementations.append(implementation)
        return original(*arrays, implementation="xla", **options)

    monkeypatch.setattr(runner, "check_fused_attention", lambda *_: None)
    monkeypatch.setattr(jax.nn, "dot_product_attention", instead)
    yield implementations


def test_a_cpu_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    assert "runs on NVIDIA GPUs only" in refusal(miniature.experiment(tmp_path, **FUSED))
    assert not (tmp_path / "runs/tiny").exists()


def test_a_stage_with_dropout_is_refused_until_it_is_finished(
    asked: list[str], tmp_path: Path
) -> None:
    message = refusal(miniature.experiment(tmp_path, **FUSED))
    assert "with which the stage 'teacher' trains" in message
    assert not (tmp_path / "runs/tiny").exists()
    first = miniature.experiment(tmp_path, **ONE_HEAD, stages=("prepare", "teacher"))
    runner.run(first, miniature.console())
    assert not asked
    others = ("prepare", "teacher", "transfer", "distill")
    runner.run(miniature.experiment(tmp_path, **FUSED, stages=others), miniature.console())
    assert set(asked) == {"cudnn"}
    finished = {path.parent.name for path in (tmp_path / "runs/tiny").glob("*/manifest.json")}
    assert {name.split("-")[0] for name in finished} == set(others)
