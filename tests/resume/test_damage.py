"""What storage does to a run: torn and flipped files, full and vanishing disks, a second run."""

import json
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mobilebert_jax.pipeline import runner
from mobilebert_jax.training import checkpoint as checkpoint_lib
from mobilebert_jax.training.metric_log import read_rows
from tests import miniature

pytestmark = pytest.mark.usefixtures("quick")

PATIENCE = 600.0
STAGES = ("prepare", "teacher")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished teacher with the checkpoints of steps 2, 4 and 6."""
    folder = tmp_path_factory.mktemp("whole")
    run(folder)
    return folder


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """A copy of that run, of the same text in the same place."""
    (tmp_path / "text.txt").symlink_to(whole / "text.txt")
    shutil.copytree(whole / "runs", tmp_path / "runs")
    return tmp_path


def run(folder: Path, wanted: tuple[str, ...] = STAGES, **settings: Any) -> str:
    changes = {
        "teacher__steps": 6,
        "execution__keep_checkpoints": 3,
        "execution__checkpoint_every": 2,
        "data__source": f"text:{(folder / 'text.txt').resolve()}",
    }
    console = miniature.console()
    runner.run(miniature.experiment(folder, stages=wanted, **{**changes, **settings}), console)
    return console.file.getvalue()


def stage(folder: Path, name: str = "teacher") -> Path:
    (found,) = (folder / "runs/tiny").glob(f"{name}-*")
    return found


def digest(folder: Path, name: str = "teacher") -> str:
    return json.loads((stage(folder, name) / "manifest.json").read_text())["params_sha256"]


def interrupt(folder: Path) -> None:
    """Makes the teacher look as if it had been killed after its last save."""
    (stage(folder) / "manifest.json").unlink()


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    path.write_bytes(bytes(content))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size)


@pytest.mark.parametrize(
    "damage",
    [
        flip,
        pytest.param(truncate, marks=pytest.mark.slow),
        pytest.param(Path.unlink, marks=pytest.mark.slow),
    ],
)
def test_a_damaged_file_of_any_kind_is_reported_and_the_one_before_used(
    damage: Callable[[Path], None], copy: Path, whole: Path
) -> None:
    interrupt(copy)
    newest = stage(copy) / "checkpoints/6"
    every = files(newest)
    assert len(every) > 8
    for path in every:
        kept = path.read_bytes()
        damage(path)
        assert checkpoint_lib.checksums.problems(newest), path
        path.write_bytes(kept)
    damage(random.choice(every))
    said = run(copy)
    assert f"checkpoint {newest} is not used, because" in said
    assert digest(copy) == digest(whole)
    assert (stage(copy) / "checkpoints/damaged/6-1").is_dir()
    assert [row["step"] for row in read_rows(stage(copy) / "metrics.jsonl")] == list(range(6))


@pytest.mark.slow
def test_where_none_is_intact_the_stage_begins_anew(copy: Path, whole: Path) -> None:
    interrupt(copy)
    for step in ("2", "4", "6"):
        flip(random.choice(files(stage(copy) / "checkpoints" / step)))
    assert run(copy).count("is not used") == 3
    assert digest(copy) == digest(whole)


@pytest.mark.slow
def test_a_finished_stage_whose_checkpoint_is_damaged_is_finished_again(
    copy: Path, whole: Path
) -> None:
    flip(random.choice(files(stage(copy) / "checkpoints/6/params")))
    said = run(copy, ("prepare", "teacher", "transfer"))
    assert "cannot be used" in said and "The stage goes on from the one before" in said
    assert digest(copy) == digest(whole)
    assert digest(copy, "transfer")


@pytest.mark.slow
def test_a_damaged_teacher_of_another_run_is_a_mistake(
    copy: Path, whole: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    flip(random.choice(files(stage(copy) / "checkpoints/6/params")))
    given = {"data__prepared": str(stage(copy, "prepare")), "teacher__path": str(stage(copy))}
    with pytest.raises(runner.InputError, match="cannot be used"):
        run(tmp_path_factory.mktemp("other"), ("transfer",), **given)
    assert (stage(copy) / "manifest.json").exists()


@pytest.mark.slow
def test_a_clock_that_jumps_back_changes_nothing(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.txt").symlink_to(whole / "text.txt")
    real, began = time.time, time.time()
    # Every second asked for is an hour earlier than the one before.
    monkeypatch.setattr(time, "time", lambda: began - 3600 * (real() - began))
    run(tmp_path)
    assert digest(tmp_path) == digest(whole)
    found = json.loads((stage(tmp_path) / "manifest.json").read_text())
    assert 0 < found["seconds"] < PATIENCE
    assert all(row["tokens_per_s"] > 0 for row in read_rows(stage(tmp_path) / "metrics.jsonl"))


def test_checkpoints_are_kept_as_configured(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").symlink_to(whole / "text.txt")
    run(
        tmp_path,
        execution__checkpoint_every=1,
        execution__keep_checkpoints=1,
        execution__keep_every=3,
    )
    kept = [p.name for p in (stage(tmp_path) / "checkpoints").iterdir() if p.name.isdigit()]
    assert sorted(kept) == ["3", "6"]


# As a user sees it


def started(folder: Path, cache: Path, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    settings = ("--config.stages=prepare,teacher", "--config.teacher.steps=6", *arguments)
    return miniature.start(folder, cache, *settings, **options)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = process.communicate(timeout=PATIENCE)
    return process.returncode, output


def last_words(said: str) -> str:
    """Returns the final message; libraries may have complained in their own way before."""
    return said[said.rindex("error: ") :]


@pytest.mark.slow
def test_a_full_disk_ends_the_run_with_2_and_loses_nothing(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").symlink_to(whole / "text.txt")
    cache = tmp_path / "compiled"
    # Finished text and programs first, so that what meets the limit is a checkpoint.
    assert ended(started(tmp_path, cache, "--config.teacher.steps=2"))[0] == 0
    limit = 6000
    largest = max(p.stat().st_size for p in files(stage(tmp_path) / "checkpoints"))
    assert largest > limit, "no file is large enough to meet the limit"
    shutil.rmtree(stage(tmp_path))
    code, said = ended(
        started(
            tmp_path,
            cache,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        )
    )
    assert code == 2, said
    assert "File too large" in (last := last_words(said)) and "the same command goes on" in last
    code, said = ended(started(tmp_path, cache))
    assert code == 0, said
    assert digest(tmp_path) == digest(whole)


@pytest.mark.parametrize(
    "runs_dir", ["text.txt/runs", pytest.param("/sys/runs", marks=pytest.mark.slow)]
)
def test_a_place_that_cannot_be_written_is_named(
    runs_dir: str, whole: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").symlink_to(whole / "text.txt")
    place = runs_dir if runs_dir.startswith("/") else str(tmp_path / runs_dir)
    code, said = ended(
        started(tmp_path, tmp_path / "compiled", f"--config.execution.runs_dir={place}")
    )
    assert code == 2, said
    assert "Traceback" not in said and place.rsplit("/", 1)[0] in said


def test_a_second_run_in_the_same_folder_is_refused(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").symlink_to(whole / "text.txt")
    first = started(tmp_path, tmp_path / "compiled", "--config.teacher.steps=1000000")
    try:
        deadline = time.monotonic() + PATIENCE
        while not list((tmp_path / "runs/tiny").glob("teacher-*/metrics.jsonl")):
            assert first.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        code, said = ended(started(tmp_path, tmp_path / "compiled"))
        assert code == 2, said
        assert f"process {first.pid} on" in said and "--config.name=NAME" in said
    finally:
        first.send_signal(signal.SIGTERM)
        code, said = ended(first)
    assert code == 42, said


@pytest.mark.slow
def test_a_folder_that_vanishes_ends_the_run_and_the_next_start_repairs_it(
    whole: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").symlink_to(whole / "text.txt")
    settings = ("--config.execution.checkpoint_every=50", "--config.teacher.steps=100000")
    process = started(tmp_path, tmp_path / "compiled", *settings)
    deadline = time.monotonic() + PATIENCE
    while not list((tmp_path / "runs/tiny").glob("teacher-*/checkpoints/50")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    # Renamed, not removed: a folder in which the run still writes cannot be emptied reliably.
    stage(tmp_path).rename(tmp_path / "vanished")
    code, said = ended(process)
    assert code == 2, said
    assert "the same command goes on" in last_words(said)
    code, said = ended(started(tmp_path, tmp_path / "compiled"))
    assert code == 0, said
    assert digest(tmp_path) == digest(whole)
