"""Names of hardware: both conventions of every TPU, several slices, GPUs, mistakes."""

import importlib.util

import pytest

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.plan import devices
from mobilebert_jax.plan.topology import known_names, parse


@pytest.mark.parametrize(
    ("name", "libtpu", "chips", "device_count"),
    [
        ("v3:8x16", "v3:8x16", 128, 256),
        ("v3-256", "v3:8x16", 128, 256),
        ("v2-8", "v2:2x2", 4, 8),
        ("v4-128", "v4:4x4x4", 64, 64),
        ("v5e-256", "v5e:16x16", 256, 256),
        ("v5litepod-16", "v5e:4x4", 16, 16),
        ("v5p-128", "v5p:4x4x4", 64, 64),
        ("v6e-8", "v6e:2x4", 8, 8),
        ("tpu7x-8", "tpu7x:2x2x1", 4, 8),
        ("V5E-256", "v5e:16x16", 256, 256),
    ],
)
def test_a_slice_by_shape_or_by_the_clouds_name(name, libtpu, chips, device_count):
    topology = parse(name)
    assert (topology.libtpu, topology.chips, topology.devices) == (libtpu, chips, device_count)
    assert topology.slices == 1


def test_several_slices():
    topology = parse("4xv5e:16x16")
    assert (topology.slices, topology.chips_per_slice, topology.chips) == (4, 256, 1024)
    assert topology.hosts_per_slice == 32


def test_a_chip_of_v4_shows_one_device():
    assert dict(parse("v4-8").options) == {"chip_config_name": "megacore"}


def test_gpus_are_grouped_by_host_and_not_compiled_for():
    assert parse("h100x8").slices == 1
    topology = parse("h200x64")
    assert (topology.slices, topology.chips_per_slice, topology.libtpu) == (8, 8, None)
    assert parse("a100-40gbx4").chips == 4
    assert parse("2xh100x8").chips == 16


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("v5e-255", "256 (16x16)"),
        ("v5ee-256", "v5e-256"),
        ("v4:8x16", "4x4x4"),
        ("v3:8x16x1", "8x16"),
        ("h100x12", "h100x16"),
        ("hx8", "nearest is"),
        ("0xv5e-256", "v5e-256"),
        ("", "nearest is"),
    ],
)
def test_a_mistake_names_what_is_valid(name, hint):
    with pytest.raises(InputError) as raised:
        parse(name)
    assert hint in str(raised.value)


def test_every_known_name_is_understood():
    for name in known_names():
        assert parse(name).chips >= 1


def test_a_missing_compiler_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install --no-deps 'libtpu==\d"):
        devices.compile_only(parse("v5e-8"))
