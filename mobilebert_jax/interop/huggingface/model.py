"""Folders of Hugging Face's `transformers`: its MobileBERT, BERT and SqueezeBERT, read and written.

Needs neither PyTorch nor `transformers`, but to read pickles (`pytorch_model.bin`).
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mobilebert_jax.config.schema import InputError, nearest
from mobilebert_jax.interop import folders, own_format, parameter_names, shapes
from mobilebert_jax.interop.huggingface import config as huggingface_config
from mobilebert_jax.interop.huggingface import safetensors as safetensors_files
from mobilebert_jax.interop.huggingface import tokenizer as huggingface_tokenizer
from mobilebert_jax.interop.huggingface.config import (
    ARCHITECTURES,
    CLASSES,
    HEADS,
    POOLED,
    SPAN_LABELS,
)
from mobilebert_jax.interop.model import TASK_KINDS, Kind, Model
from mobilebert_jax.model import sizes
from mobilebert_jax.model.sizes import ModelConfig

CONFIG = "config.json"

_BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")
"""Not parameters, but saved by older releases."""
_MASKED_LM, _NEXT_SENTENCE = "cls.predictions.", "cls.seq_relationship."
_HEADS = (_MASKED_LM, _NEXT_SENTENCE, "classifier.", "qa_outputs.")
_KINDS_BY_HEADS: tuple[tuple[Kind, set[str]], ...] = (
    ("bare", set()),
    ("masked_lm", {_MASKED_LM}),
    ("next_sentence", {_NEXT_SENTENCE}),
    ("pretraining", {_MASKED_LM, _NEXT_SENTENCE}),
    ("question_answering", {"qa_outputs."}),
)
_OLD_SPELLINGS = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
_INSTEAD = "save it in this project's own format instead, which holds every network"


def problems(config: ModelConfig, kind: Kind | None = None) -> list[str]:
    """Returns why a network cannot be expressed there, one sentence each; none if it can.

    Without `kind` only what is so under every head.
    """
    found = []
    body, kind = parameter_names.huggingface_body(config), kind and _written_kind(config, kind)
    if config.use_bottleneck and config.query_key == "block_input":
        found.append(
            "query_key='block_input' with use_bottleneck=True (the teacher, and the student of the "
            "paper's tables): queries and keys of Hugging Face's MobileBERT have "
            f"{config.intra_bottleneck_size} inputs, and these {config.hidden_size}, so it cannot "
            "compute this"
        )
    if sizes.has_groups(config) and body != "squeezebert":
        found.append(
            "groups in dense layers: only Hugging Face's SqueezeBERT has them, and it has neither "
            "bottlenecks nor a trigram, and layer_norm and one feed-forward network in a block"
        )
    if body == "squeezebert" and kind == "next_sentence":
        found.append(f"the kind {kind!r}: Hugging Face's SqueezeBERT has no such head")
    if body != "mobilebert" and kind in POOLED and not config.pooler:
        found.append(
            f"pooler=False with the kind {kind!r}: Hugging Face's {CLASSES[body]} always passes "
            "the first position through dense and tanh"
        )
    return found


def notes(model: Model) -> list[str]:
    """Returns where `transformers` computes other numbers than this project for the same network,
    and what of it a folder of Hugging Face's does not hold; one sentence each."""
    config, kind = model.config, _written_kind(model.config, model.kind)
    name = _class_name(config, kind)
    found = []
    if kind != model.kind:
        found.append(
            "The head of next sentence is left out: Hugging Face's SqueezeBERT has none; this is "
            f"{name}."
        )
    if config.pooler and not _holds_pooler(config, kind):
        found.append(f"The pooler is left out: {name} has none.")
    if not config.pooler and _holds_pooler(config, kind) and kind not in POOLED:
        found.append(f"{name} holds a pooler that it does not read; its weights are 0.")
    if _sees_padding(config) and _silences_padding(model):
        found.append(
            "The word table's row of padding is 0, which keeps padding out of the trigram of the "
            "last word as in training; padded and unpadded texts give the same."
        )
    elif _sees_padding(config):
        found.append(
            "In transformers the trigram of the last word reads the padding after it, which this "
            "network never saw: results of padded rows differ a little, those of rows without "
            "padding are equal."
        )
    if (
        config.normalization_type == "layer_norm"
        and parameter_names.huggingface_body(config) == "mobilebert"
    ):
        found.append(
            "transformers adds 1e-5 instead of 1e-12 to the variance in the norm after the "
            "embeddings and in that of each block's last feed-forward network: results differ by "
            "about 5e-6 divided by the variance there."
        )
    return found


def check(model: Model, where: Path) -> None:
    """Raises InputError for a network that cannot be expressed, a tokenizer that does not fit, and
    labels that do not fit the outputs."""
    found = problems(model.config, model.kind)
    if found:
        raise InputError(f"{where}: not for Hugging Face: {'; '.join(found)}; {_INSTEAD}")
    own_format.check_tokenizer(model.tokenizer, model.config, str(where))
    _outputs(model, where)


def write(model: Model, folder: Path) -> list[str]:
    """Writes `folder`, whole or not at all, and returns what a user of it should know.

    Those are `notes`, and what there is to say of the tokenizer. Raises InputError as `check`, and
    where `folder` already holds something.
    """
    check(model, folder)
    config, kind = model.config, _written_kind(model.config, model.kind)
    outputs = _outputs(model, folder)
    pad = 0 if model.tokenizer is None else model.tokenizer.pad
    content = huggingface_config.make(config, kind, model.labels, outputs, pad)
    said = notes(model)
    with folders.written(folder) as temporary:
        safetensors_files.write_json(temporary / CONFIG, content)
        path = temporary / safetensors_files.SAFETENSORS
        safetensors_files.write(path, _tensors(model), {"format": "pt"})
        if model.tokenizer is not None:
            said += huggingface_tokenizer.write(
                model.tokenizer, temporary, content["model_type"], config.max_position_embeddings
            )
    return said


def read(folder: Path) -> Model:
    """Returns the network of a folder that `transformers` saved, or `write`.

    Padding is part of the trigram (`trigram_masks_padding=False`), as `transformers` computes. A
    file called one of masked LM that holds the other parts of a pretraining network too, as the
    first BERTs do, is read as that. Raises InputError naming the file and the tensor or key.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}")
    settings = huggingface_config.parse(
        safetensors_files.read_json(folder / CONFIG), folder / CONFIG
    )
    problems_found = problems(settings.config)
    if problems_found:
        raise InputError(f"{folder / CONFIG}: {'; '.join(problems_found)}")
    stored, where = safetensors_files.read_folder(folder)
    kind = settings.kind or _kind(stored, where)
    body = parameter_names.huggingface_body(settings.config)
    saved, present = (parameter_names.PREFIXES[name] for name in (settings.model_type, body))
    tensors = _renamed(stored, saved, "" if kind == "bare" else present)
    config, kind = _parts(settings.config, kind, set(tensors))
    outputs = {"question_answering": 2, "multiple_choice": 1}.get(kind, settings.outputs)
    if outputs is None:  # the number that `transformers` took is in the file alone
        outputs = len(tensors.get("classifier.bias", ()))
    params = _params(config, kind, outputs, tensors, where)
    tokenizer = huggingface_tokenizer.read(folder)
    own_format.check_tokenizer(tokenizer, config, str(folder))
    labels: tuple[str, ...] = ()
    if kind == "question_answering":
        labels = SPAN_LABELS
    elif kind == "token_classification" or (kind == "sequence_classification" and outputs > 1):
        labels = settings.labels
    return Model(config, kind, params, labels, tokenizer)


def _written_kind(config: ModelConfig, kind: Kind) -> Kind:
    """Returns the kind that a network is written as: SqueezeBERT has no pretraining heads there."""
    squeezed = parameter_names.huggingface_body(config) == "squeezebert"
    return "masked_lm" if squeezed and kind == "pretraining" else kind


def _holds_pooler(config: ModelConfig, kind: Kind) -> bool:
    return kind in POOLED or parameter_names.huggingface_body(config) == "squeezebert"


def _class_name(config: ModelConfig, kind: Kind) -> str:
    return f"{CLASSES[parameter_names.huggingface_body(config)]}{HEADS[kind]}"


def _sees_padding(config: ModelConfig) -> bool:
    return config.trigram_input and config.trigram_masks_padding


def _silences_padding(model: Model) -> bool:
    """Whether padding's row of the word table can be 0: not where it gives padding's logit too."""
    return model.tokenizer is not None and model.kind not in ("masked_lm", "pretraining")


def _outputs(model: Model, folder: Path) -> int:
    """Returns the number of the task's outputs; raises InputError where labels do not fit it."""
    if model.kind not in TASK_KINDS:
        return 0
    outputs = len(model.params["task"]["dense"]["bias"])
    fixed = {"question_answering": 2, "multiple_choice": 1}.get(model.kind, outputs)
    if outputs != fixed:
        raise InputError(f"{folder}: the kind {model.kind!r} has {fixed} outputs, not {outputs}")
    if model.labels and (len(model.labels) != outputs or len(set(model.labels)) != outputs):
        raise InputError(
            f"{folder}: {outputs} outputs need as many different labels, not {model.labels}"
        )
    return outputs


def _stored_form(config: ModelConfig, kind: Kind) -> ModelConfig:
    return config if _holds_pooler(config, kind) else dataclasses.replace(config, pooler=False)


def _unread(config: ModelConfig, kind: Kind) -> dict[str, tuple[int, ...]]:
    """Returns tensors that Hugging Face's network has but does not read in these settings."""
    body = parameter_names.huggingface_body(config)
    if body == "squeezebert" and not config.pooler and kind not in POOLED:
        stem = f"{parameter_names.PREFIXES[body]}pooler.dense"
        return {f"{stem}.weight": (config.hidden_size,) * 2, f"{stem}.bias": (config.hidden_size,)}
    if body != "mobilebert":
        return {}
    prefix = "" if kind == "bare" else "mobilebert."
    found: dict[str, tuple[int, ...]] = {}
    if not config.trigram_input:
        stem = f"{prefix}embeddings.embedding_transformation"
        found |= {
            f"{stem}.weight": (config.hidden_size,) * 2,
            f"{stem}.bias": (config.hidden_size,),
        }
    if kind in ("masked_lm", "pretraining") and config.hidden_size == config.embedding_size:
        found["cls.predictions.dense.weight"] = (0, config.vocab_size)
    return found


def _tensors(model: Model) -> dict[str, np.ndarray]:
    kind = _written_kind(model.config, model.kind)
    config = _stored_form(model.config, kind)
    tensors = parameter_names.to_tensors(config, kind, "huggingface", model.params)
    for name, shape in _unread(config, kind).items():
        tensors[name] = np.zeros(shape, np.float32)
    if _sees_padding(config) and _silences_padding(model):
        assert model.tokenizer is not None
        (name,) = (name for name in tensors if name.endswith("embeddings.word_embeddings.weight"))
        tensors[name] = tensors[name].copy()
        tensors[name][model.tokenizer.pad] = 0.0
    return tensors


def _kind(stored: Mapping[str, np.ndarray], where: Path) -> Kind:
    """Returns the kind of a file whose config.json names no architecture."""
    found = {head for head in _HEADS if any(name.startswith(head) for name in stored)}
    for kind, heads in _KINDS_BY_HEADS:
        if found == heads:
            return kind
    raise InputError(
        f"{where}: holds a classifier, and {CONFIG} does not say of what; write one of "
        f"{', '.join(sorted(ARCHITECTURES))} "
        'into its list "architectures"'
    )


def _is_head(name: str) -> bool:
    return name.startswith(_HEADS)


def _renamed(stored: Mapping[str, np.ndarray], saved: str, prefix: str) -> dict[str, np.ndarray]:
    """Returns the tensors under the names of the present release, `prefix` before those of the
    network without head; networks without head are saved with the prefix and without."""
    found = {}
    for name, array in stored.items():
        for old, new in _OLD_SPELLINGS.items():
            name = name.replace(old, new)
        found[name if _is_head(name) else prefix + name.removeprefix(saved)] = array
    return found


def _parts(config: ModelConfig, kind: Kind, present: set[str]) -> tuple[ModelConfig, Kind]:
    """Returns the settings and the kind of what the file holds, pooler and next sentence."""
    has_pooler = any(name.endswith("pooler.dense.weight") for name in present)
    has_next_sentence = f"{_NEXT_SENTENCE}weight" in present
    if kind == "masked_lm" and has_next_sentence and (has_pooler or not config.pooler):
        kind = "pretraining"
    needed = kind in POOLED and kind != "bare"
    pooler = config.pooler and _holds_pooler(config, kind) and (has_pooler or needed)
    return dataclasses.replace(config, pooler=pooler), kind


def _is_left_over(name: str, config: ModelConfig, kind: Kind) -> bool:
    """Whether a release of `transformers` saves this tensor though the network does not read it."""
    if name.endswith(_BUFFERS):
        return True
    if ".bottleneck.attention." in name:
        return config.query_key == "bottleneck_input"
    if ".pooler.dense." in f".{name}":
        return not config.pooler
    return kind == "masked_lm" and name.startswith(_NEXT_SENTENCE)


def _params(
    config: ModelConfig,
    kind: Kind,
    outputs: int,
    tensors: Mapping[str, np.ndarray],
    where: Path,
) -> dict[str, Any]:
    expected = shapes.theirs(config, kind, outputs, "huggingface")
    tied = parameter_names.tied(config, kind)
    ignored = {*tied, *_unread(config, kind)}
    for name in tensors:
        if not (name in expected or name in ignored or _is_left_over(name, config, kind)):
            raise InputError(
                f"{where}: tensor {name} is unknown in {_class_name(config, kind)}; the nearest "
                f"is {nearest(name, expected)}"
            )
    known = dict(tensors)
    for name, source in tied.items():
        if name in known and not np.array_equal(known.setdefault(source, known[name]), known[name]):
            raise InputError(
                f"{where}: {name} differs from {source}; only networks in which both are one "
                "tensor are supported"
            )
    fitting = shapes.fit(known, expected, where)
    return parameter_names.to_params(config, kind, "huggingface", fitting)
