"""Several JAX devices on one CPU, each with its share of the cores."""

import ctypes
import os
import platform

import jax

M_ARENA_MAX = -8
"""The name of `mallopt` for what the variable MALLOC_ARENA_MAX sets, from malloc.h of glibc."""
ARENAS_PER_CORE = 8
"""As glibc has by itself where the variable is not set."""


def divide(devices: int) -> None:
    """Has a CPU's cores work as `devices` devices, unless XLA_FLAGS says how many.

    One device is what JAX has by itself: then everything stays as it is.
    """
    if devices == 1:
        return
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", devices)
    _give_arenas()


def _give_arenas() -> None:
    """Gives threads of several devices arenas of their own in the C library's memory.

    `launch/run.sh` sets one arena, which keeps the large arrays of a wide network from one step to
    the next. The thousands of small pieces that every step of a narrow network takes then wait for
    the lock of that arena, for a third of the step. Another number than 1 was chosen by the user.
    """
    if os.environ.get("MALLOC_ARENA_MAX") == "1" and platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, ARENAS_PER_CORE * (os.cpu_count() or 1))
