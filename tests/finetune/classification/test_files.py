"""Own tables of texts, as CSV, TSV and JSON lines."""

import gzip
from pathlib import Path

import pytest
import zstandard

from mobilebert_jax.config.finetune import Files
from mobilebert_jax.config.schema import InputError
from mobilebert_jax.finetune.classification import files as table_files
from mobilebert_jax.finetune.examples import TaskData

_CSV = 'text,label\n"Well, ""yes""\nof course",joy\nno,anger\n'
_TSV = 'text\tlabel\nWell, "yes\tjoy\nno\tanger\n'
_JSONL = '{"text": "Well, \\"yes\\"", "label": "joy"}\n\n{"label": "anger", "text": "no"}\n'


def _files(folder: Path, ending: str, **contents: str | bytes) -> dict[str, str]:
    paths = {}
    for name, content in contents.items():
        path = folder / f"{name}{ending}"
        content = content if isinstance(content, bytes) else content.encode()
        packing = {".gz": gzip.compress, ".zst": zstandard.compress}
        pack = packing.get(Path(ending).suffix or ending, bytes)
        path.write_bytes(pack(content))
        paths[name] = str(path)
    return paths


def _read(folder: Path, ending: str = ".csv", /, **contents: str | bytes) -> TaskData:
    return table_files.read(Files(**_files(folder, ending, **contents)))


def _plain(examples: object) -> list[tuple[object, ...]]:
    return [tuple(example)[:4] for example in examples]  # type: ignore[attr-defined]


@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
@pytest.mark.parametrize(
    ("ending", "content", "first", "lines"),
    [
        (".csv", _CSV, 'Well, "yes"\nof course', (2, 4)),
        (".tsv", _TSV, 'Well, "yes', (2, 3)),
        (".jsonl", _JSONL, 'Well, "yes"', (1, 3)),
    ],
)
def test_every_form_is_read(
    tmp_path: Path, ending: str, content: str, first: str, lines: tuple[int, int], packed: str
) -> None:
    data = _read(tmp_path, ending + packed, train=content, dev=content, test=content)
    assert data.labels == ("anger", "joy")
    for rows in (data.train, data.dev["dev"], data.test["test"]):
        assert _plain(rows) == [("0", first, None, 1), ("1", "no", None, 0)]
    assert [row.where for row in data.train] == [
        f"{tmp_path}/train{ending}{packed}:{line}" for line in lines
    ]


def test_windows_files_with_a_byte_order_mark(tmp_path: Path) -> None:
    content = "\ufefftext,label\r\nyes,joy\r\nno,anger\r\n"
    assert _plain(_read(tmp_path, train=content, dev=content).train) == [
        ("0", "yes", None, 1),
        ("1", "no", None, 0),
    ]


def test_spaces_around_labels_are_no_part_of_them(tmp_path: Path) -> None:
    data = _read(tmp_path, train="text,label\nyes, joy\nno,anger \n", dev="text,label\na,joy \n")
    assert data.labels == ("anger", "joy")
    assert _plain(data.dev["dev"]) == [("0", "a", None, 1)]


def test_pairs_and_numbers(tmp_path: Path) -> None:
    content = "id,a,b,score\n9,x,y,0.5\n8,u,v,-3\n"
    paths = _files(tmp_path, ".csv", train=content, dev=content)
    files = Files(**paths, text="a", second_text="b", label="score", kind="number")
    data = table_files.read(files)
    assert data.labels == ()
    assert _plain(data.train) == [("0", "x", "y", 0.5), ("1", "u", "v", -3.0)]
    paths = _files(tmp_path, ".jsonl", train='{"text": "x", "label": 2}', dev=_JSONL)
    with pytest.raises(InputError, match=r"dev\.jsonl:1: the label 'joy' is not a number"):
        table_files.read(Files(**paths, kind="number"))


@pytest.mark.parametrize(
    ("train", "dev", "message"),
    [
        ("2\n2\n", "1\n2\n", r"train\.csv: all rows have the number 2; nothing can be learnt"),
        ("1\n2\n", "1.5\n", r"dev\.csv: all rows have the number 1\.5; no settings can be chosen"),
        ("1_5\n2\n", "1\n2\n", r"train\.csv:2: the label '1_5' is not a number"),
        ("nan\n2\n", "1\n2\n", r"train\.csv:2: the label 'nan' is not a finite number"),
    ],
)
def test_numbers_of_which_nothing_can_be_learnt(
    tmp_path: Path, train: str, dev: str, message: str
) -> None:
    contents = {
        split: "label,text\n" + "".join(f"{number},x\n" for number in numbers.split())
        for split, numbers in (("train", train), ("dev", dev))
    }
    with pytest.raises(InputError, match=message):
        table_files.read(Files(**_files(tmp_path, ".csv", **contents), kind="number"))


def test_dev_rows_that_were_learnt_are_counted(tmp_path: Path) -> None:
    data = _read(tmp_path, train=_CSV, dev="text,label\nno,joy\nnew,joy\nno,anger\n")
    assert data.notes == {"dev.csv: rows that are among the training rows too": 2}


def test_test_files_may_lack_labels(tmp_path: Path) -> None:
    data = _read(tmp_path, train=_CSV, dev=_CSV, test="text\nyes\nno\n")
    assert _plain(data.test["test"]) == [("0", "yes", None, None), ("1", "no", None, None)]
    data = _read(tmp_path, train=_CSV, dev=_CSV, test="label,text\n,yes\njoy,no\n")
    assert [row.label for row in data.test["test"]] == [None, 1]
    test = '{"text": "a"}\n{"text": "b", "label": null}\n{"text": "b", "label": ""}\n'
    test += '{"text": "c", "label": "joy"}\n'
    data = _read(tmp_path, ".jsonl", train=_JSONL, dev=_JSONL, test=test)
    assert [row.label for row in data.test["test"]] == [None, None, None, 1]
    with pytest.raises(InputError, match=r"dev\.csv:1: no column 'label'"):
        _read(tmp_path, train=_CSV, dev="text\nyes\n")


def test_labels_of_json_may_be_numbers_or_booleans(tmp_path: Path) -> None:
    content = "".join(f'{{"text": "x", "label": {label}}}\n' for label in ("true", "1", '"b"'))
    assert _read(tmp_path, ".jsonl", train=content, dev=content).labels == ("1", "b", "true")
    with pytest.raises(InputError, match=r"train\.jsonl:1: the label .field 'label'. is \[1\]"):
        _read(tmp_path, ".jsonl", train='{"text": "x", "label": [1]}', dev=content)


def test_a_label_that_training_lacks_is_refused(tmp_path: Path) -> None:
    message = r"dev\.csv:2: the label 'jot' is unknown; allowed are anger, joy; .* 'joy'"
    with pytest.raises(InputError, match=message):
        _read(tmp_path, train=_CSV, dev="text,label\nyes,jot\n")
    with pytest.raises(InputError, match=r"test\.csv:2: the label 'Joy' is unknown"):
        _read(tmp_path, train=_CSV, dev=_CSV, test="text,label\nyes,Joy\n")


@pytest.mark.parametrize(
    ("ending", "train", "message"),
    [
        (".csv", "txt,label\na,b\n", r"csv:1: no column 'text'; .*; the nearest is 'txt'"),
        (".csv", "text,text,label\na,b,c\n", r"csv:1: the column 'text' occurs 2 times"),
        (".csv", 'text,label\n"a\nb",c\nd\n', r"csv:4: 1 columns where 2 are expected"),
        (".tsv", "text\tlabel\na,b\n", r"tsv:2: 1 columns where 2 are expected"),
        (".csv", "text,label\nx,y\n ,b\n", r"csv:3: the text is empty"),
        (".csv", "text,label\na,\n", r"csv:2: the label .column 'label'. is empty"),
        (".csv", "text,label\na,b\nc,b\n", r"csv: all rows have the label 'b'"),
        (".csv", "text,label\n", r"csv holds no training rows"),
        (".csv", "", r"csv holds no rows"),
        (".csv", 'text,label\na,b\n"c,d\ne,f\n', r"csv:3: this row is not valid CSV"),
        (".csv", 'text,label\n"a"b,c\n', r"csv:2: this row is not valid CSV"),
        (".csv", "text,label\na\rb,c\n", r"csv:2: this row is not valid CSV"),
        (".csv", b"text,label\na,b\n\xff,c\n", r"csv:3 is not UTF-8: byte 0xff at byte 1"),
        (
            ".jsonl",
            '{"text": "a", "label": "b"}\n{"text": "a',
            r"jsonl:2 is not JSON: .* column 10",
        ),
        (".jsonl", '{"test": "a", "label": "b"}', r"jsonl:1 has no field 'text'; .* 'test'"),
        (".jsonl", '{"text": "a"}', r"jsonl:1 has no field 'label'"),
        (".jsonl", '["a"]', r"jsonl:1 holds a list, not a JSON object"),
        (".jsonl", '{"text": 3, "label": "b"}', r"jsonl:1: the field 'text' holds a int"),
        (".jsonl", '{"text": "\\ud83d", "label": "b"}', r"jsonl:1: .* half of a surrogate pair"),
        (".jsonl", '{"text": "", "label": "b"}', r"jsonl:1: the text is empty"),
        (".jsonl", "[" * 100_000, r"jsonl:1 cannot be read as JSON"),
        (".jsonl", '{"label": ' + "1" * 5000 + "}", r"jsonl:1 cannot be read as JSON"),
        (".jsonl", "", r"jsonl holds no training rows"),
        (".csv", 'text,label\na,b\nc,"jo\ny"\n', r"csv:3: the label 'jo\\ny' holds '\\n'"),
        (".jsonl", '{"text": "a", "label": "x\\ty"}', r"jsonl:1: the label 'x\\ty' holds '\\t'"),
        (".jsonl", '{"text": "a", "label": "\\ud800"}', r"jsonl:1: the label .* surrogate pairs"),
        (".csv", "text,label\na,b\n".encode("utf-16"), r"csv:1 is not UTF-8: .*-f UTF-16 -t"),
        (".jsonl", '{"text": "a", "label": NaN}', r"jsonl:1: the label .field 'label'. is NaN"),
        (".jsonl", '{"text": "a", "text": "b"}', r"jsonl:1 .*: the field 'text' occurs twice"),
        (".txt", "a", r"train\.txt: files end with \.csv, \.tsv or \.jsonl"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_line(
    tmp_path: Path, ending: str, train: str | bytes, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        _read(tmp_path, ending, train=train, dev=train)


def test_empty_texts_of_dev_and_test_are_kept_and_counted(tmp_path: Path) -> None:
    data = _read(tmp_path, train=_CSV, dev="text,label\n,joy\nso,joy\n", test='text\n""\n')
    assert _plain(data.dev["dev"]) == [("0", "", None, 1), ("1", "so", None, 1)]
    assert _plain(data.test["test"]) == [("0", "", None, None)]
    assert data.notes == {
        "dev.csv: rows with an empty text, kept": 1,
        "test.csv: rows with an empty text, kept": 1,
    }


def test_files_that_are_missing_or_damaged(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"files\.train is empty"):
        table_files.read(Files(dev="a.csv"))
    with pytest.raises(InputError, match=r"files\.dev is empty; a dev file is needed to choose"):
        table_files.read(Files(train="a.csv"))
    (tmp_path / "trian.csv").write_text(_CSV)
    path = str(tmp_path / "train.csv")
    with pytest.raises(InputError, match=r"train\.csv cannot be read: No such .* holds trian\.csv"):
        table_files.read(Files(train=path, dev=path))
    path = str(tmp_path / "train.csv.gz")
    for content in (gzip.compress(_CSV.encode())[:-9], b"text,label\n"):
        Path(path).write_bytes(content)
        with pytest.raises(InputError, match=r"train\.csv\.gz (is damaged|ends in the middle)"):
            table_files.read(Files(train=path, dev=path))
    with pytest.raises(InputError, match=r"test\.csv holds no rows"):
        _read(tmp_path, train=_CSV, dev=_CSV, test="text\n")
    with pytest.raises(InputError, match=r"dev\.csv holds no rows"):
        _read(tmp_path, train=_CSV, dev="text,label\n")


def test_a_number_in_another_spelling_is_said_to_be_one(tmp_path: Path) -> None:
    paths = _files(tmp_path, ".tsv", train="text\tlabel\na\t0\nb\t1\n", dev="text\tlabel\na\t0.0\n")
    with pytest.raises(
        InputError, match=r"'0\.0' is unknown, and '0' is the same number in another"
    ):
        table_files.read(Files(**paths))
