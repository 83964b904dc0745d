"""LiteRT files drop into apps: MediaPipe's text tasks run them and show our numbers."""

import dataclasses
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilebert_jax.inference import batching, classify, embed
from mobilebert_jax.inference.requests import Item
from mobilebert_jax.interop import forward
from mobilebert_jax.interop.litert import apps, metadata, quantization
from mobilebert_jax.interop.litert import model as litert
from mobilebert_jax.interop.litert.graph import Graph
from mobilebert_jax.interop.litert.model import Mode
from mobilebert_jax.interop.model import Kind, Model
from mobilebert_jax.interop.sentence_vector import MEAN, Pooling
from tests.interop import exchanged

pytestmark = pytest.mark.parity

LENGTH = 16
TEXTS = (
    "the film was good , wonderfully !",
    "Not BAD; unbelievable? Tokyo",
    "the zebra was not",
    "good",
    " ".join(["unbelievable film !"] * 9),
)
"""With capitals, unknown words, and more tokens than a file reads."""
EXACT = 1e-5
"""Of files in float32, as a share of the largest number."""
ROUNDED: dict[Mode, float] = {"weight_int8": 0.005, "dynamic_int8": 0.005, "int8": 0.025}
"""The same of int8; another word in a text moves a vector by 0.03."""


def network(kind: Kind) -> Model:
    # So large a table the quantiser keeps behind the flatbuffer, from 256 KiB on.
    config = dataclasses.replace(exchanged.CONFIGS["masks_padding"], vocab_size=64_000)
    return exchanged.make(config, kind)


def items() -> list[Item]:
    return [Item({"text": text}, "a test") for text in TEXTS]


def calibration(model: Model) -> forward.Inputs:
    generator = np.random.default_rng(0)
    mask_NT = (np.arange(LENGTH) < generator.integers(2, LENGTH + 1, 32)[:, None]).astype(np.int32)
    assert model.tokenizer is not None
    ids_NT = generator.integers(0, model.tokenizer.size, mask_NT.shape).astype(np.int32)
    return forward.Inputs(ids_NT * mask_NT, mask_NT, np.zeros_like(mask_NT))


def written(model: Model, path: Path, mode: Mode, **settings: Any) -> str:
    rows = calibration(model) if mode == "int8" else None
    litert.export(
        model, path, length=LENGTH, mode=mode, calibration=rows, for_apps=True, **settings
    )
    return str(path)


def check(found: np.ndarray, ours: np.ndarray, mode: Mode) -> None:
    allowed = EXACT if mode == "float32" else ROUNDED[mode]
    assert np.abs(found - ours).max() <= allowed * np.abs(ours).max()


@pytest.mark.parametrize("mode", litert.MODES)
def test_a_classifier_shows_the_scores_of_predict(mode: Mode, tmp_path: Path) -> None:
    from mediapipe.tasks.python import text

    model = network("sequence_classification")
    path = written(model, tmp_path / "network.tflite", mode)
    scoring = batching.scoring(model, "a test", 1, LENGTH)
    expected = [answer["scores"] for answer in classify.answerer(scoring)(items())]
    with text.TextClassifier.create_from_model_path(path) as classifier:
        heads = [classifier.classify(given).classifications for given in TEXTS]
    first = [{c.category_name: c.score for c in head[0].categories} for head in heads]
    assert [head[0].head_name for head in heads] == ["class_probabilities"] * len(TEXTS)
    for found, ours in zip(first, expected, strict=True):
        assert set(found) == set(model.labels)
        check(np.array([found[n] for n in model.labels]), np.array([*ours.values()]), mode)


@pytest.mark.parametrize("mode", litert.MODES)
def test_an_embedder_gives_the_vectors_of_predict(mode: Mode, tmp_path: Path) -> None:
    from mediapipe.tasks.python import text

    model = network("bare")
    pooling = MEAN if mode != "weight_int8" else Pooling("cls", normalize=True)
    path = written(model, tmp_path / "network.tflite", mode, pooling=pooling)
    scoring = batching.scoring(model, "a test", 1, LENGTH)
    answers = embed.answerer(scoring, pooling=pooling)(items())
    expected = np.array([answer["embedding"] for answer in answers])
    with text.TextEmbedder.create_from_model_path(path) as embedder:
        heads = [embedder.embed(given).embeddings for given in TEXTS]
    assert {head[0].head_name for head in heads} == {"embedding"}
    check(np.array([head[0].embedding for head in heads]), expected, mode)


def test_a_number_is_shown_as_it_is(tmp_path: Path) -> None:
    from mediapipe.tasks.python import text

    model = exchanged.make(exchanged.CONFIGS["masks_padding"], "sequence_classification", ())
    path = written(model, tmp_path / "network.tflite", "float32")
    scoring = batching.scoring(model, "a test", 1, LENGTH)
    expected = [answer["value"] for answer in classify.answerer(scoring)(items())]
    with text.TextClassifier.create_from_model_path(path) as classifier:
        found = [classifier.classify(given).classifications[0] for given in TEXTS]
    np.testing.assert_allclose([head.categories[0].score for head in found], expected, atol=EXACT)


def test_blank_lines_of_a_vocabulary_keep_their_ids(tmp_path: Path) -> None:
    from mediapipe.tasks.python import text

    from mobilebert_jax.data.wordpiece import WordPiece

    pieces = "\n".join(exchanged.PIECES).replace("[unused1]", "").encode()
    model = network("bare")._replace(tokenizer=WordPiece(pieces, True, "a test"))
    path = written(model, tmp_path / "network.tflite", "float32")
    scoring = batching.scoring(model, "a test", 1, LENGTH)
    expected = [a["embedding"] for a in embed.answerer(scoring, pooling=MEAN)(items())]
    with text.TextEmbedder.create_from_model_path(path) as embedder:
        found = [embedder.embed(given).embeddings[0].embedding for given in TEXTS]
    np.testing.assert_allclose(found, expected, atol=EXACT)


@pytest.mark.parametrize("mode", apps.ANSWERER_MODES)
def test_an_answerer_is_described_in_the_schema_of_apps(mode: Mode, tmp_path: Path) -> None:
    from mediapipe.tasks.metadata import metadata_schema_py_generated as schema

    path = written(network("question_answering"), tmp_path / "network.tflite", mode)
    described = schema.ModelMetadataT.InitFromPackedBuf(described_in(Path(path)))
    (graph,) = described.subgraphMetadata
    assert [tensor.name for tensor in graph.inputTensorMetadata] == [
        b"ids",
        b"mask",
        b"segment_ids",
    ]
    names = [tensor.name for tensor in graph.outputTensorMetadata]
    assert names == [b"end_logits", b"start_logits"]
    (unit,) = graph.inputProcessUnits
    assert unit.optionsType == schema.ProcessUnitOptions.BertTokenizerOptions
    (vocabulary,) = unit.options.vocabFile
    assert vocabulary.type == schema.AssociatedFileType.VOCABULARY
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == [vocabulary.name.decode()]
        assert archive.read("vocab.txt").decode().splitlines() == exchanged.PIECES


def described_in(path: Path) -> bytes:
    """Returns what a file holds under the name of metadata."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    (entry,) = [entry for entry in model.metadata if entry.name == metadata.NAME.encode()]
    return bytes(model.buffers[entry.buffer].data)


@pytest.mark.parametrize("mode", litert.MODES)
def test_constants_lie_in_the_flatbuffer_at_multiples_of_16(mode: Mode, tmp_path: Path) -> None:
    from ai_edge_litert import schema_py_generated as schema

    path = written(network("bare"), tmp_path / "network.tflite", mode)
    content = Path(path).read_bytes()
    model = schema.Model.GetRootAs(content)
    start = np.frombuffer(content, np.uint8).ctypes.data
    for number in range(model.BuffersLength()):
        buffer = model.Buffers(number)
        assert (buffer.Offset(), buffer.Size()) == (0, 0)
        if not buffer.DataIsNone():
            assert (buffer.DataAsNumpy().ctypes.data - start) % 16 == 0


def test_what_lies_behind_a_flatbuffer_is_taken_in(tmp_path: Path) -> None:
    from ai_edge_litert import schema_py_generated as schema

    model, path = network("bare"), tmp_path / "network.tflite"
    litert.export(model, path, length=LENGTH)
    quantized = quantization.weights_in_8_bits(path.read_bytes(), floating=True)
    outside = schema.ModelT.InitFromPackedBuf(quantized).buffers
    assert any(buffer.offset > 1 for buffer in outside), "the quantiser keeps none outside any more"
    graph = Graph(quantized)
    graph.add_metadata("more", b"x" * 1000)
    rows = calibration(model).rows(0, 2)
    results = []
    for whole in (quantized, graph.content()):
        path.write_bytes(whole)
        results.append(litert.runner(path)(rows))
    for name, array in results[0].items():
        np.testing.assert_array_equal(array, results[1][name])


def test_a_file_without_metadata_is_refused_by_apps(tmp_path: Path) -> None:
    from mediapipe.tasks.python import text

    path = tmp_path / "network.tflite"
    litert.export(network("sequence_classification"), path, length=LENGTH)
    with pytest.raises((ValueError, RuntimeError), match="No metadata"):
        text.TextClassifier.create_from_model_path(str(path))
