"""The launchers of other machines, against stand-ins for gcloud, kubectl and SLURM."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.launch import fake_cluster
from tests.launch.conftest import Repository
from tests.launch.test_shipping import git, push

# Stands in for the program: reports its start, then ends with the next code of the file `exits`.
MAIN = """
import json, os, pathlib, signal, sys, time
if "--dry_run" in sys.argv:
    assert os.environ["JAX_PLATFORMS"] == "cpu"
    if "--config.sed=1" in sys.argv:
        print("error: there is no setting config.sed", file=sys.stderr)
        sys.exit(2)
    sys.exit()
home, task = pathlib.Path.home(), os.environ.get("SLURM_PROCID", "")
print("REPORT" + json.dumps({
    "arguments": sys.argv[1:], "code": __file__, "folder": os.getcwd(), "task": task,
    "accelerator": os.environ["ACCELERATOR"],
}), flush=True)
if (home / "wait").exists():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(42))
    (home / f"up-{task}").touch()
    time.sleep(30)
exits = home / f"exits{task}"
code, *later = exits.read_text().split() if exits.exists() else ["0"]
exits.write_text(" ".join(later or ["0"]))
sys.exit(int(code))
"""
EXPERIMENT = '''"""Sets only where results go."""
import types


def get_config(scale="demo"):
    """Returns the configuration."""
    return types.SimpleNamespace(execution=types.SimpleNamespace(runs_dir="runs"))
'''
# An environment with nothing in it but the way to the code.
MAKE_ENVIRONMENT = """
"$PYTHON" -m venv --without-pip "$venv"
touch "$venv/made-by-launch"
echo ../../../.. >"$(site_packages "$venv")/mobilebert_jax.pth"
fingerprint "$PYTHON" requirements.txt >"$venv/stamp-cpu"
fingerprint "$PYTHON" requirements.txt requirements-tpu.txt >"$venv/stamp-tpu"
"""
HARD = (
    """--config.data.source=text:a b/it's "q" $HOME *.txt $(touch PWNED)""",
    "--config.name=پ \\ `x` ;&|",
)
SHARED = "--config.execution.runs_dir=gs://bucket/runs"
TPU_VM = ("--on", "tpu_vm", "--zone=z", "--tpu-type=v5litepod-16")
GKE = ("--on", "gke", "--tpu-type=v5e", "--topology=2x4", "--slices=2")
SLURM = ("--on", "slurm", "--gpus-per-node=0", "--time=10")
SOON = {"POLL_SECONDS": "0.1"}


def slow(*values: object) -> Any:
    """A case that differs from another only in its codes."""
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A repository with an environment that serves CPU and TPU."""
    repository = Repository(tmp_path_factory.mktemp("ready") / "repository")
    repository.write("mobilebert_jax/main.py", MAIN)
    repository.write("experiments/sets.py", EXPERIMENT)
    repository.write("requirements-tpu.txt", "# nothing more\n")
    made = repository.shell(MAKE_ENVIRONMENT)
    assert made.returncode == 0, made.stderr
    return repository


class Cluster:
    """Two hosts, which find their environment made, and the launcher's view of them."""

    def __init__(self, repository: Repository, folder: Path, make_environments: bool = True):
        self.repository, self.folder = repository, folder
        for index in (0, 1):
            home = folder / f"host-{index}"
            home.mkdir(parents=True)
            if make_environments:
                environment = home / "mobilebert_jax" / ".venv"
                shutil.copytree(
                    repository.root / ".venv", environment, symlinks=True, copy_function=os.link
                )
        self.variables = {
            **SOON,
            "CLUSTER": str(folder),
            "PATH": fake_cluster.install(folder / "programs"),
        }

    def start(self, *arguments: str, where: Path | None = None) -> Any:
        return self.repository.start(
            "run.sh", "sets:small", *arguments, folder=where or self.folder, **self.variables
        )

    def exits(self, *codes: str, prefix: str = "host-{}/exits") -> None:
        """Sets the codes with which the program ends, a line for each process."""
        for index, line in enumerate(codes):
            (self.folder / prefix.format(index)).write_text(line)

    def calls(self, *names: str) -> list[list[str]]:
        return [call for call in fake_cluster.calls(self.folder) if call[0] in names]


@pytest.fixture
def cluster(ready: Repository, tmp_path: Path) -> Cluster:
    return Cluster(ready, tmp_path / "cluster")


@pytest.fixture
def submitter(ready: Repository, tmp_path: Path) -> Cluster:
    """A machine from which jobs are submitted to SLURM, and whose files the nodes see."""
    return Cluster(ready, tmp_path / "cluster", make_environments=False)


def reports(output: str) -> list[dict[str, Any]]:
    """What the program has said of its starts."""
    lines = [line.partition("REPORT") for line in output.splitlines()]
    return [json.loads(report) for _, found, report in lines if found]


# --- the command line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--on", "tpu_wm"), "no launcher 'tpu_wm'; the nearest is tpu_vm"),
        (("--on",), "--on needs one of local, tpu_vm, gke, slurm"),
        (("--on", "gke", "--topolgy=2x4"), "the nearest is --topology"),
        ((*SLURM, "--config.sed=1"), "there is no setting config.sed"),
        ((*TPU_VM, "--delete"), "--delete would delete the results"),
        ((*TPU_VM, "--tpu-type=v9-8"), "give --runtime-version"),
    ],
)
def test_a_mistake_ends_with_2_before_anything_is_asked_for(
    submitter: Cluster, arguments: tuple[str, ...], said: str
) -> None:
    refused = submitter.start(*arguments)
    assert refused.returncode == 2, refused.stderr
    assert said in refused.stderr
    assert not (submitter.folder / "calls.jsonl").exists()


def test_local_is_the_default_and_can_be_shown(submitter: Cluster) -> None:
    named = submitter.start("--on", "local", *HARD)
    assert reports(named.stdout)[0]["arguments"][1:] == list(HARD)
    shown = submitter.start("--print", *HARD)
    assert reports(shown.stdout) == []
    ran = subprocess.run(["bash", "-c", f"printf '%s\\n' {shown.stdout}"], capture_output=True)
    assert ran.stdout.decode().splitlines()[-2:] == list(HARD)


def test_help_lists_the_options(submitter: Cluster) -> None:
    for start in (("sets", "--on", "gke", "--help"), ("--on", "tpu_vm", "--help")):
        shown = submitter.repository.start("run.sh", *start)
        assert shown.returncode == 0, shown.stderr
        assert "--restarts=N" in shown.stdout


@pytest.mark.parametrize(("options", "warns"), [(TPU_VM, True), (GKE, True), (SLURM, False)])
def test_print_shows_all_and_does_nothing(
    submitter: Cluster, options: tuple[str, ...], warns: bool
) -> None:
    """Among it, a warning of results that the hosts would not share."""
    before = sorted(submitter.folder.rglob("*"))
    shown = submitter.start(*options, *HARD, "--print")
    assert shown.returncode == 0, shown.stderr
    assert sorted(submitter.folder.rglob("*")) == before
    assert "==> job.sh in job.tar.gz <==" in shown.stdout
    program = {"tpu_vm": "gcloud", "gke": "kubectl", "slurm": "sbatch"}[options[1]]
    assert fake_cluster.shown(shown.stdout, program)
    assert ("runs_dir=gs://BUCKET/runs" in shown.stderr) == warns


@pytest.mark.slow
def test_a_pushed_commit_is_fetched_by_the_workers(ready: Repository, tmp_path: Path) -> None:
    root = tmp_path / "clone"
    shutil.copytree(ready.root, root, symlinks=True)
    digest = push(root, tmp_path / "remote")
    clone = Repository.__new__(Repository)
    clone.root = root
    cluster = Cluster(clone, tmp_path / "cluster")
    done = cluster.start(*TPU_VM, SHARED, "--code=commit")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"code: commit {digest} of {tmp_path}/remote" in done.stderr
    for index, report in enumerate(sorted(reports(done.stdout), key=lambda r: r["folder"])):
        code = cluster.folder / f"host-{index}/mobilebert_jax"
        assert git(code, "rev-parse", "HEAD") == digest
        assert Path(report["folder"]) == code


# --- Cloud TPU VMs


def test_a_queued_resource_is_made_used_and_deleted(cluster: Cluster) -> None:
    done = cluster.start(*TPU_VM, *HARD, SHARED, "--capacity=spot", "--project=p", "--delete")
    assert done.returncode == 0, done.stdout + done.stderr
    said = reports(done.stdout)
    assert len(said) == 2
    for report in said:
        code = Path(report["folder"])
        assert report["arguments"] == [f"--config={code}/experiments/sets.py:small", *HARD, SHARED]
        assert report["code"] == f"{code}/mobilebert_jax/main.py"
        assert report["accelerator"] == "tpu"
    name, place = "sets-small", ["--zone=z", "--project=p"]
    queue = ["gcloud", "compute", "tpus", "queued-resources"]
    (create,) = [call for call in cluster.calls("gcloud") if "create" in call]
    assert create == [
        *[*queue, "create", name, *place],
        *["--accelerator-type=v5litepod-16", "--runtime-version=v2-alpha-tpuv5-lite"],
        *[f"--node-id={name}", "--spot"],
    ]
    assert cluster.calls("gcloud")[-1] == [*queue, "delete", name, *place, "--force", "--quiet"]
    (ssh,) = [call for call in cluster.calls("gcloud") if "ssh" in call]
    assert ssh[:7] == ["gcloud", "compute", "tpus", "tpu-vm", "ssh", name, "--zone=z"]
    assert "--worker=all" in ssh


@pytest.mark.slow
def test_slices_are_nodes_of_one_queued_resource(cluster: Cluster) -> None:
    assert cluster.start(*TPU_VM, SHARED, "--slices=2", "--capacity=reserved").returncode == 0
    (create,) = [call for call in cluster.calls("gcloud") if "create" in call]
    assert {"--node-count=2", "--node-prefix=sets-small", "--reserved"} <= set(create)
    for verb in ("scp", "ssh"):
        (call,) = [call for call in cluster.calls("gcloud") if verb in call]
        assert call[3] == "queued-resources"
        assert {"--node=all", "--worker=all", "--batch-size=all"} <= set(call)


@pytest.mark.slow
def test_an_existing_one_is_used_and_kept(cluster: Cluster) -> None:
    (cluster.folder / "state").write_text("ACTIVE")
    assert cluster.start(*TPU_VM, SHARED).returncode == 0
    verbs = {call[4] for call in cluster.calls("gcloud")}
    assert verbs == {"describe", "scp", "ssh"}


@pytest.mark.parametrize(
    ("codes", "result"),
    [
        (("139", "2"), 2),
        slow(("0", "3"), 3),
        slow(("42 1", "1"), 1),
        slow(("42 0", "134 0"), 0),
    ],
)
def test_the_worst_code_of_all_hosts_comes_back(
    cluster: Cluster, codes: tuple[str, ...], result: int
) -> None:
    cluster.exits(*codes)
    ended = cluster.start(*TPU_VM, SHARED, "--backoff=0")
    assert ended.returncode == result, ended.stdout + ended.stderr


@pytest.mark.slow
def test_a_spot_machine_is_made_anew(cluster: Cluster) -> None:
    (cluster.folder / "preempt").touch()
    kept = cluster.start(*TPU_VM, SHARED)
    assert kept.returncode == 42
    assert "make it anew with --recreate=N" in kept.stderr
    again = cluster.start(*TPU_VM, SHARED, "--recreate=1")
    assert again.returncode == 0, again.stderr
    verbs = [call[4] for call in cluster.calls("gcloud") if call[4] != "describe"]
    assert verbs == ["create", "scp", "ssh", "delete", "create", "scp", "ssh"]


def test_a_lost_connection_leaves_the_job_alone(cluster: Cluster) -> None:
    """The same command finds the running job; another one does not disturb it."""
    home = cluster.folder / "host-0"
    shutil.rmtree(cluster.folder / "host-1")
    (home / "wait").touch()
    (cluster.folder / "state").write_text("ACTIVE")
    environment = cluster.repository.environment(**cluster.variables)
    first = subprocess.Popen(
        ["bash", str(cluster.repository.root / "launch/run.sh"), "sets:small", *TPU_VM, SHARED],
        cwd=cluster.folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert first.stdout is not None
    assert any("REPORT" in line for line in first.stdout)
    other = cluster.start(*TPU_VM, SHARED, "--config.seed=7")
    assert other.returncode == 2
    assert "another job is running here" in other.stdout
    stopped = cluster.start("--on=tpu_vm", "--zone=z", "--stop")
    assert "asked to save and end" in stopped.stdout
    out, _ = first.communicate(timeout=30)
    assert first.returncode == 42
    assert "ended with exit code 42" in out


@pytest.mark.slow
def test_gclouds_repetition_does_not_start_the_job_again(cluster: Cluster) -> None:
    (cluster.folder / "state").write_text("ACTIVE")
    cluster.exits("3 0", "3 0")
    assert cluster.start(*TPU_VM, SHARED).returncode == 3
    (ssh,) = [call for call in cluster.calls("gcloud") if "ssh" in call]
    command = fake_cluster.option(ssh, "--command")
    home = cluster.folder / "host-0"
    again = subprocess.run(
        ["bash", "-c", command],
        cwd=home,
        env=os.environ | {"HOME": str(home)},
        capture_output=True,
        text=True,
    )
    assert again.returncode == 3
    assert len(reports(again.stdout)) == 1, "the log of the first start"


# --- GKE


def test_a_job_set_runs_on_all_hosts(cluster: Cluster) -> None:
    done = cluster.start(*GKE, *HARD, SHARED, "--namespace=n", "--context=c")
    assert done.returncode == 0, done.stdout + done.stderr
    (report,) = reports(done.stdout)
    code = cluster.folder / "host-0/mobilebert_jax"
    assert report["arguments"] == [f"--config={code}/experiments/sets.py:small", *HARD, SHARED]
    assert report["accelerator"] == "tpu"
    assert len(reports((cluster.folder / "host-1/log").read_text())) == 1
    assert all(call[1:3] == ["--namespace=n", "--context=c"] for call in cluster.calls("kubectl"))


@pytest.mark.parametrize(
    ("codes", "result", "starts"),
    [
        (("42 2", "134 134"), 2, 2),
        slow(("42 0", "134 0"), 0, 2),
        slow(("3 0", "0"), 3, 1),
        slow(("42 42", "137 137"), 42, 2),
        slow(("1", "0"), 1, 1),
    ],
)
def test_exit_codes_decide_about_restarts(
    cluster: Cluster, codes: tuple[str, ...], result: int, starts: int
) -> None:
    cluster.exits(*codes)
    ended = cluster.start(*GKE, SHARED, "--restarts=1")
    assert ended.returncode == result, ended.stdout + ended.stderr
    assert len(reports(ended.stdout)) == starts


def test_a_running_job_set_is_followed(cluster: Cluster) -> None:
    (cluster.folder / "state").write_text(json.dumps({"state": "", "codes": []}))
    left = cluster.start(*GKE, SHARED, "--detach")
    assert left.returncode == 0
    assert "is running already" in left.stderr
    assert not [call for call in cluster.calls("kubectl") if "apply" in call]


# --- SLURM


def test_every_task_runs_and_the_log_comes_back(submitter: Cluster) -> None:
    done = submitter.start(*SLURM, "--nodes=2", *HARD, "--follow", "--partition=p", "--account=a")
    assert done.returncode == 0, done.stdout + done.stderr
    said = sorted(reports(done.stdout), key=lambda report: report["task"])
    assert [report["task"] for report in said] == ["0", "1"]
    (folder,) = (submitter.folder / "runs/slurm").iterdir()
    for report in said:
        assert report["arguments"] == [
            f"--config={folder}/experiments/sets.py:small",
            *HARD,
        ]
        assert report["code"] == f"{folder}/mobilebert_jax/main.py", "not the code submitted"
        assert report["folder"] == str(submitter.folder)
        assert report["accelerator"] == "cpu"
    script = (folder / "job.sbatch").read_text().splitlines()
    assert {"#SBATCH --partition=p", "#SBATCH --account=a", "#SBATCH --time=10"} <= set(script)


def test_a_folder_full_of_shell_is_only_a_folder(submitter: Cluster) -> None:
    folder = submitter.folder / """R&D(1) 'x' "y" $(touch PWNED)`touch PWNED`${IFS}100%j;#"""
    folder.mkdir()
    done = submitter.start(*SLURM, *HARD, "--follow", where=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    (report,) = reports(done.stdout)
    assert report["folder"] == str(folder)
    assert not list(submitter.folder.parent.rglob("PWNED"))


@pytest.mark.parametrize("option", ["partition", "account", "time", "sbatch"])
def test_a_line_feed_adds_no_line_to_the_script(submitter: Cluster, option: str) -> None:
    value = "--mem=1G\ntouch PWNED" if option == "sbatch" else "10\ntouch PWNED"
    refused = submitter.start(*SLURM, f"--{option}={value}")
    assert refused.returncode == 2, refused.stdout + refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (submitter.folder / "calls.jsonl").exists()


def test_gpus_and_other_options_are_asked_for(submitter: Cluster) -> None:
    shown = submitter.start(
        *("--on", "slurm", "--gpus-per-node", "4", "--time", "1:00", "--print"),
        *("--sbatch", "--mem=64G", "--sbatch=--constraint=a100&nvlink"),
    )
    lines = set(shown.stdout.splitlines())
    asked = ("ntasks-per-node=4", "gpus-per-node=4", "mem=64G", "constraint=a100&nvlink")
    assert {f"#SBATCH --{option}" for option in asked} <= lines
    assert "export ACCELERATOR=cuda" in lines


@pytest.mark.slow
def test_the_scripts_of_a_job_are_clean_to_shellcheck(submitter: Cluster) -> None:
    assert shutil.which("shellcheck"), "this test needs the program shellcheck"
    shown = submitter.start(*SLURM, *HARD, "--print").stdout
    for name in ("job.sh in job.tar.gz", "job.sbatch"):
        script = shown.split(f"{name} <==\n")[1].partition("==> end of")[0]
        checked = subprocess.run(["shellcheck", "-"], input=script, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    ("codes", "result", "requeues"),
    [
        (("42 2", "42 134"), 2, 1),
        slow(("42 0", "42 0"), 0, 1),
        slow(("3", "0"), 3, 0),
        slow(("0", "1"), 1, 0),
        slow(("137 137 137", "0"), 137, 2),
    ],
)
def test_an_interruption_is_requeued(
    submitter: Cluster, codes: tuple[str, ...], result: int, requeues: int
) -> None:
    submitter.exits(*codes, prefix="host-0/exits{}")
    ended = submitter.start(*SLURM, "--nodes=2", "--follow", "--restarts=2")
    assert ended.returncode == result, ended.stdout + ended.stderr
    assert len(submitter.calls("scontrol")) == requeues


def test_the_time_limits_signal_saves_and_requeues(submitter: Cluster) -> None:
    (submitter.folder / "terminate").touch()
    (submitter.folder / "host-0/wait").touch()
    ended = submitter.start(*SLURM, "--nodes=2", "--follow", "--restarts=0")
    assert ended.returncode == 42, ended.stdout + ended.stderr
    assert "after SIGTERM; not started again" in ended.stdout


@pytest.mark.slow
def test_a_cancelled_job_does_not_come_back(submitter: Cluster) -> None:
    (submitter.folder / "terminate").write_text("all")
    (submitter.folder / "host-0/wait").touch()
    ended = submitter.start(*SLURM, "--follow")
    assert "the whole job was cancelled or preempted" in ended.stdout
    assert ended.returncode == 1
    assert "cancelled, or its node was lost" in ended.stderr
    assert submitter.calls("scontrol") == []


def test_without_follow_the_job_is_left_to_itself(
    submitter: Cluster, programs: Callable[..., str]
) -> None:
    submitter.variables["PATH"] = programs(sbatch="echo '99;cluster'")
    left = submitter.start(*SLURM)
    assert left.returncode == 0
    assert "job 99; log: " in left.stderr
