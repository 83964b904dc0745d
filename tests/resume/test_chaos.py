"""Killed again and again, anywhere: the final parameters are those of a run that was left alone."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.resume.test_kill import PATIENCE, Start, check_equal, finish, start, two_folders

__all__ = ["start"]  # a fixture

ROUNDS = 20
"""Kills at least; the run is long enough that it is not finished before."""
SETTINGS = [
    "--config.teacher.steps=150",
    "--config.transfer.steps=150",
    "--config.distill.steps=120",
    "--config.execution.checkpoint_every=5",
]
TRAINED = ("teacher", "transfer", "distill", "baseline")


def first_sign(run: Path) -> Callable[[], bool]:
    """Returns whether anything in the run's folder has changed since now."""

    def files() -> set[tuple[str, int]]:
        found = set()
        for folder, _, names in os.walk(run):
            for name in names:
                path = os.path.join(folder, name)
                try:
                    found.add((path, os.stat(path).st_size))
                except FileNotFoundError:
                    continue
        return found

    before = files()
    return lambda: files() != before


def is_saving(run: Path) -> bool:
    return any(run.glob("*/checkpoints/*.orbax-checkpoint-tmp"))


def kill(process: subprocess.Popen[str], run: Path, generator: random.Random) -> str | None:
    """Kills `process` at a random instant; returns which, None if it finished before."""
    at_save = generator.random() < 0.4
    delay = 0.0 if at_save else generator.expovariate(1.0)
    sign = first_sign(run)
    deadline, seen = time.monotonic() + PATIENCE, None
    while process.poll() is None:
        assert time.monotonic() < deadline, "no sign of life"
        if seen is None and sign():
            seen = time.monotonic()
        waited = -1.0 if seen is None else time.monotonic() - seen
        # Not every start comes to a save before its stage ends; any instant will do then.
        if waited >= delay and (not at_save or is_saving(run) or waited > 20):
            break
        time.sleep(0.001)
    if process.poll() is not None:
        return None
    saving = is_saving(run)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return "save" if saving else "other"


@pytest.mark.slow
def test_twenty_kills_at_random_instants_change_no_bit(tmp_path: Path, start: Start) -> None:
    killed, unbroken = two_folders(tmp_path)
    finish(start(unbroken, *SETTINGS))
    seed = int.from_bytes(os.urandom(4))
    generator, run, kinds = random.Random(seed), killed / "runs/tiny", []
    # While text is prepared, whose folder is there before its records are.
    process = start(killed, *SETTINGS)
    deadline = time.monotonic() + PATIENCE
    while not list(run.glob("prepare-*/records")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not list(run.glob("prepare-*/manifest.json"))
    while len(kinds) < ROUNDS:
        process = start(killed, *SETTINGS)
        kind = kill(process, run, generator)
        assert kind is not None, f"finished after {len(kinds)} kills, seed {seed}"
        kinds.append(kind)
    assert "save" in kinds, f"no kill fell into a save: seed {seed}"
    finish(start(killed, *SETTINGS))
    check_equal(killed, unbroken, TRAINED)
