"""The whole network as functions of its parameters: `init`, `encode`, `predict`.

Parameters are `{embeddings, blocks, pooler?, masked_lm, next_sentence}`, or with `task` in place of
the last two in a network that is fine-tuned. Those of the blocks are stacked along a leading layer
axis, and `encode` runs any first part of the stack and captures features and scores of chosen
layers only: what is not asked for is not computed.

Shapes: B batch, T positions, P predicted positions, D hidden, V vocabulary, N captured layers.
"""

import dataclasses
import functools
import itertools
import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mobilebert_jax.model.block import FEEDFORWARD, Block, Captured
from mobilebert_jax.model.embeddings import Embeddings
from mobilebert_jax.model.heads import MaskedLM, NextSentence, Pooler, TaskOutput, gather_positions
from mobilebert_jax.model.layers import Network

Params = dict[str, Any]
Batch = Mapping[str, jax.Array]

REMAT_POLICIES = {
    "none": jax.checkpoint_policies.everything_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "feedforward": jax.checkpoint_policies.save_only_these_names(FEEDFORWARD),
    "full": jax.checkpoint_policies.nothing_saveable,
}


class Encoded(NamedTuple):
    """Result of `encode`; `captured` is stacked over the asked layers, None when none was asked."""

    embedded_BTD: jax.Array
    hidden_BTD: jax.Array
    captured: Captured | None

    @property
    def shown(self) -> Captured:
        """What was captured; raises ValueError when no layer was asked for."""
        if self.captured is None:
            raise ValueError("no layer was captured")
        return self.captured


class Predictions(NamedTuple):
    """Pretraining logits: masked LM at the masked positions, and next sentence."""

    masked_lm_BPV: jax.Array
    next_sentence_B2: jax.Array


def init(network: Network, key: jax.Array) -> Params:
    """Returns fresh parameters, each boxed with its logical axes (`flax.linen.unbox` opens them).

    Truncated normal of `initializer_range`, biases 0, norm scales 1 and shifts 0 (BERT).
    """
    config = network.config
    ids_BT = jnp.zeros((1, 2), jnp.int32)
    mask_BT = jnp.ones((1, 2))
    h_BTD = jnp.zeros((1, 2, config.hidden_size), network.dtype)
    word_VE = jnp.zeros((config.vocab_size, config.embedding_size))
    parts: dict[str, tuple[nn.Module, tuple[jax.Array, ...]]] = {
        "embeddings": (Embeddings(network), (ids_BT, ids_BT, mask_BT)),
        "blocks": (_stack(network, config.num_hidden_layers), (h_BTD, mask_BT)),
    }
    if network.task is None:
        parts["masked_lm"] = (MaskedLM(config), (h_BTD, word_VE))
        parts["next_sentence"] = (NextSentence(config), (h_BTD[:, 0],))
    else:
        parts["task"] = (TaskOutput(config, network.task), (h_BTD[:, 0],))
    if config.pooler:
        parts["pooler"] = (Pooler(config), (h_BTD[:, 0],))
    keys = jax.random.split(key, len(parts))
    return {
        name: module.init(part_key, *arguments)["params"]
        for part_key, (name, (module, arguments)) in zip(keys, parts.items(), strict=True)
    }


def _stack(network: Network, length: int) -> nn.Module:
    """Blocks whose parameters are made with a leading layer axis."""
    scanned = nn.scan(
        Block,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=nn.broadcast,
        length=length,
        metadata_params={nn.PARTITION_NAME: "layers"},
    )
    return scanned(network)


def encode(
    network: Network,
    params: Params,
    batch: Batch,
    *,
    layers: int | None = None,
    capture: tuple[int, ...] = (),
    freeze_below: int | None = None,
    dropout_key: jax.Array | None = None,
) -> Encoded:
    """Runs embeddings and the first `layers` blocks (all by default).

    Args:
      network: settings.
      params: unboxed parameters.
      batch: `input_ids`, `segment_ids` and `input_mask`, each [B, T].
      layers: number of blocks to run; those above are absent from the program.
      capture: increasing indices of blocks whose output [B, T, D] and scores [B, H, T, T] are kept.
      freeze_below: no gradient flows to the embeddings and the blocks before this index; a network
        that is not trained, such as a teacher, is frozen below its number of layers.
      dropout_key: turns dropout on.
    """
    layers = network.config.num_hidden_layers if layers is None else layers
    mask_BT = batch["input_mask"].astype(jnp.float32)
    keys = None if dropout_key is None else jax.random.split(dropout_key, layers + 1)
    embeddings = params["embeddings"]
    if freeze_below is not None:
        embeddings = jax.lax.stop_gradient(embeddings)
    h_BTD = embedded_BTD = apply(
        Embeddings(network),
        embeddings,
        batch["input_ids"],
        batch["segment_ids"],
        mask_BT,
        deterministic=keys is None,
        rngs={} if keys is None else {"dropout": keys[layers]},
    )
    captured = []
    for segment in _segments(layers, capture, freeze_below or 0):
        h_BTD, kept = _run(network, params["blocks"], segment, h_BTD, mask_BT, keys)
        if kept is not None:
            captured.append(kept)
    stacked = jax.tree.map(lambda *xs: jnp.concatenate(xs), *captured) if captured else None
    return Encoded(embedded_BTD, h_BTD, stacked)


class _Segment(NamedTuple):
    """Blocks `start <= block < stop`, which are treated alike."""

    start: int
    stop: int
    capture: bool
    frozen: bool


def _segments(layers: int, capture: tuple[int, ...], freeze_below: int) -> list[_Segment]:
    """Cuts `range(layers)` into runs of blocks that are treated alike."""
    alike = itertools.groupby(range(layers), lambda n: (n in capture, n < freeze_below))
    runs = [(choices, list(run)) for choices, run in alike]
    return [_Segment(run[0], run[-1] + 1, *choices) for choices, run in runs]


def _run(
    network: Network,
    stack: Params,
    segment: _Segment,
    h_BTD: jax.Array,
    mask_BT: jax.Array,
    keys: jax.Array | None,
) -> tuple[jax.Array, Captured | None]:
    """Runs the blocks of `segment`, whose parameters are parts of `stack`."""
    if segment.capture:  # scores of all heads are wanted together
        network = dataclasses.replace(network, wide=False)
    module = Block(network, segment.capture, keys is None, segment.frozen)
    layers = slice(segment.start, segment.stop)
    if segment.frozen:
        # Read where they lie: the cut of a teacher's stack would be a copy of most of it, every
        # step. Under a gradient the cut is what keeps the sum over all rounds as small as a layer.
        stack = jax.lax.stop_gradient(stack)
        own: Any = jnp.arange(segment.start, segment.stop)
    else:
        own = jax.tree.map(lambda p: p[layers], stack)

    def block(h_BTD: jax.Array, given: tuple[Any, Any]) -> tuple[jax.Array, Captured | None]:
        params, key = given
        if segment.frozen:
            params = jax.tree.map(functools.partial(layer, params), stack)
        rngs = {} if key is None else {"dropout": key}
        found: tuple[jax.Array, Captured | None] = apply(module, params, h_BTD, mask_BT, rngs=rngs)
        return found

    blocks = segment.stop - segment.start
    in_line = 1 < blocks <= network.unroll
    if network.remat != "none" and not segment.frozen:
        # Where no loop is between them, the compiler would find in the forward pass what is to be
        # made again in the backward pass, and keep it.
        policy = REMAT_POLICIES[network.remat]
        block = jax.checkpoint(block, policy=policy, prevent_cse=in_line)
    given = own, None if keys is None else keys[layers]
    if in_line:
        return _in_line(block, h_BTD, given, blocks)
    return jax.lax.scan(block, h_BTD, given, unroll=network.unroll)


def _in_line(
    block: Callable[[jax.Array, Any], tuple[jax.Array, Captured | None]],
    h_BTD: jax.Array,
    given: Any,
    blocks: int,
) -> tuple[jax.Array, Captured | None]:
    """Does what a scan over `given` does, without its copies of what goes in and comes out."""
    kept = []
    for index in range(blocks):
        h_BTD, one = block(h_BTD, jax.tree.map(operator.itemgetter(index), given))
        kept.append(one)
    return h_BTD, jax.tree.map(lambda *xs: jnp.stack(xs), *kept)


def layer(index: jax.Array, stacked: jax.Array) -> jax.Array:
    """Returns one layer of a stack, read where it lies."""
    return jax.lax.dynamic_index_in_dim(stacked, index, keepdims=False)


def apply(module: nn.Module, params: Params, *arguments: Any, **keywords: Any) -> Any:
    """Returns what `module` makes of `arguments` with its own parameters."""
    return module.apply({"params": params}, *arguments, **keywords)


def predict(network: Network, params: Params, hidden_BTD: jax.Array, batch: Batch) -> Predictions:
    """Applies both pretraining heads; `batch` holds `masked_lm_positions` [B, P]."""
    config = network.config
    logits_BPV = apply(
        MaskedLM(config, rounded=network.bfloat16_matmuls),
        params["masked_lm"],
        gather_positions(hidden_BTD, batch["masked_lm_positions"]),
        params["embeddings"]["word"],
    )
    pooled_BD = pool(network, params, hidden_BTD)
    logits_B2 = apply(NextSentence(config), params["next_sentence"], pooled_BD)
    return Predictions(logits_BPV, logits_B2)


def task_outputs(
    network: Network, params: Params, batch: Batch, *, dropout_key: jax.Array | None = None
) -> jax.Array:
    """Returns the task layer's outputs in float32: [B, outputs], or [B, T, outputs].

    `dropout_key` turns dropout on. Raises ValueError for a network without a task.
    """
    if network.task is None:
        raise ValueError("the network has pretraining heads and no task")
    keys = (None, None) if dropout_key is None else jax.random.split(dropout_key)
    hidden_BTD = encode(network, params, batch, dropout_key=keys[0]).hidden_BTD
    features = (
        pool(network, params, hidden_BTD)
        if network.task.reads == "first"
        else hidden_BTD.astype(jnp.float32)
    )
    return apply(
        TaskOutput(network.config, network.task),
        params["task"],
        features,
        deterministic=keys[1] is None,
        rngs={} if keys[1] is None else {"dropout": keys[1]},
    )


def pool(network: Network, params: Params, hidden_BTD: jax.Array) -> jax.Array:
    """Returns the first position's features, through the pooler where there is one, [B, D]."""
    first_BD = hidden_BTD[:, 0].astype(jnp.float32)
    if not network.config.pooler:
        return first_BD
    return apply(Pooler(network.config), params["pooler"], first_BD)
