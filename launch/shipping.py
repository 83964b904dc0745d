"""What is sent to the workers: the code, as a commit or as an archive, and the job's command."""

import gzip
import io
import shlex
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from options import Mistake

FOLDERS = ("launch", "experiments", "mobilebert_jax")


@dataclass(frozen=True)
class Commit:
    """Code that a worker fetches by itself."""

    url: str
    digest: str


def choose_code(root: Path, how: str) -> tuple[Commit | None, str]:
    """Returns the commit to fetch, or None for an archive, and a sentence that says which and why.

    Raises Mistake where a commit is asked for and would not be the working tree.
    """
    if how == "archive":
        return None, "an archive of the working tree, as asked for"
    try:
        commit = _clean_commit(root)
    except Mistake as reason:
        if how == "commit":
            raise Mistake(f"--code commit is not possible: {reason}") from reason
        return None, f"an archive of the working tree, uncommitted changes included: {reason}"
    if how == "auto" and not commit.url.startswith("https://"):
        return None, f"an archive of the working tree: the workers hold no key for {commit.url}"
    return commit, f"commit {commit.digest} of {commit.url}"


def _clean_commit(root: Path) -> Commit:
    """Returns HEAD, or raises Mistake saying why a worker could not have the same files."""
    try:
        top = _git(root, "rev-parse", "--show-toplevel")
    except (OSError, subprocess.CalledProcessError):
        raise Mistake(f"{root} is not a git repository") from None
    if Path(top).resolve() != root.resolve():
        raise Mistake(f"{root} is not the root of its git repository")
    changed = _git(root, "status", "--porcelain").splitlines()
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise Mistake(f"there are uncommitted changes ({changed[0][3:]}{more})")
    remotes = _git(root, "remote").splitlines()
    if not remotes:
        raise Mistake("the repository has no remote")
    remote = "origin" if "origin" in remotes else remotes[0]
    digest = _git(root, "rev-parse", "HEAD")
    branches = _git(root, "branch", "--remotes", "--contains", digest).split()
    if not any(name.startswith(f"{remote}/") for name in branches):
        raise Mistake(f"commit {digest[:10]} has not been pushed to {remote}")
    url = _git(root, "remote", "get-url", remote)
    if urlsplit(url).password:
        raise Mistake(f"the address of {remote} holds a password, which must not be sent around")
    return Commit(url, digest)


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.rstrip("\n")


def code_files(root: Path) -> Iterator[Path]:
    """Yields the files that a worker needs, relative to `root`, in a fixed order."""
    found = [*root.glob("requirements*.txt"), *root.glob("pyproject.toml")]
    for folder in FOLDERS:
        found += (root / folder).rglob("*")
    for path in sorted(found):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(root)


@dataclass(frozen=True)
class Job:
    """The command of a job, as it is run on every worker."""

    name: str
    experiment: str
    """Path relative to the code, or the file name of one that is sent along."""
    scale: str
    arguments: Sequence[str]
    accelerator: str
    supervision: Sequence[str]
    """Options of supervise.sh."""
    code: str
    """Sentence saying where the code comes from."""
    commit: Commit | None
    folder: str = ""
    """Where to run; the code's own folder if empty."""
    any_python: bool = False
    """Whether a worker without a fit Python may install one."""


def job_script(job: Job) -> str:
    """Returns the file job.sh: it makes the code complete and replaces itself by the command.

    The command is in a file, and not on a command line that several shells take apart in turn.
    """
    lines = [
        "#!/usr/bin/env bash",
        f"# Job {job.name}. The code is {job.code}.",
        "set -euo pipefail",
        'here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)',
        'cd -- "$here"',
    ]
    if job.commit:
        url, digest = shlex.quote(job.commit.url), job.commit.digest
        lines += [
            "git init --quiet .",
            f"git fetch --quiet --force {url} '+refs/heads/*:refs/remotes/origin/*'",
            f"git checkout --quiet --force --detach {digest}",
        ]
    if job.any_python:
        lines += ["PYTHON=$(bash launch/worker_python.sh)", "export PYTHON"]
    if job.accelerator:
        lines.append(f"export ACCELERATOR={job.accelerator}")
    if job.folder:
        # .venv is a link to that of the repository, whose code must not be taken in place of this.
        lines += ['export PYTHONPATH="$here"', f"cd -- {shlex.quote(job.folder)}"]
    command = [
        'exec bash "$here/launch/supervise.sh"',
        f"{shlex.join(job.supervision)} --",
        'bash "$here/launch/run.sh"',
        f'"$here"/{shlex.quote(job.experiment + job.scale)}',
        *(shlex.quote(argument) for argument in job.arguments),
        '"$@"',
    ]
    return "\n".join([*lines, " \\\n  ".join(command), ""])


def pack(root: Path, archive: Path, job: Job, experiment: Path) -> list[str]:
    """Writes job.sh, the experiment and, without a commit to fetch, the code.

    Equal contents make equal bytes. Returns the names in the archive.
    """
    contents: dict[str, bytes] = {"job.sh": job_script(job).encode()}
    if not job.commit:
        contents |= {path.as_posix(): (root / path).read_bytes() for path in code_files(root)}
    contents.setdefault(job.experiment, experiment.read_bytes())
    with (
        archive.open("wb") as file,
        gzip.GzipFile(fileobj=file, mode="wb", filename="", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o755 if name.endswith(".sh") else 0o644
            tar.addfile(info, io.BytesIO(content))
    return list(contents)
