"""A CPU as several devices, whose threads do not share one lock for memory."""

import subprocess
import sys

DIVIDED = """
import ctypes, sys, threading
import jax
from mobilebert_jax.sharding import cpu_devices

cpu_devices.divide(int(sys.argv[1]))
libc = ctypes.CDLL(None)
together = threading.Barrier(5)


def take():
    libc.malloc(5000)
    together.wait()


threads = [threading.Thread(target=take) for _ in range(4)]
for thread in threads:
    thread.start()
together.wait()
libc.fopen.restype = ctypes.c_void_p
file = libc.fopen(b"/dev/stdout", b"w")
libc.malloc_info(0, ctypes.c_void_p(file))
libc.fflush(ctypes.c_void_p(file))
print("devices", len(jax.devices()))
"""


def divided(devices: int, **variables: str) -> tuple[int, int]:
    """Returns how many devices and how many arenas a process has."""
    variables = {"JAX_PLATFORMS": "cpu", "PATH": "/usr/bin:/bin"} | variables
    command = [sys.executable, "-c", DIVIDED, str(devices)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    return int(done.stdout.split("devices")[1]), done.stdout.count("<heap nr=")


def test_xla_flags_say_how_many_devices_cores_become() -> None:
    flags = "--xla_force_host_platform_device_count=4"
    assert divided(3, XLA_FLAGS=flags)[0] == 4


def test_threads_of_several_devices_have_arenas_of_their_own() -> None:
    assert divided(1, MALLOC_ARENA_MAX="1") == (1, 1)
    devices, arenas = divided(2, MALLOC_ARENA_MAX="1")
    assert devices == 2
    assert arenas > 2
    assert divided(2, MALLOC_ARENA_MAX="2") == (2, 2), "which the user has chosen"
