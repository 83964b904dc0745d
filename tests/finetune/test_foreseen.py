"""The dry run says of a trained output layer what the run will."""

from pathlib import Path
from typing import Any

import pytest

from mobilebert_jax.config.schema import Config, InputError
from mobilebert_jax.finetune import foreseen
from mobilebert_jax.interop import own_format
from mobilebert_jax.interop.model import Kind
from mobilebert_jax.pipeline import dry_run
from tests import miniature
from tests.interop import exchanged

NEW = "student: output layer new, because it"


def config(folder: Path, *tasks: str, **settings: Any) -> Config:
    given = {"stages": ("finetune",), "finetune__tasks": tasks, "finetune__max_seq_length": 16}
    return miniature.experiment(folder, **(given | settings))


def published(folder: Path, kind: Kind, *labels: str) -> str:
    model = exchanged.make(exchanged.CONFIGS["tiny"], kind, labels)
    own_format.write(model, folder / "published")
    return str(folder / "published")


def lines(folder: Path, network: str, *tasks: str, **settings: Any) -> list[str]:
    console = miniature.console()
    dry_run.show(config(folder, *tasks, finetune__pretrained=network, **settings), console)
    printed = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    return [line for line in printed if "output layer" in line]


def test_the_labels_of_benchmarks_are_known_without_their_files(tmp_path: Path) -> None:
    network = published(tmp_path, "sequence_classification", "positive", "negative")
    found = lines(tmp_path, network, "sst-2", "mnli", "sts-b", "squad_v1.1", "next_sentence")
    permuted = "permuted, because its labels are those of the task in another order"
    assert found == [
        f"SST-2, student: output layer {permuted}",
        f"MNLI, {NEW} has 2 labels, and the task has 3",
        f"STS-B, {NEW} is one for classes, and the task is one of number",
        f"SQuAD v1.1, {NEW} is one for classes, and the task is one of span",
        "Next sentence, student: output layer new, because its labels ('positive', 'negative') "
        "have other names than those of the task ('next', 'other')",
    ]


def test_a_reader_of_spans_is_kept(tmp_path: Path) -> None:
    (found,) = lines(
        tmp_path, published(tmp_path, "question_answering", "start", "end"), "squad_v2.0"
    )
    assert found.startswith("SQuAD v2.0, student: output layer kept, because")


def test_labels_of_own_files_are_read_where_that_is_quick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = published(tmp_path, "sequence_classification", "M", "K")
    table, words = tmp_path / "table.tsv", tmp_path / "words.conll"
    table.write_text("text\tlabel\nkalo pel\tk\nmiren dan\tm\n")
    words.write_text("kalo B-PER\nmiren O\n\npel O\n")
    files = {f"finetune__files__{split}": str(table) for split in ("train", "dev")}
    (found,) = lines(tmp_path, network, "classify", **files)
    assert found.startswith("table.tsv, student: output layer permuted, because")
    tags = {name: str(words) for name in files}
    (found,) = lines(tmp_path, network, "tag", **tags)
    assert found == f"words.conll, {NEW} is one for classes, and the task is one of tags"
    monkeypatch.setattr(foreseen, "MOST_BYTES", 10)
    (found,) = lines(tmp_path, network, "classify", **files)
    assert found == ("classify, student: output layer kept, permuted or new, as the files will say")
    with pytest.raises(InputError, match=r"nothing\.tsv"):
        lines(tmp_path, network, "classify", **{name: "nothing.tsv" for name in files})


def test_networks_without_one_and_those_of_the_run_itself_have_nothing_to_say(
    tmp_path: Path,
) -> None:
    assert lines(tmp_path, published(tmp_path, "bare"), "rte") == []
    assert list(foreseen.output_layers(config(tmp_path, "rte"))) == []


def test_a_network_that_is_not_there_ends_the_dry_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"finetune\.pretrained='nowhere' is not the folder"):
        lines(tmp_path, "nowhere", "rte")
