"""The search for settings, with made-up measurements in place of a compiler."""

import dataclasses

import pytest

from mobilebert_jax.config.execution import Execution, Mesh
from mobilebert_jax.config.schema import Config, Distill, Teacher, Transfer
from mobilebert_jax.plan import analytic, job
from mobilebert_jax.plan.suggest import (
    COMPILED_AT_MOST,
    KEPT,
    candidates,
    overrides,
    search,
)
from mobilebert_jax.plan.topology import parse
from mobilebert_jax.sharding import mesh as mesh_lib

TOPOLOGY = parse("v5e-64")
CONFIG = Config(
    teacher=Teacher(batch_size=1024),
    transfer=Transfer(batch_size=512),
    distill=Distill(batch_size=512),
)


def cut_of(mesh, devices):
    return analytic.Cut(*mesh_lib.axis_sizes(mesh, devices))


def estimate(config):
    cut = cut_of(config.execution.mesh, TOPOLOGY.devices)

    def measure(config, stage, layer):
        return analytic.estimate(config, cut, stage, layer)

    return job.make(config, TOPOLOGY, cut, "0,23", measure)


def made_up(memory_factor=1.0, slow=lambda execution: 1.0):
    """Returns a compiler that needs `memory_factor` times the estimated temporaries."""

    def measure(config):
        cut = cut_of(config.execution.mesh, TOPOLOGY.devices)

        def step(config, stage, layer):
            found = analytic.estimate(config, cut, stage, layer)
            memory = dataclasses.replace(
                found.memory, temporaries=memory_factor * found.memory.temporaries
            )
            fits = memory.peak <= TOPOLOGY.chip.memory
            cycles = slow(config.execution) * TOPOLOGY.chip.clock
            return dataclasses.replace(found, memory=memory, fits=fits, cycles=cycles)

        return job.make(config, TOPOLOGY, cut, "0,23", step)

    return measure


def test_candidates_divide_devices_and_batches():
    found = list(candidates(CONFIG, TOPOLOGY))
    assert len(found) == len({one.execution for one in found}) > 20
    for one in found:
        assert TOPOLOGY.devices % one.execution.mesh.fsdp == 0
        assert 512 % (TOPOLOGY.devices * one.execution.micro_batches) == 0
    assert not any(one.execution.micro_batches > 8 for one in found)


def test_pieces_stay_within_a_slice():
    two = parse("2xv5e-4")
    assert {one.execution.mesh.fsdp for one in candidates(CONFIG, two)} == {1, 2, 4}


def test_pieces_divide_the_widths_of_both_networks():
    narrow = dataclasses.replace(
        CONFIG, student=dataclasses.replace(CONFIG.student, intra_bottleneck_size=12)
    )
    assert {one.execution.mesh.fsdp for one in candidates(narrow, TOPOLOGY)} == {1, 2, 4}


def test_pieces_divide_the_widths_of_groups():
    student = dataclasses.replace(CONFIG.student, v_groups=64)
    grouped = dataclasses.replace(CONFIG, student=student)  # of 512 inputs and 128 outputs
    assert {one.execution.mesh.fsdp for one in candidates(grouped, TOPOLOGY)} == {1, 2}


def test_the_fastest_that_fits_comes_first():
    def slow(execution):
        return 0.1 if execution.remat == "dots" else 1.0

    tried = search(CONFIG, TOPOLOGY, estimate, made_up(slow=slow))
    assert len(tried) <= COMPILED_AT_MOST
    assert tried[0].job.fits
    assert tried[0].job.high_s == min(one.job.high_s for one in tried if one.job.fits)


def test_a_refusal_is_learnt_from():
    """A step that needed forty times its estimate is not tried again with as much at a time."""
    tried = search(CONFIG, TOPOLOGY, estimate, made_up(memory_factor=40.0))
    refused = [one for one in tried if not one.job.fits]
    assert refused
    assert tried[0].job.fits
    assert tried[0].config.execution not in [one.config.execution for one in refused]
    by_kind = [(one.config.execution.remat, one.config.execution.teacher_remat) for one in refused]
    assert len(by_kind) == len(set(by_kind))


def test_nothing_fits():
    tried = search(CONFIG, TOPOLOGY, estimate, made_up(memory_factor=1e6))
    assert tried
    assert not any(one.job.fits for one in tried)
    assert len(tried) <= len(KEPT)  # one of each kind of recomputation teaches enough


def test_flags_name_only_what_changes():
    chosen = Execution(mesh=Mesh(fsdp=8), remat="full", micro_batches=2)
    assert overrides(Config(), chosen) == [
        "--config.execution.mesh.fsdp=8",
        "--config.execution.micro_batches=2",
        "--config.execution.remat=full",
    ]
    assert overrides(Config(), Execution()) == []


def test_estimates_grow_with_the_batch_and_shrink_with_pieces():
    whole = analytic.estimate(CONFIG, cut_of(Mesh(), 64), "teacher", None)
    cut = analytic.estimate(CONFIG, cut_of(Mesh(fsdp=8), 64), "teacher", None)
    assert cut.memory.parameters == pytest.approx(whole.memory.parameters / 8)
    assert cut.memory.moments == pytest.approx(whole.memory.moments / 8)
    moments = dataclasses.replace(CONFIG, execution=Execution(fsdp_shard="optimizer_only"))
    only = analytic.estimate(moments, cut_of(Mesh(fsdp=8), 64), "teacher", None)
    assert only.memory.parameters == whole.memory.parameters
    assert only.memory.moments == cut.memory.moments
    state = dataclasses.replace(CONFIG, execution=Execution(fsdp_shard="params_gathered_once"))
    gathering = analytic.estimate(state, cut_of(Mesh(fsdp=8), 64), "teacher", None)
    assert gathering.memory.parameters == cut.memory.parameters
    assert gathering.memory.moments == cut.memory.moments
    assert gathering.memory.temporaries > only.memory.temporaries > cut.memory.temporaries
    parts = dataclasses.replace(CONFIG, execution=Execution(micro_batches=4))
    less = analytic.estimate(parts, cut_of(Mesh(), 64), "distill", None)
    more = analytic.estimate(CONFIG, cut_of(Mesh(), 64), "distill", None)
    assert less.memory.temporaries < more.memory.temporaries
