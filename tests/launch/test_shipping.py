"""What is sent to the workers: a commit only where it is the working tree, otherwise all of it."""

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.launch.conftest import ROOT

sys.path.append(str(ROOT / "launch"))
import options
import plan
import shipping


def git(folder: Path, *arguments: str) -> str:
    """Runs one git command in `folder` and returns what it says."""
    identity = ("-c", "user.name=n", "-c", "user.email=e", "-c", "init.defaultBranch=main")
    command = ["git", *identity, "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def push(root: Path, remote: Path) -> str:
    """Commits all of `root`, pushes it to the new repository `remote`, and returns the commit."""
    (root / ".gitignore").write_text("/.venv*\n__pycache__/\n")
    git(root.parent, "init", "--bare", str(remote))
    git(root, "init")
    git(root, "add", ".")
    git(root, "commit", "-m", "one")
    git(root, "remote", "add", "origin", str(remote))
    git(root, "push", "-u", "origin", "main")
    return git(root, "rev-parse", "HEAD")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small tree with everything that workers need and something that they do not."""
    root = tmp_path / "root"
    for name in ("launch/run.sh", "experiments/a.py", "mobilebert_jax/main.py", "docs/x.md"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "mobilebert_jax/__pycache__").mkdir()
    (root / "mobilebert_jax/__pycache__/main.pyc").write_text("")
    (root / "requirements.txt").write_text("")
    return root


def refused(root: Path) -> str:
    with pytest.raises(options.Mistake) as mistake:
        shipping.choose_code(root, "commit")
    return str(mistake.value)


def test_a_folder_without_git_is_sent(root: Path) -> None:
    assert shipping.choose_code(root, "auto")[0] is None
    assert "is not a git repository" in refused(root)


def test_only_what_is_committed_and_pushed_is_fetched(root: Path, tmp_path: Path) -> None:
    digest = push(root, tmp_path / "remote")
    url = str(tmp_path / "remote")
    assert shipping.choose_code(root, "commit")[0] == shipping.Commit(url, digest)
    commit, why = shipping.choose_code(root, "auto")
    assert commit is None and "the workers hold no key" in why
    git(root, "remote", "set-url", "origin", "https://example.org/code.git")
    assert shipping.choose_code(root, "auto")[0] == shipping.Commit(
        "https://example.org/code.git", digest
    )
    assert shipping.choose_code(root, "archive")[0] is None

    (root / "experiments/new.py").write_text("")
    assert "uncommitted changes (experiments/new.py)" in refused(root)
    commit, why = shipping.choose_code(root, "auto")
    assert commit is None and "uncommitted changes included" in why
    git(root, "add", ".")
    git(root, "commit", "-m", "two")
    assert "has not been pushed to origin" in refused(root)
    git(root, "remote", "remove", "origin")
    assert "has no remote" in refused(root)


def test_a_password_in_the_remote_is_not_sent(root: Path, tmp_path: Path) -> None:
    push(root, tmp_path / "remote")
    git(root, "remote", "set-url", "origin", "https://me:secret@example.org")
    commit, why = shipping.choose_code(root, "auto")
    assert commit is None and "holds a password" in why and "secret" not in why


def job(commit: shipping.Commit | None = None) -> shipping.Job:
    return shipping.Job("n", "mine.py", ":small", ("a b",), "tpu", (), "so", commit)


def test_an_archive_holds_what_a_worker_needs(root: Path, tmp_path: Path) -> None:
    own = tmp_path / "mine.py"
    own.write_text("an experiment of the user's")
    archives = [tmp_path / "1.tar.gz", tmp_path / "2.tar.gz"]
    for archive in archives:
        shipping.pack(root, archive, job(), own)
    assert archives[0].read_bytes() == archives[1].read_bytes()
    with tarfile.open(archives[0]) as tar:
        assert sorted(tar.getnames()) == [
            "experiments/a.py",
            "job.sh",
            "launch/run.sh",
            "mine.py",
            "mobilebert_jax/main.py",
            "requirements.txt",
        ]
    fetched = shipping.pack(root, archives[1], job(shipping.Commit("https://x", "d1")), own)
    assert fetched == ["job.sh", "mine.py"]


@pytest.mark.parametrize(
    ("experiment", "scale", "name"),
    [
        ("experiments/progressive_kt.py", ":small", "progressive-kt-small"),
        ("my/2nd try_.py", "", "job-nd-try"),
        ("x" * 60 + ".py", "", "x" * 40),
    ],
)
def test_names_fit_every_cloud(experiment: str, scale: str, name: str) -> None:
    assert plan.default_name(experiment, scale) == name


TPU_VM = ("--zone=z", "--tpu-type=v5litepod-16")
GKE = ("--tpu-type=v5e", "--topology=2x4")
SLURM = ("--gpus-per-node=0", "--time=10")


@pytest.mark.parametrize(
    ("launcher", "arguments", "said"),
    [
        ("tpu_vm", (), "needs --zone, --tpu-type"),
        ("gke", (), "needs --tpu-type, --topology"),
        ("gke", ("--gpus-per-node=8",), "needs --gpu-type"),
        ("gke", (*GKE, "--capacity=reserved"), "needs --reservation"),
        ("gke", (*GKE, "--gpu-type=x"), "exclude each other"),
        ("slurm", (), "needs --gpus-per-node, --time"),
        ("tpu_vm", (*TPU_VM, "--slice=2"), "has no option --slice; the nearest is --slices"),
        ("tpu_vm", (*TPU_VM, "--confg.seed=2"), "the nearest is --config.KEY"),
        ("tpu_vm", (*TPU_VM, "--capacity=spit"), "the nearest is spot"),
        ("tpu_vm", (*TPU_VM, "--slices=none"), "--slices='none' does not fit"),
        ("tpu_vm", (*TPU_VM, "--slices"), "--slices needs a value"),
        ("tpu_vm", (*TPU_VM, "--dry_run"), "use --print"),
        ("tpu_vm", (*TPU_VM, "--process=0"), "set by the launcher"),
        ("tpu_vm", (*TPU_VM, "more"), "unexpected argument 'more'"),
        ("slurm", (*SLURM, "--name=My_Job"), "--name='My_Job' does not fit"),
    ],
)
def test_a_mistake_is_named(launcher: str, arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(options.Mistake) as mistake:
        options.parse(launcher, arguments)
    assert said in str(mistake.value)


def test_options_and_settings_are_told_apart() -> None:
    values, program = options.parse(
        "slurm",
        [
            *SLURM,
            "--config.name=a b",
            "--profile=1:2",
            "--sbatch",
            "--mem=1G",
            "--sbatch=-x",
            "--follow",
        ],
    )
    assert program == ["--config.name=a b", "--profile=1:2"]
    assert values["sbatch"] == ["--mem=1G", "-x"]
    assert values["follow"] == "true"
    assert values["nodes"] == "1"
