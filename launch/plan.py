"""Plans one job for the launchers: plan.py LAUNCHER FOLDER EXPERIMENT[:SCALE] ARGUMENT...

Checks the command line, writes what is sent and submitted into FOLDER and prints the plan as
assignments for a shell. With --help in place of FOLDER it prints the launcher's options.
"""

import hashlib
import re
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import manifest
import shipping
from options import Mistake, Values, describe, parse

ROOT = Path(__file__).resolve().parents[1]
# ConfigMaps hold 1 MiB, in which an archive takes a third more than its size.
MOST_BYTES_IN_CLUSTER = 700_000


def default_name(experiment: str, scale: str) -> str:
    """Returns a name that clouds accept: lower-case letters, digits and hyphens, 40 at most."""
    name = re.sub(r"[^a-z0-9]+", "-", f"{Path(experiment).stem}{scale}".lower()).strip("-")
    return re.sub(r"^[^a-z]", "job-", name)[:40].rstrip("-")


def accelerator(launcher: str, values: Values) -> str:
    """Returns what the workers' environment is made for."""
    if launcher == "slurm":
        return "cuda" if int(str(values["gpus-per-node"])) else "cpu"
    return "cuda" if values.get("gpu-type") else "tpu"


def supervision(launcher: str, values: Values) -> list[str]:
    """Returns the options of supervise.sh; it only passes signals on where a cluster restarts."""
    if launcher == "tpu_vm":
        return ["--restarts", str(values["restarts"]), "--backoff", str(values["backoff"])]
    return ["--restarts", "0"]


def plan(launcher: str, folder: Path, target: str, arguments: Sequence[str]) -> dict[str, object]:
    """Writes the job's files into `folder` and returns the values that the launcher works with."""
    values, program = parse(launcher, arguments)
    experiment, _, scale = target.partition(":")
    scale = scale and f":{scale}"
    name = str(values["name"]) or default_name(experiment, scale)
    commit, code = shipping.choose_code(ROOT, str(values["code"]))
    here = launcher == "slurm"  # the workers see the submitting machine's files
    path = Path(experiment).resolve()
    inside = path.is_relative_to(ROOT)
    job = shipping.Job(
        name=name,
        experiment=path.relative_to(ROOT).as_posix() if inside else path.name,
        scale=scale,
        arguments=program,
        accelerator=accelerator(launcher, values),
        supervision=supervision(launcher, values),
        code=code,
        commit=None if here else commit,
        folder=str(Path.cwd()) if here else "",
        any_python=not here,
    )
    archive = folder / "job.tar.gz"
    names = shipping.pack(ROOT, archive, job, path)
    (folder / "job.sh").write_text(shipping.job_script(job))
    (folder / "contents.txt").write_text("".join(f"{name}\n" for name in names))
    job_folder = str(Path.cwd() / "runs" / "slurm" / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}")
    if launcher == "gke":
        _check_size(archive)
        text = manifest.jobset((ROOT / "launch/gke_jobset.yaml").read_text(), name, values)
        (folder / "jobset.yaml").write_text(text)
    if launcher == "slurm":
        text = manifest.sbatch((ROOT / "launch/slurm.sbatch").read_text(), name, job_folder, values)
        (folder / "job.sbatch").write_text(text)
    return {
        **{key.replace("-", "_"): value for key, value in values.items()},
        "name": name,
        "target": target,
        "program": program,
        "code": code,
        "accelerator": job.accelerator,
        "digest": hashlib.sha256(archive.read_bytes()).hexdigest()[:16],
        "job_folder": job_folder,
    }


def _check_size(archive: Path) -> None:
    size = archive.stat().st_size
    if size > MOST_BYTES_IN_CLUSTER:
        raise Mistake(
            f"the archive of the code has {size:,} bytes and a cluster takes at most "
            f"{MOST_BYTES_IN_CLUSTER:,}: push the code and use --code=commit"
        )


def main(arguments: Sequence[str]) -> int:
    """Prints the plan, or the mistake, and returns the exit code."""
    launcher, folder, *rest = arguments
    if folder == "--help":
        print(describe(launcher))
        return 0
    try:
        values = plan(launcher, Path(folder), rest[0], rest[1:])
    except Mistake as mistake:
        print(f"launch: {mistake}", file=sys.stderr)
        return 2
    for key, value in values.items():
        if isinstance(value, list):
            print(f"{key}=({shlex.join(value)})")
        else:
            print(f"{key}={shlex.quote(str(value))}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
