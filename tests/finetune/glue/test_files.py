"""GLUE's official files, made by hand with the oddities that the real ones have."""

import re
from pathlib import Path

import pytest

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.finetune import metrics
from mobilebert_jax.finetune.examples import Example, TaskData
from mobilebert_jax.finetune.glue import files as glue_files
from mobilebert_jax.finetune.glue import submission
from mobilebert_jax.finetune.glue.tasks import GLUE

_MNLI = (
    "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\t"
    "sentence1_parse\tsentence2_parse\tsentence1\tsentence2"
)
_MNLI_ROW = "7\t1\t1e\tfiction\t( a )\t( b )\t(ROOT a)\t(ROOT b)\tA premise\tA hypothesis"
_ONE_ANNOTATOR = f"{_MNLI}\tlabel1\tgold_label"
_FIVE_ANNOTATORS = f"{_MNLI}\t" + "".join(f"label{n}\t" for n in range(1, 6)) + "gold_label"
_FIVE = "\tneutral" * 5
_STS = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2"
_STS_ROW = "0\tmain\tMSRvid\t2012test\t0001\tnone\tnone\tA plane .\tAn air plane ."

_FILES = {
    "cola": {
        "CoLA/train.tsv": "gj04\t1\t\tHe said hi.\ngj04\t0\t*\tHe hi said.\n",
        "CoLA/dev.tsv": "gj04\t1\t\tShe left.\n",
        "CoLA/test.tsv": "index\tsentence\n0\tBill sleeps.\n1\tSleeps bill.\n",
    },
    "sst-2": {
        "SST-2/train.tsv": "sentence\tlabel\nhide new secretions \t0\na fine film \t1\n",
        "SST-2/dev.tsv": "sentence\tlabel\na charming journey . \t1\n",
        "SST-2/test.tsv": "index\tsentence\n0\tuneasy mishmash .\n",
    },
    "mrpc": {
        "MRPC/train.tsv": "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
        '1\t70\t71\tHe called " the witness\tReferring to "" him\n0\t72\t73\tOne .\tTwo .\n',
        "MRPC/dev.tsv": "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t8\t9\tA\tB\n",
        "MRPC/test.tsv": "\ufeffindex\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t5\t6\tC\tD\n",
    },
    "sts-b": {
        "STS-B/train.tsv": f"{_STS}\tscore\n{_STS_ROW}\t5.000\n1{_STS_ROW[1:]}\t0.250\n",
        "STS-B/dev.tsv": f"{_STS}\tscore\n{_STS_ROW}\t3.8\n",
        "STS-B/test.tsv": f"{_STS}\n{_STS_ROW}\n",
    },
    "qqp": {
        "QQP/train.tsv": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
        "40\t1\t2\tWhy?\tHow?\t0\n41\t3\t4\tWho?\tWho is it?\t1\n",
        "QQP/dev.tsv": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n5\t1\t2\tA?\tB?\t1\n",
        "QQP/test.tsv": "id\tquestion1\tquestion2\n0\tWhere?\tWhither?\n",
    },
    "mnli": {
        "MNLI/train.tsv": f"{_ONE_ANNOTATOR}\n{_MNLI_ROW}\tneutral\tneutral\n"
        f"8{_MNLI_ROW[1:]}\tentailment\tentailment\n9{_MNLI_ROW[1:]}\tneutral\tcontradiction\n",
        "MNLI/dev_matched.tsv": f"{_FIVE_ANNOTATORS}\n{_MNLI_ROW}{_FIVE}\tentailment\n",
        "MNLI/dev_mismatched.tsv": f"{_ONE_ANNOTATOR}\n{_MNLI_ROW}\tneutral\tneutral\n",
        "MNLI/test_matched.tsv": f"{_MNLI}\n{_MNLI_ROW}\n",
        "MNLI/test_mismatched.tsv": f"{_MNLI}\n{_MNLI_ROW}\n",
        "diagnostic/diagnostic.tsv": "index\tsentence1\tsentence2\n0\tCats sleep.\tCats rest.\n",
    },
    "qnli": {
        "QNLI/train.tsv": "index\tquestion\tsentence\tlabel\n0\tWho?\tHe.\tentailment\n"
        "1\tWhen?\tHere.\tnot_entailment\n",
        "QNLI/dev.tsv": "index\tquestion\tsentence\tlabel\n0\tWho?\tHe.\tentailment\n",
        "QNLI/test.tsv": "index\tquestion\tsentence\n0\tWhere?\tThere.\n",
    },
    "rte": {
        "RTE/train.tsv": "index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\tnot_entailment\n"
        "1\tC.\tD.\tentailment\n",
        "RTE/dev.tsv": "index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\tentailment\n",
        "RTE/test.tsv": "index\tsentence1\tsentence2\n0\tA.\tB.\n",
    },
    "wnli": {
        "WNLI/train.tsv": "index\tsentence1\tsentence2\tlabel\n0\tI saw it.\tIt saw.\t1\n"
        "1\tC.\tD.\t0\n",
        "WNLI/dev.tsv": "index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\t0\n",
        "WNLI/test.tsv": "index\tsentence1\tsentence2\n0\tA.\tB.\n",
    },
}

_TRAIN = {
    "cola": [("0", "He said hi.", None, 1), ("1", "He hi said.", None, 0)],
    "sst-2": [("0", "hide new secretions ", None, 0), ("1", "a fine film ", None, 1)],
    "mrpc": [
        ("0", 'He called " the witness', 'Referring to "" him', 1),
        ("1", "One .", "Two .", 0),
    ],
    "sts-b": [
        ("0", "A plane .", "An air plane .", 5.0),
        ("1", "A plane .", "An air plane .", 0.25),
    ],
    "qqp": [("40", "Why?", "How?", 0), ("41", "Who?", "Who is it?", 1)],
    "mnli": [(id, "A premise", "A hypothesis", n) for id, n in (("7", 2), ("8", 1), ("9", 0))],
    "qnli": [("0", "Who?", "He.", 0), ("1", "When?", "Here.", 1)],
    "rte": [("0", "A.", "B.", 1), ("1", "C.", "D.", 0)],
    "wnli": [("0", "I saw it.", "It saw.", 1), ("1", "C.", "D.", 0)],
}


def _write(folder: Path, task: str, **changed: str | bytes) -> Path:
    """Writes a task's files, those named by the start of their file's name changed."""
    for name, content in _FILES[task].items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        new = changed.get(path.stem, content)
        path.write_bytes(new if isinstance(new, bytes) else new.encode())
    return folder


def _read(folder: Path, task: str, **changed: str | bytes) -> TaskData:
    return glue_files.read(GLUE[task], _write(folder, task, **changed))


def _plain(examples: object) -> list[tuple[object, ...]]:
    return [tuple(example)[:4] for example in examples]  # type: ignore[attr-defined]


@pytest.mark.parametrize("task", GLUE)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_every_task_is_read_whichever_the_line_ends(
    tmp_path: Path, task: str, line_end: str
) -> None:
    contents = {
        Path(name).stem: text.replace("\n", line_end) for name, text in _FILES[task].items()
    }
    data = _read(tmp_path, task, **contents)
    assert _plain(data.train) == _TRAIN[task]
    assert data.labels == GLUE[task].labels
    assert data.notes == {}
    first = data.train[0]
    assert isinstance(first, Example)
    line = 1 if task == "cola" else 2
    assert first.where == f"{tmp_path / GLUE[task].folder / 'train.tsv'}:{line}"
    for examples in data.dev.values():
        assert [row[3] is None for row in _plain(examples)] == [False]
    for examples in data.test.values():
        rows = _plain(examples)
        assert rows[0][0] in ("0", "7")
        assert {row[3] for row in rows} == {None}
    splits = {"matched", "mismatched", "ax"} if task == "mnli" else {"test"}
    assert set(data.test) == set(GLUE[task].submission) == splits


def test_the_table_agrees_with_the_server_and_the_average() -> None:
    assert list(GLUE) == list(metrics.GLUE_METRICS)
    assert {
        (task.name, split): file
        for task in GLUE.values()
        for split, file in task.submission.items()
    } == submission.FILES
    for task in GLUE.values():
        if task.name != "mnli":
            assert set(task.metrics) == set(metrics.GLUE_METRICS[task.name])


def test_the_dev_and_test_rows_of_mnli(tmp_path: Path) -> None:
    data = _read(tmp_path, "mnli")
    assert _plain(data.dev["matched"]) == [("7", "A premise", "A hypothesis", 1)]
    assert _plain(data.dev["mismatched"]) == [("7", "A premise", "A hypothesis", 2)]
    assert _plain(data.test["ax"]) == [("0", "Cats sleep.", "Cats rest.", None)]


def test_the_diagnostic_set_may_lie_in_ax(tmp_path: Path) -> None:
    _write(tmp_path, "mnli")
    (tmp_path / "diagnostic").rename(tmp_path / "AX")
    assert list(glue_files.read(GLUE["mnli"], tmp_path).test) == ["matched", "mismatched", "ax"]


def test_one_dev_file_of_mnli_and_no_test_files_will_do(tmp_path: Path) -> None:
    _write(tmp_path, "mnli")
    for name in ("MNLI/dev_matched", "MNLI/test_matched", "MNLI/test_mismatched"):
        (tmp_path / f"{name}.tsv").unlink()
    (tmp_path / "diagnostic/diagnostic.tsv").unlink()
    data = glue_files.read(GLUE["mnli"], tmp_path)
    assert list(data.dev) == ["mismatched"]
    assert data.test == {}
    (tmp_path / "MNLI/dev_mismatched.tsv").unlink()
    with pytest.raises(InputError, match=r"dev_matched\.tsv or .*dev_mismatched\.tsv is missing"):
        glue_files.read(GLUE["mnli"], tmp_path)


def test_pairs_without_an_agreed_label_are_left_out_and_counted(tmp_path: Path) -> None:
    dev = f"{_ONE_ANNOTATOR}\n{_MNLI_ROW}\tneutral\t-\n8{_MNLI_ROW[1:]}\tneutral\tneutral\n"
    data = _read(tmp_path, "mnli", dev_matched=dev)
    assert _plain(data.dev["matched"]) == [("8", "A premise", "A hypothesis", 2)]
    assert data.notes == {"dev_matched.tsv: rows without an agreed label, left out": 1}
    rows = "index\tsentence1\tsentence2\tlabel\n0\tA\tB\t-\n"
    with pytest.raises(InputError, match=r"train\.tsv:2: the label '-' is unknown"):
        _read(tmp_path, "rte", train=rows)


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\r"])
def test_other_line_separators_do_not_end_a_line(tmp_path: Path, separator: str) -> None:
    text = f"a fine{separator}film"
    data = _read(tmp_path, "sst-2", train=f"sentence\tlabel\n{text}\t1\nbad\t0\n")
    assert _plain(data.train) == [("0", text, None, 1), ("1", "bad", None, 0)]


def test_a_last_line_without_end_and_blank_lines(tmp_path: Path) -> None:
    data = _read(tmp_path, "sst-2", train="sentence\tlabel\n\nfine\t1\n\nbad\t0")
    assert [example.where[-2:] for example in data.train] == [":3", ":5"]


@pytest.mark.parametrize("task", [task for task in GLUE if task != "qqp"])
@pytest.mark.parametrize("file", ["train", "test"])
def test_a_wrong_column_count_is_refused_with_its_line(
    tmp_path: Path, task: str, file: str
) -> None:
    folder = GLUE[task].folder
    name = f"{file}_matched" if (task, file) == ("mnli", "test") else file
    good = _FILES[task][f"{folder}/{name}.tsv"]
    columns = good.split("\n")[0].count("\t") + 1
    line = good.count("\n") + 1
    for broken, found in (("\t" * columns, columns + 1), ("alone", 1)):
        message = rf"{name}\.tsv:{line}: {found} columns where {columns} are expected"
        with pytest.raises(InputError, match=message):
            _read(tmp_path, task, **{name: f"{good}{broken}\n"})


def test_the_broken_rows_of_qqp_are_left_out_and_counted(tmp_path: Path) -> None:
    header = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
    train = (
        f"{header}40\t1\t2\tWhy?\tHow?\t0\n"
        '41\t3\t4\tHow do I write\n"\tan app for Android?\t1\n'  # a question in two lines
        "42\t5\t6\tHow can I develop an app?\t\t0\n"
    )
    dev = f"{header}50\t1\t2\tWhy?\t\t0\n51\t1\t2\tWhy?\n"
    data = _read(tmp_path, "qqp", train=train, dev=dev)
    assert _plain(data.train) == [("40", "Why?", "How?", 0)]
    assert _plain(data.dev["dev"]) == [("50", "Why?", "", 0)]
    assert data.notes == {
        "train.tsv: rows with too few columns, left out": 2,
        "train.tsv: rows with an empty text, left out": 1,
        "dev.tsv: rows with an empty text, kept": 1,
        "dev.tsv: rows with too few columns, left out": 1,
    }
    with pytest.raises(InputError, match=r"train\.tsv:2: 7 columns where 6 are expected"):
        _read(tmp_path, "qqp", train=f"{header}40\t1\t2\tWhy?\tHow?\t0\t1\n")
    with pytest.raises(InputError, match=r"test\.tsv:3: 2 columns where 3 are expected"):
        _read(tmp_path, "qqp", test="id\tquestion1\tquestion2\n0\tA\tB\n1\tA\n")
    with pytest.raises(InputError, match=r"train\.tsv holds no training rows"):
        _read(tmp_path, "qqp", train=f"{header}40\t1\t2\tWhy?\n")


def test_an_unknown_label_is_refused_with_the_nearest(tmp_path: Path) -> None:
    message = r"dev\.tsv:2: the label 'entailed' is unknown; allowed are entailment, not_ent.*"
    with pytest.raises(InputError, match=message + "nearest is 'entailment'"):
        _read(tmp_path, "rte", dev="index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\tentailed\n")
    with pytest.raises(InputError, match=r"train\.tsv:2: the label '2' is unknown; .* 0, 1;"):
        _read(tmp_path, "cola", train="a\t1\t\tHi.\nb\t2\t\tHo.\n")


@pytest.mark.parametrize(
    ("score", "message"),
    [
        ("5.01", "not in the range 0 to 5"),
        ("-0.1", "not in the range 0 to 5"),
        ("nan", "not a finite number"),
        ("high", "'high' is not a number"),
        ("", "'' is not a number"),
    ],
)
def test_a_score_that_is_none_is_refused(tmp_path: Path, score: str, message: str) -> None:
    with pytest.raises(InputError, match=rf"dev\.tsv:2: .*{message}"):
        _read(tmp_path, "sts-b", dev=f"{_STS}\tscore\n{_STS_ROW}\t{score}\n")


def test_empty_texts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train\.tsv:3: the text is empty"):
        _read(tmp_path, "sst-2", train="sentence\tlabel\nfine\t1\n \t0\n")
    data = _read(tmp_path, "rte", test="index\tsentence1\tsentence2\n0\tA\t\n1\t\tB\n2\tA\tB\n")
    assert [example.id for example in data.test["test"]] == ["0", "1", "2"]
    assert data.notes == {"test.tsv: rows with an empty text, kept": 2}


def test_repeated_ids_are_counted_but_refused_where_the_server_needs_them(tmp_path: Path) -> None:
    rows = "index\tsentence1\tsentence2\tlabel\n" + "3\tA.\tB.\tentailment\n" * 3
    data = _read(tmp_path, "rte", train=rows)
    assert len(data.train) == 3
    assert data.notes == {"train.tsv: ids that occur twice": 2}
    with pytest.raises(InputError, match=r"test\.tsv:3: the id '0' is already that of .*tsv:2$"):
        _read(tmp_path, "rte", test="index\tsentence1\tsentence2\n0\tA\tB\n0\tC\tD\n")
    with pytest.raises(InputError, match=r"test\.tsv:2: the id .column 'index'. is empty"):
        _read(tmp_path, "rte", test="index\tsentence1\tsentence2\n\tA\tB\n")


def test_missing_files_and_columns(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train\.tsv is missing; .* holds nothing\. Get .*CoLA"):
        glue_files.read(GLUE["cola"], tmp_path)
    _write(tmp_path, "sst-2")
    (tmp_path / "SST-2/dev.tsv").unlink()
    message = r"dev\.tsv is missing; .*SST-2 holds test\.tsv, train\.tsv\. Get .*source=tfds"
    with pytest.raises(InputError, match=message):
        glue_files.read(GLUE["sst-2"], tmp_path)
    message = r"train\.tsv:1: no column 'label'; there are 'sentence', 'labels'; .* 'labels'"
    with pytest.raises(InputError, match=message):
        _read(tmp_path, "sst-2", train="sentence\tlabels\nfine\t1\n")
    with pytest.raises(InputError, match=r"train\.tsv holds no training rows"):
        _read(tmp_path, "sst-2", train="sentence\tlabel\n")
    with pytest.raises(InputError, match=r"train\.tsv is empty"):
        _read(tmp_path, "sst-2", train="")


def test_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    content = "sentence\tlabel\nfine\t1\ncafé\t0\n".encode("latin-1")
    with pytest.raises(InputError, match=r"train\.tsv:3 is not UTF-8: byte 0xe9 at byte 4 of the"):
        _read(tmp_path, "sst-2", train=content)


def test_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    _write(tmp_path, "sst-2")
    (tmp_path / "SST-2/train.tsv").unlink()
    (tmp_path / "SST-2/train.tsv").mkdir()
    with pytest.raises(InputError, match=re.escape(f"{tmp_path}/SST-2/train.tsv cannot be read")):
        glue_files.read(GLUE["sst-2"], tmp_path)
