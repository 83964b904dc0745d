"""What the makers of accelerators say of their chips: the metrics utilisation is measured against.

One row a chip, not a JAX device: TPU v2, v3 and 7x show two devices (TensorCores) a chip. Dense
bfloat16 peaks. Interconnect is what one chip can send over all its links of a slice or NVLink
domain at once, in one direction; makers state both directions together, hence half of theirs.

Sources:
  TPU v2, v3   Norrie et al., "The Design Process for Google's Training Chips: TPUv2 and TPUv3"
               (IEEE Micro 2021); docs.cloud.google.com/tpu/docs/v2 and v3
  TPU v4       Jouppi et al., "TPU v4" (ISCA 2023), table 4, also for the links of v3;
               docs.cloud.google.com/tpu/docs/v4
  TPU v5e ...  docs.cloud.google.com/tpu/docs/v5e, v5p, v6e, tpu7x
  NVIDIA       data sheets of A100, H100, H200 (SXM) and of DGX A100, H100, H200, B200
"""

import dataclasses

_GIB = 2.0**30
_TERA = 1e12
_GIGA = 1e9


@dataclasses.dataclass(frozen=True)
class Chip:
    """Figures of one chip, in FLOP/s, bytes, bytes/s and Hz."""

    name: str
    peak_flops: float
    """Dense bfloat16 matrix multiplications."""
    memory: float
    memory_bandwidth: float
    interconnect: float
    """Sent by one chip to the others of its slice or NVLink domain, one direction, all links."""
    host_network: float
    """Sent by one host to others over the data-centre network, one direction."""
    devices: int
    """JAX devices that one chip shows."""
    chips_per_host: int
    clock: float | None = None
    """Of the TensorCore; None where no compiler reports cycles. It follows from the peak and the
    number of matrix units."""
    usable: float | None = None
    """Memory of one device that the TPU compiler lets a program use, as libtpu 0.0.42 says."""

    @property
    def peak_flops_per_device(self) -> float:
        return self.peak_flops / self.devices

    @property
    def memory_per_device(self) -> float:
        return self.usable or self.memory / self.devices


def _chip(
    name: str,
    tera_flops: float,
    memory: float,
    bandwidth: float,
    interconnect: float,
    network: float,
    devices: int = 1,
    chips_per_host: int = 4,
    clock: float | None = None,
    usable: float | None = None,
) -> Chip:
    return Chip(
        name,
        tera_flops * _TERA,
        memory,
        bandwidth * _GIGA,
        interconnect * _GIGA,
        network * _GIGA,
        devices,
        chips_per_host,
        clock,
        None if usable is None else usable * _GIB,
    )


# Assumed, since no page states it: hosts of v2 and v3 have the 32 Gbit/s of their machine type,
# hosts of v4 the 50 Gbit/s a chip that v5p's have.
CHIPS: dict[str, Chip] = {
    chip.name: chip
    for chip in (
        _chip("v2", 46, 16 * _GIB, 700, 4 * 62, 4, devices=2, clock=0.70e9, usable=7.48),
        _chip("v3", 123, 32 * _GIB, 900, 4 * 70, 4, devices=2, clock=0.94e9, usable=15.48),
        _chip("v4", 275, 32 * _GIB, 1200, 6 * 50, 25, clock=1.05e9, usable=30.75),
        _chip("v5e", 197, 16 * _GIB, 819, 200, 25, chips_per_host=8, clock=1.50e9, usable=15.75),
        _chip("v5p", 459, 95 * _GIB, 2765, 600, 25, clock=1.75e9, usable=95.74),
        _chip("v6e", 918, 32 * _GIB, 1638, 400, 100, chips_per_host=8, clock=1.75e9, usable=31.25),
        _chip("7x", 2307, 192 * _GIB, 7380, 600, 50, devices=2, clock=2.20e9, usable=94.75),
        # Eight GPUs a host with one network card each: 200 Gbit/s beside A100, 400 beside others.
        _chip("a100-40gb", 312, 40e9, 1555, 300, 200, chips_per_host=8),
        _chip("a100-80gb", 312, 80e9, 2039, 300, 200, chips_per_host=8),
        _chip("h100", 989, 80e9, 3350, 450, 400, chips_per_host=8),
        _chip("h200", 989, 141e9, 4800, 450, 400, chips_per_host=8),
        _chip("b200", 2250, 180e9, 7700, 900, 400, chips_per_host=8),
    )
}

_NAME_OF_KIND = {
    "TPU v2": "v2",
    "TPU v3": "v3",
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v5": "v5p",
    "TPU v5p": "v5p",
    "TPU v6 lite": "v6e",
    "TPU v6e": "v6e",
    "TPU7x": "7x",
    "NVIDIA A100-SXM4-40GB": "a100-40gb",
    "NVIDIA A100-SXM4-80GB": "a100-80gb",
    "NVIDIA H100 80GB HBM3": "h100",
    "NVIDIA H200": "h200",
    "NVIDIA B200": "b200",
}
"""Exact names only: a PCIe card, or a part of a card, is slower than its namesake."""


def chip_of(device_kind: str) -> Chip | None:
    """Returns the chip that `jax.Device.device_kind` names; None for any other, a CPU included."""
    name = _NAME_OF_KIND.get(device_kind)
    return None if name is None else CHIPS[name]
