"""Two networks and a batch that are small enough to be compiled many times.

Shapes: B batch, T positions, P predicted positions.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mobilebert_jax.model import sizes
from mobilebert_jax.model.layers import Network
from mobilebert_jax.optimizer.stacked import StackedState
from mobilebert_jax.training import state as state_lib
from mobilebert_jax.training.state import Layout
from tests.parity.cases import QUICK_COMPILATION, random_params

COMPILER_OPTIONS: dict[str, Any] = dict(QUICK_COMPILATION)
if jax.__version_info__ < (0, 11):
    # A quarter of the compilation time; later releases have no such choice and refuse the name.
    COMPILER_OPTIONS["xla_cpu_use_fusion_emitters"] = False

LAYERS, LENGTH, ROWS, VOCABULARY = 3, 12, 8, 50

_NARROW: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "max_position_embeddings": LENGTH,
    "hidden_size": 16,
    "embedding_size": 8,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "num_feedforward_networks": 1,
}
STUDENT = Network(
    dataclasses.replace(sizes.MOBILEBERT, intra_bottleneck_size=8, intermediate_size=12, **_NARROW)
)
TEACHER = Network(
    dataclasses.replace(
        sizes.IB_BERT_LARGE, intra_bottleneck_size=24, intermediate_size=20, **_NARROW
    )
)


def student_params(seed: int = 0) -> dict[str, Any]:
    return jax.tree.map(jnp.asarray, random_params(STUDENT.config, seed))


def teacher_params(seed: int = 1) -> dict[str, Any]:
    return jax.tree.map(jnp.asarray, random_params(TEACHER.config, seed))


def batch(seed: int = 2) -> dict[str, jax.Array]:
    """Returns 8 sequences of very different length, with 3, 2, 1 or no predictions."""
    generator = np.random.default_rng(seed)
    lengths_B = np.array([12, 4, 5, 9, 12, 3, 7, 10])
    predicted_B = np.array([3, 1, 0, 2, 3, 1, 1, 2])
    mask_BT = (np.arange(LENGTH) < lengths_B[:, None]).astype(np.int32)
    ids_BT = generator.integers(1, VOCABULARY, (ROWS, LENGTH)) * mask_BT
    weights_BP = (np.arange(3) < predicted_B[:, None]).astype(np.float32)
    positions_BP = np.stack([np.sort(generator.permutation(n)[:3]) for n in lengths_B])
    arrays = {
        "input_ids": ids_BT.astype(np.int32),
        "segment_ids": (np.arange(LENGTH) >= lengths_B[:, None] // 2).astype(np.int32) * mask_BT,
        "input_mask": mask_BT,
        "masked_lm_positions": positions_BP.astype(np.int32),
        "masked_lm_ids": generator.integers(1, VOCABULARY, (ROWS, 3)).astype(np.int32),
        "masked_lm_weights": weights_BP,
        "next_sentence_labels": generator.integers(0, 2, ROWS).astype(np.int32),
    }
    return {name: jnp.asarray(value) for name, value in arrays.items()}


def on_mesh(params: dict[str, Any], network: Network, layout: Layout) -> dict[str, Any]:
    """Returns `params` laid out as the rules say, sharing no buffer with those given."""
    abstract = state_lib.abstract_params(network, layout)
    return jax.tree.map(
        lambda leaf, like: jax.device_put(np.array(leaf), like.sharding), params, abstract
    )


def jit(function: Any, **options: Any) -> Any:
    """Returns `jax.jit(function)`, compiled quickly."""
    return jax.jit(function, compiler_options=COMPILER_OPTIONS, **options)


def assert_close(actual: Any, expected: Any, tolerance: float = 1e-5) -> None:
    """Compares trees leaf by leaf, relative to the largest magnitude of each expected leaf.

    A leaf below a thousandth of the largest leaf is compared at that magnitude: the gradient of a
    key's bias, which softmax does not see, is 0 but for rounding.
    """
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    largest = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    for mine, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert np.isfinite(other).all()
        scale = max(float(np.abs(other).max()), 1e-3 * largest)
        np.testing.assert_allclose(mine, other, rtol=0, atol=tolerance * scale)


def moments(opt_state: Any) -> tuple[Any, Any]:
    """Returns Adam's means of the gradient and of its square, each shaped like the parameters."""
    states = jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, StackedState))
    (state,) = [found for found in states if isinstance(found, StackedState)]
    blocks, others = state.blocks[0], state.others[0]
    return (
        {"blocks": blocks.mu, **others.mu},
        {"blocks": blocks.nu, **others.nu},
    )
