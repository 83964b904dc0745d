"""This project's own folder holds every network bit for bit, and refuses what is damaged."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.finetune import pretrained
from mobilebert_jax.interop import own_format
from mobilebert_jax.interop.huggingface import safetensors as safetensors_files
from mobilebert_jax.interop.model import Kind, Model
from tests.interop import exchanged

ALL = exchanged.CONFIGS | exchanged.OTHERS
SETTINGS = dataclasses.asdict(ALL["tiny"])


def assert_equal(found: Model, model: Model) -> None:
    assert (found.config, found.kind, found.labels) == (model.config, model.kind, model.labels)
    np.testing.assert_equal(found.params, model.params)
    digests = [None if m.tokenizer is None else m.tokenizer.digest for m in (found, model)]
    assert digests[0] == digests[1]


@pytest.mark.parametrize("name", ALL)
def test_every_network_comes_back(name: str, tmp_path: Path) -> None:
    model = exchanged.make(ALL[name], "pretraining")
    own_format.write(model, tmp_path / "saved")
    assert_equal(own_format.read(tmp_path / "saved"), model)


@pytest.mark.parametrize("kind", exchanged.LABELS)
def test_every_kind_comes_back(kind: Kind, tmp_path: Path) -> None:
    model = exchanged.make(ALL["pooler"], kind)._replace(tokenizer=None)
    own_format.write(model, tmp_path / "saved")
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    assert_equal(own_format.read(tmp_path / "saved"), model)


def test_the_documented_content(tmp_path: Path) -> None:
    model = exchanged.make(ALL["teacher"], "sequence_classification")
    own_format.write(model, tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "config.json").read_text()) == {
        "format": "mobilebert_jax",
        "version": 1,
        "kind": "sequence_classification",
        "labels": ["negative", "neutral", "positive"],
        "model": dataclasses.asdict(model.config),
    }
    tensors = safetensors_files.read(tmp_path / "saved" / "model.safetensors")
    query = model.params["blocks"]["attention"]["query"]["kernel"]
    np.testing.assert_array_equal(tensors["blocks/attention/query/kernel"], query)


def test_a_file_of_before_there_were_groups_is_read(tmp_path: Path) -> None:
    model = exchanged.make(ALL["tiny"], "bare")
    own_format.write(model, tmp_path / "saved")
    path = tmp_path / "saved" / "config.json"
    content = json.loads(path.read_text())
    left = {name: value for name, value in content["model"].items() if "groups" not in name}
    assert len(left) == len(content["model"]) - 6
    path.write_text(json.dumps(content | {"model": left}))
    assert_equal(own_format.read(tmp_path / "saved"), model)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    own_format.write(exchanged.make(ALL["tiny"], "question_answering"), tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": None}, "not 'mobilebert_jax' and 1; a folder of Hugging Face's has neither"),
        ({"version": 2}, "and 2, not 'mobilebert_jax' and 1"),
        ({"kind": "questions"}, "'questions'; the nearest is question_answering"),
        ({"labels": "start"}, "must be a list of names"),
        ({"labels": ["a", "b", "c"]}, '3 "labels" do not go with the outputs'),
        ({"labels": ["a", "a"]}, '"labels" must be different names'),
        ({"labels": ["a", "\ud800"]}, "half of a surrogate pair"),
        ({"model": None}, '"model" must be an object'),
        (
            {"model": {"hiden_size": 3}},
            "no setting model.hiden_size; the nearest is model.hidden_size",
        ),
        ({"model": {"hidden_size": "3"}}, "model.hidden_size='3' must be of type int"),
        (
            {"model": {"normalization_type": "batch"}},
            "model.normalization_type='batch'; the nearest is",
        ),
        ({"model": {}}, "lacks model.vocab_size, model.type_vocab_size, .*, model.initializer"),
        ({"model": SETTINGS | {"hidden_size": 0}}, "hidden_size=0 must be from 1 to"),
        ({"model": SETTINGS | {"vocab_size": 0}}, "vocab_size=0 must be the number of rows"),
        ({"model": SETTINGS | {"initializer_range": float("nan")}}, "=nan must be from"),
    ],
)
def test_a_wrong_config_is_refused(changes: dict[str, Any], message: str, saved: Path) -> None:
    path = saved / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(InputError, match=rf"config\.json: .*{message}"):
        own_format.read(saved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embeddings/word": None}, "1 of 39 tensors are missing: embeddings/word .*nearest"),
        ({"blocks/inputs": np.ones(1, np.float32)}, "tensor blocks/inputs is unknown; the nearest"),
        ({"task/dense/bias": np.ones(3, np.float32)}, r"kernel has .*\[16, 2\].*be \[16, 3\]"),
        ({"task/dense/bias": np.ones(2, np.int32)}, "task/dense/bias has the type int32"),
    ],
)
def test_wrong_tensors_are_refused(
    changes: dict[str, np.ndarray | None], message: str, saved: Path
) -> None:
    path = saved / "model.safetensors"
    tensors: dict[str, Any] = safetensors_files.read(path) | changes
    kept = {name: array for name, array in tensors.items() if array is not None}
    safetensors_files.write(path, kept, {})
    with pytest.raises(InputError, match=rf"model\.safetensors: .*{message}"):
        own_format.read(saved)


def test_missing_and_damaged_files_are_refused(saved: Path) -> None:
    for name in ("model.safetensors", "config.json"):
        content = (saved / name).read_bytes()
        (saved / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(InputError, match=name):
            own_format.read(saved)
        (saved / name).unlink()
        with pytest.raises(InputError, match=f"there is no file .*{name}"):
            own_format.read(saved)
        (saved / name).write_bytes(content)
    for content in ('{"kind": "words"}', '{"kind": ["words"], "lowercase": true}'):
        (saved / "tokenizer.json").write_text(content)
        with pytest.raises(InputError, match=r"tokenizer\.json: must hold"):
            own_format.read(saved)


def test_labels_and_kind_are_part_of_what_an_imported_network_is(saved: Path) -> None:
    digests = {pretrained.find("export.model", str(saved)).digest}
    path = saved / "config.json"
    for changes in ({"labels": ["end", "start"]}, {"kind": "token_classification"}):
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        digests.add(pretrained.find("export.model", str(saved)).digest)
    assert len(digests) == 3


def test_a_vocabulary_far_smaller_than_the_network_is_that_of_another(tmp_path: Path) -> None:
    for spare in (100, 128):
        config = dataclasses.replace(ALL["tiny"], vocab_size=len(exchanged.PIECES) + spare)
        own_format.write(exchanged.make(config, "bare"), tmp_path / str(spare))
    pretrained.find("export.model", str(tmp_path / "100"))
    with pytest.raises(InputError, match=r"vectors for 155 pieces, the tokenizer .* 27 pieces"):
        pretrained.find("export.model", str(tmp_path / "128"))


def test_one_output_is_a_number_whatever_its_name(tmp_path: Path) -> None:
    model = exchanged.make(ALL["tiny"], "sequence_classification", ("toxicity",))
    own_format.write(model, tmp_path / "saved")
    assert own_format.read(tmp_path / "saved").labels == ()


def test_a_tokenizer_larger_than_the_word_table_is_refused(tmp_path: Path) -> None:
    small = dataclasses.replace(ALL["tiny"], vocab_size=len(exchanged.PIECES) - 1)
    with pytest.raises(InputError, match=r"tokenizer has 27 pieces .*26 rows"):
        own_format.write(exchanged.make(small, "bare"), tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []
