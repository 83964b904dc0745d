"""Names and layouts of the same tensors in our parameters and in a Hugging Face state dict.

The table covers `MobileBertForPreTraining` (networks with bottlenecks) and `BertForPreTraining`
(networks without). Hugging Face stores dense kernels as [out, in] where ours are [in, out], and
each block's tensors apart where ours are stacked along a leading layer axis. Pure numpy.

Source: the module names of `transformers`' `modeling_mobilebert.py` and `modeling_bert.py`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from mobilebert_jax.model.sizes import ModelConfig

LAYER = "{layer}"
"""Stands for the index of the block in the name of a tensor that ours keep stacked."""


class Tensor(NamedTuple):
    """One tensor: its path in our parameters, its name in the state dict, and the layout there."""

    path: str
    name: str
    transposed: bool = False


def table(config: ModelConfig) -> list[Tensor]:
    """Returns every parameter of a pretraining network once, tied tensors included once."""
    body = "mobilebert" if config.bottlenecks else "bert"
    block = f"{body}.encoder.layer.{LAYER}"
    return [
        *_embeddings(config, f"{body}.embeddings"),
        *(Tensor(f"blocks/{t.path}", f"{block}.{t.name}", t.transposed) for t in _block(config)),
        *(_dense("pooler/dense", f"{body}.pooler.dense") if config.pooler else []),
        *_heads(config),
    ]


def tied(config: ModelConfig) -> dict[str, str]:
    """Returns names that a state dict holds in addition to those of `table`, and their sources."""
    body = "mobilebert" if config.bottlenecks else "bert"
    return {
        "cls.predictions.decoder.weight": f"{body}.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }


def _dense(path: str, name: str) -> list[Tensor]:
    return [
        Tensor(f"{path}/kernel", f"{name}.weight", transposed=True),
        Tensor(f"{path}/bias", f"{name}.bias"),
    ]


def _norm(path: str, name: str) -> list[Tensor]:
    return [Tensor(f"{path}/scale", f"{name}.weight"), Tensor(f"{path}/shift", f"{name}.bias")]


def _embeddings(config: ModelConfig, prefix: str) -> list[Tensor]:
    tensors = [
        Tensor("embeddings/word", f"{prefix}.word_embeddings.weight"),
        Tensor("embeddings/type", f"{prefix}.token_type_embeddings.weight"),
        Tensor("embeddings/position", f"{prefix}.position_embeddings.weight"),
        *_norm("embeddings/norm", f"{prefix}.LayerNorm"),
    ]
    if config.trigram:
        tensors += _dense("embeddings/projection", f"{prefix}.embedding_transformation")
    return tensors


def _block(config: ModelConfig) -> list[Tensor]:
    tensors = [
        *_dense("attention/query", "attention.self.query"),
        *_dense("attention/key", "attention.self.key"),
        *_dense("attention/value", "attention.self.value"),
        *_dense("attention_output", "attention.output.dense"),
        *_norm("attention_norm", "attention.output.LayerNorm"),
    ]
    last = config.feedforwards - 1
    for index in range(config.feedforwards):
        prefix = "" if index == last else f"ffn.{index}."
        tensors += _dense(f"feedforward_{index}_in", f"{prefix}intermediate.dense")
        tensors += _dense(f"feedforward_{index}_out", f"{prefix}output.dense")
        tensors += _norm(f"feedforward_{index}_norm", f"{prefix}output.LayerNorm")
    if config.bottlenecks:
        tensors += _dense("input", "bottleneck.input.dense")
        tensors += _norm("input_norm", "bottleneck.input.LayerNorm")
        tensors += _dense("output", "output.bottleneck.dense")
        tensors += _norm("output_norm", "output.bottleneck.LayerNorm")
    if config.query_key == "shared_bottleneck":
        tensors += _dense("query_key", "bottleneck.attention.dense")
        tensors += _norm("query_key_norm", "bottleneck.attention.LayerNorm")
    return tensors


def _heads(config: ModelConfig) -> list[Tensor]:
    tensors = [
        *_dense("masked_lm/transform", "cls.predictions.transform.dense"),
        *_norm("masked_lm/norm", "cls.predictions.transform.LayerNorm"),
        Tensor("masked_lm/bias", "cls.predictions.bias"),
        *_dense("next_sentence/dense", "cls.seq_relationship"),
    ]
    if config.bottlenecks:
        extra = Tensor("masked_lm/extra", "cls.predictions.dense.weight", transposed=True)
        tensors.append(extra)
    return tensors


def to_params(config: ModelConfig, state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns our nested parameters from a state dict, whose names beyond `table` are ignored.

    Raises:
      KeyError: a tensor of `table` is missing.
    """
    params: dict[str, Any] = {}
    for tensor in table(config):
        arrays = [
            state[tensor.name.replace(LAYER, str(layer))]
            for layer in range(config.layers if LAYER in tensor.name else 1)
        ]
        arrays = [array.T if tensor.transposed else array for array in arrays]
        *folders, leaf = tensor.path.split("/")
        node = params
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = np.stack(arrays) if LAYER in tensor.name else arrays[0]
    return params


def to_state(config: ModelConfig, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns the complete state dict, tied names included, from our unboxed parameters.

    Raises:
      KeyError: a parameter of `table` is missing.
    """
    state: dict[str, np.ndarray] = {}
    for tensor in table(config):
        leaf: Any = params
        for folder in tensor.path.split("/"):
            leaf = leaf[folder]
        array = np.asarray(leaf)
        for layer in range(config.layers if LAYER in tensor.name else 1):
            part = array[layer] if LAYER in tensor.name else array
            name = tensor.name.replace(LAYER, str(layer))
            state[name] = np.ascontiguousarray(part.T if tensor.transposed else part)
    return state | {name: state[source] for name, source in tied(config).items()}
