import contextlib
import errno
import hashlib
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from mobilebert_jax.config import schema
from mobilebert_jax.config.schema import InputError
from mobilebert_jax.data import atomic, corpus, prepare_checks, prepare_unit, sentences, work_units
from mobilebert_jax.data import prepare as prepare_lib
from tests import process_groups

WORDS = ("tea", "rain", "stone", "river", "cloud", "music", "paper", "light", "morning", "garden")
SETTINGS = schema.Tokenizer(vocab_size=90)

# Prepares argv[1] in argv[2] and kills itself at the moment that argv[3] describes.
PREPARE_AND_DIE = """
import os, signal, sys
from pathlib import Path
from mobilebert_jax.config import schema
from mobilebert_jax.data import atomic, dataset, prepare, work_units

work_units.SHARD_BYTES = 4000
moment, count = sys.argv[3].split(":")
seen = 0

def die_at(name):
    global seen
    seen += name == moment
    if seen == int(count):
        os.kill(os.getpid(), signal.SIGKILL)

def dying(name, function):
    def call(*arguments):
        die_at(name)
        return function(*arguments)
    return call

atomic.publish = dying("publish", atomic.publish)
dataset.shard_path = dying("shard_path", dataset.shard_path)
dataset.write_metadata = dying("metadata", dataset.write_metadata)

if __name__ == "__main__":
    prepare.prepare(
        schema.Data(source=sys.argv[1], validation_fraction=0.2), schema.Tokenizer(vocab_size=90),
        Path(sys.argv[2]), int(sys.argv[4]), lambda phase, done, total: die_at(phase),
    )
"""


def write_corpus(path: Path, documents: int = 120, seed: int = 0) -> str:
    generator = random.Random(seed)
    lines = []
    for _ in range(documents):
        for _ in range(generator.randint(1, 6)):
            chosen = generator.choices(WORDS, k=generator.randint(3, 12))
            lines.append(" ".join(chosen).capitalize() + ".")
        lines.append("")
    path.write_text("".join(f"{line}\n" for line in lines))
    return f"text:{path}"


def prepare(source: str, directory: Path, workers: int = 1, progress=None, **data) -> dict:
    return prepare_lib.prepare(
        schema.Data(source=source, **{"validation_fraction": 0.2, **data}),
        SETTINGS,
        directory,
        workers,
        progress or (lambda phase, done, total: None),
    )


def contents(directory: Path) -> dict[str, str]:
    return {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.rglob("*")
        if path.is_file()
    }


def texts_of(directory: Path, split: str) -> list[str]:
    made = prepare_lib.load_tokenizer(directory)
    return [
        " ".join(made.pieces(documents[i][0].tolist())).replace(" ##", "")
        for documents in prepare_lib.open_documents(directory, split)
        for i in range(len(documents))
    ]


@pytest.fixture
def small_units(monkeypatch):
    monkeypatch.setattr(work_units, "SHARD_BYTES", 4000)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp("unbroken")
    source = write_corpus(folder / "text.txt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work_units, "SHARD_BYTES", 4000)
        prepare(source, folder / "out")
    assert len(list((folder / "out/source_00").glob("*train.array_record*"))) >= 4
    return source, folder / "out"


def test_records_hold_every_sentence_of_every_document(unbroken):
    source, out = unbroken
    made = prepare_lib.load_tokenizer(out)
    expected, lengths = [], []
    for shard in corpus.plan_shards(corpus.parse_sources(source)[0], 1 << 20):
        for document in corpus.read(shard):
            ids = made.encode([s for line in document.lines for s in sentences.split(line)])
            expected.append([token for sentence in ids for token in sentence])
            lengths.append([len(sentence) for sentence in ids])
    found = [
        documents[i]
        for split in ("train", "held_out")
        for documents in prepare_lib.open_documents(out, split)
        for i in range(len(documents))
    ]
    pairs = sorted(zip(expected, lengths, strict=True))
    assert sorted((t.tolist(), n.tolist()) for t, n in found) == pairs
    assert all(t.dtype == n.dtype == np.int32 for t, n in found)


def test_the_manifest_counts_what_is_there(unbroken):
    source, out = unbroken
    manifest = json.loads((out / "manifest.json").read_text())
    (described,) = manifest["sources"]
    assert described["label"] == source
    assert manifest["tokenizer"]["digest"] == prepare_lib.load_tokenizer(out).digest
    assert sum(described["splits"][s]["documents"] for s in ("train", "held_out")) == 120
    for split in ("train", "held_out"):
        (documents,) = prepare_lib.open_documents(out, split)
        counts = described["splits"][split]
        assert counts["records"] == len(documents)
        assert counts["tokens"] == documents.token_counts.sum()
        assert counts["sentences"] == sum(len(documents[i][1]) for i in range(len(documents)))
        sizes = [len(documents[i][0]) for i in range(len(documents))]
        assert documents.token_counts.tolist() == sizes


def test_any_tfds_user_can_read_a_source(unbroken):
    _, out = unbroken
    for split in ("train", "held_out"):
        (documents,) = prepare_lib.open_documents(out, split)
        theirs = tfds.builder_from_directory(str(out / "source_00")).as_data_source(split)
        assert len(theirs) == len(documents)
        for i in range(len(documents)):
            assert theirs[i]["tokens"].dtype == np.int32
            np.testing.assert_array_equal(theirs[i]["tokens"], documents[i][0])
            np.testing.assert_array_equal(theirs[i]["sentence_lengths"], documents[i][1])


def test_documents_can_be_pickled(unbroken):
    (documents,) = prepare_lib.open_documents(unbroken[1], "train")
    documents[0]
    copy = pickle.loads(pickle.dumps(documents))
    np.testing.assert_array_equal(copy[3][0], documents[3][0])
    assert copy.weight == documents.weight and len(copy) == len(documents)


def test_bytes_do_not_depend_on_the_number_of_workers(unbroken, small_units, tmp_path):
    source, out = unbroken
    prepare(source, tmp_path / "out", workers=3)
    assert contents(tmp_path / "out") == contents(out)


@pytest.mark.parametrize(
    "moment",
    ["reading:2", "training tokenizer:1", "training tokenizer:2", "publish:6", "tokenizing:1",
     "tokenizing:3", "shard_path:3", "metadata:1"],
)  # fmt: skip
def test_a_killed_preparation_continues_to_the_same_bytes(unbroken, small_units, tmp_path, moment):
    source, out = unbroken
    command = [sys.executable, "-c", PREPARE_AND_DIE, source, str(tmp_path / "out"), moment, "1"]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    with pytest.raises(InputError, match=r"no manifest\.json"):
        prepare_lib.open_documents(tmp_path / "out", "train")
    with pytest.raises(InputError, match=r"no manifest\.json"):
        prepare_lib.load_tokenizer(tmp_path / "out")
    before = len(list(tmp_path.glob("out/source_00/partial/0*.json")))
    phases: list[tuple[str, int]] = []
    prepare(source, tmp_path / "out", progress=lambda p, done, total: phases.append((p, done)))
    assert contents(tmp_path / "out") == contents(out)
    assert next(done for phase, done in phases if phase == "tokenizing") == before
    if moment.startswith(("tokenizing:3", "shard_path", "metadata")):
        assert before >= 2
        assert {phase for phase, _ in phases} == {"tokenizing"}


def test_workers_end_with_a_killed_parent(unbroken, small_units, tmp_path):
    source, out = unbroken
    script = tmp_path / "prepare.py"
    script.write_text(PREPARE_AND_DIE)
    command = [sys.executable, str(script), source, str(tmp_path / "out"), "tokenizing:3", "2"]
    root = str(Path(prepare_lib.__file__).parents[2])
    run = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": root}, start_new_session=True)
    assert run.wait() == -signal.SIGKILL
    assert process_groups.ends(run.pid)
    prepare(source, tmp_path / "out", workers=2)
    assert contents(tmp_path / "out") == contents(out)


def test_a_finished_preparation_is_not_repeated(unbroken, small_units):
    source, out = unbroken
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    phases = []
    manifest = prepare(source, out, progress=lambda *report: phases.append(report))
    written = json.loads((out / "manifest.json").read_text())
    assert {**manifest, "checksum": written["checksum"]} == written
    assert phases == []
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*")}


def test_changed_text_is_prepared_anew(small_units, tmp_path):
    source = write_corpus(tmp_path / "text.txt")
    first = prepare(source, tmp_path / "out")
    write_corpus(tmp_path / "text.txt", documents=40, seed=1)
    second = prepare(source, tmp_path / "out")
    assert first["digest"] != second["digest"]
    prepare(source, tmp_path / "fresh")
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_a_source_that_is_dropped_leaves_nothing_behind(tmp_path):
    one = write_corpus(tmp_path / "one.txt")
    two = write_corpus(tmp_path / "two.txt", seed=2)
    prepare(f"0.25 {one} + 0.75 {two}", tmp_path / "out")
    opened = prepare_lib.open_documents(tmp_path / "out", "train")
    assert [documents.weight for documents in opened] == [0.25, 0.75]
    prepare(one, tmp_path / "out")
    assert not (tmp_path / "out/source_01").exists()


def test_the_split_depends_on_the_text_of_a_document_alone(tmp_path):
    source = write_corpus(tmp_path / "a.txt")
    prepare(source, tmp_path / "out")
    alone = set(texts_of(tmp_path / "out", "held_out"))
    doubled = tmp_path / "b.txt"
    write_corpus(doubled, seed=3)
    doubled.write_text(doubled.read_text() + (tmp_path / "a.txt").read_text() * 2)
    prepare(f"text:{doubled}", tmp_path / "out2")
    held_out = texts_of(tmp_path / "out2", "held_out")
    assert alone <= set(held_out)
    assert not set(held_out) & set(texts_of(tmp_path / "out2", "train"))


def test_the_share_of_held_out_documents_is_as_asked():
    drawn = [prepare_unit.is_held_out((f"document {i}",), 0.3) for i in range(3000)]
    assert 0.27 < np.mean(drawn) < 0.33


def test_the_tokenizer_never_sees_held_out_text(tmp_path, small_units, monkeypatch):
    source = write_corpus(tmp_path / "text.txt")
    seen: list[str] = []
    train = prepare_lib.tokenizers.train

    def spy(lines, settings, directory):
        seen.extend(lines)
        return train(seen, settings, directory)

    monkeypatch.setattr(prepare_lib.tokenizers, "train", spy)
    prepare(source, tmp_path / "out")
    trained_on = {line.lower().rstrip(".") for line in seen}
    texts = texts_of(tmp_path / "out", "held_out")
    held_out = {sentence.strip() for text in texts for sentence in text.split(" .")}
    long = {sentence for sentence in held_out if len(sentence.split()) >= 8}  # no two by chance
    assert len(trained_on) > 200 and len(long) > 20
    assert not long & trained_on


def test_long_sentences_and_documents_are_cut_and_lose_nothing(tmp_path):
    long_sentence = "tea " * 1300
    long_document = "\n".join(["rain stone river."] * 3000)
    others = write_corpus(tmp_path / "text.txt").removeprefix("text:")
    text = f"{long_sentence}\n\n{long_document}\n\n{Path(others).read_text()}"
    (tmp_path / "text.txt").write_text(text)
    manifest = prepare(f"text:{others}", tmp_path / "out")
    found = [
        documents[i]
        for split in ("train", "held_out")
        for documents in prepare_lib.open_documents(tmp_path / "out", split)
        for i in range(len(documents))
    ]
    made = prepare_lib.load_tokenizer(tmp_path / "out")
    (tea,) = made.encode(["tea"])
    assert len(tea) == 1
    (cut,) = [n.tolist() for t, n in found if (t == tea[0]).all() and len(t) > 100]
    assert cut == [512, 512, 276]
    parts = [(t, n) for t, n in found if len(t) > 2000]
    assert len(parts) >= 2 and all(len(t) <= 8192 for t, _ in parts)
    assert sum(len(n) for _, n in parts) == 3000
    records_made = sum(s["records"] for s in manifest["sources"][0]["splits"].values())
    documents_read = sum(s["documents"] for s in manifest["sources"][0]["splits"].values())
    assert records_made == documents_read + len(parts) - 1


def test_documents_without_a_token_are_counted_and_skipped(tmp_path):
    path = tmp_path / "text.jsonl"
    lines = [{"text": f"{word} garden window {word}."} for word in WORDS] * 4
    path.write_text("\n".join(map(json.dumps, [*lines, {"text": "\u200d\u200d"}])))
    manifest = prepare(f"jsonl:{path}", tmp_path / "out")
    (source,) = manifest["sources"]
    assert source["empty_documents"] == 1
    assert sum(split["documents"] for split in source["splits"].values()) == len(lines)


def test_less_text_is_read_when_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(work_units, "SHARD_BYTES", 150_000)
    source = write_corpus(tmp_path / "text.txt", documents=7500)
    bytes_read = {}
    for limit in (0, 1):
        manifest = prepare(source, tmp_path / f"out{limit}", max_megabytes=limit)
        splits = manifest["sources"][0]["splits"]
        bytes_read[limit] = sum(split["bytes"] for split in splits.values())
    assert bytes_read[0] > 1.1e6
    assert 0.95e6 < bytes_read[1] < 1.05e6


def test_shares_are_used_in_full():
    assert work_units._shares(0, [5, 6]) == [0, 0]
    assert work_units._shares(30, [100, 100, 100]) == [10, 10, 10]
    assert work_units._shares(30, [100, 4, 100]) == [13, 4, 13]
    assert work_units._shares(300, [100, 4, 100]) == [100, 4, 100]


def test_a_source_never_has_more_units_than_readers_can_open(tmp_path, monkeypatch):
    source = corpus.parse_sources(write_corpus(tmp_path / "text.txt"))[0]
    monkeypatch.setattr(work_units, "SHARD_BYTES", 1000)
    monkeypatch.setattr(work_units, "MAX_UNITS", 5)
    assert 2 <= len(work_units.plan(source, 0.1, tmp_path, 0)) <= 5


def test_a_loaded_vocabulary_is_copied(unbroken, tmp_path):
    source, out = unbroken
    vocab = out / "tokenizer/vocab.txt"
    data = schema.Data(source=source, validation_fraction=0.2)
    settings = schema.Tokenizer(path=str(vocab))
    phases = set()
    prepare_lib.prepare(data, settings, tmp_path / "out", 1, lambda *r: phases.add(r[0]))
    assert phases == {"tokenizing"}
    assert (tmp_path / "out/tokenizer/vocab.txt").read_bytes() == vocab.read_bytes()


@pytest.mark.parametrize(
    ("held_out", "message"),
    [(1e-9, "120 documents.*held_out split; raise"), (1 - 1e-9, "120 documents.*train split")],
)
def test_an_empty_split_is_refused(tmp_path, held_out, message, unbroken):
    settings = schema.Tokenizer(path=str(unbroken[1] / "tokenizer/vocab.txt"))
    data = schema.Data(source=unbroken[0], validation_fraction=held_out)
    with pytest.raises(InputError, match=message):
        prepare_lib.prepare(data, settings, tmp_path / "out", 1, lambda *r: None)
    assert not (tmp_path / "out/manifest.json").exists()


def test_text_that_is_not_utf8_is_refused_by_workers_too(tmp_path):
    (tmp_path / "text.txt").write_bytes(b"Some tea.\n\nMore \xff\xfe rain.\n")
    with pytest.raises(InputError, match=r"text\.txt.*iconv"):
        prepare(f"text:{tmp_path}/text.txt", tmp_path / "out", workers=2)
    assert not list(tmp_path.glob("out/**/*.tmp"))


def test_a_full_disk_is_reported_and_the_rest_is_kept(unbroken, small_units, tmp_path, monkeypatch):
    source, out = unbroken
    publish, calls = atomic.publish, []

    def full(path):
        calls.append(path)
        if len(calls) > 12:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        publish(path)

    monkeypatch.setattr(atomic, "publish", full)
    with pytest.raises(InputError, match=r"disk of .*out is full after [\d,]+ bytes"):
        prepare(source, tmp_path / "out")
    monkeypatch.undo()
    monkeypatch.setattr(work_units, "SHARD_BYTES", 4000)
    assert list(tmp_path.glob("out/source_00/partial/0*.json"))
    assert not list(tmp_path.glob("out/source_00/partial/*train*.tmp"))
    prepare(source, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(out)


def test_the_record_writer_reports_a_full_disk():
    if not Path("/dev/full").exists():
        pytest.fail("this test needs /dev/full, which every Linux has")
    with pytest.raises(OSError) as caught, prepare_unit._disk_errors(Path("/dev/full")):
        writer = prepare_unit.ArrayRecordWriter("/dev/full", "group_size:1")
        writer.write(b"record")
        writer.close()
    assert caught.value.errno == errno.ENOSPC


def test_preparation_does_not_import_jax():
    code = "import sys, mobilebert_jax.data.prepare; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def damaged(path: Path, generator: random.Random) -> None:
    """Changes one byte of a file."""
    content = bytearray(path.read_bytes())
    content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
    path.write_bytes(bytes(content))


def read_all(directory: Path) -> None:
    for split in ("train", "held_out"):
        texts_of(directory, split)


def test_a_changed_byte_of_any_file_is_refused(tmp_path, unbroken):
    generator = random.Random(3)
    whole = texts_of(unbroken[1], "train")
    for name in sorted(contents(unbroken[1])):
        for _ in range(1 if "array_record" in name else 8):
            copy = tmp_path / "copy"
            shutil.copytree(unbroken[1], copy)
            damaged(copy / name, generator)
            if "array_record" in name:
                # Bytes between the chunks mean nothing; what is read is then as it was.
                with contextlib.suppress(InputError):
                    read_all(copy)
                    assert texts_of(copy, "train") == whole
            else:
                with pytest.raises(InputError, match=r"damaged|changed|must hold"):
                    read_all(copy)
            shutil.rmtree(copy)


@pytest.mark.parametrize("lost", ["documents-train", "token_counts", "vocab", "dataset_info"])
def test_a_lost_file_is_named(tmp_path, unbroken, lost):
    copy = tmp_path / "copy"
    shutil.copytree(unbroken[1], copy)
    path = next(path for path in sorted(copy.rglob("*")) if path.name.startswith(lost))
    path.unlink()
    with pytest.raises(InputError, match=path.name):
        read_all(copy)


def test_a_record_file_of_another_length_is_named(tmp_path, unbroken):
    copy = tmp_path / "copy"
    shutil.copytree(unbroken[1], copy)
    path = next((copy / "source_00").glob("documents-train*"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=f"{path.name} has .* bytes instead of"):
        prepare_lib.open_documents(copy, "train")


def test_text_that_the_vocabulary_does_not_know_is_refused(tmp_path, unbroken):
    foreign = tmp_path / "foreign.txt"
    foreign.write_text(
        "".join(f"東京は日本の首都です{i}。\n京都は古い都です。\n\n" for i in range(60))
    )
    vocab = str(unbroken[1] / "tokenizer/vocab.txt")
    data = schema.Data(source=f"text:{foreign}", validation_fraction=0.3)
    with pytest.raises(InputError) as error:
        prepare_lib.prepare(
            data, schema.Tokenizer(path=vocab), tmp_path / "out", 1, lambda *report: None
        )
    message = str(error.value)
    assert "tokenizer.max_unknown_share=0.05" in message and "'東'" in message
    # Who means it may say so; what was tokenised is not done again.
    settings = schema.Tokenizer(path=vocab, max_unknown_share=1.0)
    manifest = prepare_lib.prepare(data, settings, tmp_path / "out", 1, lambda *report: None)
    assert prepare_checks.share_of(manifest["sources"][0]["splits"], "unknown", "tokens") > 0.8


def test_what_is_worth_knowing_of_a_text_is_reported(tmp_path, unbroken):
    (kind, sentence), *others = prepare_checks.remarks(
        json.loads((unbroken[1] / "manifest.json").read_text())
    )
    assert kind == "note" and others == []
    assert "120 documents of" in sentence and "0.00% of the tokens unknown" in sentence
    split = tmp_path / "split.txt"
    split.write_text("".join(f"{' '.join(WORDS[i % 5 :])} .\n\n" for i in range(80)))
    manifest = prepare(f"text:{split}", tmp_path / "out")
    ((_, _), (kind, sentence)) = prepare_checks.remarks(manifest)
    assert kind == "warning" and "100% of the documents are one sentence" in sentence


def test_a_corpus_that_is_held_out_whole_is_refused_with_the_reason(tmp_path):
    path = tmp_path / "one.txt"
    path.write_text("A single document.\n")
    with pytest.raises(InputError, match="has no document for training: all fall into"):
        prepare(f"text:{path}", tmp_path / "out", validation_fraction=0.999999)
