"""Tables of predictions in the GLUE server's format, and the archive to upload.

The format, which gluebenchmark.com's FAQ describes, is a tab-separated file for each test set with
the columns `index` and `prediction`, and one archive with all of them at its top.
"""

import io
import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from mobilebert_jax import storage
from mobilebert_jax.config.schema import InputError

STS_B_RANGE = (0.0, 5.0)
FILES: Mapping[tuple[str, str], str] = {
    ("cola", "test"): "CoLA.tsv",
    ("sst-2", "test"): "SST-2.tsv",
    ("mrpc", "test"): "MRPC.tsv",
    ("sts-b", "test"): "STS-B.tsv",
    ("qqp", "test"): "QQP.tsv",
    ("mnli", "matched"): "MNLI-m.tsv",
    ("mnli", "mismatched"): "MNLI-mm.tsv",
    ("qnli", "test"): "QNLI.tsv",
    ("rte", "test"): "RTE.tsv",
    ("wnli", "test"): "WNLI.tsv",
    ("mnli", "ax"): "AX.tsv",
}
"""The server's name for the predictions of a (task, test set). `ax` are the diagnostic sentences,
predicted by a network fine-tuned on MNLI."""

ARCHIVE = "submission.zip"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the least that the format of archives can say


def write(
    path: Path,
    ids: Sequence[str],
    predictions: Sequence[int] | Sequence[float],
    labels: Sequence[str] | None,
    score_range: tuple[float, float] | None = STS_B_RANGE,
    *,
    repeated: bool = False,
) -> None:
    """Writes the predictions of one test set, in the order given, which is that of the test file.

    `ids` are the test file's own, without repetition unless `repeated`. `predictions` are indices
    into `labels`, the class names as the task's files write them (`0` and `1`, or `entailment` and
    so on), which are what is written. With `labels` None they are scores: clipped to `score_range`
    and written with three decimals, as the server expects them for STS-B, or with `score_range`
    None written as they are, to seven digits. A file at `path` is replaced. Raises InputError for
    an id that is repeated or does not fit into a table, ValueError for lengths that differ, no
    rows, and predictions that are no index of a class or no number.
    """
    if len(ids) != len(predictions):
        raise ValueError(f"{path.name}: {len(ids)} ids but {len(predictions)} predictions")
    if not ids:
        raise ValueError(f"{path.name}: no predictions to write")
    rows = ["index\tprediction"]
    first_row: dict[str, int] = {}
    for row, (name, prediction) in enumerate(zip(ids, predictions, strict=True), start=1):
        if name in first_row and not repeated:
            raise InputError(
                f"{path.name}: the id {name!r} of test row {row} is also that of row "
                f"{first_row[name]}; each id may occur once"
            )
        if not name or any(c in name for c in "\t\r\n"):
            raise InputError(
                f"{path.name}: the id {name!r} of test row {row} is empty or has a tab or line "
                f"break, which a tab-separated file cannot hold"
            )
        first_row[name] = row
        where = f"{path.name}, test row {row}"
        if labels is None:
            cell = _score(prediction, score_range, where)
        else:
            cell = _class(prediction, labels, where)
        rows.append(f"{name}\t{cell}")
    storage.write(path, "\n".join(rows) + "\n")


def pack(folder: Path) -> tuple[str, ...]:
    """Makes `submission.zip` in `folder` of the files that lie there under the server's names.

    Returns the names of the files that are missing, with which the server would refuse the archive.
    The same files give the same bytes. Raises ValueError if there is none of them.
    """
    names = sorted(FILES.values())
    there = [name for name in names if (folder / name).exists()]
    if not there:
        raise ValueError(f"{folder} has no file of predictions, such as {names[0]}")
    content = io.BytesIO()  # a bucket takes whole files alone
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in there:
            entry = zipfile.ZipInfo(name, date_time=_EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, (folder / name).read_bytes())
    (folder / ARCHIVE).write_bytes(content.getvalue())
    return tuple(name for name in names if name not in there)


def _class(prediction: float, labels: Sequence[str], where: str) -> str:
    if not 0 <= prediction < len(labels) or prediction != int(prediction):
        raise ValueError(f"{where}: {prediction} is no index of the {len(labels)} classes")
    return labels[int(prediction)]


def _score(prediction: float, score_range: tuple[float, float] | None, where: str) -> str:
    if not math.isfinite(prediction):
        raise ValueError(f"{where}: the prediction {prediction} is not a number")
    if score_range is None:
        return f"{prediction:.7g}"  # what single precision holds
    least, most = score_range
    return f"{min(most, max(least, prediction)):.3f}"
