"""A network in groups on a mesh: whole groups on each device, and the numbers of one device."""

import dataclasses
import functools
from typing import Any

import jax
import pytest

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.model import encoder, sizes
from mobilebert_jax.model.layers import Network
from mobilebert_jax.objective import pretrain
from mobilebert_jax.sharding import rules
from mobilebert_jax.training import state as state_lib
from mobilebert_jax.training.step import make_step
from tests import tiny
from tests.parity.cases import random_params
from tests.sharding.stage_programs import OPTIMIZER, layout_of

NETWORK = Network(
    dataclasses.replace(
        sizes.SQUEEZEBERT,
        vocab_size=tiny.VOCABULARY,
        max_position_embeddings=tiny.LENGTH,
        hidden_size=16,
        intra_bottleneck_size=16,
        embedding_size=16,
        intermediate_size=24,
        num_hidden_layers=tiny.LAYERS,
        num_attention_heads=2,
    )
)


def boxed(network: Network) -> Any:
    return jax.eval_shape(lambda: encoder.init(network, jax.random.key(0)))


@functools.cache
def trained(mesh: str) -> tuple[list[float], state_lib.State]:
    """Returns the losses of three steps, and the state after them."""
    layout = layout_of(mesh)
    params = tiny.on_mesh(random_params(NETWORK.config), NETWORK, layout)
    state = state_lib.start(params, NETWORK, OPTIMIZER, layout)
    batch = jax.device_put(tiny.batch(), rules.batch_sharding(layout.mesh))
    key = jax.device_put(jax.random.key(0), rules.replicated(layout.mesh))
    moments = state_lib.shardings_of(state_lib.abstract_moment(NETWORK, layout))
    objective = pretrain.objective(NETWORK, dropout=True)
    gathered = state_lib.gathering(NETWORK, layout)
    step = make_step(objective, OPTIMIZER, 1, moments, gathered=gathered)
    shardings = state_lib.shardings_of(state)
    jitted = tiny.jit(step, donate_argnums=0, out_shardings=(shardings, None))
    with rules.on(layout.mesh):
        program = jitted.lower(state, None, batch, key).compile()
    losses = []
    for _ in range(3):
        state, metrics = program(state, None, batch, key)
        losses.append(float(metrics["loss"]))
    return losses, state


def test_kernels_are_cut_into_whole_groups() -> None:
    shardings = rules.parameter_shardings(boxed(NETWORK), layout_of("2x2x2").mesh)["blocks"]
    expected = {
        "query": (shardings["attention"]["query"]["kernel"], (None, "model", "fsdp", None)),
        "in": (shardings["feedforward_0_in"]["kernel"], (None, "model", "fsdp", None)),
        "out": (shardings["feedforward_0_out"]["kernel"], (None, "model", None, "fsdp")),
        "one group": (shardings["attention_output"]["kernel"], (None, "model", "fsdp")),
        "bias": (shardings["feedforward_0_in"]["bias"], (None, "model")),
    }
    for name, (sharding, axes) in expected.items():
        found = tuple(sharding.spec)
        assert found + (None,) * (len(axes) - len(found)) == axes, name


def test_more_parts_than_groups_are_refused_with_what_is_possible() -> None:
    config = dataclasses.replace(NETWORK.config, vocab_size=64)
    network = dataclasses.replace(NETWORK, config=config)
    with pytest.raises(InputError, match=r"axis of 4 .*'model' would cut into 8 parts.*1, 2, 4\]"):
        rules.parameter_shardings(boxed(network), layout_of("1x1x8").mesh)


@pytest.mark.parametrize("mesh", ["2x2x2", pytest.param("1x4x1", marks=pytest.mark.slow)])
def test_steps_have_the_losses_of_one_device_and_the_promised_shards(mesh: str) -> None:
    losses, state = trained(mesh)
    assert losses == pytest.approx(trained("1x1x1")[0], rel=1e-5)
    assert len(set(losses)) == 3
    wanted = state_lib.abstract_state(NETWORK, OPTIMIZER, layout_of(mesh))
    for leaf, abstract in zip(jax.tree.leaves(state), jax.tree.leaves(wanted), strict=True):
        assert leaf.sharding.is_equivalent_to(abstract.sharding, leaf.ndim)
        parts = {shard.data.shape for shard in leaf.addressable_shards}
        assert parts == {abstract.sharding.shard_shape(leaf.shape)}
