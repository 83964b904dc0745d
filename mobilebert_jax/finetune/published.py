"""The paper's metrics on the tasks (Sun et al. 2020, arXiv 2004.02984), to stand beside ours.

Test metrics are those of the GLUE server, of one submission; dev metrics come from the paper's
tables of ablations and quantisation. Figures that nothing but memory of the paper vouches for are
marked and shown with a double dagger: they orient a reader and decide nothing.

As in BERT's paper, whose row is repeated there, the test table gives F1 for MRPC and QQP and
Spearman's correlation for STS-B. The tables of dev metrics name no metrics; for MRPC accuracy is
assumed, since the row of BERT_BASE fits the accuracy in BERT's paper.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

Split = Literal["test", "dev"]
Columns = tuple[tuple[str, str, str], ...]
Table = Mapping[str, tuple[float, ...]]

MODELS = ("MobileBERT", "MobileBERT w/o OPT", "MobileBERT_TINY", "BERT_BASE")
"""OPT are the optimisations for latency: NoNorm for layer normalisation, relu for gelu."""


class Figure(NamedTuple):
    """One cell of a table of the paper."""

    model: str
    task: str
    part: str
    """`matched` or `mismatched` for MNLI, otherwise empty."""
    metric: str
    """As in `metrics.METRICS`; for SQuAD as its scorers say, `exact_match` (v1.1) or `exact` (v2.0)
    and `f1`; `average` for `glue`."""
    split: Split
    value: float
    """Percent."""
    verified: bool
    """False: recalled, not checked against the paper (‡)."""

    def __str__(self) -> str:
        return f"{self.value:.1f}{'' if self.verified else '‡'}"


_TEST_COLUMNS = (
    ("cola", "", "matthews"),
    ("sst-2", "", "accuracy"),
    ("mrpc", "", "f1"),
    ("sts-b", "", "spearman"),
    ("qqp", "", "f1"),
    ("mnli", "matched", "accuracy"),
    ("mnli", "mismatched", "accuracy"),
    ("qnli", "", "accuracy"),
    ("rte", "", "accuracy"),
    ("glue", "", "average"),
)
_TEST: Table = {
    "MobileBERT": (50.5, 92.8, 88.8, 84.4, 70.2, 83.3, 82.6, 90.6, 66.2, 77.7),
    "MobileBERT w/o OPT": (51.1, 92.6, 88.8, 84.8, 70.5, 84.3, 83.4, 91.6, 70.4, 78.5),
    "MobileBERT_TINY": (46.7, 91.7, 87.9, 80.1, 68.9, 81.5, 81.6, 89.5, 65.1, 75.8),
    "BERT_BASE": (52.1, 93.5, 88.9, 85.8, 71.2, 84.6, 83.4, 90.5, 66.4, 78.3),
}

_SQUAD_COLUMNS = (
    ("squad_v1.1", "", "exact_match"),
    ("squad_v1.1", "", "f1"),
    ("squad_v2.0", "", "exact"),
    ("squad_v2.0", "", "f1"),
)
_SQUAD: Table = {
    "MobileBERT": (82.9, 90.0, 76.2, 79.2),
    "MobileBERT w/o OPT": (83.4, 90.3, 77.6, 80.2),
    "MobileBERT_TINY": (81.4, 88.6, 74.4, 77.1),
    "BERT_BASE": (80.8, 88.5, 74.2, 77.1),
}

_DEV_COLUMNS = (
    ("mnli", "matched", "accuracy"),
    ("qnli", "", "accuracy"),
    ("mrpc", "", "accuracy"),
    ("sst-2", "", "accuracy"),
)
_DEV: Table = {
    "MobileBERT": (83.9, 91.0, 87.5, 92.1),
    "MobileBERT w/o OPT": (84.4, 91.5, 87.0, 92.5),
    "BERT_BASE": (84.4, 91.1, 86.7, 92.9),
}


_VERIFIED_OF_BERT_BASE = {
    ("cola", "matthews"),
    ("glue", "average"),
    ("squad_v1.1", "f1"),
    ("squad_v2.0", "f1"),
}


def _cells(split: Split, columns: Columns, table: Table, verified: bool) -> list[Figure]:
    return [
        Figure(
            model,
            task,
            part,
            metric,
            split,
            value,
            verified and (model != "BERT_BASE" or (task, metric) in _VERIFIED_OF_BERT_BASE),
        )
        for model, row in table.items()
        for (task, part, metric), value in zip(columns, row, strict=True)
    ]


PUBLISHED = (
    *_cells("dev", _SQUAD_COLUMNS, _SQUAD, True),
    *_cells("dev", _DEV_COLUMNS, _DEV, False),
    *_cells("test", _TEST_COLUMNS, _TEST, True),
)


def published(task: str, dev_split: str, model: str = "MobileBERT") -> list[Figure]:
    """What the paper says of a model on a task, dev metrics before test metrics.

    `task` is named as in the configuration, or `glue` for the average; `dev_split` is the dev set
    whose counterpart is wanted: `matched` or `mismatched` for MNLI, of no effect where a task has
    but one. The list is empty for what the paper does not report, such as WNLI or tasks of your
    own. Raises ValueError for a model that is not in `MODELS`.
    """
    if model not in MODELS:
        raise ValueError(f"no metrics of {model!r}; there are those of {', '.join(MODELS)}")
    return [
        figure
        for figure in PUBLISHED
        if figure.model == model and figure.task == task and figure.part in ("", dev_split)
    ]
