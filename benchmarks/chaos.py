"""Kills a whole experiment at random, restarts it, and compares its end with an unbroken run.

    .venv/bin/python -m benchmarks.chaos --folder /tmp/chaos --kills 20

Both runs are started as a user starts them, with the same settings, at the same time. The kills
are SIGKILLs to all processes of the run, at instants drawn anew at every start. The result is
printed and written to FOLDER/chaos.json: the SHA-256 of every stage's final parameters in both
runs, and where each kill hit.
"""

import argparse
import json
import os
import platform
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import jax

ROOT = Path(__file__).resolve().parents[1]


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
    """Waits for a run that is not to be killed."""
    code = process.wait()
    if code:
        raise SystemExit(f"the run in {folder} ended with {code}; see {folder}/log.txt")


def killed(
    experiment: str, folder: Path, settings: list[str], kills: int, mean: float, seed: int
) -> list[str]:
    """Starts and kills the experiment `kills` times, lets it finish, and says where it was hit."""
    generator, hits = random.Random(seed), list[str]()
    while len(hits) < kills:
        process = start(experiment, folder, settings)
        try:
            process.wait(timeout=generator.uniform(1.0, 2.0 * mean))
            raise SystemExit(
                f"finished after {len(hits)} of {kills} kills; choose a smaller --mean"
            )
        except subprocess.TimeoutExpired:
            hits.append(where(folder))
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        print(f"kill {len(hits)}: {hits[-1]}", flush=True)
    finish(start(experiment, folder, settings), folder)
    return hits


def main() -> None:
    """Runs both and compares them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", default=str(ROOT / "experiments/progressive_kt.py"))
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--mean", type=float, default=40.0, help="mean seconds from start to kill")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)))
    arguments, settings = parser.parse_known_args()
    settings = ["--config.execution.checkpoint_every=25", *settings]
    whole, broken = arguments.folder / "unbroken", arguments.folder / "killed"
    reference = start(arguments.experiment, whole, settings)
    began = time.monotonic()
    hits = killed(
        arguments.experiment, broken, settings, arguments.kills, arguments.mean, arguments.seed
    )
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
        "kills": hits,
        "seconds": took,
        "unbroken": digests[0],
        "killed": digests[1],
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
