"""One table of the same tensors: our parameters, Hugging Face's files, the authors' checkpoints.

Ours keep the tensors of all blocks stacked along a leading layer axis; both others keep each apart.
Dense kernels are [in, out] in ours and in TensorFlow, [out, in] in Hugging Face. Hugging Face's
SqueezeBERT keeps those of its blocks as weights of convolutions of width 1,
[out, in / groups, 1], ours are [groups, in / groups, out / groups], or [in, out] with one group.
All arrays are numpy's.

Source: module names of `transformers` (modeling_mobilebert.py, modeling_bert.py,
modeling_squeezebert.py); variable names of the authors' MobileBERT code and of BERT's.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import flax.traverse_util
import numpy as np

from mobilebert_jax.interop.model import TASK_KINDS, Kind
from mobilebert_jax.model import sizes
from mobilebert_jax.model.sizes import ModelConfig

LAYER = "{layer}"
"""Stands for the index of the block in the name of a tensor that ours keep stacked."""

Naming = Literal["huggingface", "tensorflow"]
Body = Literal["bert", "mobilebert", "squeezebert"]
PREFIXES: dict[Body, str] = {
    "bert": "bert.",
    "mobilebert": "mobilebert.",
    "squeezebert": "transformer.",
}
"""How Hugging Face's names of everything but the heads begin, where there is a head."""


class Tensor(NamedTuple):
    """One tensor: its path in our parameters, its names in other formats and the layouts there."""

    path: str
    huggingface: str
    """Empty where Hugging Face has no such tensor."""
    tensorflow: str
    """Empty where the authors' code has no such variable."""
    transposed: tuple[Naming, ...] = ()
    """Where the two axes are the other way round than in ours."""
    groups: int = 0
    """Of the convolution whose weight it is in Hugging Face; 0 where it is none."""

    @property
    def stacked(self) -> bool:
        return self.path.startswith("blocks/")

    def shape_in(self, naming: Naming, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the shape in another format of what has `shape` in ours, without layers."""
        if self._is_convolution(naming):
            *_, inputs, outputs = shape
            return self.groups * outputs, inputs, 1
        return shape[::-1] if naming in self.transposed else shape

    def to_format(self, naming: Naming, array: np.ndarray) -> np.ndarray:
        """Returns in the layout of another format what is in ours, without layers."""
        if self._is_convolution(naming):
            return np.swapaxes(array, -1, -2).reshape(self.shape_in(naming, array.shape))
        return array.T if naming in self.transposed else array

    def from_format(self, naming: Naming, array: np.ndarray) -> np.ndarray:
        """Returns in our layout what is in that of another format."""
        if self._is_convolution(naming):
            outputs, inputs, _ = array.shape
            kernel = array.reshape(self.groups, outputs // self.groups, inputs).swapaxes(1, 2)
            return kernel if self.groups > 1 else kernel[0]
        return array.T if naming in self.transposed else array

    def _is_convolution(self, naming: Naming) -> bool:
        return naming == "huggingface" and self.groups > 0


def huggingface_body(config: ModelConfig) -> Body:
    """Returns which of Hugging Face's networks has these settings."""
    if not sizes.is_bert_form(config):
        return "mobilebert"
    return "squeezebert" if sizes.has_groups(config) else "bert"


def table(config: ModelConfig, kind: Kind) -> list[Tensor]:
    """Returns every parameter of a network once, tied tensors included once.

    Hugging Face's names are those of its BERT or SqueezeBERT for a network that is one, and else
    its MobileBERT's.
    """
    body = huggingface_body(config)
    prefix = "" if kind == "bare" else PREFIXES[body]
    squeezed = body == "squeezebert"
    layers = f"{prefix}encoder.{'layers' if squeezed else 'layer'}.{LAYER}"
    tensors = [
        *_embeddings(config, f"{prefix}embeddings", "bert/embeddings"),
        *(
            tensor._replace(
                path=f"blocks/{tensor.path}",
                huggingface=f"{layers}.{tensor.huggingface}",
                tensorflow=f"bert/encoder/layer_{LAYER}/{tensor.tensorflow}" * (not squeezed),
            )
            for tensor in (_squeezed_block(config) if squeezed else _block(config))
        ),
    ]
    if config.pooler:
        tensors += _dense("pooler/dense", f"{prefix}pooler.dense", "bert/pooler/dense")
    if kind in ("masked_lm", "pretraining"):
        tensors += _masked_lm(config)
    if kind in ("next_sentence", "pretraining"):
        tensors += _output("next_sentence/dense", "cls.seq_relationship", "cls/seq_relationship/")
    if kind in TASK_KINDS:
        theirs = "qa_outputs" if kind == "question_answering" else "classifier"
        authors = {"sequence_classification": "", "question_answering": "cls/squad/"}
        tensors += _output("task/dense", theirs, authors.get(kind))
    return tensors


def tied(config: ModelConfig, kind: Kind) -> dict[str, str]:
    """Returns Hugging Face's names beyond those of `table`, and whose tensors these share."""
    if kind not in ("masked_lm", "pretraining"):
        return {}
    prefix = PREFIXES[huggingface_body(config)]
    return {
        "cls.predictions.decoder.weight": f"{prefix}embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }


def to_params(
    config: ModelConfig, kind: Kind, naming: Naming, tensors: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Returns our nested parameters from named tensors, of which those unknown here are ignored.

    Raises KeyError for a tensor of `table` that is missing.
    """
    params: dict[str, np.ndarray] = {}
    for tensor in table(config, kind):
        name = getattr(tensor, naming)
        arrays = [
            tensor.from_format(naming, np.asarray(tensors[name.replace(LAYER, str(layer))]))
            for layer in range(config.num_hidden_layers if tensor.stacked else 1)
        ]
        array = np.stack(arrays) if tensor.stacked else np.ascontiguousarray(arrays[0])
        params[tensor.path] = array
    return flax.traverse_util.unflatten_dict(params, sep="/")


def to_tensors(
    config: ModelConfig, kind: Kind, naming: Naming, params: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Returns the named tensors of our unboxed parameters, tied names not included.

    Raises KeyError for a parameter of `table` that is missing.
    """
    flat = flax.traverse_util.flatten_dict(dict(params), sep="/")
    found: dict[str, np.ndarray] = {}
    for tensor in table(config, kind):
        array = np.asarray(flat[tensor.path])
        for layer in range(config.num_hidden_layers if tensor.stacked else 1):
            part = array[layer] if tensor.stacked else array
            name = getattr(tensor, naming).replace(LAYER, str(layer))
            found[name] = np.ascontiguousarray(tensor.to_format(naming, part))
    return found


def _dense(path: str, huggingface: str, tensorflow: str) -> list[Tensor]:
    return [
        Tensor(f"{path}/kernel", f"{huggingface}.weight", f"{tensorflow}/kernel", ("huggingface",)),
        Tensor(f"{path}/bias", f"{huggingface}.bias", f"{tensorflow}/bias"),
    ]


def _norm(path: str, huggingface: str, tensorflow: str) -> list[Tensor]:
    return [
        Tensor(f"{path}/scale", f"{huggingface}.weight", f"{tensorflow}/gamma"),
        Tensor(f"{path}/shift", f"{huggingface}.bias", f"{tensorflow}/beta"),
    ]


def _output(path: str, huggingface: str, tensorflow: str | None) -> list[Tensor]:
    """The last layer of a task, which the authors' code keeps transposed."""
    authors = ("output_weights", "output_bias")
    kernel, bias = ("", "") if tensorflow is None else (f"{tensorflow}{name}" for name in authors)
    return [
        Tensor(f"{path}/kernel", f"{huggingface}.weight", kernel, ("huggingface", "tensorflow")),
        Tensor(f"{path}/bias", f"{huggingface}.bias", bias),
    ]


def _embeddings(config: ModelConfig, huggingface: str, tensorflow: str) -> list[Tensor]:
    tables = (("word", "word_embeddings"), ("type", "token_type_embeddings"))
    tensors = [
        Tensor(f"embeddings/{ours}", f"{huggingface}.{stem}.weight", f"{tensorflow}/{stem}")
        for ours, stem in (*tables, ("position", "position_embeddings"))
    ]
    norm = _tensorflow_norm(config)
    tensors += _norm("embeddings/norm", f"{huggingface}.LayerNorm", f"{tensorflow}/{norm}")
    if config.trigram_input:
        stem = "embedding_transformation"
        tensors += _dense("embeddings/projection", f"{huggingface}.{stem}", f"{tensorflow}/{stem}")
    return tensors


def _tensorflow_norm(config: ModelConfig) -> str:
    return "FakeLayerNorm" if config.normalization_type == "no_norm" else "LayerNorm"


def _block(config: ModelConfig) -> list[Tensor]:
    tensors: list[Tensor] = []

    def dense(path: str, theirs: str) -> None:
        tensors.extend(_dense(path, theirs, theirs.replace("ffn.", "ffn_layer_").replace(".", "/")))

    def norm(path: str, theirs: str) -> None:
        authors = theirs.replace("ffn.", "ffn_layer_").replace(".", "/")
        tensors.extend(_norm(path, f"{theirs}.LayerNorm", f"{authors}/{_tensorflow_norm(config)}"))

    for name in ("query", "key", "value"):
        dense(f"attention/{name}", f"attention.self.{name}")
    dense("attention_output", "attention.output.dense")
    norm("attention_norm", "attention.output")
    last = config.num_feedforward_networks - 1
    for index in range(config.num_feedforward_networks):
        prefix = "" if index == last else f"ffn.{index}."
        dense(f"feedforward_{index}_in", f"{prefix}intermediate.dense")
        dense(f"feedforward_{index}_out", f"{prefix}output.dense")
        norm(f"feedforward_{index}_norm", f"{prefix}output")
    if config.use_bottleneck:
        dense("input", "bottleneck.input.dense")
        norm("input_norm", "bottleneck.input")
        dense("output", "output.bottleneck.dense")
        norm("output_norm", "output.bottleneck")
    if config.query_key == "shared_bottleneck":
        dense("query_key", "bottleneck.attention.dense")
        norm("query_key_norm", "bottleneck.attention")
    return tensors


def _squeezed_block(config: ModelConfig) -> list[Tensor]:
    """A block of Hugging Face's SqueezeBERT, of which the authors of MobileBERT have none."""
    layers = {
        "attention/query": ("attention.query", config.q_groups),
        "attention/key": ("attention.key", config.k_groups),
        "attention/value": ("attention.value", config.v_groups),
        "attention_output": ("post_attention.conv1d", config.post_attention_groups),
        "feedforward_0_in": ("intermediate.conv1d", config.intermediate_groups),
        "feedforward_0_out": ("output.conv1d", config.output_groups),
    }
    norms = {"attention_norm": "post_attention", "feedforward_0_norm": "output"}
    tensors = []
    for ours, (theirs, groups) in layers.items():
        tensors.append(Tensor(f"{ours}/kernel", f"{theirs}.weight", "", groups=groups))
        tensors.append(Tensor(f"{ours}/bias", f"{theirs}.bias", ""))
    for ours, theirs in norms.items():
        tensors += [
            Tensor(f"{ours}/scale", f"{theirs}.layernorm.weight", ""),
            Tensor(f"{ours}/shift", f"{theirs}.layernorm.bias", ""),
        ]
    return tensors


def _masked_lm(config: ModelConfig) -> list[Tensor]:
    ours, theirs, authors = "masked_lm", "cls.predictions", "cls/predictions"
    tensors = [
        *_dense(f"{ours}/transform", f"{theirs}.transform.dense", f"{authors}/transform/dense"),
        *_norm(f"{ours}/norm", f"{theirs}.transform.LayerNorm", f"{authors}/transform/LayerNorm"),
        Tensor(f"{ours}/bias", f"{theirs}.bias", f"{authors}/output_bias"),
    ]
    if config.hidden_size > config.embedding_size:
        extra = (f"{theirs}.dense.weight", f"{authors}/extra_output_weights")
        tensors.append(Tensor(f"{ours}/extra", *extra, ("huggingface",)))
    return tensors
