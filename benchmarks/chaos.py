"""Stops a whole experiment at random, restarts it, and compares its end with an unbroken run.

    .venv/bin/python -m benchmarks.chaos --folder /tmp/chaos --stops 20

Both runs are started as a user starts them, with the same settings, at the same time. At an instant
drawn anew at every start one of `--ways` stops the run:

kill       SIGKILL to all its processes
interrupt  Ctrl-C: SIGINT to all of them, which must end with 42 or 130
full       from then on no process can write a file of more than 4 KiB, as on a full disk; the run
           must end with 2

The result is printed and written to FOLDER/chaos.json: the SHA-256 of every stage's final
parameters in both runs, and where each stop hit.
"""

import argparse
import json
import os
import platform
import random
import resource
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import jax

ROOT = Path(__file__).resolve().parents[1]
WAYS = ("kill", "interrupt", "full")
PATIENCE = 300
"""Seconds in which a stopped run must end."""


def start(experiment: str, folder: Path, settings: list[str]) -> subprocess.Popen[bytes]:
    """Starts the experiment in `folder`, as a session of its own that a kill takes whole."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(folder.parent / "compiled")}
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            ["bash", str(ROOT / "launch/run.sh"), experiment, *settings],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # A shell that runs this in the background has it, and all below it, ignore Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )


def manifests(folder: Path) -> dict[str, dict[str, Any]]:
    """Returns the manifests of the finished stages."""
    found = [json.loads(path.read_text()) for path in folder.glob("runs/*/*/manifest.json")]
    return {manifest["stage"]: manifest for manifest in found}


def where(folder: Path) -> str:
    """Returns the newest unfinished stage, and whether it is being saved."""
    stages = [path for path in folder.glob("runs/*/*/stage.json")]
    open_ones = [path.parent for path in stages if not (path.parent / "manifest.json").exists()]
    if not open_ones:
        return "between stages"
    newest = max(open_ones, key=lambda path: path.stat().st_mtime)
    saving = any((newest / "checkpoints").glob("*.orbax-checkpoint-tmp"))
    return newest.name.split("-")[0] + (", in a save" if saving else "")


def finish(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Waits for a run that is not to be stopped."""
    code = process.wait()
    if code:
        raise SystemExit(f"the run in {folder} ended with {code}; see {folder}/log.txt")


def fill_disk(session: int) -> None:
    """Has no process of a session write a file of more than 4 KiB from now on."""
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if os.getsid(int(folder.name)) == session:
                resource.prlimit(int(folder.name), resource.RLIMIT_FSIZE, (4096, 4096))
        except ProcessLookupError:
            continue


def stop(process: subprocess.Popen[bytes], way: str) -> None:
    """Stops a run in this way, and fails where it does not end as it should."""
    if way == "full":
        fill_disk(process.pid)
    else:
        os.killpg(process.pid, signal.SIGKILL if way == "kill" else signal.SIGINT)
    code = process.wait(PATIENCE)
    # The shell that started the run reports a signal as 128 and its number.
    allowed = {"kill": (-9, 137), "interrupt": (42, 130), "full": (2,)}[way]
    if code not in allowed:
        raise SystemExit(f"stopped by {way}, the run ended with {code} instead of {allowed}")


def stopped(
    experiment: str, folder: Path, settings: list[str], ways: list[str], mean: float, seed: int
) -> list[str]:
    """Starts and stops the experiment once in each way, lets it finish, and says where it was."""
    generator, hits = random.Random(seed), list[str]()
    for way in ways:
        process = start(experiment, folder, settings)
        try:
            process.wait(timeout=generator.uniform(1.0, 2.0 * mean))
            raise SystemExit(
                f"finished after {len(hits)} of {len(ways)} stops; choose a smaller --mean"
            )
        except subprocess.TimeoutExpired:
            hits.append(f"{way}: {where(folder)}")
            stop(process, way)
        print(f"stop {len(hits)}: {hits[-1]}", flush=True)
    finish(start(experiment, folder, settings), folder)
    return hits


def main() -> None:
    """Runs both and compares them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", default=str(ROOT / "experiments/progressive_kt.py"))
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--stops", type=int, default=20)
    parser.add_argument("--ways", default=",".join(WAYS), help="taken in turn")
    parser.add_argument("--mean", type=float, default=40.0, help="mean seconds from start to stop")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)))
    arguments, settings = parser.parse_known_args()
    settings = ["--config.execution.checkpoint_every=25", *settings]
    chosen = arguments.ways.split(",")
    if not set(chosen) <= set(WAYS):
        parser.error(f"--ways={arguments.ways} must be some of {', '.join(WAYS)}")
    ways = [chosen[i % len(chosen)] for i in range(arguments.stops)]
    whole, broken = arguments.folder / "unbroken", arguments.folder / "stopped"
    reference = start(arguments.experiment, whole, settings)
    began = time.monotonic()
    hits = stopped(arguments.experiment, broken, settings, ways, arguments.mean, arguments.seed)
    took = time.monotonic() - began
    finish(reference, whole)
    key = "params_sha256"
    digests = [
        {stage: found[key] for stage, found in manifests(folder).items() if key in found}
        for folder in (whole, broken)
    ]
    result = {
        "machine": platform.processor() or platform.machine(),
        "jax": jax.__version__,
        "seed": arguments.seed,
        "stops": hits,
        "seconds": took,
        "unbroken": digests[0],
        "stopped": digests[1],
        "goodput": {stage: found.get("goodput") for stage, found in manifests(broken).items()},
    }
    (arguments.folder / "chaos.json").write_text(json.dumps(result, indent=1) + "\n")
    for stage, digest in digests[0].items():
        same = "the same" if digests[1].get(stage) == digest else "DIFFERENT"
        print(f"{stage:10} {digest}  {same}")
    if digests[0] != digests[1]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
