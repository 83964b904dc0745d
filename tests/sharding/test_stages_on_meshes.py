"""Every stage on every mesh: the same losses, the promised shards, and no message too many."""

import dataclasses
import functools
import json

import jax
import pytest

from mobilebert_jax.plan.collectives import collectives
from mobilebert_jax.training import state as state_lib
from tests import tiny
from tests.golden.make_collectives import GOLDEN, messages, version
from tests.golden.make_collectives import MESHES as GOLDEN_MESHES
from tests.sharding.stage_programs import (
    OPTIMIZER,
    STAGES,
    arguments,
    compiled,
    layout_of,
    ten_losses,
)

MESHES = ["8x1x1", "1x8x1", "2x2x2", "4x1x2"]
CASES = [
    pytest.param(
        stage,
        mesh,
        cuts,
        id=f"{stage}-{mesh}-{cuts}",
        # The default run takes the mesh that cuts every axis, for the stage with most to go wrong.
        marks=[]
        if (stage, mesh, cuts) == ("distill", "2x2x2", "params_gathered_once")
        else pytest.mark.slow,
    )
    for stage in STAGES
    for cuts, meshes in (
        ("params_and_optimizer", MESHES),
        ("optimizer_only", ["1x8x1"]),
        ("params_gathered_once", MESHES[1:3]),
    )
    for mesh in meshes
]


@functools.cache
def alone(stage: str) -> list[float]:
    return ten_losses(stage, layout_of("1x1x1"))[0]


@pytest.mark.parametrize(("stage", "mesh", "cuts"), CASES)
def test_ten_steps_have_the_losses_of_one_device_and_the_promised_shards(
    stage: str, mesh: str, cuts: str
) -> None:
    layout = layout_of(mesh, cuts)
    losses, state = ten_losses(stage, layout)
    assert losses == pytest.approx(alone(stage), rel=1e-5)
    assert len(set(losses)) == 10
    wanted = state_lib.abstract_state(STAGES[stage][0], OPTIMIZER, layout)
    for leaf, abstract in zip(jax.tree.leaves(state), jax.tree.leaves(wanted), strict=True):
        assert leaf.sharding.is_equivalent_to(abstract.sharding, leaf.ndim)
        parts = {shard.data.shape for shard in leaf.addressable_shards}
        assert parts == {abstract.sharding.shard_shape(leaf.shape)}


def held(tree: object) -> int:
    """Bytes that the first device holds of a tree."""
    return sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ("cuts", "cut_params"),
    [("params_and_optimizer", True), ("optimizer_only", False), ("params_gathered_once", True)],
)
def test_what_fsdp_cuts_is_a_choice(cuts: str, cut_params: bool) -> None:
    state = arguments("distill", layout_of("1x8x1", cuts))[0]
    whole = arguments("distill", layout_of("1x1x1"))[0]
    # Vectors stay whole; of these narrow networks they are a good part.
    for cut, uncut in zip(*map(tiny.moments, (state.opt_state, whole.opt_state)), strict=True):
        assert held(cut) < 0.35 * held(uncut)
    if cut_params:
        assert held(state.params) < 0.35 * held(whole.params)
    else:
        assert held(state.params) == held(whole.params)


def test_a_cut_state_is_gathered_whole_in_the_type_of_its_products() -> None:
    network, layout = (
        dataclasses.replace(tiny.STUDENT, dtype="bfloat16"),
        layout_of("2x2x2", "params_gathered_once"),
    )
    params = tiny.on_mesh(tiny.student_params(), network, layout)
    gathered = jax.jit(state_lib.gathering(network, layout))(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gathered):
        kernel = path[0].key == "blocks" and path[-1].key == "kernel"
        assert leaf.dtype == ("bfloat16" if kernel else "float32"), path
        assert "fsdp" not in leaf.sharding.spec, path
    alone = jax.tree.map(lambda leaf, read: leaf.astype(read.dtype), params, gathered)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), gathered, alone))


@pytest.mark.slow
@pytest.mark.parametrize("mesh", GOLDEN_MESHES)
@pytest.mark.parametrize("stage", STAGES)
def test_the_messages_of_a_step_are_the_known_ones(stage: str, mesh: str) -> None:
    known = json.loads(GOLDEN.read_text())
    assert version() in known, "python -m tests.golden.make_collectives adds this version of jax"
    assert messages(stage, mesh) == known[version()][mesh][stage]


@pytest.mark.parametrize(
    "stage",
    [pytest.param(s, marks=[] if s == "distill" else pytest.mark.slow) for s in STAGES],
)
def test_nothing_that_is_cut_is_gathered_whole(stage: str) -> None:
    """Parameters are put together one layer at a time, never the stack, and activations never."""
    layout = layout_of("1x8x1")
    found = collectives(compiled(stage, layout, arguments(stage, layout)).as_text())
    gathered = [array for one in found if one.kind == "all-gather" for array in one.arrays]
    assert gathered, "parameters have to be put together for use"
    matrices = [array.shape for array in gathered if array.dtype == "f32"]
    assert [shape for shape in matrices if len(shape) == 3 and shape[0] == tiny.LAYERS] == []
    assert [
        shape for shape in matrices if len(shape) > 2 and shape[:2] == (tiny.ROWS, tiny.LENGTH)
    ] == []
    # Every device sums gradients into whole pieces; what it receives is no activation either.
    summed = [array.shape for one in found if one.kind == "all-reduce" for array in one.arrays]
    assert [
        shape for shape in summed if len(shape) > 2 and shape[:2] == (tiny.ROWS, tiny.LENGTH)
    ] == []
