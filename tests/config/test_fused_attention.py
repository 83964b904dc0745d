"""Where settings alone exclude fused attention, they say so."""

import dataclasses
from typing import Any

import pytest

from mobilebert_jax.config import fused_attention, validation
from mobilebert_jax.config.execution import Execution
from mobilebert_jax.config.finetune import Finetune, Search
from mobilebert_jax.config.schema import Config, Teacher
from mobilebert_jax.model import sizes

PRETRAINING = ("prepare", "teacher", "transfer", "distill")


def config(**changes: Any) -> Config:
    given: dict[str, Any] = {
        "stages": PRETRAINING,
        "precision": "bfloat16",
        "execution": Execution(attention_implementation="cudnn"),
    }
    return Config(**(given | changes))


def with_heads(width: int, heads: int) -> Teacher:
    model = dataclasses.replace(
        sizes.IB_BERT_LARGE, intra_bottleneck_size=width, num_attention_heads=heads
    )
    return Teacher(model=model)


def test_the_published_networks_in_bfloat16_are_taken() -> None:
    assert validation.problems(config()) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"precision": "float32"}, "and precision=float32; set precision=bfloat16, or use xla"),
        ({"teacher": with_heads(2048, 4)}, "teacher.model.num_attention_heads=4 makes 512"),
        ({"teacher": with_heads(48, 4)}, "teacher.model.num_attention_heads=4 makes 12"),
        (
            {"stages": ("finetune",), "finetune": Finetune(tasks=("cola",), quantized=True)},
            "no 8-bit form, which finetune.quantized=True needs",
        ),
    ],
)
def test_what_cannot_be_fused_is_refused(changes: dict[str, Any], expected: str) -> None:
    found = [p for p in validation.problems(config(**changes)) if fused_attention.SETTING in p]
    assert len(found) == 1
    assert expected in found[0]
    written_out = config(**changes, execution=Execution())
    assert not any(fused_attention.SETTING in p for p in validation.problems(written_out))


def test_networks_of_other_runs_have_settings_of_their_own() -> None:
    scored = config(
        stages=("finetune",), teacher=with_heads(48, 4), finetune=Finetune(tasks=("cola",))
    )
    assert not any(fused_attention.SETTING in p for p in validation.problems(scored))


@pytest.mark.parametrize(
    ("stage", "changes", "expected"),
    [
        ("teacher", {}, {"teacher.model"}),
        ("teacher", {"teacher": Teacher(path="elsewhere")}, set()),
        ("transfer", {}, set()),
        ("distill", {}, set()),
        ("control", {}, set()),
        ("baseline", {}, set()),
        ("finetune", {"finetune": Finetune(networks=("student", "teacher"))}, None),
        ("finetune", {"finetune": Finetune(pretrained="elsewhere")}, set()),
        ("finetune", {"finetune": Finetune(search=Search(epochs=(0,)))}, set()),
    ],
)
def test_stages_that_drop_out_attention(
    stage: str, changes: dict[str, Any], expected: set[str] | None
) -> None:
    found = set(fused_attention.trained_with_dropout(config(**changes), stage))
    assert found == ({"student", "teacher.model"} if expected is None else expected)


def test_dropout_is_a_problem_unless_it_is_0() -> None:
    message = fused_attention.dropout_problem("teacher", "teacher.model", sizes.IB_BERT_LARGE)
    assert message is not None
    assert "the stage 'teacher' trains" in message
    assert "teacher.model.attention_probs_dropout_prob=0.1" in message
    without = dataclasses.replace(sizes.IB_BERT_LARGE, attention_probs_dropout_prob=0.0)
    assert fused_attention.dropout_problem("teacher", "teacher.model", without) is None
