"""Folders in a bucket in memory: what differs from a disk, each through the code that uses it."""

import functools
import json
import sys
import threading
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

from mobilebert_jax import artifacts, checksums, storage
from mobilebert_jax.config.schema import Data, InputError, Tokenizer
from mobilebert_jax.data import corpus, record_cache
from mobilebert_jax.data import prepare as prepare_lib
from mobilebert_jax.training import checkpoint, goodput, lock
from mobilebert_jax.training.health import SkippedSteps
from mobilebert_jax.training.metric_log import Meters, read_rows
from tests import fake_bucket, miniature


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> fake_bucket.Bucket:
    made = fake_bucket.Bucket("bucket")
    fake_bucket.mounted(made, monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return made


RUN = "gs://bucket/runs/tiny"


def test_a_path_on_a_disk_is_an_ordinary_one(tmp_path: Path) -> None:
    assert type(storage.path(str(tmp_path))) is type(tmp_path)
    assert not storage.is_remote(tmp_path) and not storage.is_remote("gs/text.txt")


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "file").write_text("text")
    assert storage.path("~/runs") == tmp_path / "runs"
    with storage.open_bytes("~/file") as file:
        assert file.read() == b"text"


def test_without_the_package_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(InputError, match=r"gcsfs.*pip install -c requirements.txt 'etils\[epath-"):
        storage.path(RUN)


def test_a_bucket_that_is_not_there_is_named(bucket: fake_bucket.Bucket) -> None:
    storage.check(storage.path("gs://bucket/runs"))
    with pytest.raises(InputError, match="gs://other/runs: the bucket 'other' cannot be read"):
        storage.check(storage.path("gs://other/runs"))


def test_lines_are_sent_when_asked_and_after_a_while(
    bucket: fake_bucket.Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put("a.jsonl", b"0\n")
    lines = storage.Lines(storage.path("gs://bucket/a.jsonl"))
    lines.append("1\n")
    assert bucket.objects["a.jsonl"].content == b"0\n"
    lines.keep()
    assert bucket.objects["a.jsonl"].content == b"0\n1\n"
    generation = bucket.objects["a.jsonl"].generation
    lines.keep()
    assert bucket.objects["a.jsonl"].generation == generation
    monkeypatch.setattr(storage, "UPLOAD_SECONDS", 0.0)
    lines.append("2\n")
    assert bucket.objects["a.jsonl"].content == b"0\n1\n2\n"


def test_stages_are_declared_finished_and_compared(bucket: fake_bucket.Bucket) -> None:
    run = storage.path(RUN)
    first = artifacts.declare(run, "teacher", {"steps": 1}, {})
    artifacts.begin(first)
    assert not first.is_finished() and artifacts.differences(first) is None
    artifacts.finish(first, {"seconds": 1})
    assert first.is_finished() and artifacts.existing("teacher", first.directory) == first
    second = artifacts.declare(run, "teacher", {"steps": 2}, {})
    assert artifacts.differences(second) == (first.directory, ["steps changed from 1 to 2"])
    artifacts.reopen(first)
    assert not first.is_finished()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda b: b.put("c/4/d/data", b"xy"), "data has 2 bytes instead of 3"),
        (lambda b: b.put("c/4/d/data", b"xyw"), "data has other content than was saved"),
        (lambda b: b.objects.pop("c/4/d/data"), "data is missing"),
    ],
)
def test_a_damaged_checkpoint_is_set_aside(
    change: Any, problem: str, bucket: fake_bucket.Bucket
) -> None:
    bucket.put("c/4/d/data", b"xyz")
    bucket.put("c/4/commit_success.txt", b"")
    bucket.put("c/6/d/data", b"never completed")
    checksums.write(storage.path("gs://bucket/c/4"))
    assert checkpoint.set_aside(storage.path("gs://bucket/c")) == []
    change(bucket)
    (said,) = checkpoint.set_aside(storage.path("gs://bucket/c"))
    assert problem in said
    assert bucket.names("c/4/.*") == []
    assert "damaged/4-1/checksums.json" in bucket.objects
    assert bucket.names("c/6/.*") == ["c/6/d/data"], "it is Orbax that removes it"


def test_the_record_of_a_stage_is_that_of_an_unbroken_run(bucket: fake_bucket.Bucket) -> None:
    folder = storage.path(f"{RUN}/teacher-1")
    open_meters = functools.partial(
        Meters,
        folder,
        "teacher",
        stop=6,
        log_every=1,
        console=miniature.console(),
    )
    meters = open_meters(start=0).__enter__()
    for step in range(4):
        meters.push(step, {"loss": jnp.float32(step)}, 1)
        if step == 2:
            meters.flush()
            meters.keep()
    # A kill: nothing is closed. Step 3 was sent nowhere, and a checkpoint after step 1 is left.
    assert [row["step"] for row in read_rows(folder / "metrics.jsonl")] == [0, 1, 2]
    with open_meters(start=2) as meters:
        for step in range(2, 6):
            meters.push(step, {"loss": jnp.float32(step)}, 1)
    rows = read_rows(folder / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(6))
    assert len(bucket.names(r"runs/tiny/teacher-1/tensorboard/events.*from_[02]")) == 2


def test_goodput_and_left_out_steps_outlive_a_start(bucket: fake_bucket.Bucket) -> None:
    folder = storage.path(f"{RUN}/teacher-1")
    for first in (0, 4):
        spent = goodput.Goodput(folder)
        spent.first_step = first
        spent.write(first + 3)
        spent.keep()
    assert goodput.summary(folder)["starts"] == 2
    for step in (1, 2):
        row = {"step": float(step), "nonfinite": 0.0, "spike": 1.0}
        SkippedSteps(folder / "skipped.jsonl", limit=1).look_at(row)
    assert SkippedSteps(folder / "skipped.jsonl", limit=1).spikes() == 2


def test_who_takes_the_folder_over_is_noticed(
    bucket: fake_bucket.Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, told = threading.Event(), []

    def give_way(directory: Path, holder: str) -> None:
        told.append((str(directory), holder))
        gone.set()

    monkeypatch.setattr(lock, "WATCH_SECONDS", 0.01)
    monkeypatch.setattr(lock, "_give_way", give_way)
    with lock.held(storage.path(RUN)):
        assert not gone.wait(0.1)
        with lock.held(storage.path(RUN)):
            assert gone.wait(10)
    directory, holder = told[0]
    assert directory == RUN and holder in bucket.objects["runs/tiny/.lock"].content.decode()


def corpus_in(bucket: fake_bucket.Bucket, folder: Path) -> bytes:
    miniature.write_corpus(folder / "text.txt")
    content = (folder / "text.txt").read_bytes()
    bucket.put("text/a.txt", content)
    bucket.put("text/deep/b.txt", content)
    return content


def test_text_in_a_bucket_reads_as_on_a_disk(bucket: fake_bucket.Bucket, tmp_path: Path) -> None:
    corpus_in(bucket, tmp_path)
    (remote,) = corpus.parse_sources("text:gs://bucket/text/*.txt")
    (local,) = corpus.parse_sources(f"text:{tmp_path}/*.txt")

    def documents(source: corpus.Source) -> list[tuple[str, ...]]:
        shards = corpus.plan_shards(source, 2000)
        assert len(shards) > 3
        return [document.lines for shard in shards for document in corpus.read(shard)]

    assert documents(remote) == documents(local)
    (both,) = corpus.parse_sources("text:gs://bucket/text/**/*.txt")
    assert [name for name, *_ in corpus.fingerprint(both)["files"]] == ["a.txt", "deep/b.txt"]
    before = corpus.fingerprint(remote)
    bucket.put("text/a.txt", b"Another text.\n")
    assert corpus.fingerprint(remote) != before
    shard = corpus.plan_shards(remote, 2000)[0]
    bucket.objects.pop("text/a.txt")
    with pytest.raises(InputError, match=r"gs://bucket/text/a.txt was there"):
        next(corpus.read(shard))
    (wrong,) = corpus.parse_sources("text:gs://bucket/text/deep/c.txt")
    with pytest.raises(InputError, match=r"the nearest in gs://bucket/text/deep is 'b.txt'"):
        corpus.fingerprint(wrong)


def prepare(directory: str, source: str, phases: set[str]) -> dict[str, Any]:
    return prepare_lib.prepare(
        Data(source=source, validation_fraction=0.2, max_seq_length=16),
        Tokenizer(vocab_size=120),
        storage.path(directory),
        1,
        lambda phase, done, total: phases.add(phase),
    )


def test_records_are_copied_into_the_bucket_and_to_other_hosts(
    bucket: fake_bucket.Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus_in(bucket, tmp_path)
    source, phases = f"text:{tmp_path}/text.txt", set[str]()
    remote = prepare(f"{RUN}/records", source, phases)
    assert {"tokenizing", "copying"} <= phases
    phases.clear()
    assert prepare(f"{RUN}/records", source, phases) == remote and not phases
    assert prepare(str(tmp_path / "records"), source, set()) == remote
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other host"))
    for split in ("train", "held_out"):
        (here,) = prepare_lib.open_documents(tmp_path / "records", split)
        (there,) = prepare_lib.open_documents(storage.path(f"{RUN}/records"), split)
        assert len(here) == len(there)
        assert all((here[i][0] == there[i][0]).all() for i in range(len(here)))
    assert (
        prepare_lib.load_tokenizer(storage.path(f"{RUN}/records")).size
        == remote["tokenizer"]["size"]
    )


def test_an_interrupted_copy_is_not_taken_for_a_whole_one(
    bucket: fake_bucket.Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus_in(bucket, tmp_path)
    source, folder = f"text:{tmp_path}/text.txt", storage.path(f"{RUN}/records")
    put = storage.upload

    def interrupted(*arguments: Any) -> None:
        put(*arguments)
        bucket.objects.pop("runs/tiny/records/manifest.json")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(storage, "upload", interrupted)
        prepare(f"{RUN}/records", source, set())
    with pytest.raises(InputError, match="no finished data"):
        prepare_lib.open_documents(folder, "train")
    phases: set[str] = set()
    prepare(f"{RUN}/records", source, phases)
    assert phases == {"copying"}, "what was made is still on this machine"
    copy = record_cache.of(folder)
    (copy / "manifest.json").unlink()
    (copy / "source_00" / "token_counts-train.npy").unlink()
    assert (record_cache.of(folder) / "source_00" / "token_counts-train.npy").exists()
    truncated = bucket.objects["runs/tiny/records/manifest.json"].content + b"\n"
    bucket.put("runs/tiny/records/manifest.json", truncated)
    assert (record_cache.of(folder) / "manifest.json").read_bytes() == truncated


def test_a_copy_that_arrives_short_is_refused(
    bucket: fake_bucket.Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put("a", b"12345")
    monkeypatch.setattr(storage, "size", lambda path: 6)
    with pytest.raises(OSError, match="has 6 bytes, of which 5 arrived"):
        storage.download(storage.path("gs://bucket/a"), tmp_path / "a")


def test_json_is_replaced_as_a_whole_on_a_disk_and_in_a_bucket(
    bucket: fake_bucket.Bucket, tmp_path: Path
) -> None:
    for path in (tmp_path / "a.json", storage.path("gs://bucket/a.json")):
        for content in ({"a": 1}, {"b": "é"}):
            artifacts.write_json(path, content)
            assert json.loads(path.read_text()) == content
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
