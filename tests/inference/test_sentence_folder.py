"""Folders of sentence-transformers: their pooling, length and normalisation are obeyed."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilebert_jax.inference import __main__ as predict
from mobilebert_jax.interop.huggingface import model as huggingface
from tests.interop import exchanged

TYPE = "sentence_transformers.models."
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": f"{TYPE}Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{TYPE}Pooling"},
    {"idx": 2, "name": "2", "path": "2_Normalize", "type": f"{TYPE}Normalize"},
]
TEXTS = "the film was good\nbad\nthe film was not good but wonderfully unbelievable !\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    huggingface.write(exchanged.make(exchanged.CONFIGS["bert"], "bare"), tmp_path / "model")
    return tmp_path / "model"


def describe(folder: Path, mode: str, modules: Any = MODULES, length: Any = 8) -> None:
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": length}))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    modes = {f"pooling_mode_{name}": name == mode for name in ("mean_tokens", "cls_token", "max")}
    (folder / "1_Pooling/config.json").write_text(
        json.dumps({"word_embedding_dimension": 16} | modes)
    )


@pytest.fixture
def ask(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Any:
    def run(*more: str) -> Any:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXTS.encode())))
        code = predict.main(("embed", "--model", str(folder), *more))
        captured = capsys.readouterr()
        found = [json.loads(line)["embedding"] for line in captured.out.splitlines()]
        return captured.err if code else np.array(found)

    return run


def test_the_folder_says_how_vectors_are_made(folder: Path, ask: Any) -> None:
    plain = ask("--length", "8")
    describe(folder, "mean_tokens")
    found = ask()
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, rtol=1e-6)
    expected = plain / np.linalg.norm(plain, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    describe(folder, "mean_tokens", MODULES[:2])
    np.testing.assert_allclose(ask(), plain, rtol=1e-6)
    assert not np.allclose(ask("--length", "16")[2], plain[2]), "the last text is cut at 8"


def test_the_first_token_is_taken_before_the_pooler(folder: Path, ask: Any) -> None:
    pooled = ask("--pool", "first", "--length", "8")
    describe(folder, "cls_token", MODULES[:2])
    found = ask()
    assert not np.allclose(found, pooled)
    assert np.abs(found).max() > 1.0, "the pooler's tanh would keep it below 1"
    # What the command line says goes before.
    np.testing.assert_allclose(ask("--pool", "first"), pooled, rtol=1e-6)


@pytest.mark.parametrize(
    ("mode", "modules", "length", "said"),
    [
        ("max", MODULES, 8, "pooling_mode_max is not read"),
        ("none", MODULES, 8, "no pooling mode is not read"),
        ("mean_tokens", [*MODULES, {"type": f"{TYPE}Dense"}], 8, "module 'Dense' is not read"),
        ("mean_tokens", MODULES[:1], 8, "there is no Pooling"),
        ("mean_tokens", {"0": MODULES[0]}, 8, "must be a JSON list"),
        ("mean_tokens", [1], 8, "a list of objects"),
        ("mean_tokens", MODULES, "8", "max_seq_length='8'"),
    ],
)
def test_what_is_not_understood_is_refused(
    folder: Path, ask: Any, mode: str, modules: Any, length: Any, said: str
) -> None:
    describe(folder, mode, modules, length)
    assert said in ask()
