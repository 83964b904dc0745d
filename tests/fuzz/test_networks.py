"""Attacks on networks of other systems: folders of Hugging Face's, our own, and TensorFlow's."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import strategies as st

from mobilebert_jax.interop import own_format, reading
from mobilebert_jax.interop.huggingface import model as huggingface
from mobilebert_jax.interop.huggingface import tokenizer as huggingface_tokenizer
from mobilebert_jax.interop.huggingface import torch_pickle
from mobilebert_jax.interop.model import Kind, Model
from tests.fuzz.attack import attack
from tests.fuzz.mutations import damaged, damaged_json
from tests.interop import exchanged
from tests.interop.huggingface import torch_writer
from tests.interop.tensorflow import checkpoint_writer
from tests.interop.tensorflow.test_model import RELEASED, authors_settings, tensors_of

pytestmark = pytest.mark.fuzz

KINDS: tuple[Kind, ...] = ("pretraining", "sequence_classification", "token_classification")


def with_damage(whole: dict[str, bytes]) -> st.SearchStrategy[tuple[str, bytes]]:
    """Returns a strategy for the name and the content of one damaged file of a folder."""

    def of(name: str) -> st.SearchStrategy[tuple[str, bytes]]:
        cases = damaged([whole[name]])
        if name.endswith(".json"):
            cases |= damaged_json([json.loads(whole[name])])
        return st.tuples(st.just(name), cases)

    return st.sampled_from(sorted(whole)).flatmap(of)


def check(model: Model) -> None:
    """Fails for a network that does not hang together."""
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(model.params))
    if model.tokenizer is not None:
        assert model.tokenizer.size <= model.config.vocab_size
        model.tokenizer.encode(["the film was [MASK]", "東京 \u0301"])
    for label in model.labels:
        label.encode()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["bert", "squeezebert", "own"])
def test_folders(request: pytest.FixtureRequest, tmp_path: Path, form: str, kind: Kind) -> None:
    folder = tmp_path / "model"
    config = exchanged.CONFIGS["released" if form == "own" else form]
    writer: Any = own_format if form == "own" else huggingface
    writer.write(exchanged.make(config, kind), folder)
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}

    def attempt(case: tuple[str, bytes]) -> None:
        name, content = case
        (folder / name).write_bytes(content)
        try:
            check(reading.read(folder)[0])
        finally:
            (folder / name).write_bytes(whole[name])

    attack(request, with_damage(whole), attempt)


def test_tokenizers_of_others(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    huggingface_tokenizer.write(exchanged.wordpiece(), tmp_path, "bert", 16)
    whole = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def attempt(case: tuple[str, bytes]) -> None:
        name, content = case
        (tmp_path / name).write_bytes(content)
        try:
            found = huggingface_tokenizer.read(tmp_path)
        finally:
            (tmp_path / name).write_bytes(whole[name])
        if found is not None:
            found.encode(["the film was [MASK]", "東京 \u0301"])

    attack(request, with_damage(whole), attempt)


def test_tensorflow_checkpoints(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    model = exchanged.make(RELEASED, "pretraining")
    checkpoint_writer.write(tmp_path / "model.ckpt", tensors_of(model), shards=2)
    settings = json.dumps(authors_settings(RELEASED))
    (tmp_path / "bert_config.json").write_text(settings)
    (tmp_path / "vocab.txt").write_text("".join(f"{piece}\n" for piece in exchanged.PIECES))
    whole = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    leaves = jax.tree.leaves(model.params)

    def attempt(case: tuple[str, bytes]) -> None:
        name, content = case
        (tmp_path / name).write_bytes(content)
        try:
            found = reading.read(tmp_path)[0]
        finally:
            (tmp_path / name).write_bytes(whole[name])
        check(found)
        # Tensors have checksums: what is read at all is what was written.
        if name.startswith("model.ckpt.data") and found.kind == model.kind:
            for a, b in zip(jax.tree.leaves(found.params), leaves, strict=True):
                np.testing.assert_array_equal(a, b)

    attack(request, with_damage(whole), attempt)


@pytest.mark.parametrize("write", [torch_writer.write_zip, torch_writer.write_legacy])
def test_pickles(request: pytest.FixtureRequest, tmp_path: Path, write: Any) -> None:
    path = tmp_path / "pytorch_model.bin"
    arrays = {"a": np.arange(6.0).reshape(2, 3).T, "b": np.ones(4, np.float16)}
    write(path, torch_writer.tensors(arrays))

    def attempt(content: bytes) -> None:
        path.write_bytes(content)
        for name, array in torch_pickle.read(path).items():
            name.encode()
            assert isinstance(array, np.ndarray)

    attack(request, damaged([path.read_bytes()]), attempt)
