"""Sides of a comparison take turns, each in a process of its own.

Sides alternate, so that a slow spell of the machine meets all; a round is a run that is not
counted, because another side has just had the caches, and one or several that are.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from mobilebert_jax.sharding.cpu_features import multiplies_bfloat16

OURS, ROUNDED = "ours", "ours, products in bfloat16"
SHIPPED, SAME, AUTOCAST = "pytorch", "pytorch, our memory settings", "pytorch, bfloat16 autocast"
RATIOS = (
    (SHIPPED, OURS),
    (SAME, OURS),
    (SHIPPED, ROUNDED),
    (SAME, ROUNDED),
    (AUTOCAST, ROUNDED),
)

STEADY = 1.5
"""Largest slowest/fastest round of a side at which its median is taken for a property of the code.
PyTorch's threads wait for each other many times a step: where another process holds a core, its
steps were seen to take 20 times as long while ours took twice as long."""

MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "1099511627776",
}
"""What launch/run.sh sets on a CPU."""

Step = Callable[[], None]


def serve(step: Step, *, runs: int = 1) -> None:
    """In the process of a side: for every line read, runs `step` and prints its seconds.

    Args:
      runs: are counted in a round, which is their average. A run that is not much longer than the
        scheduler's 10 ms takes as long as it does or one slice more, by chance.
    """
    print("ready", flush=True)
    for _ in sys.stdin:
        step()
        start = time.perf_counter()
        for _ in range(runs):
            step()
        print((time.perf_counter() - start) / runs, flush=True)


def compare(module: str, arguments: argparse.Namespace) -> None:
    """Runs all sides, prints a table with the ratios and writes `arguments.out`.

    Args:
      module: starts as the process of a side when it is given `--side NAME`.
      arguments: its command line, with `rounds` and `out`.
    """
    missing = [p for p in ("torch", "transformers") if importlib.util.find_spec(p) is None]
    sides = [OURS, *([ROUNDED] if multiplies_bfloat16() else [])]
    sides += [] if missing else [SHIPPED, SAME, AUTOCAST]
    load = os.getloadavg()[0]
    seconds = _measure(module, sides, arguments.rounds)
    medians = {side: statistics.median(values) for side, values in seconds.items()}
    ratios = {
        f"{port} / {side}": medians[port] / medians[side]
        for port, side in RATIOS
        if port in medians and side in medians
    }
    spread = max(max(values) / min(values) for values in seconds.values())
    about = machine() | {"load_before": load, "load_after": os.getloadavg()[0]}
    print(json.dumps(about))
    for side, values in seconds.items():
        print(
            f"{side:30} median {medians[side]:.4f} s  "
            f"(fastest {min(values):.4f}, slowest {max(values):.4f}, {len(values)} rounds)"
        )
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.2f} (above 1: ours is faster)")
    if missing:
        print(f"{' and '.join(missing)} not installed: ours was timed alone")
    if spread > STEADY:
        print(f"NOT STEADY: a side's slowest round is {spread:.1f} times its fastest")
    if arguments.out:
        settings = {k: v for k, v in vars(arguments).items() if k not in ("out", "side")}
        report = {"machine": about, "settings": settings, "seconds": seconds, "ratios": ratios}
        arguments.out.write_text(json.dumps(report, indent=2) + "\n")


def _start(module: str, side: str) -> subprocess.Popen[str]:
    """Starts the process of a side and waits until it is ready."""
    shipped = {name: value for name, value in os.environ.items() if name not in MEMORY}
    process = subprocess.Popen(
        [sys.executable, "-m", module, *sys.argv[1:], "--side", side],
        env=shipped if side in (SHIPPED, AUTOCAST) else shipped | MEMORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    while (line := process.stdout.readline()) != "ready\n":
        if not line:
            raise SystemExit(f"the process of '{side}' ended; what it said stands above")
    return process


def _measure(module: str, sides: list[str], rounds: int) -> dict[str, list[float]]:
    """Returns seconds of every round; each round runs every side once, in alternating order."""
    processes = {side: _start(module, side) for side in sides}
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for index in range(rounds):
        for side in sides if index % 2 == 0 else reversed(sides):
            asked, said = processes[side].stdin, processes[side].stdout
            assert asked is not None and said is not None
            asked.write("step\n")
            asked.flush()
            seconds[side].append(float(said.readline()))
    for process in processes.values():
        process.communicate()
    return seconds


PACKAGES = ("jax", "jaxlib", "flax", "torch", "transformers")


def machine(packages: tuple[str, ...] = PACKAGES) -> dict[str, Any]:
    """Returns what a reader needs to repeat the measurement, versions of `packages` included."""
    installed = {
        found.metadata["Name"]: found.version for found in importlib.metadata.distributions()
    }
    return {
        "machine": f"{platform.machine()} {platform.system()}",
        "bfloat16": multiplies_bfloat16(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: installed[name] for name in packages if name in installed},
    }
