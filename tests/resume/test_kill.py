"""Kill at any instant and start again: the parameters are those of the run that was not killed."""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mobilebert_jax.training.metric_log import read_rows
from tests import miniature

PATIENCE = 900.0
"""Seconds; only a machine that is busy with other things needs so many."""
Start = Callable[..., subprocess.Popen[str]]
TRAINED = ("teacher", "transfer", "distill", "baseline")
# Enough steps that a kill falls among them, and not only behind the last.
STEPS = {"teacher": 20, "transfer": 24, "distill": 16}
SETTINGS = [f"--config.{stage}.steps={steps}" for stage, steps in STEPS.items()]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts runs that share their compiled programs; none outlives the test."""
    started = []

    def start_one(folder: Path, *arguments: str) -> subprocess.Popen[str]:
        started.append(miniature.start(folder, tmp_path / "compiled", *arguments))
        return started[-1]

    yield start_one
    for process in started:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def finish(process: subprocess.Popen[str]) -> None:
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output


def kill_when(process: subprocess.Popen[str], reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not reached():
        assert process.poll() is None, f"ended by itself: {process.communicate()[0]}"
        assert time.monotonic() < deadline, "did not come that far"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def rows_of(folder: Path, stage: str) -> list[dict[str, float]]:
    found = list((folder / "runs/tiny").glob(f"{stage}-*/metrics.jsonl"))
    return read_rows(found[0]) if found else []


def at_step(folder: Path, stage: str, step: int) -> Callable[[], bool]:
    return lambda: any(row["step"] >= step for row in rows_of(folder, stage))


def finished(folder: Path, stage: str) -> bool:
    return bool(list((folder / "runs/tiny").glob(f"{stage}-*/manifest.json")))


def digests(folder: Path) -> dict[str, str]:
    manifests = {
        path.parent.name.split("-")[0]: json.loads(path.read_text())
        for path in (folder / "runs/tiny").glob("*/manifest.json")
    }
    key = "params_sha256"
    return {name: found[key] for name, found in manifests.items() if key in found}


def losses(folder: Path, stage: str) -> list[tuple[float, float]]:
    return [(row["step"], row["loss"]) for row in rows_of(folder, stage)]


def two_folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders of the same text: one for the run that is killed, one for the other."""
    killed, unbroken = tmp_path / "killed", tmp_path / "unbroken"
    for folder in (killed, unbroken):
        folder.mkdir()
    miniature.write_corpus(killed / "text.txt")
    shutil.copy(killed / "text.txt", unbroken / "text.txt")
    return killed, unbroken


def check_equal(killed: Path, unbroken: Path, stages: tuple[str, ...]) -> None:
    expected = digests(unbroken)
    assert set(expected) == set(stages)
    assert digests(killed) == expected
    for stage in stages:
        assert losses(killed, stage) == losses(unbroken, stage)


def test_a_run_killed_in_the_teacher_ends_as_one_that_was_not(tmp_path: Path, start: Start) -> None:
    killed, unbroken = two_folders(tmp_path)
    settings = [*SETTINGS, "--config.stages=prepare,teacher"]
    step = random.randrange(3, 12)
    process = start(killed, *settings)
    kill_when(process, at_step(killed, "teacher", step))
    assert not finished(killed, "teacher"), f"the kill at step {step} came too late"
    both = [start(folder, *settings) for folder in (killed, unbroken)]
    for process in both:
        finish(process)
    check_equal(killed, unbroken, ("teacher",))


@pytest.mark.slow
def test_a_run_killed_in_every_stage_ends_as_one_that_was_not(tmp_path: Path, start: Start) -> None:
    killed, unbroken = two_folders(tmp_path)
    reference = start(unbroken, *SETTINGS)
    generator = random.Random(os.urandom(8))
    prepared = killed / "runs/tiny"
    moments: dict[str, tuple[str, Callable[[], bool]]] = {
        "text": ("prepare", lambda: bool(list(prepared.glob("prepare-*/records/tokenizer")))),
    }
    # A layer's phase of transfer has 12 steps; a stage is killed twice where two phases are.
    for label, stage, first, stop in (
        ("teacher", "teacher", 1, 14),
        ("layer 0", "transfer", 1, 10),
        ("layer 1", "transfer", 14, 20),
        ("distill", "distill", 1, 12),
        ("baseline", "baseline", 1, 30),
    ):
        moments[label] = (stage, at_step(killed, stage, generator.randrange(first, stop)))
    for label, (stage, reached) in moments.items():
        kill_when(start(killed, *SETTINGS), reached)
        assert not finished(killed, stage), f"the kill in {label} came too late"
    finish(start(killed, *SETTINGS))
    finish(reference)
    check_equal(killed, unbroken, TRAINED)
