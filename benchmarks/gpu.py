"""Speed of every step on one GPU, beside Hugging Face's PyTorch: one command of ten minutes.

    python -m benchmarks.gpu --records runs/progressive_kt-demo/prepare-DIGEST --out gpu_rows

It needs no network. In this order, each with its share of the time:

    demo     every stage of the demo with few steps; `demo_results.json` is kept
    steps    student, teacher, transfer of layers 0, 11 and 23, and distillation of the published
             job, in bfloat16, at length 128 and 512, each at its fastest batch
    port     Hugging Face's MobileBERT, the student's work at the student's batch
    steps    what has been left, then cuDNN's fused attention, and the student's loop unrolled

`gpu_rows/gpu.json` is written after every measurement. The same command again measures what is
missing; a measurement that ended its process twice is given up. `--tiny` does all of it with tiny
networks, on whatever there is, to rehearse it on a CPU. Docs: docs/performance.md.
"""

import argparse
import datetime
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import gpu_demo, rounds
from benchmarks.gpu_cases import FULL, TINY
from benchmarks.gpu_table import show
from benchmarks.kept_rows import KeptRows

ORDER = (
    ("demo", 130.0),
    ("steps", 240.0),
    ("port", 150.0),
    ("steps", None),
    ("demo", None),
    ("port", None),
)
"""Parts, with the seconds that each has at most, so that the next one has its turn."""

STARTING = 20.0
"""Seconds below which no part is started."""
GRACE = 8.0
"""Seconds between the request to stop and the end of a process."""

PACKAGES = (
    *rounds.PACKAGES,
    "optax",
    "jax-cuda12-plugin",
    "jax-cuda13-plugin",
    "nvidia-cudnn-cu12",
    "nvidia-cudnn-cu13",
    "triton",
)


def main() -> None:
    """Runs the parts in order until time is up, and prints the table."""
    arguments = parse()
    kept = KeptRows(arguments.out / "gpu.json")
    if arguments.part:
        sys.exit(0 if _part(arguments, kept) else 1)
    end = time.time() + arguments.seconds
    call = str(len(kept.rows("calls")))
    kept.keep("calls", call, about())
    done: set[str] = set()
    for part, limit in ORDER:
        left = end - time.time() - GRACE
        if part in done or part not in arguments.parts or left < STARTING:
            continue
        until = time.time() + min(left, limit or left)
        print(f"-- {part}, at most {until - time.time():.0f} s", flush=True)
        if run_part(part, arguments, until, int(call)):
            done.add(part)
    show(KeptRows(arguments.out / "gpu.json"), TINY if arguments.tiny else FULL)
    missing = [part for part in arguments.parts if part not in done]
    if missing:
        print(f"not finished: {', '.join(missing)}; the same command goes on")


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--records", type=Path, help="a finished stage `prepare` of the demo")
    parser.add_argument("--source", default="python_docs", help="the text of these records")
    parser.add_argument("--out", type=Path, default=Path("gpu_rows"), help="folder of the results")
    parser.add_argument("--work", type=Path, help="folder of runs and programs; OUT/work")
    parser.add_argument("--seconds", type=float, default=590.0, help="of the whole command")
    parser.add_argument("--parts", default="demo,steps,port", help="some of these")
    parser.add_argument("--tiny", action="store_true", help="rehearse it with tiny networks")
    for name in ("--part", "--until", "--call"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.work = arguments.work or arguments.out / "work"
    arguments.parts = arguments.parts.split(",")
    unknown = set(arguments.parts) - {part for part, _ in ORDER}
    if unknown:
        parser.error(f"--parts has {sorted(unknown)[0]!r}; there are demo, steps and port")
    if "demo" in arguments.parts:
        records = arguments.records
        if records is None or not (records / "manifest.json").is_file():
            parser.error(
                f"--records {records} is not the folder of a finished stage `prepare`, which is "
                "made by: launch/run.sh experiments/progressive_kt.py --config.stages=prepare "
                "(or leave the demo out: --parts steps,port)"
            )
    return arguments


def about() -> dict[str, Any]:
    """Returns when and on what a call measures."""
    found: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **rounds.machine(PACKAGES),
    }
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv"]
        found["gpu"] = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    return found


def run_part(part: str, arguments: argparse.Namespace, until: float, call: int) -> bool:
    """Runs a part in a process of its own, which ends at `until`; returns whether it is done."""
    kept = KeptRows(arguments.out / "gpu.json")
    if part == "demo":
        if gpu_demo.is_finished(kept):
            return True
        command = gpu_demo.command(
            arguments.records, arguments.source, arguments.work, tiny=arguments.tiny
        )
    else:
        command = [sys.executable, "-m", "benchmarks.gpu", *sys.argv[1:]]
        command += ["--part", part, "--until", str(until), "--call", str(call)]
    code = run_until(command, arguments.work, until)
    if part == "demo":
        gpu_demo.keep(kept, arguments.work, call)
        return gpu_demo.is_finished(kept)
    return code == 0


def run_until(command: list[str], work: Path, until: float) -> int:
    """Runs a command, its programs kept in `work`; asks it to stop at `until`, then makes it."""
    kept_programs = {
        "JAX_COMPILATION_CACHE_DIR": str((work / "compiled").absolute()),
        "TORCHINDUCTOR_CACHE_DIR": str((work / "inductor").absolute()),
    }
    # Batches are to end where the GPU's memory does, not at JAX's usual three quarters of it.
    environment = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.93", **os.environ, **kept_programs}
    process = subprocess.Popen(command, env=environment, process_group=0)
    try:
        for number, patience in ((signal.SIGTERM, until - time.time()), (signal.SIGKILL, GRACE)):
            try:
                return process.wait(timeout=max(patience, 0.0))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, number)
        return process.wait()
    except BaseException:  # Ctrl-C reaches this process alone
        os.killpg(process.pid, signal.SIGKILL)
        raise


def _part(arguments: argparse.Namespace, kept: KeptRows) -> bool:
    """In the process of a part: measures until it is time to stop."""
    scale = TINY if arguments.tiny else FULL

    def stop(number: int, frame: Any) -> None:
        kept.forgive()
        os._exit(128 + number)  # compilers in other threads would be waited for

    signal.signal(signal.SIGTERM, stop)
    until, call = float(arguments.until), int(arguments.call)
    if arguments.part == "port":
        from benchmarks import gpu_port

        return gpu_port.run(kept, scale, until, call)
    from benchmarks import gpu_steps

    return gpu_steps.run(kept, scale, until, call)


if __name__ == "__main__":
    main()
