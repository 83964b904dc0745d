"""The device mesh, and where parameters, moments and batches live on it."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from mobilebert_jax.config import schema
from mobilebert_jax.config.execution import Mesh
from mobilebert_jax.config.schema import InputError
from mobilebert_jax.model import encoder
from mobilebert_jax.model.layers import Network
from mobilebert_jax.optimizer import schedules
from mobilebert_jax.optimizer.build import build
from mobilebert_jax.sharding import rules
from mobilebert_jax.sharding.mesh import AXES, make_mesh
from mobilebert_jax.training import state as state_lib
from mobilebert_jax.training.state import Layout
from tests import tiny


def mesh_of(data: int, fsdp: int, model: int) -> jax.sharding.Mesh:
    return make_mesh(Mesh(data, fsdp, model))


# The mesh


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((-1, 1, 1), (8, 1, 1)),
        ((8, 1, 1), (8, 1, 1)),
        ((2, 2, 2), (2, 2, 2)),
        ((2, -1, 2), (2, 2, 2)),
        ((1, 2, -1), (1, 2, 4)),
        ((4, 2, -1), (4, 2, 1)),
    ],
)
def test_an_axis_may_take_what_is_left(sizes: Any, expected: Any) -> None:
    mesh = mesh_of(*sizes)
    assert mesh.axis_names == AXES == ("data", "fsdp", "model")
    assert tuple(mesh.shape.values()) == expected
    assert set(mesh.devices.flat) == set(jax.devices())


def test_the_default_uses_every_device_for_data() -> None:
    assert dict(make_mesh(Mesh()).shape) == {"data": 8, "fsdp": 1, "model": 1}


def test_a_mesh_may_be_made_of_some_devices() -> None:
    mesh = make_mesh(Mesh(1, 2, -1), jax.devices()[2:8])
    assert tuple(mesh.shape.values()) == (1, 2, 3)


@pytest.mark.parametrize(
    "sizes", [(3, 1, 1), (3, -1, 1), (2, 2, 1), (16, 1, 1), (-1, -1, 2), (0, -1, 1), (8, 1, -2)]
)
def test_sizes_that_do_not_fit_are_refused_with_what_would(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(InputError) as raised:
        mesh_of(*sizes)
    message = str(raised.value)
    for axis, size in zip(AXES, sizes, strict=True):
        assert f"execution.mesh.{axis}={size}" in message
    assert "8 devices" in message
    assert "[1, 2, 4, 8]" in message


# Shardings


def boxed(network: Network) -> Any:
    return jax.eval_shape(lambda: encoder.init(network, jax.random.key(0)))


def test_every_logical_axis_has_a_rule() -> None:
    known = {name for name, _ in rules.RULES}
    for network in (tiny.STUDENT, tiny.TEACHER):
        leaves = jax.tree.leaves(
            boxed(network), is_leaf=lambda leaf: isinstance(leaf, nn.LogicallyPartitioned)
        )
        assert {axis for leaf in leaves for axis in leaf.names} <= known


def test_parameters_are_cut_along_the_axes_that_the_table_names() -> None:
    shardings = rules.parameter_shardings(boxed(tiny.TEACHER), mesh_of(2, 2, 2))
    blocks = shardings["blocks"]
    expected = {
        "embeddings/word": (shardings["embeddings"]["word"], ("model", "fsdp")),
        "embeddings/position": (shardings["embeddings"]["position"], (None, "fsdp")),
        "query": (blocks["attention"]["query"]["kernel"], (None, "fsdp", "model")),
        "attention_output": (blocks["attention_output"]["kernel"], (None, "model", "fsdp")),
        "feedforward_in": (blocks["feedforward_0_in"]["kernel"], (None, "fsdp", "model")),
        "feedforward_out": (blocks["feedforward_0_out"]["kernel"], (None, "model", "fsdp")),
        "input": (blocks["input"]["kernel"], (None, "fsdp", None)),
        "masked_lm/bias": (shardings["masked_lm"]["bias"], ("model",)),
        "a vector": (blocks["input"]["bias"], (None, None)),
    }
    for name, (sharding, axes) in expected.items():
        rank = len(axes)
        found = tuple(sharding.spec) + (None,) * (rank - len(sharding.spec))
        assert found == axes, name


def test_a_parameter_that_cannot_be_cut_is_named() -> None:
    network = Network(dataclasses.replace(tiny.STUDENT.config, vocab_size=49))
    with pytest.raises(InputError) as raised:
        rules.parameter_shardings(boxed(network), mesh_of(2, 2, 2))
    message = str(raised.value)
    # The word table, its bias or the extra output weights: whichever is looked at first.
    assert any(n in message for n in ("embeddings/word", "masked_lm/bias", "masked_lm/extra"))
    assert "axis of 49" in message
    assert "2 parts" in message
    assert "execution.mesh.model may be one of [1, 7, 49]" in message
    rules.parameter_shardings(boxed(network), mesh_of(4, 2, 1))


SETTINGS = schema.Optimizer()
OPTIMIZER = build(SETTINGS, schedules.base_rate(SETTINGS, 10), schedules.uniform(tiny.LAYERS))


@pytest.fixture(scope="module")
def state() -> state_lib.State:
    mesh = mesh_of(2, 2, 2)
    params = tiny.on_mesh(tiny.student_params(), tiny.STUDENT, Layout(mesh))
    return state_lib.start(params, tiny.STUDENT, OPTIMIZER, Layout(mesh))


def test_moments_are_sharded_like_their_parameters(state: state_lib.State) -> None:
    for moment in tiny.moments(state.opt_state):
        for leaf, param in zip(jax.tree.leaves(moment), jax.tree.leaves(state.params), strict=True):
            assert leaf.sharding.is_equivalent_to(param.sharding, leaf.ndim)
            assert not jnp.any(leaf)
    word = state.params["embeddings"]["word"]
    assert word.sharding.spec == PartitionSpec("model", "fsdp")
    assert {shard.data.shape for shard in word.addressable_shards} == {(25, 4)}
    assert state.step.sharding.is_fully_replicated


def test_the_abstract_state_describes_the_real_one(state: state_lib.State) -> None:
    abstract = state_lib.abstract_state(tiny.STUDENT, OPTIMIZER, Layout(mesh_of(2, 2, 2)))
    assert jax.tree.structure(abstract) == jax.tree.structure(state)
    for wanted, leaf in zip(jax.tree.leaves(abstract), jax.tree.leaves(state), strict=True):
        assert (wanted.shape, wanted.dtype) == (leaf.shape, leaf.dtype)
        assert leaf.sharding.is_equivalent_to(wanted.sharding, leaf.ndim)


def test_fresh_parameters_follow_seed_and_stream_and_lie_where_the_rules_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def one_table(network: Network, key: jax.Array) -> Any:
        table = jax.random.normal(key, (50, 8))
        return {"word": nn.LogicallyPartitioned(table, ("vocab", "embed"))}

    monkeypatch.setattr(encoder, "init", one_table)
    mesh = mesh_of(2, 2, 2)
    drawn = [
        state_lib.init_params(tiny.STUDENT, Layout(mesh), seed, stream)["word"]
        for seed, stream in ((0, 0), (0, 1), (1, 0))
    ]
    assert all(table.sharding.spec == PartitionSpec("model", "fsdp") for table in drawn)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not jnp.array_equal(drawn[one], drawn[other])


def test_rows_of_a_batch_are_cut_over_data_and_fsdp() -> None:
    sharding = rules.batch_sharding(mesh_of(2, 2, 2))
    rows = jax.device_put(tiny.batch()["input_ids"], sharding)
    assert {shard.data.shape for shard in rows.addressable_shards} == {(2, tiny.LENGTH)}
    whole = jax.device_put(jnp.int32(1), rules.replicated(mesh_of(2, 2, 2)))
    assert whole.sharding.is_fully_replicated
