"""Several processes on one machine: the numbers of one, and an end for all when one is lost.

Every process simulates two devices; they talk through gloo, as processes on several hosts do.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mobilebert_jax.training.metric_log import read_rows
from tests import miniature

pytestmark = pytest.mark.distributed

PATIENCE = 900.0
"""Seconds; only a machine that is busy with other things needs so many."""
TRAINED = ("teacher", "transfer", "distill", "baseline")
HEARTBEAT = 12
"""Seconds; processes that share two cores may be silent for some."""
QUICK_NOTICE = (f"--config.execution.heartbeat_timeout_seconds={HEARTBEAT}",)
Processes = list[subprocess.Popen[str]]
Start = Callable[..., Processes]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the programs lie that one start compiles for the others."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture
def start(compiled: Path) -> Iterator[Start]:
    """Starts `count` processes of one run; none outlives the test."""
    started: Processes = []

    def start_all(folder: Path, count: int, devices: int, *arguments: str) -> Processes:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        new = []
        for index in range(count):
            flags = (f"--coordinator={address}", f"--processes={count}", f"--process={index}")
            new.append(
                miniature.start(
                    folder,
                    compiled,
                    *arguments,
                    *(flags if count > 1 else ()),
                    devices=devices,
                )
            )
        started.extend(new)
        return new

    yield start_all
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


@pytest.fixture
def folders(tmp_path: Path) -> Callable[[str], Path]:
    """Makes folders of the same text."""
    text = tmp_path / "text.txt"
    miniature.write_corpus(text)

    def make(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        shutil.copy2(text, folder / "text.txt")
        return folder

    return make


def outputs(processes: Processes) -> list[str]:
    """Waits for all processes, in parallel, and returns what each printed."""
    return [process.communicate(timeout=PATIENCE)[0] for process in processes]


def finish(processes: Processes) -> None:
    said = outputs(processes)
    assert [process.returncode for process in processes] == [0] * len(processes), said


def losses(folder: Path, stage: str) -> list[float]:
    (path,) = (folder / "runs/tiny").glob(f"{stage}-*/metrics.jsonl")
    rows = read_rows(path)
    assert [row["step"] for row in rows] == list(range(len(rows)))
    return [row["loss"] for row in rows]


def digests(folder: Path) -> dict[str, str]:
    found = [json.loads(p.read_text()) for p in (folder / "runs/tiny").glob("*/manifest.json")]
    return {m["stage"]: m["params_sha256"] for m in found if "params_sha256" in m}


def wait_for_step(folder: Path, stage: str, step: int, processes: Processes) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        found = list((folder / "runs/tiny").glob(f"{stage}-*/metrics.jsonl"))
        if found and any(row["step"] >= step for row in read_rows(found[0])):
            return
        ended = [p.communicate()[0] for p in processes if p.poll() is not None]
        assert not ended, f"ended by themselves: {ended}"
        assert time.monotonic() < deadline, "did not come that far"
        time.sleep(0.01)


def check_close(one: Path, other: Path, stages: tuple[str, ...] = TRAINED) -> None:
    for stage in stages:
        assert losses(one, stage) == pytest.approx(losses(other, stage), rel=1e-5)


@pytest.mark.slow
def test_two_processes_have_the_numbers_of_one(
    start: Start, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    several, alone = folders("several"), folders("alone")
    stages = "prepare,teacher,transfer,distill,baseline,evaluate,finetune"
    table = tmp_path / "table.tsv"
    table.write_text("text\tlabel\n" + "kalo pel dan\tk\nmiren dan\tm\ntushi\tt\n" * 9)
    settings = (
        f"--config.stages={stages}",
        "--config.finetune.tasks=classify",
        f"--config.finetune.files.train={table}",
        f"--config.finetune.files.dev={table}",
        "--config.finetune.max_seq_length=16",
        "--config.finetune.search.batch_sizes=8",
        "--config.finetune.search.seeds=0",
    )
    finish(start(several, 2, 2, *settings))
    finish(start(alone, 1, 4, *settings))
    check_close(several, alone)
    fine_tuned = [losses(folder, "trials/classify-student") for folder in (several, alone)]
    assert fine_tuned[0] == pytest.approx(fine_tuned[1], rel=1e-5)
    measured = [
        json.loads((folder / "runs/tiny/results.json").read_text())["models"]
        for folder in (several, alone)
    ]
    for role in ("teacher", "student", "baseline"):
        for figure in ("masked_lm_loss", "next_sentence_loss", "masked_lm_accuracy"):
            ours, theirs = (models[role][figure] for models in measured)
            assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-6)
    assert (several / "runs/tiny/report.html").exists()


def test_a_mistake_ends_every_process_with_2(start: Start, folders: Callable[[str], Path]) -> None:
    processes = start(folders("mistaken"), 2, 2, "--config.evaluate.fill_mask_text=no blank here")
    said = outputs(processes)
    assert 2 in [process.returncode for process in processes], said
    assert any("has no mask" in text for text in said)


@pytest.mark.slow
def test_what_four_saved_any_number_continues(
    start: Start, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    settings = ("--config.teacher.steps=16", "--config.stages=prepare,teacher,transfer")
    moved, alone = folders("moved"), folders("alone")
    four = start(moved, 4, 2, *settings)
    wait_for_step(moved, "teacher", 3, four)
    # Every host of a preempted slice is told; here one is, and all agree on the step.
    four[2].send_signal(signal.SIGTERM)
    said = outputs(four)
    assert [process.returncode for process in four] == [42] * 4, said
    assert len({text.split("saved at step")[1].split()[0] for text in said}) == 1
    finish(start(alone, 1, 8, *settings))
    saved = shutil.copytree(moved, tmp_path / "saved")
    for count, devices in ((1, 1), (1, 8), (2, 1)):
        shutil.rmtree(moved)
        shutil.copytree(saved, moved)
        finish(start(moved, count, devices, *settings))
        check_close(moved, alone, ("teacher", "transfer"))


@pytest.mark.slow
def test_a_killed_process_ends_all_and_a_restart_ends_the_same(
    start: Start, folders: Callable[[str], Path]
) -> None:
    settings = ("--config.teacher.steps=30", "--config.stages=prepare,teacher")
    broken, unbroken = folders("broken"), folders("unbroken")
    # The first process serves the others' coordinator, so its end is noticed in another way.
    for victim, step in ((0, 5), (3, 15)):
        four = start(broken, 4, 2, *settings, *QUICK_NOTICE)
        wait_for_step(broken, "teacher", step, four)
        four[victim].send_signal(signal.SIGKILL)
        began = time.monotonic()
        said = outputs(four)
        assert time.monotonic() - began < 10 * HEARTBEAT
        for index, process in enumerate(four):
            if index != victim:
                # Where the runtime aborts from a thread of its own, its print of all stacks may
                # meet one that is being changed.
                ended = (134, -signal.SIGABRT, -signal.SIGSEGV)
                assert process.returncode in ended, said[index]
                assert "Thread 0x" in said[index], "the stacks of the threads"
    finish(start(broken, 4, 2, *settings))
    finish(start(unbroken, 4, 2, *settings))
    assert digests(broken) == digests(unbroken)
    assert set(digests(unbroken)) == {"teacher"}


@pytest.mark.slow
def test_a_process_that_hangs_ends_all_with_their_stacks(
    start: Start, folders: Callable[[str], Path]
) -> None:
    folder = folders("hung")
    # The watchdog's limit is below that of the heartbeat, which would notice a stopped process too.
    limit = "--config.execution.watchdog_minutes=1"
    processes = start(folder, 2, 2, limit, "--config.teacher.steps=100000")
    wait_for_step(folder, "teacher", 3, processes)
    stopped = processes[1]
    os.kill(stopped.pid, signal.SIGSTOP)
    try:
        output, _ = processes[0].communicate(timeout=PATIENCE)
    finally:
        os.kill(stopped.pid, signal.SIGCONT)
    assert processes[0].returncode in (-signal.SIGABRT, 134), output
    assert "Thread 0x" in output, "the stacks of the threads"
    assert "train.py" in output
