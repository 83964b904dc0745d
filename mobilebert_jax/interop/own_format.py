"""This project's own folder of one network, for all that it can train.

config.json        {"format": "mobilebert_jax", "version": 1, "kind", "labels", "model": {...}},
                   `model` holding every setting of `ModelConfig`
model.safetensors  float32; names are the paths of the parameters, as
                   `blocks/attention/query/kernel`, the blocks stacked along the first axis, dense
                   kernels [in, out], with groups [groups, in / groups, out / groups]
vocab.txt or sentencepiece.model, and tokenizer.json
                   where the network has a tokenizer, as a prepared corpus keeps it
"""

import dataclasses
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import flax.traverse_util
import numpy as np

from mobilebert_jax.config import schema
from mobilebert_jax.config.schema import InputError, nearest
from mobilebert_jax.data import tokenizer as tokenizer_lib
from mobilebert_jax.data import tokenizer_base
from mobilebert_jax.data.tokenizer import Tokenizer
from mobilebert_jax.interop import folders, parameter_names, shapes
from mobilebert_jax.interop.huggingface import safetensors as safetensors_files
from mobilebert_jax.interop.model import TASK_KINDS, Kind, Model
from mobilebert_jax.model import sizes
from mobilebert_jax.model.sizes import ModelConfig

FORMAT = "mobilebert_jax"
VERSION = 1
CONFIG = "config.json"
_LATER = tuple(sizes.grouped_layers(sizes.MOBILEBERT))
"""Settings that older files lack; networks of that time had their defaults."""


def write(model: Model, folder: Path) -> None:
    """Writes `folder`, whole or not at all.

    Raises InputError if it already holds something, or if the tokenizer is too large.
    """
    check_tokenizer(model.tokenizer, model.config, str(folder))
    with folders.written(folder) as temporary:
        safetensors_files.write_json(
            temporary / CONFIG,
            {
                "format": FORMAT,
                "version": VERSION,
                "kind": model.kind,
                "labels": list(model.labels),
                "model": dataclasses.asdict(model.config),
            },
        )
        flat = flax.traverse_util.flatten_dict(model.params, sep="/")
        table = parameter_names.table(model.config, model.kind)
        tensors = {tensor.path: np.asarray(flat[tensor.path]) for tensor in table}
        safetensors_files.write(
            temporary / safetensors_files.SAFETENSORS, tensors, {"format": "np"}
        )
        if model.tokenizer is not None:
            model.tokenizer.save(temporary)


def read(folder: Path) -> Model:
    """Reads what `write` wrote; raises InputError naming the file, and what is allowed in it."""
    path = folder / CONFIG
    content = safetensors_files.read_json(path)
    if content.get("format") != FORMAT or content.get("version") != VERSION:
        raise InputError(
            f'{path}: "format" and "version" are {content.get("format")!r} and '
            f"{content.get('version')!r}, not {FORMAT!r} and {VERSION}; a folder of Hugging Face's "
            "has neither"
        )
    kind: Any = content.get("kind")
    kinds = typing.get_args(Kind)
    if kind not in kinds:
        raise InputError(f'{path}: "kind" is {kind!r}; the nearest is {nearest(str(kind), kinds)}')
    labels = content.get("labels", [])
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise InputError(f'{path}: "labels" must be a list of names, not {labels!r}')
    if len(set(labels)) != len(labels):
        raise InputError(f'{path}: "labels" must be different names, not {labels!r}')
    config = _model_config(content.get("model"), path)
    where = folder / safetensors_files.SAFETENSORS
    params = _params(config, kind, safetensors_files.read(where), where)
    if labels and (kind not in TASK_KINDS or len(labels) != len(params["task"]["dense"]["bias"])):
        raise InputError(f'{path}: {len(labels)} "labels" do not go with the outputs in {where}')
    if kind == "sequence_classification" and len(labels) == 1:
        labels = []  # one output is a number, whatever it is called
    tokenizer = _tokenizer(folder)
    check_tokenizer(tokenizer, config, str(folder))
    return Model(config, kind, params, tuple(labels), tokenizer)


def check_tokenizer(tokenizer: Tokenizer | None, config: ModelConfig, where: str) -> None:
    """Raises InputError for a tokenizer whose ids the word table does not hold."""
    if tokenizer is not None and tokenizer.size > config.vocab_size:
        raise InputError(
            f"{where}: the tokenizer has {tokenizer.size} pieces and the network's word table only "
            f"{config.vocab_size} rows (vocab_size); they do not belong together"
        )


def _model_config(content: Any, path: Path) -> ModelConfig:
    if not isinstance(content, Mapping):
        raise InputError(f'{path}: "model" must be an object with the settings of the network')
    hints = typing.get_type_hints(ModelConfig)
    for key, value in content.items():
        if key not in hints:
            raise InputError(
                f"{path}: there is no setting model.{key}; the nearest is "
                f"model.{nearest(key, hints)}"
            )
        hint = hints[key]
        if typing.get_origin(hint) is Literal:
            allowed = typing.get_args(hint)
            if value not in allowed:
                raise InputError(
                    f"{path}: model.{key}={value!r}; the nearest is {nearest(str(value), allowed)}"
                )
        elif type(value) is not hint and not (hint is float and type(value) is int):
            raise InputError(f"{path}: model.{key}={value!r} must be of type {hint.__name__}")
    missing = [f"model.{key}" for key in hints if key not in content and key not in _LATER]
    if missing:
        raise InputError(f"{path}: lacks {', '.join(missing)}; every setting must be there")
    config = ModelConfig(**content)
    found = sizes.problems(config)
    if config.vocab_size < 1:
        found.append(f"vocab_size={config.vocab_size} must be the number of rows of the word table")
    if found:
        raise InputError(f"{path}: {'; '.join(found)}")
    return config


def _params(
    config: ModelConfig, kind: Kind, tensors: Mapping[str, np.ndarray], where: Path
) -> dict[str, Any]:
    bias = tensors.get("task/dense/bias", np.zeros(1))
    expected = shapes.ours(config, kind, bias.shape[0] if bias.ndim == 1 else 1)
    for name in tensors:
        if name not in expected:
            raise InputError(
                f"{where}: tensor {name} is unknown; the nearest is {nearest(name, expected)}"
            )
    return flax.traverse_util.unflatten_dict(shapes.fit(tensors, expected, where), sep="/")


def _tokenizer(folder: Path) -> Tokenizer | None:
    if not (folder / tokenizer_base.SETTINGS_FILE).is_file():
        return None
    saved = safetensors_files.read_json(folder / tokenizer_base.SETTINGS_FILE)
    if saved.get("kind") not in tuple(tokenizer_base.VOCABULARY_FILES) or not isinstance(
        saved.get("lowercase"), bool
    ):
        raise InputError(
            f'{folder / tokenizer_base.SETTINGS_FILE}: must hold "kind", one of '
            f'{", ".join(tokenizer_base.VOCABULARY_FILES)}, and "lowercase"'
        )
    return tokenizer_lib.load(folder, schema.Tokenizer())
