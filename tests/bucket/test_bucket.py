"""A whole run whose folder, text, teacher and records are in a bucket, killed on the way.

gcsfs, Google's own client and tensorstore talk to a server of this test, which is no real bucket.
"""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mobilebert_jax.training.metric_log import read_rows
from tests import fake_bucket, miniature

pytestmark = [pytest.mark.slow, pytest.mark.bucket]
PATIENCE = 900.0
STEPS = 16
SETTINGS = (
    "--config.data.source=text:gs://bucket/text/*.txt",
    f"--config.teacher.steps={STEPS}",
)


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[fake_bucket.Bucket]:
    made = fake_bucket.Bucket("bucket")
    miniature.write_corpus(tmp_path / "text.txt")
    made.put("text/a.txt", (tmp_path / "text.txt").read_bytes())
    with fake_bucket.served(made) as address:
        for name, value in fake_bucket.environment(address).items():
            monkeypatch.setenv(name, value)
        yield made


def start(folder: Path, host: str, *arguments: str) -> subprocess.Popen[str]:
    """Starts a run on a `host`, a cache folder of its own."""
    os.environ["XDG_CACHE_HOME"] = str(folder / host)
    return miniature.start(folder, folder / "compiled", *SETTINGS, *arguments)


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output
    return output


def kill_at(process: subprocess.Popen[str], bucket: fake_bucket.Bucket, wanted: str) -> None:
    """Kills the run once the bucket holds an object whose name matches `wanted`."""
    deadline = time.monotonic() + PATIENCE
    while not bucket.names(wanted):
        assert process.poll() is None, f"ended by itself: {process.communicate()[0]}"
        assert time.monotonic() < deadline, "did not come that far"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def fetched(bucket: fake_bucket.Bucket, name: str, folder: Path) -> Path:
    """Returns a copy of the one object that matches, as it is now."""
    (found,) = bucket.names(name)
    target = folder / "fetched"
    target.write_bytes(bucket.objects[found].content)
    return target


def losses(path: Path) -> list[tuple[float, float]]:
    return [(row["step"], row["loss"]) for row in read_rows(path)]


def damage_newest(bucket: fake_bucket.Bucket) -> int:
    """Flips a byte of the teacher's newest complete checkpoint and returns its step."""
    manifests = bucket.names(r"runs/tiny/teacher-\w+/checkpoints/\d+/checksums.json")
    newest = max(manifests, key=lambda name: int(name.split("/")[-2]))
    data = re.escape(newest.removesuffix("checksums.json")) + r"params/d/.*"
    name = bucket.names(data)[0]
    content = bytearray(bucket.objects[name].content)
    content[len(content) // 2] ^= 1
    bucket.put(name, bytes(content))
    return int(newest.split("/")[-2])


def test_a_run_in_a_bucket_is_killed_and_ends_as_one_that_was_not(
    bucket: fake_bucket.Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "")  # given back at the end
    teacher = ["--config.stages=prepare,teacher"]
    there = "--config.execution.runs_dir=gs://bucket/runs"
    finish(start(tmp_path, "first host", *teacher))
    (unbroken,) = (tmp_path / "runs/tiny").glob("teacher-*")

    complete = r"runs/tiny/teacher-\w+/checkpoints/{}/checksums.json"
    kill_at(start(tmp_path, "first host", there, *teacher), bucket, complete.format(6))
    rows = losses(fetched(bucket, r"runs/tiny/teacher-\w+/metrics.jsonl", tmp_path))
    newest = max(int(n.split("/")[-2]) for n in bucket.names(complete.format(r"\d+")))
    # A checkpoint is never ahead of the record of the steps before it.
    assert [step for step, _ in rows][:newest] == list(range(newest))
    damaged = damage_newest(bucket)
    output = finish(start(tmp_path, "second host", there))

    assert f"/{damaged} is not used" in output
    assert bucket.names(rf"runs/tiny/teacher-\w+/damaged/{damaged}-1/checksums.json")
    manifest = fetched(bucket, r"runs/tiny/teacher-\w+/manifest.json", tmp_path).read_text()
    expected = json.loads((unbroken / "manifest.json").read_text())["params_sha256"]
    assert json.loads(manifest)["params_sha256"] == expected
    rows = losses(fetched(bucket, r"runs/tiny/teacher-\w+/metrics.jsonl", tmp_path))
    assert rows == losses(unbroken / "metrics.jsonl")
    for name in ("report.html", "results.json", "curves.json"):
        assert bucket.names(f"runs/tiny/{name}"), name
    for name in (r"tensorboard/events.*", "goodput.jsonl", "parameters.txt", "stage.json"):
        assert bucket.names(rf"runs/tiny/distill-\w+/{name}"), name

    again = finish(start(tmp_path, "third host", there))
    assert "teacher: finished before, in gs://bucket/runs/tiny/teacher-" in again
    given = {
        setting: f"gs://bucket/{bucket.names(name)[0].removesuffix('/manifest.json')}"
        for setting, name in (
            ("data.prepared", r"runs/tiny/prepare-\w+/manifest.json"),
            ("teacher.path", r"runs/tiny/teacher-\w+/manifest.json"),
        )
    }
    arguments = [f"--config.{setting}={folder}" for setting, folder in given.items()]
    finish(start(tmp_path, "fourth host", *arguments, "--config.stages=distill,transfer"))
    assert list((tmp_path / "runs/tiny").glob("distill-*/manifest.json"))
    assert bucket.unknown == []
