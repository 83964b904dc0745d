"""The exported function computes what training's functions do, under the names of its kind."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mobilebert_jax
from mobilebert_jax.config.schema import InputError
from mobilebert_jax.interop import forward, own_format, sentence_vector, verification
from mobilebert_jax.interop.model import TASK_KINDS, Kind, Model
from mobilebert_jax.interop.sentence_vector import Pooling
from mobilebert_jax.model import encoder, sizes
from mobilebert_jax.model.attention import hide_padding
from mobilebert_jax.model.layers import Network, TaskHead
from tests.interop import exchanged

LENGTH = 6
CONFIGS = exchanged.CONFIGS | exchanged.OTHERS


def _model(kind: Kind, name: str = "masks_padding", **changes: Any) -> Model:
    """Returns a network without a tokenizer, so that what it reads are random ids."""
    config = dataclasses.replace(CONFIGS[name], **changes)
    return exchanged.make(config, kind)._replace(tokenizer=None)


def _batch(inputs: forward.Inputs) -> dict[str, Any]:
    ids, mask, segments = map(jnp.asarray, inputs)
    positions = jnp.broadcast_to(jnp.arange(LENGTH), ids.shape)
    return {
        "input_ids": ids,
        "input_mask": mask,
        "segment_ids": segments,
        "masked_lm_positions": positions,
    }


def _ours(model: Model, **changes: Any) -> dict[str, np.ndarray]:
    inputs = map(jnp.asarray, verification.examples(model, LENGTH))
    found = forward.function(model, **changes)(*inputs)
    return {name: np.asarray(array) for name, array in found.items()}


def test_pretraining_outputs_are_those_of_training() -> None:
    model = _model("pretraining")
    network, batch = Network(model.config), _batch(verification.examples(model, LENGTH))
    hidden_BTD = encoder.encode(network, model.params, batch).hidden_BTD
    expected = encoder.predict(network, model.params, hidden_BTD, batch)
    found = _ours(model)
    np.testing.assert_allclose(found["prediction_logits"], expected.masked_lm_BPV, atol=1e-5)
    np.testing.assert_allclose(
        found["seq_relationship_logits"], expected.next_sentence_B2, atol=1e-5
    )


@pytest.mark.parametrize("kind", TASK_KINDS)
def test_task_outputs_are_those_of_training(kind: Kind) -> None:
    model = _model(kind)
    every = kind in ("token_classification", "question_answering")
    outputs = model.params["task"]["dense"]["bias"].shape[0]
    network = Network(model.config, task=TaskHead("every" if every else "first", outputs))
    batch = _batch(verification.examples(model, LENGTH))
    expected = np.asarray(encoder.task_outputs(network, model.params, batch))
    found = _ours(model)
    assert tuple(sorted(found)) == forward.output_names(kind)
    if kind == "question_answering":
        found = {"logits": np.stack([found["start_logits"], found["end_logits"]], axis=-1)}
    np.testing.assert_allclose(found["logits"], expected, atol=1e-5)


def test_networks_without_a_head_give_features_and_the_pooled_first() -> None:
    model = _model("bare", "pooler")
    found = _ours(model)
    hidden_BTD = encoder.encode(
        Network(model.config), model.params, _batch(verification.examples(model, LENGTH))
    ).hidden_BTD
    np.testing.assert_allclose(found["sequence_output"], hidden_BTD, atol=1e-5)
    pooled = encoder.pool(Network(model.config), model.params, hidden_BTD)
    np.testing.assert_allclose(found["pooled_output"], pooled, atol=1e-5)


def test_apps_get_probabilities_and_the_vectors_of_texts_first() -> None:
    model = _model("sequence_classification")
    found = _ours(model, pooling=sentence_vector.MEAN)
    shares = np.exp(found["logits"]) / np.exp(found["logits"]).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found["class_probabilities"], shares, atol=1e-6)
    assert min(found) == forward.app_output(model) == "class_probabilities"
    model = _model("bare", "pooler")
    found = _ours(model, pooling=Pooling("mean", normalize=True))
    hidden, mask = found["sequence_output"], verification.examples(model, LENGTH).input_mask_NT
    mean = (hidden * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
    expected = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(found["embedding"], expected, atol=1e-6)
    assert min(found) == forward.app_output(model) == "embedding"
    for pool, vectors in (("cls", hidden[:, 0]), ("first", found["pooled_output"])):
        found = _ours(model, pooling=Pooling(pool))
        np.testing.assert_allclose(found["embedding"], vectors, atol=1e-6)


def test_numbers_and_spans_are_shown_as_they_are() -> None:
    for model in (
        exchanged.make(CONFIGS["tiny"], "sequence_classification", ())._replace(tokenizer=None),
        _model("question_answering"),
        _model("token_classification"),
    ):
        assert forward.app_output(model) is None
        assert set(_ours(model, pooling=sentence_vector.MEAN)) == set(_ours(model))


@pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_tanh"])
def test_named_operations_change_no_number(activation: sizes.Activation) -> None:
    model = _model("masked_lm", hidden_act=activation)
    plain, named = _ours(model), _ours(model, named_operations=True)
    np.testing.assert_allclose(named["logits"], plain["logits"], atol=1e-5)


def test_clipped_scores_leave_padding_the_share_that_is_said() -> None:
    mask_BS = np.concatenate([np.ones((1, 112)), np.zeros((1, 400))], axis=1)
    for score, share in ((0.0, 0.009), (-3.0, 0.15)):
        scores = hide_padding(
            Network(CONFIGS["tiny"], quantized_mask=True),
            jnp.full((1, 1, 1, 512), score),
            jnp.asarray(mask_BS),
            lambda name, x: x,
        )
        weights = np.exp(np.asarray(scores)[0, 0, 0])
        assert weights[112:].sum() / weights.sum() == pytest.approx(share, rel=0.05)


def test_clipped_scores_equal_the_plain_ones_without_padding() -> None:
    model = _model("bare")
    inputs = verification.examples(model, LENGTH)
    full = inputs._replace(input_mask_NT=np.ones_like(inputs.input_mask_NT))
    plain, clipped = (
        forward.function(model, mask=mask)(*map(jnp.asarray, full))
        for mask in ("additive", "clipped")
    )
    np.testing.assert_allclose(clipped["sequence_output"], plain["sequence_output"], atol=1e-5)


def test_a_loaded_network_is_compiled_and_differentiated(tmp_path) -> None:
    own_format.write(exchanged.make(CONFIGS["masks_padding"], "sequence_classification"), tmp_path)
    model, params, _, config = mobilebert_jax.load(tmp_path)
    ids, mask, segments = [[5, 8, 9, 6]], [[1] * 4], [[0] * 4]
    plain = model(params, ids, mask, segments)["logits"]

    def loss(params: Any, inputs: Any) -> Any:
        logits = model(params, *inputs)["logits"]
        return logits.sum(), logits

    inputs = tuple(map(jnp.asarray, (ids, mask, segments)))
    gradients, logits = jax.jit(jax.grad(loss, has_aux=True))(params, inputs)
    np.testing.assert_allclose(logits, plain, atol=1e-5)
    np.testing.assert_allclose(gradients["task"]["dense"]["bias"], np.ones(3), atol=1e-6)
    assert gradients["blocks"]["input"]["kernel"].shape[0] == config.num_hidden_layers
    assert np.abs(gradients["blocks"]["input"]["kernel"]).min(axis=0).max() > 0


def test_a_network_with_one_type_of_segment_is_asked_for_no_other() -> None:
    model = exchanged.make(dataclasses.replace(CONFIGS["bert"], type_vocab_size=1), "bare")
    for asked in (model, model._replace(tokenizer=None)):
        assert verification.examples(asked, LENGTH).segment_ids_NT.max() == 0


def test_lengths_beyond_the_positions_are_refused() -> None:
    with pytest.raises(InputError, match=r"length 17 is not possible.*1 to 16"):
        forward.check_length(_model("bare"), 17)


def test_sentences_are_read_as_the_network_reads_them() -> None:
    tokenizer = exchanged.wordpiece()
    inputs = verification.encode(tokenizer, (("film was", "good"), ("film", "")), 6)
    a, b, c = tokenizer.encode(["film was good"])[0]
    cls, sep, pad = tokenizer.cls, tokenizer.sep, tokenizer.pad
    assert inputs.input_ids_NT.tolist() == [[cls, a, b, sep, c, sep], [cls, a, sep, pad, pad, pad]]
    assert inputs.input_mask_NT.tolist() == [[1] * 6, [1, 1, 1, 0, 0, 0]]
    assert inputs.segment_ids_NT.tolist() == [[0, 0, 0, 0, 1, 1], [0] * 6]
    assert verification.encode(tokenizer, (("film was", "good"),), 3).input_ids_NT.tolist() == [
        [cls, a, b]
    ]


def test_padding_is_not_compared_where_outputs_belong_to_tokens() -> None:
    mask_NT = np.array([[1, 1, 0]])
    inputs = forward.Inputs(mask_NT, mask_NT, mask_NT)
    mine = {"x": np.array([[1.0, -2.0, 3.0]])}
    found = verification.differences(mine, {"x": np.array([[1.0, -1.5, 9.0]])}, inputs)
    assert found == {"x": verification.Difference(0.5, 0.25)}
    with pytest.raises(InputError, match="the file's outputs are"):
        verification.differences(mine, {"y": mine["x"]}, inputs)


@pytest.mark.parametrize(
    ("factor", "message"), [(1.01, "differs from ours by 1.0e-02"), (np.nan, "is not finite")]
)
def test_a_file_that_computes_something_else_is_not_written(tmp_path, factor, message) -> None:
    model = _model("bare")
    inputs = verification.examples(model, LENGTH)
    path = tmp_path / "network.bin"
    path.write_bytes(b"older")

    def run(written):
        return lambda inputs: {n: a * factor for n, a in verification.ours(model, inputs).items()}

    with pytest.raises(InputError, match=message):
        verification.publish(model, path, b"content", run, inputs=inputs)
    assert [file.name for file in tmp_path.iterdir()] == ["network.bin"]
    assert path.read_bytes() == b"older"


def test_a_missing_package_is_said_with_how_to_install_it(monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(InputError, match=r"needs the package onnx .*requirements-export\.txt"):
        verification.package("onnx")
