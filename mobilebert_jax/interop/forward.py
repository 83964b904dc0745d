"""The function that leaves: token ids to named outputs, with the parameters inside it.

The modules are those of training; blocks run one by one, because a loop over stacked parameters
would reach other formats as a loop, which most of them run slowly or not at all.

Shapes: N examples, B batch, T positions, C outputs of the head, D hidden, V vocabulary.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.interop import sentence_vector
from mobilebert_jax.interop.model import Kind, Model
from mobilebert_jax.interop.sentence_vector import Pooling
from mobilebert_jax.model import encoder
from mobilebert_jax.model.block import Block
from mobilebert_jax.model.embeddings import Embeddings
from mobilebert_jax.model.heads import MaskedLM, NextSentence, TaskOutput
from mobilebert_jax.model.layers import Network, TaskHead

INPUTS = ("input_ids", "input_mask", "segment_ids")
"""Names of the inputs in the order of the published files, int32 [B, T] each."""

APP_OUTPUTS = PROBABILITIES, EMBEDDING = "class_probabilities", "embedding"
"""What an app shows: of a classifier, and of a network without a head."""
APP_SCOPE = "app_output"
"""Part of the name of the operations that make it."""

Mask = Literal["additive", "clipped"]
"""How padding is hidden: by a large negative score as in training, or, for full-integer inference,
as `model.attention.hide_padding` describes, which lets a little attention through to padding."""

Forward = Callable[[jax.Array, jax.Array, jax.Array], dict[str, jax.Array]]

_PER_TOKEN: tuple[Kind, ...] = ("token_classification", "question_answering")


class Inputs(NamedTuple):
    """Examples of one length, int32 each; the mask is 1 at tokens and 0 at padding."""

    input_ids_NT: np.ndarray
    input_mask_NT: np.ndarray
    segment_ids_NT: np.ndarray

    def rows(self, start: int, stop: int) -> "Inputs":
        """Returns some of the examples."""
        return Inputs(*(array[start:stop] for array in self))


def function(
    model: Model,
    *,
    mask: Mask = "additive",
    named_operations: bool = False,
    pooling: Pooling | None = None,
) -> Forward:
    """Returns the network as a function of ids, mask and segments, int32 [B, T] each.

    It returns float32 arrays by name: `start_logits` and `end_logits` [B, T] for questions;
    `logits` for other tasks, [B, T, C] where tokens are classified, else [B, C] (C is 1 and a row
    one choice in multiple choice); `logits` [B, T, V] for masked LM and [B, 2] for next sentence;
    `prediction_logits` [B, T, V] and `seq_relationship_logits` [B, 2] for both together;
    `sequence_output` [B, T, D] and `pooled_output` [B, D] without a head. With `pooling` comes what
    an app shows, which `app_output` names: `class_probabilities` [B, C] of classes, `embedding`
    [B, D] without a head.

    Args:
      model: the network; its kind chooses the outputs.
      mask: how padding is hidden.
      named_operations: names look-ups in tables for converters that know the name.
      pooling: how one vector is made of a text.
    """
    network = Network(
        model.config,
        task=task_head(model),
        quantized_mask=mask == "clipped",
        named_operations=named_operations,
    )

    params = {name: _arrays(part) for name, part in model.params.items() if name != "blocks"}
    # Cut here rather than in the program, which then holds each block's arrays as they are.
    params["blocks"] = [
        _arrays(model.params["blocks"], at) for at in range(model.config.num_hidden_layers)
    ]

    def forward(ids_BT: jax.Array, mask_BT: jax.Array, segments_BT: jax.Array) -> Any:
        hidden_BTD = _hidden(network, params, ids_BT, mask_BT, segments_BT)
        found = _outputs(network, model.kind, params, hidden_BTD)
        name = app_output(model)
        if pooling is None or name is None:
            return found
        with jax.named_scope(APP_SCOPE):
            if name == EMBEDDING:
                shown = sentence_vector.of(network, params, hidden_BTD, mask_BT, pooling)
            else:
                shown = jax.nn.softmax(found["logits"])
        return {name: shown} | found

    return forward


def app_output(model: Model) -> str | None:
    """Returns the name of the output that an app shows; None where the others are all there is.

    It is the first in alphabetical order, which is the order of a file's outputs: apps take the
    first.
    """
    head = task_head(model)
    if model.kind == "sequence_classification" and head is not None and head.outputs > 1:
        return PROBABILITIES
    return EMBEDDING if model.kind == "bare" else None


def output_names(kind: Kind) -> tuple[str, ...]:
    """Returns the names of the outputs, in alphabetical order."""
    if kind == "question_answering":
        return "end_logits", "start_logits"
    if kind == "bare":
        return "pooled_output", "sequence_output"
    if kind == "pretraining":
        return "prediction_logits", "seq_relationship_logits"
    return ("logits",)


def check_length(model: Model, length: int) -> None:
    """Raises InputError for a length that the network has no positions for."""
    if not 1 <= length <= model.config.max_position_embeddings:
        raise InputError(
            f"length {length} is not possible: the network has positions for 1 to "
            f"{model.config.max_position_embeddings} tokens"
        )


def task_head(model: Model) -> TaskHead | None:
    """Returns the output layer of a network with a task, None for one without."""
    if "task" not in model.params:
        return None
    outputs = model.params["task"]["dense"]["kernel"].shape[-1]
    return TaskHead("every" if model.kind in _PER_TOKEN else "first", outputs)


def _arrays(tree: Any, layer: int | None = None) -> Any:
    """Returns the parameters as JAX's own arrays, which alone a length left open can cut."""
    index = ... if layer is None else layer

    def cut(array: Any) -> jax.Array:
        # Numpy's are cut before they are copied; those that JAX traces cannot become numpy's.
        return jnp.asarray((array if isinstance(array, jax.Array) else np.asarray(array))[index])

    return jax.tree.map(cut, tree)


def _hidden(
    network: Network,
    params: dict[str, Any],
    ids_BT: jax.Array,
    mask_BT: jax.Array,
    segments_BT: jax.Array,
) -> jax.Array:
    """Returns what the last block gives, [B, T, D]."""
    real_BT = mask_BT.astype(jnp.float32)
    h_BTD: jax.Array = encoder.apply(
        Embeddings(network), params["embeddings"], ids_BT, segments_BT, real_BT
    )
    for number, block in enumerate(params["blocks"]):
        with jax.named_scope(f"block_{number}"):  # so that converters can tell blocks apart
            h_BTD, _ = encoder.apply(Block(network), block, h_BTD, real_BT)
    return h_BTD


def _outputs(
    network: Network, kind: Kind, params: dict[str, Any], hidden_BTD: jax.Array
) -> dict[str, jax.Array]:
    config = network.config
    if kind == "bare":
        return {
            "sequence_output": hidden_BTD,
            "pooled_output": encoder.pool(network, params, hidden_BTD),
        }
    if network.task is not None:
        every = network.task.reads == "every"
        features = hidden_BTD if every else encoder.pool(network, params, hidden_BTD)
        logits = encoder.apply(TaskOutput(config, network.task), params["task"], features)
        if kind == "question_answering":
            return {"start_logits": logits[..., 0], "end_logits": logits[..., 1]}
        return {"logits": logits}
    found = {}
    if kind in ("masked_lm", "pretraining"):
        head = MaskedLM(config, network.named_operations)
        word_VE = params["embeddings"]["word"]
        found["prediction_logits"] = encoder.apply(head, params["masked_lm"], hidden_BTD, word_VE)
    if kind in ("next_sentence", "pretraining"):
        pooled_BD = encoder.pool(network, params, hidden_BTD)
        found["seq_relationship_logits"] = encoder.apply(
            NextSentence(config), params["next_sentence"], pooled_BD
        )
    return found if kind == "pretraining" else {"logits": next(iter(found.values()))}
