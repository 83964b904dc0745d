"""Predictions as the GLUE server takes them."""

import math
import os
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.finetune.glue import submission

NLI = ("contradiction", "entailment", "neutral")


def _written(path: Path, *arguments: object, **options: object) -> str:
    submission.write(path, *arguments, **options)  # type: ignore[arg-type]
    return path.read_bytes().decode()


def test_classes_are_written_by_name_in_the_order_of_the_test_file(tmp_path: Path) -> None:
    found = _written(tmp_path / "AX.tsv", ["7", "0", "3"], [2, 1, 0], NLI)
    assert found == "index\tprediction\n7\tneutral\n0\tentailment\n3\tcontradiction\n"


def test_scores_are_clipped_and_have_three_decimals(tmp_path: Path) -> None:
    scores = [-0.2, -1e-9, -0.0, 0.0004, 2.34567, 4.9996, 5.0, 7.5]
    found = _written(tmp_path / "STS-B.tsv", [str(i) for i in range(8)], scores, None)
    assert [line.split("\t")[1] for line in found.splitlines()[1:]] == [
        "0.000",
        "0.000",
        "0.000",
        "0.000",
        "2.346",
        "5.000",
        "5.000",
        "5.000",
    ]


def test_scores_of_any_range_are_written_as_they_are(tmp_path: Path) -> None:
    found = _written(
        tmp_path / "test.tsv", ["a", "b", "c"], [-31.25, 1e-5, 123456.78], None, score_range=None
    )
    assert found == "index\tprediction\na\t-31.25\nb\t1e-05\nc\t123456.8\n"


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "RTE.tsv"
    for prediction in (0, 1):
        found = _written(path, ["0"], [prediction], ("entailment", "not_entailment"))
    assert found == "index\tprediction\n0\tnot_entailment\n"
    assert os.listdir(tmp_path) == ["RTE.tsv"]


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\t\r\n"), min_size=1),
        st.integers(0, 2),
        min_size=1,
    )
)
def test_every_file_reads_back_as_it_was_meant(
    tmp_path_factory: pytest.TempPathFactory, rows: dict[str, int]
) -> None:
    path = tmp_path_factory.mktemp("glue") / "MNLI-m.tsv"
    text = _written(path, list(rows), list(rows.values()), NLI)
    read = [line.split("\t") for line in text.split("\n")]
    assert read[0] == ["index", "prediction"] and read[-1] == [""]
    assert read[1:-1] == [[name, NLI[index]] for name, index in rows.items()]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["0", "1", "0"], r"RTE.tsv: the id '0' of test row 3 is also that of row 1"),
        (["0", "1\t", "2"], r"the id '1\\t' of test row 2 is empty or has a tab"),
        (["", "1", "2"], r"the id '' of test row 1 is empty"),
    ],
)
def test_ids_that_cannot_be_told_apart_are_refused(
    tmp_path: Path, ids: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        submission.write(tmp_path / "RTE.tsv", ids, [0, 0, 0], ("0", "1"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("ids", "predictions", "labels", "message"),
    [
        (["0"], [0, 1], ("0", "1"), "1 ids but 2 predictions"),
        ([], [], ("0", "1"), "no predictions to write"),
        (["0", "1"], [0, 2], ("0", "1"), "test row 2: 2 is no index of the 2 classes"),
        (["0"], [-1], ("0", "1"), "-1 is no index"),
        (["0"], [0.5], ("0", "1"), "0.5 is no index"),
        (["0"], [math.nan], ("0", "1"), "nan is no index"),
        (["0"], [math.nan], None, "the prediction nan is not a number"),
        (["0"], [math.inf], None, "the prediction inf is not a number"),
    ],
)
def test_predictions_that_say_nothing_are_refused(
    tmp_path: Path,
    ids: list[str],
    predictions: list[float],
    labels: tuple[str, ...] | None,
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message):
        submission.write(tmp_path / "QQP.tsv", ids, predictions, labels)
    assert not list(tmp_path.iterdir())


def test_the_archive_has_the_servers_files_alone_and_says_which_are_missing(
    tmp_path: Path,
) -> None:
    for name in ("WNLI.tsv", "CoLA.tsv"):
        submission.write(tmp_path / name, ["0"], [1], ("0", "1"))
    (tmp_path / "dev-test.tsv").write_text("index\tprediction\n")
    missing = submission.pack(tmp_path)
    assert len(missing) == 9 and {"AX.tsv", "MNLI-mm.tsv", "STS-B.tsv"} < set(missing)
    with zipfile.ZipFile(tmp_path / "submission.zip") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["CoLA.tsv", "WNLI.tsv"]
        assert archive.read("CoLA.tsv") == b"index\tprediction\n0\t1\n"


def test_an_archive_of_all_eleven_files_is_complete_and_always_the_same(tmp_path: Path) -> None:
    for name in submission.FILES.values():
        submission.write(tmp_path / name, ["0"], [1], ("0", "1"))
    assert submission.pack(tmp_path) == ()
    first = (tmp_path / "submission.zip").read_bytes()
    for name in submission.FILES.values():
        os.utime(tmp_path / name, (2**30, 2**30))
    assert submission.pack(tmp_path) == ()
    assert (tmp_path / "submission.zip").read_bytes() == first
    assert len(list(tmp_path.iterdir())) == 12


def test_an_archive_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no file of predictions, such as AX\.tsv"):
        submission.pack(tmp_path)
