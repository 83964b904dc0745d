"""launch/run.sh and launch/test.sh: what is run, with what, from where, and how it ends."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.launch.conftest import ROOT, Repository


def said(process: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What the program reported about its start."""
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


def test_help_lists_every_experiment_and_installs_nothing(repository: Repository) -> None:
    shown = repository.start("run.sh", "--help")
    assert shown.returncode == 0
    lines = [line.split(maxsplit=1) for line in shown.stdout.splitlines()]
    assert ["experiments/progressive_kt.py", "The paper, stage by stage."] in lines
    assert ["experiments/teacher.py", "The teacher alone."] in lines
    assert not (repository.root / ".venv").exists()


@pytest.mark.parametrize("arguments", [(), ("--config.seed=1",)])
def test_a_start_without_an_experiment_is_a_mistake(
    repository: Repository, arguments: tuple[str, ...]
) -> None:
    refused = repository.start("run.sh", *arguments)
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert "launch/run.sh" in refused.stderr


@pytest.mark.parametrize("name", ["progresive_kt", "experiments/progresive_kt.py:demo"])
def test_an_unknown_experiment_is_answered_with_the_nearest(
    repository: Repository, name: str
) -> None:
    refused = repository.start("run.sh", name)
    assert refused.returncode == 2
    assert "the nearest is experiments/progressive_kt.py" in refused.stderr
    assert not (repository.root / ".venv").exists()


def test_arguments_and_exit_code_pass_through(installed: Repository) -> None:
    arguments = ["--config.data.source=text:a b/*.txt", "--verbose", ""]
    report = said(installed.start("run.sh", "experiments/teacher.py:demo", *arguments))
    assert report["arguments"] == ["--config=experiments/teacher.py:demo", *arguments]
    for code in (2, 3, 42):
        assert installed.start("run.sh", "teacher", EXIT=str(code)).returncode == code


def test_memory_is_kept_between_steps_on_a_cpu_unless_the_user_says_otherwise(
    installed: Repository,
) -> None:
    kept = json.loads(installed.start("run.sh", "teacher").stdout)["memory"]
    assert kept["MALLOC_ARENA_MAX"] == "1"
    assert kept["MALLOC_MMAP_MAX_"] == "0"
    own = json.loads(installed.start("run.sh", "teacher", MALLOC_ARENA_MAX="4").stdout)["memory"]
    assert own == kept | {"MALLOC_ARENA_MAX": "4"}


def test_paths_are_those_of_the_caller_then_of_the_repository(
    installed: Repository, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text("")
    (tmp_path / "tiny.py").write_text("raise ImportError('a file of the caller was imported')")
    own = said(installed.start("run.sh", "mine.py:small", folder=tmp_path))
    assert own["arguments"] == ["--config=mine.py:small"]
    assert own["folder"] == str(tmp_path)
    for name in ("teacher", "experiments/teacher.py"):
        listed = said(installed.start("run.sh", name, folder=tmp_path))
        assert listed["arguments"] == [f"--config={installed.root}/experiments/teacher.py"]


def test_a_second_start_installs_nothing(installed: Repository) -> None:
    log = installed.root / ".venv" / "install.log"
    before = log.stat().st_mtime_ns
    again = installed.start("run.sh", "teacher", PYTHON="")
    assert said(again)["tiny"] == "1.0"
    assert again.stderr == ""
    assert log.stat().st_mtime_ns == before


@pytest.mark.slow
def test_changed_requirements_are_installed_exactly(repository: Repository) -> None:
    assert said(repository.start("run.sh", "teacher"))["tiny"] == "1.0"
    repository.write("requirements.txt", "tiny==2.0\n")
    assert said(repository.start("run.sh", "teacher"))["tiny"] == "2.0"
    left = subprocess.run([repository.root / ".venv/bin/python", "-c", "import mypy"])
    assert left.returncode != 0, "a package that is no longer required was left in place"


@pytest.mark.slow
def test_a_failed_install_is_told_and_tried_again(repository: Repository) -> None:
    repository.write("requirements.txt", "tiny==3.0\n")
    for _ in range(2):
        failed = repository.start("run.sh", "teacher")
        assert failed.returncode == 1
        assert "tiny==3.0" in failed.stderr
        assert "install.log" in failed.stderr


@pytest.mark.slow
def test_a_kill_in_the_middle_of_the_install_is_recovered_from(repository: Repository) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # an index that never answers
        silent.settimeout(60)
        environment = repository.environment(
            PIP_INDEX_URL=f"http://127.0.0.1:{silent.getsockname()[1]}/simple"
        )
        del environment["PIP_NO_INDEX"], environment["PIP_FIND_LINKS"]
        first = subprocess.Popen(
            ["bash", "launch/run.sh", "teacher"],
            cwd=repository.root,
            env=environment,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        silent.accept()
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    (repository.root / ".venv/bin/python").unlink()  # a kill may also leave less than this
    again = repository.start("run.sh", "teacher")
    assert "installing into .venv" in again.stderr
    assert said(again)["tiny"] == "1.0"


@pytest.mark.slow
def test_of_two_starts_at_once_one_installs(repository: Repository) -> None:
    starts = [
        subprocess.Popen(
            ["bash", "launch/run.sh", "teacher"],
            cwd=repository.root,
            env=repository.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    messages = [start.communicate(timeout=120)[1] for start in starts]
    assert [start.returncode for start in starts] == [0, 0]
    assert "".join(messages).count("installing into .venv") == 1


def test_an_environment_of_the_user_is_left_alone(repository: Repository) -> None:
    own = repository.write(".venv/pyvenv.cfg", "home = elsewhere\n")
    refused = repository.start("run.sh", "teacher")
    assert refused.returncode == 2
    assert "was not made by these scripts" in refused.stderr
    assert own.read_text() == "home = elsewhere\n"


def test_the_first_fit_python_is_taken(
    repository: Repository, programs: Callable[..., str]
) -> None:
    fit = f'exec "{sys.executable}" "$@"'
    path = programs(python3_11="exit 1", python3_12=fit, python3_13=fit, python3=fit)
    assert repository.shell("find_python", PATH=path, PYTHON="").stdout == "python3.12\n"
    assert repository.shell("find_python", PATH=path, PYTHON="python3").stdout == "python3\n"
    assert repository.shell("find_python", PATH=path, PYTHON="python3.11").returncode == 2


def test_a_machine_without_a_fit_python_is_told_what_is_needed(
    repository: Repository, programs: Callable[..., str]
) -> None:
    names = ("python3_11", "python3_12", "python3_13", "python3")
    path = programs(**dict.fromkeys(names, "exit 1"))
    refused = repository.start("run.sh", "teacher", PATH=path, PYTHON="")
    assert refused.returncode == 2
    assert "Python 3.11, 3.12 or 3.13" in refused.stderr


def test_the_accelerator_is_found_or_said(
    repository: Repository, programs: Callable[..., str]
) -> None:
    command = "has_tpu() { return ${NO_TPU}; }; find_accelerator"
    path = programs(nvidia_smi="exit ${NO_GPU}")

    def found(**variables: str) -> str:
        return repository.shell(command, PATH=path, **variables).stdout.strip()

    assert found(ACCELERATOR="", NO_TPU="1", NO_GPU="0") == "cuda"
    assert found(ACCELERATOR="", NO_TPU="1", NO_GPU="9") == "cpu"
    assert found(ACCELERATOR="", NO_TPU="0", NO_GPU="0") == "tpu"
    assert found(ACCELERATOR="cpu", NO_TPU="0", NO_GPU="0") == "cpu"
    refused = repository.start("run.sh", "teacher", ACCELERATOR="gpu")
    assert refused.returncode == 2
    assert "cpu, cuda, tpu" in refused.stderr


@pytest.mark.slow
def test_an_accelerator_adds_its_packages_and_still_serves_its_host(
    repository: Repository,
) -> None:
    said(repository.start("run.sh", "teacher", ACCELERATOR="cuda"))
    subprocess.run([repository.root / ".venv/bin/python", "-c", "import cuda_only"], check=True)
    assert "installing" not in repository.start("run.sh", "teacher", ACCELERATOR="cpu").stderr


@pytest.fixture
def checked(installed: Repository) -> Repository:
    """A repository whose `ruff`, a program rather than a module, is a script like the others."""
    ruff = installed.root / ".venv/bin/ruff"
    ruff.write_text('#!/bin/sh\necho "ruff $*"\n[ "$FAIL" != "ruff $*" ]\n')
    ruff.chmod(0o755)
    return installed


def test_the_checks_run_in_order_and_pytest_gets_the_arguments(checked: Repository) -> None:
    passed = checked.start("test.sh", "-k", "a or b", FAIL="")
    assert passed.returncode == 0, passed.stderr
    assert passed.stdout.splitlines() == [
        "ruff check",
        "ruff format --check",
        "mypy in .venv",
        "pytest -k a or b in .venv",
    ]


@pytest.mark.parametrize(
    ("failure", "code", "ran"),
    [("ruff check", 1, 1), ("ruff format --check", 1, 2), ("mypy=1", 1, 3), ("pytest=3", 3, 4)],
)
def test_a_failed_check_is_the_last_and_fails(
    checked: Repository, failure: str, code: int, ran: int
) -> None:
    failed = checked.start("test.sh", FAIL=failure)
    assert failed.returncode == code
    assert len(failed.stdout.splitlines()) == ran


def test_all_compares_in_an_environment_above_the_first(checked: Repository) -> None:
    passed = checked.start("test.sh", "--all", FAIL="")
    assert passed.returncode == 0, passed.stderr
    several = f"--numprocesses={len(os.sched_getaffinity(0)) + 1}"
    assert passed.stdout.splitlines()[-2:] == [
        f"pytest -m parity or bucket {several} in .venv-parity",
        f"pytest -m not parity and not bucket {several} in .venv",
    ]
    above = checked.root / ".venv-parity/bin/python"
    subprocess.run(
        [above, "-c", "import parity_only, export_only, tiny, mobilebert_jax"], check=True
    )
    below = subprocess.run([checked.root / ".venv/bin/python", "-c", "import parity_only"])
    assert below.returncode != 0


def test_no_comparison_at_all_passes_only_for_a_selection(checked: Repository) -> None:
    none_selected, failed = (f"pytest -m parity or bucket={code}" for code in (5, 1))
    assert checked.start("test.sh", "--all", FAIL=none_selected).returncode == 5
    assert checked.start("test.sh", "--all", "-k", "x", FAIL=none_selected).returncode == 0
    assert checked.start("test.sh", "--all", "-k", "x", FAIL=failed).returncode == 1


@pytest.mark.slow
def test_the_scripts_are_clean_to_shellcheck() -> None:
    assert shutil.which("shellcheck"), "this test needs the program shellcheck"
    scripts = [*sorted((ROOT / "launch").glob("*.sh")), ROOT / ".ci" / "run"]
    checked = subprocess.run(
        ["shellcheck", "-x", *scripts], cwd=ROOT, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout
