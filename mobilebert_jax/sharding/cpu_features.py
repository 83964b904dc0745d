"""What the processors of a mesh can do that the compiler does not decide by itself."""

import functools
import platform
from pathlib import Path

import jax

from mobilebert_jax.config.schema import Config

BFLOAT16 = ("amx_bf16", "avx512_bf16")
"""Names under which Linux lists instructions that multiply bfloat16 and add up in float32."""

CPU_LIST = Path("/proc/cpuinfo")


@functools.cache
def multiplies_bfloat16() -> bool:
    """Returns whether this machine's processor has instructions for bfloat16 matmuls.

    False where it is not known, which is everywhere but on Linux.
    """
    if platform.system() != "Linux" or not CPU_LIST.exists():
        return False
    lines = CPU_LIST.read_text().splitlines()
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return any(name in flags for name in BFLOAT16)


def uses_bfloat16_matmuls(config: Config, mesh: jax.sharding.Mesh) -> bool:
    """Returns whether training on `mesh` rounds what it multiplies to bfloat16: where
    `execution.cpu_matmul_dtype` is `bfloat16` or `auto`, and has an effect."""
    return (
        config.execution.cpu_matmul_dtype != "float32"
        and config.precision == "float32"
        and mesh.devices.flat[0].platform == "cpu"
        and multiplies_bfloat16()
    )
