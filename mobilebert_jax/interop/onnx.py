"""ONNX files, float32, with batch and length left open: the network written operation by operation.

Written with the operations of opset 17, which every current runtime has, and compared with ours by
onnxruntime before the file gets its name.

Shapes: B batch, T positions, S key positions, H heads, C size of a head, K bottleneck width,
E embedding width, D hidden width.
"""

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mobilebert_jax.interop import verification
from mobilebert_jax.interop.forward import INPUTS, Inputs, Mask
from mobilebert_jax.interop.model import Model
from mobilebert_jax.interop.verification import Runner, Verified
from mobilebert_jax.model.attention import MASKED_SCORE, QUANTIZED_SCORES
from mobilebert_jax.model.layers import LAYER_NORM_EPSILON
from mobilebert_jax.model.sizes import ModelConfig

OPSET = 17
IR_VERSION = 8
"""The one that belongs to the opset; newer ones are refused by older runtimes."""

_END = np.iinfo(np.int64).max
Params = dict[str, Any]


def export(model: Model, path: Path, *, mask: Mask = "additive") -> Verified:
    """Writes a `.onnx` file with the inputs `forward.INPUTS`, int32 [batch, length] each.

    Args:
      model: the network.
      path: where the file goes.
      mask: how padding is hidden.

    Raises InputError for a missing package and for a file that differs from ours.
    """
    onnx = verification.package("onnx")
    proto = _model(onnx, model, mask)
    onnx.checker.check_model(proto)
    length = min(64, model.config.max_position_embeddings)
    return verification.publish(
        model,
        path,
        proto.SerializeToString(),
        runner,
        inputs=verification.examples(model, length),
        mask=mask,
    )


def runner(path: Path) -> Runner:
    """Returns a function that runs a file on all rows at once with onnxruntime."""
    runtime = verification.package("onnxruntime")
    session = runtime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])

    def run(inputs: Inputs) -> dict[str, np.ndarray]:
        names = [output.name for output in session.get_outputs()]
        found = session.run(names, dict(zip(INPUTS, inputs, strict=True)))
        return dict(zip(names, found, strict=True))

    return run


class _Graph:
    """Nodes and constants; every method returns the name of the tensor that it makes."""

    def __init__(self, onnx: Any):
        self._onnx = onnx
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}

    def add(self, kind: str, *inputs: str | np.ndarray | float, **attributes: Any) -> str:
        """Adds an operation; arrays and numbers among its inputs become constants."""
        name = f"{kind.lower()}_{len(self.nodes)}"
        names = [x if isinstance(x, str) else self._constant(np.asarray(x)) for x in inputs]
        self.nodes.append(self._onnx.helper.make_node(kind, names, [name], **attributes))
        return name

    def rename(self, tensor: str, name: str) -> None:
        """Gives a tensor its name as an output."""
        self.nodes.append(self._onnx.helper.make_node("Identity", [tensor], [name]))

    def dense(self, x: str, params: Params) -> str:
        kernel = params["kernel"]
        product = self.add("MatMul", x, kernel) if kernel.ndim == 2 else self._grouped(x, kernel)
        return self.add("Add", product, params["bias"])

    def _grouped(self, x: str, kernel: np.ndarray) -> str:
        """Adds a product for every group of a kernel [groups, in, out].

        One product of all, or a convolution in groups, takes onnxruntime as long or longer: both
        need what they read and give transposed.
        """
        groups, width, _ = kernel.shape
        inputs = [f"split_{len(self.nodes)}_{group}" for group in range(groups)]
        # Without these onnxruntime takes two of one tensor into other numbers of groups for one.
        widths = self._constant(np.full(groups, width))
        self.nodes.append(self._onnx.helper.make_node("Split", [x, widths], inputs, axis=-1))
        products = [self.add("MatMul", *pair) for pair in zip(inputs, kernel, strict=True)]
        return self.add("Concat", *products, axis=-1)

    def norm(self, x: str, params: Params, kind: str) -> str:
        scale, shift = params["scale"], params["shift"]
        if kind == "layer_norm":
            epsilon = LAYER_NORM_EPSILON
            return self.add("LayerNormalization", x, scale, shift, axis=-1, epsilon=epsilon)
        return self.add("Add", self.add("Mul", x, scale), shift)

    def cut(self, x: str, start: int, stop: int | str, axis: int) -> str:
        end: str | np.ndarray = stop if isinstance(stop, str) else np.array([stop])
        return self.add("Slice", x, np.array([start]), end, np.array([axis]))

    def _constant(self, value: np.ndarray) -> str:
        """Floats become float32; the same array is kept once, as the table that is read twice."""
        value = value.astype(np.float32) if value.dtype == np.float64 else value
        content = repr((value.dtype.str, value.shape)).encode() + value.tobytes()
        name = f"constant_{hashlib.sha256(content).hexdigest()[:16]}"
        self.constants[name] = self._onnx.numpy_helper.from_array(
            np.asarray(value, order="C"), name
        )
        return name


_ACTIVATIONS: dict[str, Callable[[_Graph, str], str]] = {
    "relu": lambda graph, x: graph.add("Relu", x),
    "relu6": lambda graph, x: graph.add("Clip", x, 0.0, 6.0),
    "gelu": lambda graph, x: _gelu(graph, x, graph.add("Erf", graph.add("Mul", x, 0.5**0.5))),
    "gelu_tanh": lambda graph, x: _gelu(graph, x, _gelu_tanh(graph, x)),
}


def _gelu(graph: _Graph, x: str, smooth: str) -> str:
    return graph.add("Mul", graph.add("Mul", x, 0.5), graph.add("Add", smooth, 1.0))


def _gelu_tanh(graph: _Graph, x: str) -> str:
    cube = graph.add("Mul", graph.add("Mul", x, x), graph.add("Mul", x, 0.044715))
    return graph.add("Tanh", graph.add("Mul", graph.add("Add", x, cube), math.sqrt(2 / math.pi)))


def _model(onnx: Any, model: Model, mask: Mask) -> Any:
    graph = _Graph(onnx)
    config, params = model.config, model.params
    real_BT = graph.add("Cast", "input_mask", to=onnx.TensorProto.FLOAT)
    h_BTD = _embeddings(graph, config, params["embeddings"], real_BT)
    hide = _padding(graph, real_BT, mask)
    for layer in range(config.num_hidden_layers):
        h_BTD = _block(graph, config, _layer(params["blocks"], layer), h_BTD, hide)
    shapes = _outputs(graph, model, h_BTD)

    def values(kind: int, named: dict[str, list[Any]]) -> list[Any]:
        make = onnx.helper.make_tensor_value_info
        return [make(name, kind, shape) for name, shape in named.items()]

    proto = onnx.helper.make_graph(
        graph.nodes,
        "mobilebert_jax",
        values(onnx.TensorProto.INT32, {name: ["batch", "length"] for name in INPUTS}),
        values(onnx.TensorProto.FLOAT, shapes),
        initializer=list(graph.constants.values()),
    )
    opset = onnx.helper.make_opsetid("", OPSET)
    return onnx.helper.make_model(
        proto, opset_imports=[opset], ir_version=IR_VERSION, producer_name="mobilebert_jax"
    )


def _layer(blocks: Any, layer: int) -> Any:
    if isinstance(blocks, dict):
        return {name: _layer(value, layer) for name, value in blocks.items()}
    return np.asarray(blocks)[layer]


def _embeddings(graph: _Graph, config: ModelConfig, params: Params, real_BT: str) -> str:
    x = graph.add("Gather", params["word"], "input_ids")
    if config.trigram_input:
        if config.trigram_masks_padding:
            x = graph.add("Mul", x, graph.add("Unsqueeze", real_BT, np.array([2])))
        # Pads are the numbers of rows before, then after, each of the three axes.
        following = graph.add("Pad", graph.cut(x, 1, _END, 1), np.array([0, 0, 0, 0, 1, 0]))
        preceding = graph.add("Pad", graph.cut(x, 0, -1, 1), np.array([0, 1, 0, 0, 0, 0]))
        x = graph.dense(graph.add("Concat", following, x, preceding, axis=2), params["projection"])
    x = graph.add("Add", x, graph.add("Gather", params["type"], "segment_ids"))
    length = graph.add("Shape", "input_ids", start=1, end=2)
    position = graph.add("Identity", params["position"])
    x = graph.add("Add", x, graph.cut(position, 0, length, 0))
    return graph.norm(x, params["norm"], config.normalization_type)


def _padding(graph: _Graph, real_BT: str, mask: Mask) -> Callable[[str], str]:
    """Returns what `model.attention.hide_padding` does to scores [B, H, T, S]."""
    real = graph.add("Unsqueeze", real_BT, np.array([1, 2]))
    padding = graph.add("Sub", 1.0, real)
    if mask == "additive":
        lowered = graph.add("Mul", padding, MASKED_SCORE)
        return lambda scores: graph.add("Add", scores, lowered)
    lowest, highest = QUANTIZED_SCORES
    lowered = graph.add("Mul", padding, lowest)

    def hide(scores: str) -> str:
        kept = graph.add("Mul", graph.add("Clip", scores, lowest, highest), real)
        return graph.add("Add", kept, lowered)

    return hide


def _block(
    graph: _Graph, config: ModelConfig, params: Params, h_BTD: str, hide: Callable[[str], str]
) -> str:
    def bottleneck(name: str) -> str:
        return graph.norm(
            graph.dense(h_BTD, params[name]), params[f"{name}_norm"], config.normalization_type
        )

    residual = bottleneck("input") if config.use_bottleneck else h_BTD
    query_input = value_input = h_BTD
    if config.query_key == "bottleneck_input":
        query_input = value_input = residual
    elif config.query_key == "shared_bottleneck":
        query_input = bottleneck("query_key")
    context = _attention(graph, config, params["attention"], query_input, value_input, hide)
    x = graph.add("Add", graph.dense(context, params["attention_output"]), residual)
    x = graph.norm(x, params["attention_norm"], config.normalization_type)
    for index in range(config.num_feedforward_networks):
        prefix = f"feedforward_{index}"
        inner = _ACTIVATIONS[config.hidden_act](graph, graph.dense(x, params[f"{prefix}_in"]))
        x = graph.add("Add", graph.dense(inner, params[f"{prefix}_out"]), x)
        x = graph.norm(x, params[f"{prefix}_norm"], config.normalization_type)
    if not config.use_bottleneck:
        return x
    x = graph.add("Add", graph.dense(x, params["output"]), h_BTD)
    return graph.norm(x, params["output_norm"], config.normalization_type)


def _attention(
    graph: _Graph,
    config: ModelConfig,
    params: Params,
    query_input: str,
    value_input: str,
    hide: Callable[[str], str],
) -> str:
    size = config.intra_bottleneck_size // config.num_attention_heads

    def heads(x: str, name: str, order: list[int]) -> str:
        # A 0 keeps the axis as it is.
        shape = np.array([0, 0, config.num_attention_heads, size])
        split = graph.add("Reshape", graph.dense(x, params[name]), shape)
        return graph.add("Transpose", split, perm=order)

    query_BHTC = heads(query_input, "query", [0, 2, 1, 3])
    key_BHCS = heads(query_input, "key", [0, 2, 3, 1])
    value_BHSC = heads(value_input, "value", [0, 2, 1, 3])
    scores_BHTS = graph.add("Mul", graph.add("MatMul", query_BHTC, key_BHCS), size**-0.5)
    weights_BHTS = graph.add("Softmax", hide(scores_BHTS), axis=-1)
    context_BTHC = graph.add(
        "Transpose", graph.add("MatMul", weights_BHTS, value_BHSC), perm=[0, 2, 1, 3]
    )
    return graph.add("Reshape", context_BTHC, np.array([0, 0, config.intra_bottleneck_size]))


def _outputs(graph: _Graph, model: Model, h_BTD: str) -> dict[str, list[Any]]:
    """Adds what stands above the blocks and returns the outputs' shapes by name."""
    config, params, kind = model.config, model.params, model.kind
    batch, length = "batch", "length"
    found: dict[str, tuple[str, list[Any]]] = {}

    def pooled() -> str:
        first_BD = graph.add("Gather", h_BTD, np.array(0), axis=1)
        if not config.pooler:
            return first_BD
        return graph.add("Tanh", graph.dense(first_BD, params["pooler"]["dense"]))

    if kind == "bare":
        found["sequence_output"] = h_BTD, [batch, length, config.hidden_size]
        found["pooled_output"] = pooled(), [batch, config.hidden_size]
    elif kind == "question_answering":
        logits = graph.dense(h_BTD, params["task"]["dense"])
        for index, name in enumerate(("start_logits", "end_logits")):
            found[name] = graph.add("Gather", logits, np.array(index), axis=2), [batch, length]
    elif "task" in params:
        every = kind == "token_classification"
        outputs = params["task"]["dense"]["bias"].shape[0]
        logits = graph.dense(h_BTD if every else pooled(), params["task"]["dense"])
        found["logits"] = logits, [batch, *([length] if every else []), outputs]
    both = kind == "pretraining"
    if kind in ("masked_lm", "pretraining"):
        name = "prediction_logits" if both else "logits"
        found[name] = _masked_lm(graph, model, h_BTD), [batch, length, config.vocab_size]
    if kind in ("next_sentence", "pretraining"):
        name = "seq_relationship_logits" if both else "logits"
        found[name] = graph.dense(pooled(), params["next_sentence"]["dense"]), [batch, 2]
    for name, (tensor, _) in found.items():
        graph.rename(tensor, name)
    return {name: shape for name, (_, shape) in found.items()}


def _masked_lm(graph: _Graph, model: Model, h_BTD: str) -> str:
    config, params = model.config, model.params["masked_lm"]
    x = _ACTIVATIONS[config.hidden_act](graph, graph.dense(h_BTD, params["transform"]))
    x = graph.norm(x, params["norm"], "layer_norm")
    tables = [model.params["embeddings"]["word"]]
    if config.hidden_size > config.embedding_size:
        tables.append(params["extra"])
    start, logits = 0, params["bias"]
    for table in tables:
        part = graph.cut(x, start, start + table.shape[1], 2)
        logits = graph.add(
            "Add", graph.add("MatMul", part, graph.add("Transpose", table, perm=[1, 0])), logits
        )
        start += table.shape[1]
    return logits
