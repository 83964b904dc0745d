"""The configuration: typed and ConfigDict form, overrides, and every mistake that it reports."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mobilebert_jax.config.config_dict import from_config_dict, to_config_dict
from mobilebert_jax.config.schema import Config, InputError, flatten, nearest
from mobilebert_jax.config.validation import problems
from mobilebert_jax.model import sizes
from tests.miniature import ROOT, changed, experiment


def overridden(**settings: Any) -> Config:
    return changed(Config(stages=("prepare", "teacher")), **settings)


def refusal(**settings: Any) -> str:
    with pytest.raises(InputError) as error:
        overridden(**settings)
    return str(error.value)


def test_the_typed_form_survives_the_config_dict(tmp_path: Path) -> None:
    for config in (Config(), experiment(tmp_path)):
        assert from_config_dict(to_config_dict(config)) == config


def test_overrides_reach_every_level() -> None:
    config = overridden(seed=7, distill__alpha=0.25, teacher__optimizer__name="adamw")
    assert (config.seed, config.distill.alpha, config.teacher.optimizer.name) == (7, 0.25, "adamw")
    assert config.distill.optimizer.name == "lamb"


def test_a_whole_number_is_a_float_where_a_float_is_meant() -> None:
    alpha = overridden(distill__alpha=1).distill.alpha
    assert isinstance(alpha, float) and alpha == 1.0


@pytest.mark.parametrize(
    "given", [("prepare,teacher",), ("prepare", "teacher"), (" prepare , teacher",)]
)
def test_stages_may_be_a_list_with_commas(given: tuple[str, ...]) -> None:
    assert overridden(stages=given).stages == ("prepare", "teacher")


def test_the_config_dict_has_no_room_for_a_misspelt_key() -> None:
    with pytest.raises(AttributeError):
        to_config_dict(Config()).teecher = 1


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (("sead",), "there is no setting sead; the nearest is seed"),
        (("distill", "temprature"), "no setting distill.temprature; the nearest is distill.temper"),
        (
            ("teacher", "model", "hiden"),
            "no setting teacher.model.hiden; the nearest is teacher.mo",
        ),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest(path: tuple[str, ...], message: str) -> None:
    config_dict = to_config_dict(Config()).unlock()
    part = config_dict
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = 1
    with pytest.raises(InputError, match=message):
        from_config_dict(config_dict)


@pytest.mark.parametrize(
    ("key", "wrong", "right"),
    [
        ("precision", "bfloat", "bfloat16"),
        ("transfer__strategy", "progresive", "progressive"),
        ("tokenizer__kind", "sentencepiece_uni", "sentencepiece_unigram"),
        ("distill__optimizer__name", "adam", "adamw"),
        ("student__normalization_type", "nonorm", "no_norm"),
        ("execution__remat", "dot", "dots"),
    ],
)
def test_a_wrong_choice_is_answered_with_the_nearest(key: str, wrong: str, right: str) -> None:
    message = refusal(**{key: wrong})
    assert key.replace("__", ".") in message
    assert repr(wrong) in message and message.endswith(f"the nearest is {right!r}")


@pytest.mark.parametrize("name", ["float16", "fp16", "half"])
def test_float16_is_refused_with_the_reason(name: str) -> None:
    message = refusal(precision=name)
    assert "overflow float16" in message
    assert "'bfloat16' or 'float32'" in message


@pytest.mark.parametrize(
    ("path", "value", "type_name"),
    [
        (("seed",), "one", "int"),
        (("teacher", "steps"), 2.5, "int"),
        (("distill", "alpha"), "half", "float"),
        (("distill", "alpha"), True, "float"),
        (("data", "whole_word_mask"), "yes", "bool"),
        (("data", "whole_word_mask"), 1, "bool"),
        (("name",), 3, "str"),
    ],
)
def test_a_value_of_a_wrong_type_is_named(
    path: tuple[str, ...], value: Any, type_name: str
) -> None:
    values = dataclasses.asdict(Config())
    part = values
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = value

    class Given:
        def to_dict(self) -> dict[str, Any]:
            return values

    with pytest.raises(InputError) as error:
        from_config_dict(Given())
    assert f"{'.'.join(path)}={value!r} must be of type {type_name}" in str(error.value)


CONTRADICTIONS: list[tuple[dict[str, Any], str]] = [
    ({"stages": ("prepair",)}, "stages names 'prepair'; stages are prepare, teacher"),
    ({"stages": ("prepair",)}, "the nearest is 'prepare'"),
    ({"teacher__steps": 0}, "teacher.steps=0 must be from 1 to 1,000,000,000; the nearest is 1"),
    ({"evaluate__examples": 0}, "evaluate.examples=0 must be from 1 to"),
    ({"execution__checkpoint_every": 0}, "execution.checkpoint_every=0 must be from 1 to"),
    ({"execution__prefetch": 0}, "execution.prefetch=0 must be from 1 to"),
    ({"execution__micro_batches": 0}, "execution.micro_batches=0 must be from 1 to"),
    ({"execution__workers": -1}, "execution.workers=-1 must be from 0 to"),
    ({"distill__alpha": 1.5}, "distill.alpha=1.5 must be from 0 to 1; the nearest is 1.0"),
    ({"data__validation_fraction": 0.0}, "data.validation_fraction=0.0 must be from 1e-09 to 0.99"),
    (
        {"precision": "bfloat16", "execution__cpu_matmul_dtype": "bfloat16"},
        "execution.cpu_matmul_dtype=bfloat16 rounds the matmuls of precision=float32; "
        "precision=bfloat16 computes all of a block in bfloat16 already",
    ),
    ({"distill__temperature": 0.0}, "distill.temperature=0.0 must be from 0.01 to 100"),
    ({"name": "a/b"}, "name='a/b' must be a plain folder name"),
    ({"name": ""}, "name='' must be a plain folder name"),
    ({"name": ".."}, "name='..' must be a plain folder name"),
    ({"data__max_seq_length": 4}, "data.max_seq_length=4 must be from 8 to"),
    (
        {"data__max_predictions_per_seq": 200},
        "data.max_predictions_per_seq=200 must be at most data.max_seq_length=128",
    ),
    (
        {"data__max_seq_length": 1024},
        "data.max_seq_length=1024 exceeds teacher.model.max_position_embeddings=512",
    ),
    ({"tokenizer__vocab_size": 40000}, "student.vocab_size=30522 is smaller than"),
    ({"execution__micro_batches": 3}, "teacher.batch_size=4096 does not divide into"),
    (
        {"student__num_attention_heads": 3},
        "student.num_attention_heads=3 does not divide intra_bottleneck_size=128",
    ),
    (
        {"student__q_groups": 5},
        "student.q_groups=5 does not divide the 128 inputs and 128 outputs of its layer",
    ),
    (
        {"stages": ("prepare", "teacher", "distill", "export"), "student__q_groups": 4},
        "export.formats names 'huggingface', which has groups in SqueezeBERT alone",
    ),
    (
        {"distill__optimizer__clip_norm": 0.0},
        "distill.optimizer.clip_norm=0.0 must be from 1e-06 to 1e+30",
    ),
    ({"finetune__clip_norm": -1.0}, "finetune.clip_norm=-1.0 must be from 1e-06"),
    ({"finetune__weight_decay": -1.0}, "finetune.weight_decay=-1.0 must be from 0 to"),
    ({"finetune__calibration_rows": 0}, "finetune.calibration_rows=0 must be from 1 to"),
    (
        {"student__hidden_size": 256},
        "teacher.model.hidden_size=512 and student.hidden_size=256 must be equal",
    ),
    (
        {"student__num_hidden_layers": 12},
        "teacher.model.num_hidden_layers=24 and student.num_hidden_layers=12 must be equal",
    ),
    ({"transfer__steps": 30}, "transfer.steps=30 leaves no step to some of the 24 layers"),
    (
        {"stages": ("baseline",), "transfer__batch_size": 8},
        "transfer.batch_size=8 and distill.batch_size=2048 must be equal",
    ),
    (
        {"stages": ("export",), "export__int8_float_parts": ("feedforward_out",)},
        "export.int8_float_parts names 'feedforward_out'; there are default, embeddings,",
    ),
]


@pytest.mark.parametrize(("settings", "sentence"), CONTRADICTIONS)
def test_contradictions_are_said_in_a_sentence(settings: dict[str, Any], sentence: str) -> None:
    assert sentence in refusal(**settings)


def test_all_contradictions_are_listed_at_once() -> None:
    settings = {
        "distill__alpha": 2.0,
        "data__max_seq_length": 1024,
        "name": "a/b",
        "student__num_attention_heads": 3,
    }
    lines = refusal(**settings).splitlines()
    assert lines[0] == "the configuration cannot be used:"
    for key in (
        "distill.alpha=",
        "data.max_seq_length=1024",
        "name='a/b'",
        "student.num_attention_heads=3",
    ):
        assert any(line.startswith(f"  - {key}") for line in lines), key


def test_a_wrong_value_has_no_part_in_a_contradiction() -> None:
    message = refusal(
        data__max_seq_length=4, transfer__steps=0, tokenizer__kind="sentence", seed=-1
    )
    assert len(message.splitlines()) == 5
    assert "max_predictions_per_seq" not in message and "leaves no step" not in message


def test_what_is_not_contradictory_passes() -> None:
    assert problems(Config()) == []
    # Without transfer the student's depth is its own.
    assert (
        overridden(
            transfer__strategy="none", student__num_hidden_layers=12
        ).student.num_hidden_layers
        == 12
    )
    assert overridden(execution__eval_every=0).execution.eval_every == 0


def test_flatten_has_every_leaf_once_in_sorted_order() -> None:
    flat = flatten(Config())
    assert list(flat) == sorted(flat)
    assert flat["teacher.model.hidden_size"] == sizes.IB_BERT_LARGE.hidden_size
    assert flat["execution.mesh.data"] == -1
    assert flat["stages"] == list(Config().stages)
    assert not any(isinstance(value, dict) for value in flat.values())
    assert flatten(dataclasses.asdict(Config())) == flat


def test_nearest_always_answers() -> None:
    assert nearest("distil", ["teacher", "distill"]) == "distill"
    assert nearest("???", ["teacher"]) == "teacher"


def test_nearest_prefers_what_holds_the_same_words() -> None:
    allowed = ["student.hidden_size", "student.pooler", "student.num_attention_heads"]
    assert nearest("student.heads", allowed) == "student.num_attention_heads"
    assert nearest("heads", ["pooler", "header", "num_attention_heads"]) == "num_attention_heads"


def test_a_configuration_is_read_without_loading_jax() -> None:
    program = (
        "import sys, mobilebert_jax.main, experiments.progressive_kt as e\n"
        "e.get_config('paper')\n"
        "assert not {'jax', 'flax', 'tensorflow_datasets'} & set(sys.modules)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
