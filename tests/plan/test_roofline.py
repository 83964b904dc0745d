"""Step times from hand-made metrics: which of compute, memory and network decides."""

import dataclasses

import pytest

from mobilebert_jax.plan.collectives import Collective
from mobilebert_jax.plan.hlo import Array
from mobilebert_jax.plan.roofline import NETWORK_EFFICIENCY, times
from mobilebert_jax.plan.topology import parse

V5E = parse("v5e-256")
PEAK = V5E.chip.peak_flops * 256


def all_reduce(megabytes, groups=()):
    return Collective("all-reduce", (Array("f32", (int(megabytes * 250_000),)),), groups, 1, True)


def test_compute_alone():
    found = times(V5E, flops=PEAK * 0.1, traffic=0, messages=[], cycles=None, remat="none")
    assert found.low == found.compute == pytest.approx(0.1)
    assert found.high == pytest.approx(0.1 / 0.4)


def test_the_slowest_of_the_three_is_the_least_time():
    found = times(
        V5E,
        flops=PEAK * 0.001,
        traffic=0.2 * V5E.chip.memory_bandwidth,
        messages=[all_reduce(100)],
        cycles=None,
        remat="none",
    )
    assert found.low == found.memory == pytest.approx(0.2)
    assert found.network == pytest.approx(2 * 255 / 256 * 100e6 / 200e9)
    assert found.high > found.memory + found.network + found.compute


def test_a_compilers_estimate_takes_the_place_of_assumed_efficiencies():
    found = times(V5E, PEAK * 0.01, 0, [all_reduce(100)], cycles=1.5e9 * 0.05, remat="full")
    assert found.compiler == pytest.approx(0.05)
    assert found.high == pytest.approx(0.05 + found.network / NETWORK_EFFICIENCY)


def test_recomputation_costs_time_but_is_not_work():
    none, full = (
        times(V5E, PEAK * 0.01, 0, [], cycles=None, remat=remat) for remat in ("none", "full")
    )
    assert full.compute == none.compute
    assert full.high == pytest.approx(none.high * 4 / 3)


def test_two_devices_of_a_chip_share_its_metrics():
    v3 = parse("v3-256")
    found = times(v3, v3.chip.peak_flops * 128, 450e9, [], cycles=None, remat="none")
    assert found.compute == pytest.approx(1.0)
    assert found.memory == pytest.approx(1.0)


def test_what_leaves_a_slice_takes_the_network_between_hosts():
    two = parse("2xv5e-256")
    found = times(two, 0, 0, [all_reduce(1000)], cycles=None, remat="none")
    assert found.between == pytest.approx(2 * 0.5 * 1e9 / (32 * 25e9))
    pairs = tuple((device, device + 1) for device in range(0, 512, 2))
    inside = times(two, 0, 0, [all_reduce(1000, pairs)], cycles=None, remat="none")
    assert inside.between == 0
    assert times(V5E, 0, 0, [all_reduce(1000)], cycles=None, remat="none").between == 0


def test_a_message_in_a_loop_is_sent_every_round():
    once = times(V5E, 0, 0, [all_reduce(10)], cycles=None, remat="none").network
    rounds = dataclasses.replace(all_reduce(10), times=24)
    assert times(V5E, 0, 0, [rounds], cycles=None, remat="none").network == pytest.approx(24 * once)
