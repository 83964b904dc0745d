"""The table of chips: names JAX gives to devices, and metrics that must agree with each other."""

import jax
import pytest

from mobilebert_jax.sharding.chips import CHIPS, chip_of


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("TPU v2", "v2"),
        ("TPU v4", "v4"),
        ("TPU v5 lite", "v5e"),
        ("TPU v5", "v5p"),
        ("TPU v6 lite", "v6e"),
        ("TPU7x", "7x"),
        ("NVIDIA A100-SXM4-80GB", "a100-80gb"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"),
    ],
)
def test_device_kinds_name_their_chip(kind, name):
    chip = chip_of(kind)
    assert chip is CHIPS[name]


@pytest.mark.parametrize("kind", ["cpu", "", "NVIDIA H100 PCIe", "NVIDIA H200 NVL", "TPU v4 lite"])
def test_what_is_not_in_the_table_has_no_peak(kind):
    assert chip_of(kind) is None


def test_this_machine_has_no_accelerator():
    assert chip_of(jax.devices()[0].device_kind) is None


def test_a_device_has_its_share_of_a_chip():
    v3 = CHIPS["v3"]
    assert v3.peak_flops_per_device == pytest.approx(61.5e12)
    assert v3.memory_per_device == pytest.approx(15.48 * 2**30)
    assert CHIPS["h200"].memory_per_device == CHIPS["h200"].memory
    assert CHIPS["v4"].peak_flops_per_device == CHIPS["v4"].peak_flops


def test_programs_may_use_nearly_all_memory():
    for chip in CHIPS.values():
        assert 0.9 * chip.memory < chip.memory_per_device * chip.devices < 1.02 * chip.memory


@pytest.mark.parametrize(
    ("name", "matrix_units", "width"),
    [
        ("v2", 2, 128),
        ("v3", 4, 128),
        ("v4", 8, 128),
        ("v5e", 4, 128),
        ("v5p", 8, 128),
        ("v6e", 4, 256),
    ],
)
def test_peaks_follow_from_clock_and_matrix_units(name, matrix_units, width):
    chip = CHIPS[name]
    assert chip.clock is not None
    peak = chip.clock * matrix_units * width * width * 2
    assert chip.peak_flops == pytest.approx(peak, rel=0.01)
