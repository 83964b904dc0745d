"""The collectives of compiled programs: small ones compiled here, and lines as TPUs have them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from mobilebert_jax.plan import hlo
from mobilebert_jax.plan.collectives import Collective, collectives, totals

MESH = jax.sharding.Mesh(
    np.array(jax.devices()[:8]).reshape(4, 2), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2
)


WHOLE = PartitionSpec()


def compiled(function, *arguments, out=WHOLE):
    """Returns the text of `function` over [shape, spec] arguments, its result laid out as `out`."""
    abstract = [
        jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(MESH, spec))
        for shape, spec in arguments
    ]
    jitted = jax.jit(function, out_shardings=NamedSharding(MESH, out))
    return jitted.lower(*abstract).compile().as_text()


def test_a_sum_over_all_devices_is_one_all_reduce():
    text = compiled(lambda x: jnp.sum(x, 0), ((16, 32), PartitionSpec(("data", "fsdp"))))
    (found,) = collectives(text)
    assert found.kind == "all-reduce"
    assert found.arrays == (hlo.Array("f32", (32,)),)
    assert (found.times, found.known) == (1, True)
    assert found.bytes == 32 * 4
    assert found.group_size in (0, 8)
    assert found.sent(8) == pytest.approx(2 * 7 / 8 * 128)


def test_groups_are_those_of_the_mesh_axis():
    text = compiled(lambda x: jnp.sum(x, 0), ((16, 32), PartitionSpec("fsdp")))
    (found,) = collectives(text)
    assert found.groups == ((0, 1), (2, 3), (4, 5), (6, 7))
    text = compiled(lambda x: jnp.sum(x, 0), ((16, 32), PartitionSpec("data")))
    (found,) = collectives(text)
    assert found.groups == ((0, 2, 4, 6), (1, 3, 5, 7))


def test_gathering_counts_the_whole_array():
    text = compiled(lambda x: x * 2, ((16, 32), PartitionSpec("data")))
    (found,) = collectives(text)
    assert found.kind == "all-gather"
    assert found.bytes == 16 * 32 * 4
    assert found.group_size == 4


def test_a_collective_in_a_scan_counts_once_a_round():
    def function(x, weights):
        def body(h, w):
            w = jax.lax.with_sharding_constraint(w, NamedSharding(MESH, PartitionSpec()))
            return jnp.tanh(h @ w), None

        return jax.lax.scan(body, x, weights)[0]

    text = compiled(
        function,
        ((8, 16), PartitionSpec("data")),
        ((5, 16, 16), PartitionSpec(None, "fsdp")),
        out=PartitionSpec("data"),
    )
    gathered = [one for one in collectives(text) if one.kind == "all-gather"]
    assert totals(gathered)["all-gather"] == (5, 5 * 16 * 16 * 4)
    assert all(one.known for one in gathered)


def test_a_permutation_has_senders_and_receivers():
    def function(x):
        return jax.shard_map(
            lambda part: jax.lax.ppermute(part, "data", [(0, 1), (1, 2), (2, 3)]),
            mesh=MESH,
            in_specs=PartitionSpec("data"),
            out_specs=PartitionSpec("data"),
        )(x)

    spec = PartitionSpec("data")
    (found,) = collectives(compiled(function, ((8, 4), spec), out=spec))
    assert found.kind == "collective-permute"
    assert found.bytes == found.sent(8) == 2 * 4 * 4
    assert (0, 2) in found.groups


def test_scattered_sums_count_what_is_summed():
    def function(x):
        return jax.shard_map(
            lambda part: jax.lax.psum_scatter(part, "data", scatter_dimension=1, tiled=True),
            mesh=MESH,
            in_specs=PartitionSpec("data"),
            out_specs=PartitionSpec("data", None),
        )(x)

    (found,) = collectives(compiled(function, ((4, 16), PartitionSpec("data"))))[:1]
    assert found.kind == "reduce-scatter"
    assert found.bytes == 16 * 4
    assert found.sent(8) == pytest.approx(3 / 4 * 16 * 4)


TPU_TEXT = """\
HloModule jit_step, is_scheduled=true, entry_computation_layout={(f32[8]{0})->f32[8]{0}}

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[]{:T(128)} parameter(0)
  %b = f32[]{:T(128)} parameter(1)
  ROOT %sum = f32[]{:T(128)} add(%a, %b)
}

%scatter (p: f32[64,128]) -> f32[32,128] {
  %p = f32[64,128]{1,0:T(8,128)} parameter(0)
  %all = f32[64,128]{1,0:T(8,128)S(1)} all-reduce(%p), replica_groups=[2,2]<=[4], to_apply=%add
  ROOT %half = f32[32,128]{1,0:T(8,128)} dynamic-slice(%all), dynamic_slice_sizes={32,128}
}

%body (state: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %state = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)(2,1)}) parameter(0)
  %g = (bf16[4,128]{1,0:T(8,128)(2,1)}, bf16[8,128]{1,0:T(8,128)(2,1)}) all-gather-start(%w), \
channel_id=1, replica_groups=[2,2]<=[2,2]T(1,0), dimensions={0}
  %gd = bf16[8,128]{1,0:T(8,128)(2,1)} all-gather-done(%g)
  %fused = f32[32,128]{1,0:T(8,128)} fusion(%x), kind=kCustom, calls=%scatter
  ROOT %t = (s32[]{:T(128)}, /*index=1*/f32[8,128]{1,0:T(8,128)}) tuple(%i, %h)
}

%condition (state.1: (s32[], f32[8,128])) -> pred[] {
  ROOT %lt = pred[]{:T(512)} compare(%i, %n), direction=LT
}

%to_six (state.2: (s32[], f32[8,128])) -> pred[] {
  %state.2 = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %six = s32[]{:T(256)} constant(6)
  %count = s32[]{:T(256)} get-tuple-element(%state.2), index=0
  ROOT %below = pred[]{:T(1024)} compare(%count, %six), direction=LT, metadata={op_name="a/lt"}
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8]{0:T(128)} parameter(0)
  %loop = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) while(%init), condition=%condition, \
body=%body, backend_config={"known_trip_count":{"n":"24"},"flag_configs":[]}
  %counted = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) while(%init), condition=%to_six, body=%body
  %endless = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) while(%init), condition=%condition, \
body=%body
  %two = (f32[16]{0:T(128)}, f32[4,4]{1,0:T(8,128)}) all-reduce-start(%x, %y), \
replica_groups={{0,1,2,3}}, to_apply=%add
  ROOT %done = (f32[16]{0:T(128)}, f32[4,4]{1,0:T(8,128)}) all-reduce-done(%two)
}
"""


def test_what_tpus_write_is_read():
    found = collectives(TPU_TEXT)
    gathers = [one for one in found if one.kind == "all-gather"]
    assert [(one.times, one.known) for one in gathers] == [(24, True), (6, True), (1, False)]
    assert gathers[0].arrays == (hlo.Array("bf16", (8, 128)),)
    assert gathers[0].groups == ((0, 2), (1, 3))
    last = found[-1]
    assert last.bytes == (16 + 16) * 4
    assert last.group_size == 4
    assert len(found) == 7


def test_a_gather_that_goes_on_beside_other_work_is_one_message():
    def line(name, flag):
        return (
            f"  %{name} = bf16[32,128]{{1,0:T(8,128)(2,1)}} all-gather(%x), channel_id=21, "
            "replica_groups=[8,32]<=[256], dimensions={0}, "
            f'backend_config={{"flag_configs":[],"async_collective_fusion_config":'
            f'{{"flag_start":"{flag}","flag_end":"{flag}"}}}}\n'
        )

    text = "ENTRY %main (x: bf16[1,128]) -> bf16[32,128] {\n"
    text += "  %x = bf16[1,128]{1,0:T(8,128)} parameter(0)\n"
    text += line("begun", -1) + line("beside", 2) + line("beside.1", 12) + line("last", 8)
    found = collectives(text + "}\n")
    assert [(one.kind, one.bytes) for one in found] == [("all-gather", 32 * 128 * 2)]


def test_messages_between_slices_are_told_from_those_within():
    def over(*groups):
        return Collective("all-reduce", (hlo.Array("f32", (4,)),), groups, 1, True)

    assert not over((0, 1), (2, 3)).crosses(devices=4, slices=2)
    assert over((0, 2), (1, 3)).crosses(devices=4, slices=2)
    assert over().crosses(devices=4, slices=2)
    assert not over().crosses(devices=4, slices=1)


def test_a_text_without_an_entry_is_refused():
    with pytest.raises(ValueError, match="ENTRY"):
        collectives("HloModule nothing")


def test_arrays_of_a_nested_tuple():
    shape = "((bf16[4,128]{1,0:T(8,128)(2,1)}, s32[]), f8e4m3fn[2,3], token[])"
    assert [array.bytes for array in hlo.arrays(shape)] == [1024, 4, 6, 0]
    assert hlo.elements(shape)[1] == "f8e4m3fn[2,3]"


@pytest.mark.parametrize(
    ("attributes", "groups"),
    [
        ("replica_groups={{0,2},{1,3}}", ((0, 2), (1, 3))),
        ("replica_groups=[2,2]<=[4]", ((0, 1), (2, 3))),
        ("replica_groups=[2,2]<=[2,2]T(1,0)", ((0, 2), (1, 3))),
        ("replica_groups=mesh['a'=2,'b'=2] {'a'}", ((0, 2), (1, 3))),
        ("replica_groups=mesh['a'=2,'b'=2] {'a','b'}", ((0, 1, 2, 3),)),
        ("replica_groups=mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'a'}", ((0, 1), (2, 3))),
        ("replica_groups=mesh['a'=8] {'a':(2)2}", ((0, 2), (1, 3), (4, 6), (5, 7))),
        ("source_target_pairs={{0,1},{1,0}}", ((0, 1), (1, 0))),
        ("replica_groups={}", ()),
    ],
)
def test_every_way_of_writing_groups(attributes, groups):
    text = f"ENTRY %m (x: f32[4]) -> f32[4] {{\n  %r = f32[4] all-reduce(%x), {attributes}\n}}"
    (found,) = collectives(text)
    assert found.groups == groups
