"""Networks of the authors' TensorFlow checkpoints come in as they are, and with a report."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.interop import own_format, parameter_names, reading, shapes
from mobilebert_jax.interop.model import Kind, Model
from mobilebert_jax.interop.tensorflow import bert_config
from mobilebert_jax.interop.tensorflow import model as tensorflow_checkpoint
from mobilebert_jax.model import sizes
from mobilebert_jax.model.sizes import ModelConfig
from tests.interop import exchanged
from tests.interop.tensorflow import checkpoint_writer

IMPORTED = {
    name: dataclasses.replace(config, trigram_masks_padding=False)
    for name, config in (exchanged.CONFIGS | exchanged.OTHERS).items()
    if config.hidden_act != "gelu" and config.vocab_size == len(exchanged.PIECES)
}
RELEASED = IMPORTED["released"]
KINDS: tuple[Kind, ...] = (
    "bare",
    "masked_lm",
    "next_sentence",
    "pretraining",
    "sequence_classification",
    "question_answering",
)
PREFIX = "mobilebert_variables.ckpt"


def authors_settings(config: ModelConfig) -> dict[str, Any]:
    """Returns the content of the authors' bert_config.json."""
    return {
        "attention_probs_dropout_prob": config.attention_probs_dropout_prob,
        "classifier_activation": config.pooler,
        "embedding_size": config.embedding_size,
        "hidden_act": config.hidden_act.removesuffix("_tanh"),
        "hidden_dropout_prob": config.hidden_dropout_prob,
        "hidden_size": config.hidden_size,
        "initializer_range": config.initializer_range,
        "intermediate_size": config.intermediate_size,
        "intra_bottleneck_size": config.intra_bottleneck_size,
        "key_query_shared_bottleneck": config.query_key == "shared_bottleneck",
        "max_position_embeddings": config.max_position_embeddings,
        "normalization_type": config.normalization_type,
        "num_attention_heads": config.num_attention_heads,
        "num_feedforward_networks": config.num_feedforward_networks,
        "num_hidden_layers": config.num_hidden_layers,
        "trigram_input": config.trigram_input,
        "type_vocab_size": config.type_vocab_size,
        "use_bottleneck": config.use_bottleneck,
        "use_bottleneck_attention": config.query_key == "bottleneck_input",
        "vocab_size": config.vocab_size,
    }


@functools.cache
def released(kind: Kind) -> Model:
    return exchanged.make(RELEASED, kind)


def tensors_of(model: Model) -> dict[str, np.ndarray]:
    return parameter_names.to_tensors(model.config, model.kind, "tensorflow", model.params)


def save(
    folder: Path,
    tensors: dict[str, np.ndarray],
    config: ModelConfig = RELEASED,
    vocabulary: bool = True,
    **options: Any,
) -> Path:
    folder.mkdir(exist_ok=True)
    checkpoint_writer.write(folder / PREFIX, tensors, **options)
    (folder / "bert_config.json").write_text(json.dumps(authors_settings(config)))
    if vocabulary:
        (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in exchanged.PIECES))
    return folder


def assert_same(found: Any, expected: Any) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(found))


@pytest.mark.parametrize("name", IMPORTED)
def test_every_form_of_the_network_comes_in(tmp_path: Path, name: str) -> None:
    model = exchanged.make(IMPORTED[name], "pretraining")
    save(tmp_path, tensors_of(model), model.config)
    found, report = tensorflow_checkpoint.read(tmp_path)
    assert found.config == model.config
    assert found.kind == "pretraining"
    assert_same(found.params, model.params)
    assert not report.skipped
    assert not report.unknown
    assert not report.assumed


@pytest.mark.parametrize("kind", KINDS)
def test_names_tell_the_kind(tmp_path: Path, kind: Kind) -> None:
    model = released(kind)
    found, _ = tensorflow_checkpoint.read(save(tmp_path, tensors_of(model)))
    assert found.kind == kind
    assert found.labels == (("start", "end") if kind == "question_answering" else ())
    assert_same(found.params, model.params)


def test_all_1119_tensors_of_mobilebert_come_in_without_teacher_and_moments(
    tmp_path: Path,
) -> None:
    config = dataclasses.replace(RELEASED, num_hidden_layers=24, num_feedforward_networks=4)
    student = exchanged.make(config, "pretraining")
    teacher = exchanged.make(IMPORTED["teacher"], "pretraining")
    weights = tensors_of(student)
    moments = {
        f"{name}/adam_{moment}": np.ones_like(array)
        for name, array in weights.items()
        for moment in "mv"
    }
    theirs = {f"teacher/{name}": array for name, array in tensors_of(teacher).items()}
    range_ = "bert/encoder/layer_0/attention/MobileBertActFakeQuantWithMinMaxVars_1/max"
    others = {
        "global_step": np.array(240_000, np.int64),
        range_: np.array(6, np.float32),
        "beta1_power": np.array(0.9, np.float32),
        "cls/own_head/kernel": np.ones((3, 2), np.float32),
    }
    save(
        tmp_path,
        weights | moments | theirs | others,
        config,
        shards=3,
        partitions={"bert/embeddings/word_embeddings": 4},
    )
    found, report = tensorflow_checkpoint.read(tmp_path / PREFIX)
    assert_same(found.params, student.params)
    assert len(report.read) == 1119
    assert report.unknown == ("cls/own_head/kernel",)
    assert len(report.skipped) == 2 * 1119 + len(theirs) + 3
    assert report.skipped["global_step"] == "counter"
    assert report.skipped[range_] == "range of quantisation-aware training"
    lines = "\n".join(report.lines())
    assert "1,119 tensors read" in lines
    assert "left out, state of the optimiser: 2,239 (" in lines
    assert f"left out, the teacher's network: {len(theirs)} (teacher/" in lines
    assert "unknown and left out: 1 (cls/own_head/kernel)" in lines


def test_slots_of_every_optimiser_are_left_out(tmp_path: Path) -> None:
    weights = tensors_of(released("bare"))
    name = "bert/encoder/layer_0/output/dense/bias"
    slots = ("Adam_1", "RMSProp", "RMSProp_1", "Adagrad", "adafactor_v", "adafactor_vr")
    others = {f"{name}/{slot}": weights[name] for slot in (*slots, "ExponentialMovingAverage")}
    _, report = tensorflow_checkpoint.read(save(tmp_path, weights | others))
    assert set(report.skipped) == set(others)
    assert report.skipped[f"{name}/ExponentialMovingAverage"] == "moving average of a tensor"


def test_names_and_shapes_are_those_of_the_published_checkpoint() -> None:
    found = shapes.theirs(sizes.MOBILEBERT, "pretraining", 0, "tensorflow")
    assert len(found) == 1119
    assert sum(int(np.prod(shape)) for shape in found.values()) == 36_597_564
    layer = "bert/encoder/layer_23"
    expected = {
        "bert/embeddings/word_embeddings": (30522, 128),
        "bert/embeddings/token_type_embeddings": (2, 512),
        "bert/embeddings/position_embeddings": (512, 512),
        "bert/embeddings/embedding_transformation/kernel": (384, 512),
        "bert/embeddings/embedding_transformation/bias": (512,),
        "bert/embeddings/FakeLayerNorm/gamma": (512,),
        f"{layer}/bottleneck/input/dense/kernel": (512, 128),
        f"{layer}/bottleneck/input/FakeLayerNorm/beta": (128,),
        f"{layer}/bottleneck/attention/dense/kernel": (512, 128),
        f"{layer}/bottleneck/attention/FakeLayerNorm/gamma": (128,),
        f"{layer}/attention/self/query/kernel": (128, 128),
        f"{layer}/attention/self/key/bias": (128,),
        f"{layer}/attention/self/value/kernel": (512, 128),
        f"{layer}/attention/output/dense/kernel": (128, 128),
        f"{layer}/attention/output/FakeLayerNorm/beta": (128,),
        f"{layer}/ffn_layer_0/intermediate/dense/kernel": (128, 512),
        f"{layer}/ffn_layer_2/output/dense/kernel": (512, 128),
        f"{layer}/ffn_layer_2/output/FakeLayerNorm/gamma": (128,),
        f"{layer}/intermediate/dense/bias": (512,),
        f"{layer}/output/dense/kernel": (512, 128),
        f"{layer}/output/FakeLayerNorm/gamma": (128,),
        f"{layer}/output/bottleneck/dense/kernel": (128, 512),
        f"{layer}/output/bottleneck/FakeLayerNorm/beta": (512,),
        "cls/predictions/transform/dense/kernel": (512, 512),
        "cls/predictions/transform/LayerNorm/gamma": (512,),
        "cls/predictions/extra_output_weights": (30522, 384),
        "cls/predictions/output_bias": (30522,),
        "cls/seq_relationship/output_weights": (2, 512),
        "cls/seq_relationship/output_bias": (2,),
    }
    assert {name: found[name] for name in expected} == expected


def test_the_teacher_comes_in_by_its_scope(tmp_path: Path) -> None:
    teacher = exchanged.make(IMPORTED["teacher"], "pretraining")
    theirs = {f"teacher/{name}": array for name, array in tensors_of(teacher).items()}
    student = tensors_of(released("pretraining"))
    save(tmp_path, student | theirs)
    settings = tmp_path / "teacher_config.json"
    settings.write_text(json.dumps(authors_settings(teacher.config)))
    found, report = tensorflow_checkpoint.read(tmp_path, "teacher/", settings)
    assert found.config == teacher.config
    assert_same(found.params, teacher.params)
    assert set(report.read) == set(theirs)
    assert set(report.skipped) == set(student)
    own_format.write(found, tmp_path / "own")
    assert_same(reading.read(tmp_path / "own")[0].params, teacher.params)
    save(tmp_path, theirs)
    message = r"the teacher under teacher/.*read\(path, 'teacher/', settings\).*own_format\.write"
    with pytest.raises(InputError, match=message):
        tensorflow_checkpoint.read(tmp_path)


def test_a_plain_bert_config_takes_the_defaults_of_the_authors(tmp_path: Path) -> None:
    model = exchanged.make(IMPORTED["bert"], "pretraining")
    save(tmp_path, tensors_of(model), model.config)
    settings = authors_settings(model.config)
    plain = {key: settings[key] for key in settings if "size" in key or "_prob" in key}
    del plain["embedding_size"], plain["intra_bottleneck_size"]
    plain |= {key: settings[key] for key in ("hidden_act", "max_position_embeddings")}
    plain |= {key: settings[key] for key in ("num_attention_heads", "num_hidden_layers")}
    (tmp_path / "bert_config.json").write_text(json.dumps(plain | {"pooler_type": "first"}))
    found, report = tensorflow_checkpoint.read(tmp_path)
    assert found.config == model.config
    assert_same(found.params, model.params)
    assert report.assumed["embedding_size"] == model.config.hidden_size
    assert "as in the authors' code: initializer_range=0.02, trigram_input=False" in "".join(
        report.lines()
    )


def test_published_settings_are_the_published_sizes(tmp_path: Path) -> None:
    path = tmp_path / "bert_config.json"
    for name, config in sizes.PUBLISHED.items():
        if sizes.has_groups(config):
            continue  # SqueezeBERT, which is not by the same authors
        path.write_text(json.dumps(authors_settings(config)))
        expected = dataclasses.replace(config, trigram_masks_padding=False)
        assert bert_config.read(path).config == expected, name


@pytest.mark.parametrize("ending", ["", ".index", ".meta", ".data-00000-of-00001"])
def test_any_file_of_the_checkpoint_names_it(tmp_path: Path, ending: str) -> None:
    save(tmp_path, tensors_of(released("bare")))
    path = tmp_path / f"{PREFIX}{ending}"
    assert tensorflow_checkpoint.read(path)[1].source == tmp_path / PREFIX


def test_of_several_checkpoints_the_named_one_is_taken(tmp_path: Path) -> None:
    for step in (10, 9, 30):
        checkpoint_writer.write(tmp_path / f"model.ckpt-{step}", {"x": np.ones(1)})
    with pytest.raises(InputError, match="has 3 TensorFlow checkpoints") as error:
        tensorflow_checkpoint.find(tmp_path)
    assert "model.ckpt-10, model.ckpt-30, model.ckpt-9" in str(error.value)
    latest = tmp_path / "checkpoint"
    latest.write_text('model_checkpoint_path: "/a/b/model.ckpt-9"\nall_model_checkpoint_paths: "c"')
    assert tensorflow_checkpoint.find(tmp_path) == tmp_path / "model.ckpt-9"
    latest.write_text('model_checkpoint_path: "model.ckpt-8"\n')
    with pytest.raises(InputError, match=r"names model\.ckpt-8, which is not there; there are: m"):
        tensorflow_checkpoint.find(tmp_path)
    latest.write_bytes(b'model_checkpoint_path: "\xff"')
    with pytest.raises(InputError, match="which is not there"):
        tensorflow_checkpoint.find(tmp_path)
    latest.write_text("nothing")
    with pytest.raises(InputError, match="names no model_checkpoint_path"):
        tensorflow_checkpoint.find(tmp_path)


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has 0 TensorFlow checkpoints \(none\)"):
        tensorflow_checkpoint.read(tmp_path)
    with pytest.raises(InputError, match="there is no checkpoint"):
        tensorflow_checkpoint.read(tmp_path / "nowhere" / "model.ckpt")


def test_half_precision_is_widened_and_whole_numbers_are_refused(tmp_path: Path) -> None:
    model = released("bare")
    tensors = tensors_of(model)
    name = "bert/encoder/layer_1/output/dense/bias"
    halves = tensors[name].astype(np.float16)
    found, _ = tensorflow_checkpoint.read(save(tmp_path, tensors | {name: halves}))
    np.testing.assert_array_equal(
        found.params["blocks"]["feedforward_2_out"]["bias"][1], halves.astype(np.float32)
    )
    save(tmp_path, tensors | {name: np.zeros(8, np.int32)})
    with pytest.raises(InputError, match=f"{name} has the type int32"):
        tensorflow_checkpoint.read(tmp_path)


def test_a_missing_tensor_is_named_with_the_nearest_there(tmp_path: Path) -> None:
    tensors = tensors_of(released("pretraining"))
    kernel = tensors.pop("bert/encoder/layer_1/attention/self/key/kernel")
    tensors["bert/encoder/layer_1/attention/self/keys/kernel"] = kernel
    save(tmp_path, tensors)
    with pytest.raises(InputError, match="lacks 1 tensor of the network") as error:
        tensorflow_checkpoint.read(tmp_path)
    message = str(error.value)
    assert f"{PREFIX}.index" in message
    assert "'bert/encoder/layer_1/attention/self/key/kernel'" in message
    assert "nearest name: bert/encoder/layer_1/attention/self/keys/kernel" in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 20}, r"'bert/\S+' has the shape \(\S+ 16\), but by .* is \(\S+ 20\)"),
        ({"vocab_size": 28}, r"word_embeddings' has the shape \(27, 8\).*\(28, 8\)"),
        ({"num_hidden_layers": 1}, r"layer_1/\S+ and \d+ more have no place"),
        ({"num_feedforward_networks": 2}, r"ffn_layer_1/\S+ and \d+ more have no place"),
        ({"num_hidden_layers": 3}, "lacks 40 tensors.*layer_2/"),
        ({"normalization_type": "layer_norm"}, r"LayerNorm/gamma.*nearest name: \S+FakeLayerNorm"),
        ({"classifier_activation": True}, "lacks 2 tensors.*'bert/pooler/dense/kernel'"),
        ({"trigram_input": False}, "trigram_input=False needs embedding_size equal to hidden_size"),
        ({"num_attention_heads": 3}, "heads=3 does not divide intra_bottleneck_size=8"),
        ({"hidden_act": "gelu_new"}, "hidden_act is 'gelu_new'.*nearest: gelu"),
        ({"hidden_act": None}, "lacks hidden_act, which shapes do not tell"),
        ({"num_hidden_layers": "2"}, "num_hidden_layers is '2'; it must be int"),
        ({"num_hidden_layers": True}, "num_hidden_layers is True; it must be int"),
        ({"use_bottleneck": 1}, "use_bottleneck is 1; it must be bool"),
    ],
)
def test_settings_that_contradict_the_tensors_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    save(tmp_path, tensors_of(released("pretraining")))
    settings = authors_settings(RELEASED) | changes
    (tmp_path / "bert_config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match=message) as error:
        tensorflow_checkpoint.read(tmp_path)
    assert "bert_config.json" in str(error.value)


def test_missing_or_unreadable_settings_are_asked_for(tmp_path: Path) -> None:
    save(tmp_path, tensors_of(released("bare")))
    settings = tmp_path / "bert_config.json"
    settings.write_text('{"vocab_size": 27,\n hidden}')
    with pytest.raises(InputError, match=r"bert_config\.json: line 2, column 2: not JSON"):
        tensorflow_checkpoint.read(tmp_path)
    settings.unlink()
    with pytest.raises(InputError, match=r"there is no .*bert_config\.json; put the bert_config"):
        tensorflow_checkpoint.read(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "model/layer/kernel/.ATTRIBUTES/VARIABLE_VALUE",
            "object-based checkpoint of TensorFlow 2",
        ),
        ("albert/embeddings/word_embeddings", "nearest to .* is albert/embeddings/word_embeddings"),
    ],
)
def test_other_networks_are_told_apart(tmp_path: Path, name: str, message: str) -> None:
    save(tmp_path, {name: np.ones((3, 2), np.float32)})
    with pytest.raises(InputError, match=message):
        tensorflow_checkpoint.read(tmp_path)


def test_the_vocabulary_beside_it_becomes_the_tokenizer(tmp_path: Path) -> None:
    tensors = tensors_of(released("bare"))
    found, report = tensorflow_checkpoint.read(save(tmp_path, tensors))
    assert found.tokenizer is not None
    assert found.tokenizer.lowercase
    assert found.tokenizer.encode(["The FILM"]) == exchanged.wordpiece().encode(["the film"])
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text(vocabulary.read_text().replace("film", "Film"))
    found, report = tensorflow_checkpoint.read(tmp_path)
    assert found.tokenizer is not None
    assert not found.tokenizer.lowercase
    assert "vocab.txt: 27 pieces, cased" in report.lines()[0]
    vocabulary.write_text(vocabulary.read_text() + "more\n")
    with pytest.raises(InputError, match=r"vocab\.txt: has 28 pieces, but vocab_size in .* is 27"):
        tensorflow_checkpoint.read(tmp_path)
    vocabulary.unlink()
    found, report = tensorflow_checkpoint.read(tmp_path)
    assert found.tokenizer is None
    assert report.lines()[0].endswith("no vocab.txt beside it, so no tokenizer")
