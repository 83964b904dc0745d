"""Student and teacher block by block, for what is compared in every layer.

Two networks that were run one after the other would have to keep the features and the scores of
all layers until they are compared: at the published sizes and length 512 a chip with eight
sequences holds 5.6 GB for a step then, and 2.7 GB here.

Shapes: B batch, T positions, D hidden.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mobilebert_jax.model import encoder
from mobilebert_jax.model.block import Block, Captured
from mobilebert_jax.model.layers import Network


class SideBySide(NamedTuple):
    """What both networks gave; `found` has a leading axis of layers."""

    taught_BTD: jax.Array
    wanted_BTD: jax.Array
    found: Any


def run(
    student: Network,
    teacher: Network,
    params: encoder.Params,
    teacher_params: encoder.Params,
    batch: encoder.Batch,
    compare: Callable[[Captured, Captured], Any],
) -> SideBySide:
    """Runs all blocks of two networks of as many layers, without dropout.

    Args:
      student: the network that learns, whose `remat` holds for `compare` too.
      teacher: the frozen network: no gradient flows into it. Its `unroll` is the number
        of layers in a round of the loop.
      params: of the student.
      teacher_params: of the teacher.
      batch: `input_ids`, `segment_ids` and `input_mask`, each [B, T].
      compare: returns a tree of arrays, given what the same block of both networks shows.
    """
    # Scores of all heads are wanted together.
    student, teacher = (dataclasses.replace(each, wide=False) for each in (student, teacher))
    taught_block = Block(student, capture=True)
    wanted_block = Block(teacher, capture=True, frozen=True)
    teacher_params = jax.lax.stop_gradient(teacher_params)
    mask_BT = batch["input_mask"].astype(jnp.float32)

    def follow(h_BTD: jax.Array, own: Any, wanted: Captured) -> tuple[jax.Array, Any]:
        h_BTD, taught = encoder.apply(taught_block, own, h_BTD, mask_BT)
        return h_BTD, compare(taught, wanted)

    if student.remat != "none":
        policy = encoder.REMAT_POLICIES[student.remat]
        follow = jax.checkpoint(follow, policy=policy, prevent_cse=False)

    def layer(
        both: tuple[jax.Array, jax.Array], given: tuple[Any, jax.Array]
    ) -> tuple[tuple[jax.Array, jax.Array], Any]:
        (taught_BTD, wanted_BTD), (own, index) = both, given
        theirs = jax.tree.map(functools.partial(encoder.layer, index), teacher_params["blocks"])
        wanted_BTD, wanted = encoder.apply(wanted_block, theirs, wanted_BTD, mask_BT)
        taught_BTD, found = follow(taught_BTD, own, wanted)
        return (taught_BTD, wanted_BTD), found

    embedded = (
        encoder.encode(student, params, batch, layers=0).hidden_BTD,
        encoder.encode(teacher, teacher_params, batch, layers=0).hidden_BTD,
    )
    layers = params["blocks"], jnp.arange(student.config.num_hidden_layers)
    (taught_BTD, wanted_BTD), found = jax.lax.scan(layer, embedded, layers, unroll=teacher.unroll)
    return SideBySide(taught_BTD, wanted_BTD, found)
