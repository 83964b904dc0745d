"""Folders travel between this project and `transformers` without a change in what is computed.

Shapes: B batch, T positions.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobilebert_jax.config import schema
from mobilebert_jax.config.schema import InputError
from mobilebert_jax.data import tokenizer as tokenizer_lib
from mobilebert_jax.interop.huggingface import config as huggingface_config
from mobilebert_jax.interop.huggingface import model as huggingface
from mobilebert_jax.interop.model import Kind, Model
from mobilebert_jax.model import encoder, sizes
from mobilebert_jax.model.layers import Network, TaskHead
from tests.interop import exchanged
from tests.parity.cases import QUICK_COMPILATION

pytestmark = pytest.mark.parity

TOLERANCE = 1e-5  # of the largest output
TEXTS = [
    "The film was wonderfully unbelievable, not bad!",
    "Tokyo 東京 TÔKYÔ\tfilm",
    "  nothing   here is known?  ",
    "",
]
Batch = dict[str, np.ndarray]


def batch(config: Any, lengths: tuple[int, ...] = (9, 6, 3)) -> Batch:
    """Returns rows of these lengths, all but the first padded with id 0."""
    generator = np.random.default_rng(7)
    T = max(lengths)
    mask_BT = (np.arange(T) < np.array(lengths)[:, None]).astype(np.int32)
    ids_BT = generator.integers(1, config.vocab_size, mask_BT.shape) * mask_BT
    segments_BT = (np.arange(T) >= np.array(lengths)[:, None] // 2) * mask_BT
    return {
        "input_ids": ids_BT.astype(np.int32),
        "input_mask": mask_BT,
        "segment_ids": segments_BT.astype(np.int32),
    }


def our_outputs(model: Model, inputs: Batch) -> dict[str, np.ndarray]:
    """Returns what this project computes, under the names of `transformers`."""
    task = None
    if "task" in model.params:
        every = model.kind in ("token_classification", "question_answering")
        width = model.params["task"]["dense"]["bias"].shape[0]
        task = TaskHead("every" if every else "first", width)
    network = Network(model.config, task=task)
    T = inputs["input_ids"].shape[1]
    arrays = {name: jnp.asarray(array) for name, array in inputs.items()}
    arrays["masked_lm_positions"] = jnp.broadcast_to(jnp.arange(T), (len(inputs["input_ids"]), T))

    def run(params: dict[str, Any]) -> dict[str, jax.Array]:
        if task is not None:
            return {"logits": encoder.task_outputs(network, params, arrays)}
        hidden_BTD = encoder.encode(network, params, arrays).hidden_BTD
        if model.kind == "bare":
            pooled_BD = encoder.pool(network, params, hidden_BTD)
            return {"last_hidden_state": hidden_BTD, "pooler_output": pooled_BD}
        missing = {"masked_lm", "next_sentence"} - set(params)
        zeros = jax.tree.map(jnp.zeros_like, exchanged.make(model.config, "pretraining").params)
        filled = params | {name: zeros[name] for name in missing}
        logits_BTV, logits_B2 = encoder.predict(network, filled, hidden_BTD, arrays)
        return {
            "masked_lm": {"logits": logits_BTV},
            "next_sentence": {"logits": logits_B2},
            "pretraining": {
                "prediction_logits": logits_BTV,
                "seq_relationship_logits": logits_B2,
            },
        }[model.kind]

    with jax.default_matmul_precision("highest"):
        outputs = jax.jit(run, compiler_options=QUICK_COMPILATION)(model.params)
    return {name: np.asarray(array) for name, array in outputs.items()}


def their_outputs(network: Any, kind: Kind, inputs: Batch) -> dict[str, np.ndarray]:
    """Returns what `transformers` computes; a row is one choice of multiple choice."""
    import torch

    arguments = {
        "input_ids": torch.from_numpy(inputs["input_ids"]).long(),
        "attention_mask": torch.from_numpy(inputs["input_mask"]).long(),
        "token_type_ids": torch.from_numpy(inputs["segment_ids"]).long(),
    }
    if kind == "multiple_choice":
        arguments = {name: array[:, None] for name, array in arguments.items()}
    with torch.no_grad():
        output = network.eval()(**arguments)
    if kind == "question_answering":
        return {"logits": torch.stack([output.start_logits, output.end_logits], -1).numpy()}
    return {name: array.numpy() for name, array in output.items()}


def largest_difference(
    ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], mask_BT: np.ndarray
) -> float:
    """Returns the largest difference as a share of the largest output; padding is left out."""
    assert ours.keys() == theirs.keys()
    found = 0.0
    for name, mine in ours.items():
        other = theirs[name]
        assert mine.shape == other.shape
        if mine.shape[:2] == mask_BT.shape and mine.ndim == 3:
            mine, other = mine[mask_BT == 1], other[mask_BT == 1]
        assert np.isfinite(other).all() and np.abs(other).max() > 0.01
        found = max(found, float(np.abs(mine - other).max() / np.abs(other).max()))
    return found


def load(folder: Path, kind: Kind) -> Any:
    """Returns the network of a folder as `transformers` loads it, no tensor of which is lacking."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder)
    (architecture,) = config.architectures
    assert architecture.endswith(huggingface_config.HEADS[kind])
    network, info = getattr(transformers, architecture).from_pretrained(
        folder, output_loading_info=True
    )
    assert not any(info.values()), info
    return network


def set_one_epsilon(network: Any) -> None:
    """Gives every norm of a MobileBERT the epsilon that its settings name."""
    import torch

    for module in network.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-12


EVERY_KIND = ("masks_padding", "pooler", "bert", "squeezebert")
EXPORTS = [
    (name, kind)
    for name in exchanged.CONFIGS
    for kind in exchanged.LABELS
    if name in EVERY_KIND or kind in ("pretraining", "sequence_classification")
    if exchanged.is_expressed(name, kind)
]


@pytest.mark.parametrize(("name", "kind"), EXPORTS)
def test_what_is_written_loads_whole_and_computes_the_same(
    name: str, kind: Kind, tmp_path: Path
) -> None:
    model = exchanged.make(exchanged.CONFIGS[name], kind)
    notes = huggingface.write(model, tmp_path / "written")
    network = load(tmp_path / "written", kind)
    if any("1e-5" in note for note in notes):
        set_one_epsilon(network)
    # With a head of masked LM the trigram's padding cannot be taken out, as a note says.
    lengths = (9, 9) if any("reads the padding" in note for note in notes) else (9, 6, 3)
    inputs = batch(model.config, lengths)
    ours, theirs = our_outputs(model, inputs), their_outputs(network, kind, inputs)
    assert largest_difference(ours, theirs, inputs["input_mask"]) < TOLERANCE


def test_the_notes_on_padding_and_norms_are_true(tmp_path: Path) -> None:
    model = exchanged.make(exchanged.CONFIGS["masks_padding"], "pretraining")
    huggingface.write(model, tmp_path / "padding")
    inputs = batch(model.config)
    theirs = their_outputs(load(tmp_path / "padding", model.kind), model.kind, inputs)
    difference = largest_difference(our_outputs(model, inputs), theirs, inputs["input_mask"])
    assert difference > 1e-3
    back = huggingface.read(tmp_path / "padding")
    difference = largest_difference(our_outputs(back, inputs), theirs, inputs["input_mask"])
    assert difference < TOLERANCE

    model = exchanged.make(exchanged.CONFIGS["layer_norm"], "sequence_classification")
    quiet = jax.tree.map(lambda array: 0.1 * array, model.params["embeddings"])
    model = model._replace(params=model.params | {"embeddings": quiet})
    huggingface.write(model, tmp_path / "norms")
    inputs = batch(model.config)
    theirs = their_outputs(load(tmp_path / "norms", model.kind), model.kind, inputs)
    difference = largest_difference(our_outputs(model, inputs), theirs, inputs["input_mask"])
    assert 2 * TOLERANCE < difference < 1e-2


def randomized(config: Any, kind: Kind) -> Any:
    """Returns a network of `transformers` in which every weight matters."""
    import torch
    import transformers

    torch.manual_seed(3)
    stem = huggingface_config.CLASSES[config.model_type]
    network = getattr(transformers, f"{stem}{huggingface_config.HEADS[kind]}")(config)
    for name, parameter in network.named_parameters():
        torch.nn.init.normal_(parameter, float("Norm.weight" in name), 0.2)
    network.tie_weights()
    return network


THEIRS: dict[str, tuple[str, Kind, dict[str, Any]]] = {
    "released": ("MobileBertConfig", "pretraining", {"classifier_activation": False}),
    "its own defaults": ("MobileBertConfig", "sequence_classification", {"num_labels": 5}),
    "tiny": (
        "MobileBertConfig",
        "token_classification",
        {"use_bottleneck_attention": True, "num_feedforward_networks": 2},
    ),
    "no bottleneck": (
        "MobileBertConfig",
        "question_answering",
        {"use_bottleneck": False, "trigram_input": False, "embedding_size": 32},
    ),
    "one width": ("MobileBertConfig", "masked_lm", {"embedding_size": 32}),
    "gelu": ("BertConfig", "bare", {"hidden_act": "gelu_new"}),
    "bert": ("BertConfig", "multiple_choice", {}),
    "regression": ("BertConfig", "sequence_classification", {"num_labels": 1}),
    **{
        f"squeezebert {kind}": ("SqueezeBertConfig", kind, {"embedding_size": 32})
        for kind in exchanged.LABELS
        if exchanged.is_expressed("squeezebert", kind)
    },
    "other groups": (
        "SqueezeBertConfig",
        "bare",
        {"embedding_size": 32, "k_groups": 1, "v_groups": 2, "post_attention_groups": 8},
    ),
}
SMALL = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 16,
}


def build(name: str) -> tuple[Any, Kind]:
    import transformers

    config_class, kind, changes = THEIRS[name]
    width = {"intra_bottleneck_size": 16} if config_class.startswith("Mobile") else {}
    if width and "embedding_size" not in changes:
        width["embedding_size"] = 8
    config = getattr(transformers, config_class)(**(SMALL | width | changes))
    return randomized(config, kind), kind


@pytest.mark.parametrize("name", THEIRS)
def test_what_transformers_saves_is_read_and_computes_the_same(name: str, tmp_path: Path) -> None:
    network, kind = build(name)
    network.save_pretrained(tmp_path / "theirs")
    model = huggingface.read(tmp_path / "theirs")
    assert (model.kind, model.tokenizer) == (kind, None)
    inputs = batch(model.config)
    theirs = their_outputs(network, kind, inputs)
    assert largest_difference(our_outputs(model, inputs), theirs, inputs["input_mask"]) < TOLERANCE
    if name.startswith("squeezebert"):
        huggingface.write(model, tmp_path / "ours")
        again, before = load(tmp_path / "ours", kind).state_dict(), network.state_dict()
        assert again.keys() == before.keys()
        assert all(bool((again[key] == before[key]).all()) for key in before)


def test_squeezebert_has_as_many_parameters_as_theirs() -> None:
    import torch
    import transformers

    with torch.device("meta"):
        network = transformers.SqueezeBertModel(transformers.SqueezeBertConfig())
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert sizes.encoder_parameters(sizes.SQUEEZEBERT) == parameters == 51_089_664


def test_shards_half_precision_and_pickles_are_read(tmp_path: Path) -> None:
    import torch

    network, kind = build("released")
    network.save_pretrained(tmp_path / "whole")
    whole = huggingface.read(tmp_path / "whole")
    network.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    np.testing.assert_equal(huggingface.read(tmp_path / "shards").params, whole.params)

    pickled = tmp_path / "pickled"
    pickled.mkdir()
    network.config.save_pretrained(pickled)
    wrapped = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    for state in (network.state_dict(), wrapped):
        for zipped in (True, False):
            path = pickled / "pytorch_model.bin"
            torch.save(state, path, _use_new_zipfile_serialization=zipped)
            found = huggingface.read(pickled)
            np.testing.assert_equal(found.params, whole.params)
            assert found.kind == kind

    half = {name: tensor.bfloat16() for name, tensor in network.state_dict().items()}
    torch.save(half, pickled / "pytorch_model.bin")
    word = huggingface.read(pickled).params["embeddings"]["word"]
    theirs = half["mobilebert.embeddings.word_embeddings.weight"].float().numpy()
    np.testing.assert_array_equal(word, theirs)


class _Code:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path.touch, (Path("must-not-exist"),)


def test_pickles_with_code_or_damage_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.chdir(tmp_path)
    network, _ = build("released")
    network.config.save_pretrained(tmp_path)
    path = tmp_path / "pytorch_model.bin"
    torch.save({"weight": _Code()}, path)
    with pytest.raises(InputError, match=r"pytorch_model\.bin cannot be read .*names "):
        huggingface.read(tmp_path)
    assert not (tmp_path / "must-not-exist").exists()
    torch.save(network.state_dict(), path)
    content = path.read_bytes()
    for length in (0, 1, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match=r"pytorch_model\.bin cannot be read"):
            huggingface.read(tmp_path)
    for wrong in ([torch.zeros(2)], {"state_dict": {}}):
        torch.save(wrong, path)
        with pytest.raises(InputError, match=r"holds a list|entry 'state_dict'"):
            huggingface.read(tmp_path)


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("name", ["released", "bert", "squeezebert"])
def test_auto_tokenizer_gives_our_ids(name: str, lowercase: bool, tmp_path: Path) -> None:
    import transformers

    ours = exchanged.wordpiece(lowercase)
    model = exchanged.make(exchanged.CONFIGS[name], "bare")._replace(tokenizer=ours)
    huggingface.write(model, tmp_path / "written")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "written")
    for text, ids in zip(TEXTS, ours.encode(TEXTS), strict=True):
        assert theirs(text)["input_ids"] == [ours.cls, *ids, ours.sep]
    pair = theirs(TEXTS[0], TEXTS[1])
    first, second = ours.encode(TEXTS[:2])
    assert pair["token_type_ids"] == [0] * (len(first) + 2) + [1] * (len(second) + 1)
    assert theirs.pad_token_id == ours.pad and theirs.mask_token_id == ours.mask
    assert theirs.model_max_length == model.config.max_position_embeddings

    theirs.save_pretrained(tmp_path / "again")
    for file in ("config.json", "model.safetensors"):
        (tmp_path / "again" / file).write_bytes((tmp_path / "written" / file).read_bytes())
    again = huggingface.read(tmp_path / "again").tokenizer
    assert again is not None and again.digest == ours.digest


@pytest.mark.parametrize("kind", ["sentencepiece_unigram", "sentencepiece_bpe"])
def test_sentencepiece_models_become_tokenizers(kind: Any, tmp_path: Path) -> None:
    import transformers

    lines = [
        *TEXTS,
        "東京の映画はとても良かった。",
        "فیلم خوب بود",
        "\uff46\uff49\uff4c\uff4d \ufb01lm",
    ] * 20
    ours = tokenizer_lib.train(
        lines, schema.Tokenizer(kind=kind, vocab_size=120), tmp_path / "vocabulary"
    )
    config = dataclasses.replace(exchanged.CONFIGS["released"], vocab_size=ours.size)
    model = exchanged.make(config, "sequence_classification")._replace(tokenizer=ours)
    huggingface.write(model, tmp_path / "written")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "written")
    texts = [line for line in lines[:7] if line]
    for text, ids in zip(texts, ours.encode(texts), strict=True):
        assert theirs(text)["input_ids"] == [ours.cls, *ids, ours.sep]
    back = huggingface.read(tmp_path / "written").tokenizer
    assert back is not None and back.digest == ours.digest
