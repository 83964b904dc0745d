"""Any optax transformation, applied to every block by itself.

Parameters of the blocks are stacked along a leading layer axis, so that a transformation would take
one norm over all of them, or one count of steps. Under `jax.vmap` it sees one block at a time:
LAMB's trust ratio is one a layer, Muon's matrices are two-dimensional, and every leaf of the state
has the layer axis, so that a layer's state can be restarted, sharded or left out like its
parameters.
"""

from typing import Any, NamedTuple

import jax
import optax

Tree = Any


class StackedState(NamedTuple):
    """State of the blocks, every leaf [N, ...], and of all other parameters."""

    blocks: Any
    others: Any


def stacked(inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Returns `inner` for parameters `{"blocks": [N, ...], ...}`, one block at a time.

    Updates that hold blocks alone, some or all of them, leave the other parameters' state as it is.
    """
    transformation = optax.with_extra_args_support(inner)

    def init(params: Tree) -> StackedState:
        blocks, others = _apart(params)
        return StackedState(jax.vmap(transformation.init)(blocks), transformation.init(others))

    def update(
        updates: Tree, state: Any, params: Tree | None = None, **extra: Any
    ) -> tuple[Tree, StackedState]:
        def one(updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
            return transformation.update(updates, state, params, **extra)

        blocks, others = _apart(updates)
        block_params, other_params = _apart(params)
        blocks, block_state = jax.vmap(one)(blocks, state.blocks, block_params)
        other_state = state.others
        if others:
            others, other_state = one(others, state.others, other_params)
        return {"blocks": blocks, **others}, StackedState(block_state, other_state)

    return optax.GradientTransformationExtraArgs(init, update)


def _apart(tree: Tree) -> tuple[Tree, Tree]:
    return tree["blocks"], {name: part for name, part in tree.items() if name != "blocks"}
