"""An export of programs alone holds what an app or a script needs, and says which app reads it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilebert_jax.inference import batching, embed
from mobilebert_jax.inference.requests import Item
from mobilebert_jax.interop import own_format
from mobilebert_jax.interop.huggingface import model as huggingface
from mobilebert_jax.interop.model import Model
from mobilebert_jax.interop.sentence_vector import Pooling
from mobilebert_jax.pipeline import runner
from tests import miniature
from tests.interop import exchanged

pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("quick")]

TEXT = "The film was not good"


def exported(folder: Path, network: Path, *formats: str, **settings: Any) -> tuple[Path, str]:
    """Exports a network alone; returns its folder and what was printed."""
    console = miniature.console()
    config = miniature.experiment(
        folder,
        stages=("export",),
        export__model=str(network),
        export__formats=formats,
        export__max_seq_length=16,
        **settings,
    )
    runner.run(config, console)
    (found,) = folder.glob(f"runs/tiny/export-*/{network.name}")
    return found, console.file.getvalue()  # type: ignore[attr-defined]


def network(folder: Path, model: Model) -> Path:
    own_format.write(model, folder / "network")
    return folder / "network"


def test_programs_alone_come_with_vocabulary_and_labels(tmp_path: Path) -> None:
    from mediapipe.tasks.python import text
    from transformers import AutoTokenizer

    model = exchanged.make(exchanged.CONFIGS["masks_padding"], "sequence_classification")
    folder, said = exported(tmp_path, network(tmp_path, model), "litert_float32", "onnx")
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "labels.txt",
        "model.onnx",
        "model_float32.tflite",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
    }
    assert (folder / "labels.txt").read_text().splitlines() == list(model.labels)
    assert model.tokenizer is not None
    assert (
        AutoTokenizer.from_pretrained(folder)(TEXT)["input_ids"][1:-1]
        == (model.tokenizer.encode([TEXT])[0])
    )
    task = "MediaPipe's TextClassifier"
    card = (folder / "README.md").read_text()
    assert f"`model_float32.tflite` opens in {task} as it is." in card
    assert "drop no accent" in card and "`labels.txt` has the labels in the order" in card
    assert f"opens in {task}" in " ".join(said.split())
    (found,) = json.loads((folder.parent / "export.json").read_text())["networks"]
    assert [file.get("app") for file in found["files"]] == [{"task": task, "obstacle": ""}, None]
    path = str(folder / "model_float32.tflite")
    with text.TextClassifier.create_from_model_path(path) as classifier:
        (head, _) = classifier.classify(TEXT).classifications
    assert {category.category_name for category in head.categories} == set(model.labels)


def test_a_network_that_apps_would_read_wrongly_has_no_metadata_and_says_why(
    tmp_path: Path,
) -> None:
    from mediapipe.tasks.python import text

    model = exchanged.make(exchanged.CONFIGS["masks_padding"], "sequence_classification")
    model = model._replace(tokenizer=exchanged.wordpiece(lowercase=False))
    folder, said = exported(tmp_path, network(tmp_path, model), "litert_float32")
    reason = "its vocabulary is cased, and apps lower all text"
    assert f"for no app: {reason}" in " ".join(said.split())
    card = (folder / "README.md").read_text()
    assert f"`model_float32.tflite` holds no metadata, so that apps' tasks refuse it: {reason}" in (
        card
    )
    with pytest.raises((ValueError, RuntimeError), match="No metadata"):
        text.TextClassifier.create_from_model_path(str(folder / "model_float32.tflite"))


def test_a_folder_of_sentence_transformers_keeps_its_pooling_and_length(tmp_path: Path) -> None:
    from mediapipe.tasks.python import text

    model = exchanged.make(exchanged.CONFIGS["bert"], "bare")
    source = tmp_path / "sentences"
    huggingface.write(model, source)
    kind = "sentence_transformers.models"
    modules = [
        {"path": "", "type": f"{kind}.Transformer"},
        {"path": "1_Pooling", "type": f"{kind}.Pooling"},
        {"path": "2_Normalize", "type": f"{kind}.Normalize"},
    ]
    (source / "modules.json").write_text(json.dumps(modules))
    (source / "sentence_bert_config.json").write_text('{"max_seq_length": 6}')
    (source / "1_Pooling").mkdir()
    (source / "1_Pooling/config.json").write_text('{"pooling_mode_cls_token": true}')
    folder, _ = exported(tmp_path, source, "litert_float32")
    pooling = Pooling("cls", normalize=True)
    answer = embed.answerer(batching.scoring(model, "a test", 1, 6), pooling=pooling)
    texts = (TEXT, f"{TEXT} but unbelievable tokyo")
    expected = [answer([Item({"text": text}, "a test")])[0]["embedding"] for text in texts]
    path = str(folder / "model_float32.tflite")
    with text.TextEmbedder.create_from_model_path(path) as embedder:
        found = [embedder.embed(given).embeddings[0].embedding for given in texts]
    np.testing.assert_allclose(found, expected, atol=1e-5)
