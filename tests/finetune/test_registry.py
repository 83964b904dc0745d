"""From a task's name to its reader, out of tiny files in the official form; identities of files."""

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from mobilebert_jax.config import schema
from mobilebert_jax.config.finetune import Files, Finetune, Squad
from mobilebert_jax.config.schema import GLUE_TASKS, TASKS, Config, InputError
from mobilebert_jax.data import tfds_source
from mobilebert_jax.data import tokenizer as tokenizers
from mobilebert_jax.data.tokenizer import Tokenizer
from mobilebert_jax.finetune import registry, stage
from mobilebert_jax.finetune import tfds as tfds_tasks
from mobilebert_jax.finetune.classification import next_sentence
from mobilebert_jax.finetune.examples import Example, TaskData
from mobilebert_jax.finetune.glue.tasks import GLUE, GlueTask
from tests import miniature

PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path: Path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    path.write_text("".join(f"{piece}\n" for piece in PIECES))
    return tokenizers.load(path, schema.Tokenizer())


def settings(source: Path | str = "tfds", **files: Any) -> Config:
    finetune = Finetune(source=str(source), files=Files(**files), max_seq_length=16)
    return Config(finetune=dataclasses.replace(finetune, squad=Squad(max_seq_length=80)))


def write_glue(folder: Path, task: GlueTask) -> None:
    """Writes two rows into each file of a task, with those of its columns that are read."""
    texts = {task.first: "a b", **({task.second: "c"} if task.second else {})}
    train = task.header or (task.id, *texts, task.label)
    test = (task.id, *texts)
    splits = [(task.train, train), *((s, train) for s in task.dev.values())]
    splits += [(s, test) for s in task.test.values()]
    for split, columns in splits:
        path = folder / split.files[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        headless = task.header and columns is train
        lines = [] if headless else ["\t".join(columns)]
        for row in range(2):
            label = task.labels[row] if task.labels else f"{row}.5"
            values = {**texts, task.id: str(row), task.label: label}
            lines.append("\t".join(values.get(column, "") for column in columns))
        path.write_text("".join(f"{line}\n" for line in lines))


def squad(version: str) -> dict[str, Any]:
    question: dict[str, Any] = {
        "id": "q",
        "question": "a",
        "answers": [{"text": "b", "answer_start": 2}],
    }
    if version == "v2.0":
        question["is_impossible"] = False
    content = {"version": version, "data": [{"paragraphs": [{"context": "a b c", "qas": []}]}]}
    content["data"][0]["paragraphs"][0]["qas"].append(question)  # type: ignore[index]
    return content


def write_squad(folder: Path, version: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "dev"):
        (folder / f"{split}-{version}.json").write_text(json.dumps(squad(version)))


def write_table(folder: Path, name: str = "train.csv", text: str = "a") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"text,label\n{text},x\nb,y\n")
    return str(folder / name)


def write_tags(folder: Path, name: str = "train.conll") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("a\tB-X\nb\tO\n")
    return str(folder / name)


TWO_SENTENCES = TaskData(
    ("next", "other"), [Example("0", "a", None, 1.0, "json")],
    {"dev": [Example("1", "b", None, 0.0, "ast")]}, {}, {},
)  # fmt: skip


def everything(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Config]:
    """Writes files for every task and returns the configuration that reads each."""
    monkeypatch.setattr(next_sentence, "read", lambda source, held_out, workers: TWO_SENTENCES)
    found = {}
    for name, task in GLUE.items():
        write_glue(folder, task)
        found[name] = settings(folder)
    for version in registry.SQUAD_VERSIONS.values():
        write_squad(folder, version)
        found[f"squad_{version}"] = settings(folder)
    table, tags = write_table(folder), write_tags(folder)
    found["classify"] = settings(train=table, dev=table)
    found["tag"] = settings(train=tags, dev=tags)
    found["next_sentence"] = settings()
    return found


def test_every_task_of_the_configuration_is_loaded(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = everything(tmp_path, monkeypatch)
    assert set(configs) == set(TASKS)
    tasks = {name: registry.load(name, configs[name], tokenizer) for name in TASKS}
    assert {name: task.name for name, task in tasks.items()} == {name: name for name in TASKS}
    kinds = {name: task.kind for name, task in tasks.items()}
    assert {name for name, kind in kinds.items() if kind == "number"} == {"sts-b"}
    assert {name for name, kind in kinds.items() if kind == "span"} == set(registry.SQUAD_VERSIONS)
    assert {name for name, kind in kinds.items() if kind == "tags"} == {"tag"}
    for name, task in tasks.items():
        assert len(task.train) and all(len(rows) for rows in task.dev.values()), name
        assert task.length == (80 if name in registry.SQUAD_VERSIONS else 16)
    assert tasks["cola"].main == ("matthews",)
    assert tasks["mnli"].main == ("matched accuracy", "mismatched accuracy")
    assert set(tasks["mnli"].test) == {"matched", "mismatched", "ax"}
    assert tasks["squad_v1.1"].main == ("exact_match", "f1")
    assert tasks["squad_v2.0"].main == ("exact", "f1")
    assert tasks["next_sentence"].labels == ("next", "other")
    assert (tasks["classify"].main, tasks["classify"].title) == (("accuracy",), "train.csv")


def test_names_of_glue_in_the_configuration_are_those_of_its_tasks() -> None:
    assert tuple(GLUE) == GLUE_TASKS


def test_numbers_of_a_table_are_scored_by_correlations(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    path = tmp_path / "price.jsonl"
    path.write_text('{"text": "a", "label": 1.5}\n{"text": "b", "label": -2}\n')
    given = settings(train=str(path), dev=str(path), kind="number")
    task = registry.load("classify", given, tokenizer)
    assert (task.kind, task.main) == ("number", ("pearson", "spearman"))


def test_without_a_folder_glue_and_squad_come_from_tfds(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def read_glue(task: GlueTask) -> TaskData[Example]:
        asked.append(task.tfds)
        return TaskData(task.labels, TWO_SENTENCES.train, TWO_SENTENCES.dev, {}, {})

    def read_squad(version: str) -> dict[str, Any]:
        asked.append(version)
        return {"train": squad(version), "dev": squad(version)}

    monkeypatch.setattr(tfds_tasks, "read_glue", read_glue)
    monkeypatch.setattr(tfds_tasks, "read_squad", read_squad)
    test = tmp_path / "test.json"
    test.write_text(json.dumps(squad("v2.0")))
    assert registry.load("rte", settings(), tokenizer).name == "rte"
    assert not registry.load("squad_v1.1", settings(), tokenizer).test
    assert set(registry.load("squad_v2.0", settings(test=str(test)), tokenizer).test) == {"test"}
    assert asked == ["glue/rte", "v1.1", "v2.0"]
    # Files that are named are read in place of TFDS.
    write_squad(tmp_path, "v1.1")
    files = {split: str(tmp_path / f"{split}-v1.1.json") for split in ("train", "dev")}
    assert len(registry.load("squad_v1.1", settings(**files), tokenizer).train) == 1
    assert asked == ["glue/rte", "v1.1", "v2.0"]


@pytest.mark.parametrize(
    ("task", "version", "message"),
    [
        ("squad_v2.0", "v1.1", "of squad_v2.0 has no unanswerable questions; .* squad_v1.1 for"),
        ("squad_v1.1", "v2.0", "of squad_v1.1 has unanswerable questions; .* squad_v2.0 for"),
    ],
)
def test_a_dev_file_of_the_other_version_is_refused(
    task: str, version: str, message: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    write_squad(tmp_path, version)
    files = {split: str(tmp_path / f"{split}-{version}.json") for split in ("train", "dev")}
    with pytest.raises(InputError, match=message):
        registry.load(task, settings(**files), tokenizer)


def test_training_data_of_the_first_version_serves_the_second(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    write_squad(tmp_path, "v1.1")
    write_squad(tmp_path, "v2.0")
    given = settings(train=str(tmp_path / "train-v1.1.json"), dev=str(tmp_path / "dev-v2.0.json"))
    assert registry.load("squad_v2.0", given, tokenizer).main == ("exact", "f1")


def test_training_data_of_the_second_version_does_not_serve_the_first(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    write_squad(tmp_path, "v1.1")
    write_squad(tmp_path, "v2.0")
    given = settings(train=str(tmp_path / "train-v2.0.json"), dev=str(tmp_path / "dev-v1.1.json"))
    with pytest.raises(InputError, match=r"file of squad_v1\.1 has unanswerable questions"):
        registry.load("squad_v1.1", given, tokenizer)


@pytest.mark.parametrize("name", ["cola", "squad_v1.1", "classify", "tag"])
def test_a_missing_file_is_named(name: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    gone = str(tmp_path / "gone.csv")
    own = name in ("classify", "tag")
    given = settings(train=gone, dev=gone) if own else settings(tmp_path)
    with pytest.raises(InputError, match=str(tmp_path)):
        registry.load(name, given, tokenizer)
    if name != "cola":
        with pytest.raises(InputError, match=f"{tmp_path}.* cannot be read: No such file"):
            registry.fingerprint(name, given)


FILE_OF = {
    **{name: task.train.files[0] for name, task in GLUE.items()},
    "squad_v1.1": "dev-v1.1.json",
    "squad_v2.0": "train-v2.0.json",
    "classify": "train.csv",
    "tag": "train.conll",
}


@pytest.mark.parametrize("name", FILE_OF)
def test_identity_is_what_the_files_hold(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = everything(tmp_path / "one", monkeypatch)[name]
    path = tmp_path / "one" / FILE_OF[name]
    before = registry.fingerprint(name, config)
    assert json.loads(json.dumps(before)) == before and before
    os.utime(path, (1, 1))
    assert registry.fingerprint(name, config) == before
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    other = json.loads(json.dumps(dataclasses.asdict(config.finetune.files)))
    other = {
        key: value.replace(str(tmp_path / "one"), str(tmp_path / "two"))
        for key, value in other.items()
    }
    source = tmp_path / "two" if config.finetune.source != "tfds" else "tfds"
    assert registry.fingerprint(name, settings(source, **other)) == before
    path.write_bytes(path.read_bytes() + b"\n")
    assert registry.fingerprint(name, config) != before


def test_identity_tells_files_of_one_name_apart(tmp_path: Path) -> None:
    train = write_table(tmp_path / "train", "data.csv")
    dev = write_table(tmp_path / "dev", "data.csv", "b")
    before = registry.fingerprint("classify", settings(train=train, dev=dev))
    write_table(tmp_path / "train", "data.csv", "c")
    assert registry.fingerprint("classify", settings(train=train, dev=dev)) != before


def test_identity_of_mnli_includes_its_diagnostic_set(tmp_path: Path) -> None:
    write_glue(tmp_path, GLUE["mnli"])
    before = registry.fingerprint("mnli", settings(tmp_path))
    (tmp_path / "diagnostic/diagnostic.tsv").unlink()
    assert registry.fingerprint("mnli", settings(tmp_path)) != before


def test_identity_of_glue_leaves_out_what_is_not_read(tmp_path: Path) -> None:
    write_glue(tmp_path, GLUE["mrpc"])
    before = registry.fingerprint("mrpc", settings(tmp_path))
    (tmp_path / "MRPC/dev_ids.tsv").write_text("1\t2\n")
    assert registry.fingerprint("mrpc", settings(tmp_path)) == before


def test_identity_of_tfds_is_name_and_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tfds_source, "fingerprint", lambda name: {"tfds": name})
    assert registry.fingerprint("sst-2", settings()) == {"tfds": "glue/sst2"}
    assert registry.fingerprint("squad_v2.0", settings()) == {"tfds": "squad/v2.0"}
    test = write_table(tmp_path, "test.json")
    found = registry.fingerprint("squad_v2.0", settings(test=test))
    assert found["tfds"] == "squad/v2.0" and len(found["test"]) == 64


def test_identity_of_next_sentence_is_the_text_and_the_share(tmp_path: Path) -> None:
    config = settings()
    execution = dataclasses.replace(config.execution, runs_dir=str(tmp_path / "runs"))
    found = registry.fingerprint("next_sentence", dataclasses.replace(config, execution=execution))
    assert found["validation_fraction"] == Config().data.validation_fraction
    (text,) = found["sources"]
    assert "numpy" in [name for name, _ in text["distributions"]]


@pytest.mark.parametrize(("text", "warned"), [("a b", False), ("東京 a", True)])
def test_a_task_that_the_vocabulary_does_not_know_is_warned_of(
    tmp_path: Path, tokenizer: Tokenizer, text: str, warned: bool
) -> None:
    path = tmp_path / "rows.tsv"
    path.write_text(f"text\tlabel\n{text}\tyes\nb c\tno\n")
    task = registry.load("classify", settings(train=str(path), dev=str(path)), tokenizer)
    console = miniature.console()
    stage._report(task, tokenizer, Config(), console)
    assert ("does not know" in console.file.getvalue()) is warned
