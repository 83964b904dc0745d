"""GLUE and SQuAD out of small datasets of the same names and features as TFDS's own."""

from pathlib import Path
from typing import Any

import pytest
import tensorflow_datasets as tfds

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.data import tfds_source
from mobilebert_jax.finetune import tfds as tfds_tasks
from mobilebert_jax.finetune.glue import files as glue_files
from mobilebert_jax.finetune.glue.tasks import GLUE
from tests.finetune.datasets import Rows, make, make_glue, squad_features


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder where TFDS looks for datasets, on a machine without network."""
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path))
    monkeypatch.setattr(tfds_source, "_PROBE_URL", "http://127.0.0.1:9/")
    return tmp_path


def _plain(examples: object) -> list[tuple[object, ...]]:
    return [tuple(example)[:4] for example in examples]  # type: ignore[attr-defined]


_ENTAILMENT = ["entailment", "not_entailment"]
_SHAPES: dict[str, tuple[str, list[str], list[str] | None]] = {
    "cola": ("cola", ["sentence"], ["unacceptable", "acceptable"]),
    "sst-2": ("sst2", ["sentence"], ["negative", "positive"]),
    "mrpc": ("mrpc", ["sentence1", "sentence2"], ["not_equivalent", "equivalent"]),
    "qqp": ("qqp", ["question1", "question2"], ["not_duplicate", "duplicate"]),
    "qnli": ("qnli", ["question", "sentence"], _ENTAILMENT),
    "rte": ("rte", ["sentence1", "sentence2"], _ENTAILMENT),
    "wnli": ("wnli", ["sentence1", "sentence2"], _ENTAILMENT[::-1]),
}


@pytest.mark.parametrize("task", _SHAPES)
def test_tasks_of_two_classes(folder: Path, task: str) -> None:
    config, texts, classes = _SHAPES[task]
    words = [f"Größe {n}" for n in range(len(texts))]
    second = words[1] if len(words) > 1 else None
    make_glue(
        folder,
        config,
        texts,
        classes,
        {
            "train": [(*words, n % 2, n) for n in reversed(range(20))],
            "validation": [(*words, 1, 5)],
            "test": [(*words, -1, n) for n in range(20)],
        },
    )
    data = tfds_tasks.read_glue(GLUE[task])
    assert data.labels == GLUE[task].labels
    assert _plain(data.train) == [(str(n), words[0], second, n % 2) for n in range(20)]
    assert _plain(data.dev["dev"]) == [("5", words[0], second, 1)]
    assert _plain(data.test["test"]) == [(str(n), words[0], second, None) for n in range(20)]
    assert data.train[3].where == f"glue/{config}/2.0.0:train:3"
    assert data.notes == {}


_MNLI = ["entailment", "neutral", "contradiction"]


def _make_mnli(folder: Path, **changed: list[tuple[Any, ...]]) -> None:
    rows: dict[str, list[tuple[Any, ...]]] = {
        "train": [("P", f"H{n}", n, n) for n in range(3)],
        "validation_matched": [("P", "H", 2, 0)],
        "validation_mismatched": [("P", "H", 0, 0)],
        "test_matched": [("P", "H", -1, 0)],
        "test_mismatched": [("P", "H", -1, 0)],
    }
    make_glue(folder, "mnli", ["premise", "hypothesis"], _MNLI, {**rows, **changed})


def test_mnli_in_the_order_of_the_server_with_the_diagnostic_set(folder: Path) -> None:
    _make_mnli(folder)
    missing = tfds_tasks.read_glue(GLUE["mnli"])
    assert list(missing.test) == ["matched", "mismatched"]
    ((note, count),) = missing.notes.items()
    assert "'ax' left out: tfds:glue/ax is not prepared" in note
    assert count == 1
    make_glue(folder, "ax", ["premise", "hypothesis"], _MNLI, {"test": [("Cats", "Rest", -1, 9)]})
    data = tfds_tasks.read_glue(GLUE["mnli"])
    assert [data.labels[int(row.label)] for row in data.train] == _MNLI
    assert _plain(data.dev["matched"]) == [("0", "P", "H", 0)]
    assert _plain(data.dev["mismatched"]) == [("0", "P", "H", 1)]
    assert _plain(data.test["ax"]) == [("9", "Cats", "Rest", None)]
    assert data.notes == {}


def test_scores_are_those_of_the_files(folder: Path) -> None:
    scores = [3.2, 5.0, 0.0, 1.533]
    make_glue(
        folder,
        "stsb",
        ["sentence1", "sentence2"],
        None,
        {
            "train": [("A", "B", score, n) for n, score in enumerate(scores)],
            "validation": [("A", "B", 0.25, 0)],
            "test": [("A", "B", -1.0, 0)],
        },
    )
    data = tfds_tasks.read_glue(GLUE["sts-b"])
    assert [row.label for row in data.train] == scores
    assert data.test["test"][0].label is None


def test_both_sources_give_the_same_rows(folder: Path) -> None:
    make_glue(
        folder,
        "sst2",
        ["sentence"],
        ["negative", "positive"],
        {"train": [("fine ", 1, 0), ("bad", 0, 1)], "validation": [("good", 1, 0)]},
    )
    (folder / "SST-2").mkdir()
    (folder / "SST-2/train.tsv").write_text("sentence\tlabel\nfine \t1\nbad\t0\n")
    (folder / "SST-2/dev.tsv").write_text("sentence\tlabel\ngood\t1\n")
    ours, theirs = tfds_tasks.read_glue(GLUE["sst-2"]), glue_files.read(GLUE["sst-2"], folder)
    assert ours.labels == theirs.labels
    assert _plain(ours.train) == _plain(theirs.train)
    assert _plain(ours.dev["dev"]) == _plain(theirs.dev["dev"])
    assert ours.test == theirs.test == {}


def test_empty_texts_follow_the_rule_of_the_files(folder: Path) -> None:
    texts, classes = ["question1", "question2"], ["not_duplicate", "duplicate"]
    rows = [("A", "B", 0, 0), ("A", "", 0, 1)]
    make_glue(folder, "qqp", texts, classes, {"train": rows, "validation": rows})
    data = tfds_tasks.read_glue(GLUE["qqp"])
    assert (len(data.train), len(data.dev["dev"])) == (1, 2)
    assert data.notes == {
        "train: rows with an empty text, left out": 1,
        "validation: rows with an empty text, kept": 1,
    }
    _make_mnli(folder, train=[("P", " ", 0, 4)])
    with pytest.raises(InputError, match=r"glue/mnli/2\.0\.0:train:4: the text is empty"):
        tfds_tasks.read_glue(GLUE["mnli"])


def test_what_is_not_as_expected_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match=r"glue/rte is not prepared .*tfds build glue/rte"):
        tfds_tasks.read_glue(GLUE["rte"])
    texts = ["sentence1", "sentence2"]
    rows = {"train": [("A", "B", -1, 7)], "validation": [("A", "B", 0, 0)]}
    make_glue(folder, "rte", texts, _ENTAILMENT, rows)
    with pytest.raises(InputError, match=r"2\.0\.0:train:7: the row has no label \(TFDS says -1"):
        tfds_tasks.read_glue(GLUE["rte"])
    make_glue(folder, "wnli", texts, _ENTAILMENT, {"train": [("A", "B", 0, 7)]})
    with pytest.raises(InputError, match=r"glue/wnli has no split 'validation'; its .* train$"):
        tfds_tasks.read_glue(GLUE["wnli"])


# ---- SQuAD ------------------------------------------------------------------------------------


_CONTEXTS = {"Köln lies on the Rhine.": "Köln", "Bonn, too.": "Köln", "Rain fell.": "Weather"}


def _squad_rows(version: str) -> Rows:
    rows = []
    for n, (context, title) in enumerate(list(_CONTEXTS.items()) * 4):
        word = context.split()[0]
        impossible = version == "v2.0" and n % 2 == 1
        row: dict[str, Any] = {
            "id": f"id{n}",
            "title": title,
            "context": context,
            "question": f"Which word of {n}?",
            "answers": {
                "text": [] if impossible else [word, context[5:8]],
                "answer_start": [] if impossible else [0, 5],
            },
        }
        if version == "v2.0":
            row["is_impossible"] = impossible
            plausible = {"text": [word] * impossible, "answer_start": [0] * impossible}
            row["plausible_answers"] = plausible
        rows.append(row)
    return rows


@pytest.mark.parametrize("version", ["v1.1", "v2.0"])
def test_squad_in_the_form_of_its_files(folder: Path, version: Any) -> None:
    rows = _squad_rows(version)
    splits = {"train": rows, "validation": rows[:1]}
    make(folder, "squad", version, "3.0.0", squad_features(version), splits)
    found = tfds_tasks.read_squad(version)
    assert found["train"]["version"] == {"v1.1": "1.1", "v2.0": "v2.0"}[version]
    assert len(found["dev"]["data"]) == 1
    assert {article["title"] for article in found["train"]["data"]} == {"Köln", "Weather"}
    paragraphs = [
        (article["title"], paragraph)
        for article in found["train"]["data"]
        for paragraph in article["paragraphs"]
    ]
    assert {paragraph["context"]: title for title, paragraph in paragraphs} == _CONTEXTS
    assert len(paragraphs) == 3
    expected = {row["id"]: row for row in rows}
    for _, paragraph in paragraphs:
        assert len(paragraph["qas"]) == 4
        for question in paragraph["qas"]:
            row = expected.pop(question["id"])
            assert paragraph["context"] == row["context"]
            assert question["question"] == row["question"]
            starts = row["answers"]["answer_start"]
            assert question["answers"] == [
                {"text": text, "answer_start": start}
                for text, start in zip(row["answers"]["text"], starts, strict=True)
            ]
            assert question.get("is_impossible") == row.get("is_impossible")
            assert len(question.get("plausible_answers", [])) == (not starts)
    assert not expected
