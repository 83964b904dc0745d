"""Fine-tuned tasks on the page and on the console: every figure, mark and comparison, no more."""

import io
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from mobilebert_jax.report import page as report_page
from mobilebert_jax.report import summary, task_page, task_summary
from tests.report.test_page import (
    Browser,
    Page,
    browser_program,
    complaints,
    requested,
    synthetic_curves,
    synthetic_results,
)

MEASURED = ("models", "unigram", "examples", "attention", "feature_rms", "fill_mask")
"""What the evaluate stage adds to the results of a run."""


def _figure(name: str, values: list[float], *published: tuple[float, str, bool],
            main: bool = True) -> dict[str, Any]:  # fmt: skip
    return {
        "name": name,
        "main": main,
        "median": float(np.median(values)),
        "minimum": min(values),
        "maximum": max(values),
        "published": [{"value": v, "split": s, "verified": known} for v, s, known in published],
    }


def _network(
    name: str, metrics: list[dict[str, Any]], points: list[dict[str, Any]], seeds: int = 5
) -> dict[str, Any]:
    trained = name != "untrained"
    return {
        "network": name,
        "pretrained_digest": f"ab12cd34{name}" if trained else "",
        "pretrained": f"runs/demo/{'distill' if name == 'student' else name}-ab12cd34"
        if trained
        else "",
        "point": points[0]["point"],
        "seeds": list(range(seeds)),
        "metrics": metrics,
        "points": points,
        "folder": f"runs/demo/trials/{name}-1a2b3c4d",
        "digest": "9f8e7d6c5b4a",
        "seconds": 123.4,
    }


def _points(
    middle: float, seeds: int = 5, rates: tuple[float, ...] = (5e-5,)
) -> list[dict[str, Any]]:
    """Two batch sizes with every rate, or one point where there is one rate."""
    noise = np.random.default_rng(round(middle * 10))
    sizes = (32, 16) if len(rates) > 1 else (32,)
    return [
        {
            "point": {"batch_size": size, "learning_rate": rate, "epochs": 4},
            "main": (middle - 0.4 * index + noise.normal(0, 0.4, seeds)).round(2).tolist(),
        }
        for index, (size, rate) in enumerate((s, r) for s in sizes for r in rates)
    ]


def _task(name: str, title: str, networks: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {
        "task": name,
        "title": title,
        "kind": "classes",
        "rows": {"train": 67349, "dev": 872, "test": 1821},
        "notes": {},
        "length": 128,
        "networks": networks,
        **more,
    }


def finetuned() -> dict[str, Any]:
    """One network on three tasks: a sweep, several metrics, all kinds of published metrics."""
    sst = [_figure("accuracy", [91.2, 90.8, 91.5, 91.2, 91.1], (92.8, "test", True),
                   (92.1, "dev", False))]  # fmt: skip
    cola = [_figure("Matthews correlation", [48.2, 47.0, 50.1], (50.5, "test", True))]
    squad = [
        _figure("exact", [83.4], (82.9, "dev", True), main=False),
        _figure("f1", [90.5], (90.0, "dev", True)),
    ]
    sweep = _points(91.2, rates=(2e-5, 5e-5, 1e-4))
    return {
        "tasks": [
            _task("sst-2", "SST-2", [_network("student", sst, sweep)],
                  notes={"rows left out": 3}),
            _task("cola", "CoLA", [_network("student", cola, _points(48.0, 3), 3)]),
            _task("squad_v1.1", "SQuAD v1.1", [_network("student", squad, _points(90.0, 1), 1)]),
        ],
        "averages": {
            "student": {"value": 69.7, "tasks": 2, "official": False, "published": []}
        },
    }  # fmt: skip


def compared() -> dict[str, Any]:
    """Three networks on two tasks, each with a sweep; the paper has the student's metrics alone."""
    rates = (2e-5, 5e-5)
    tasks = []
    for name, title, figure, middles in (
        ("sst-2", "SST-2", "accuracy", {"student": 91.2, "baseline": 86.3, "untrained": 79.9}),
        (
            "mnli",
            "MNLI",
            "mismatched accuracy",
            {"student": 82.4, "baseline": 71.0, "untrained": 62.3},
        ),
    ):
        networks = []
        for network, middle in reversed(middles.items()):
            points = _points(middle, rates=rates)
            claims = [(83.9, "dev", False)] if network == "student" else []
            networks.append(
                _network(network, [_figure(figure, points[0]["main"], *claims)], points)
            )
        tasks.append(_task(name, title, networks))
    averages = {
        network: {"value": value, "tasks": 2, "official": False, "published": []}
        for network, value in {"student": 86.8, "baseline": 78.7, "untrained": 71.1}.items()
    }
    return {"tasks": tasks, "averages": averages}


def stand_alone(part: dict[str, Any]) -> dict[str, Any]:
    """Results of a run that fine-tunes finished networks: no evaluation, no training stages."""
    results = {k: v for k, v in synthetic_results().items() if k not in MEASURED}
    stage = {"name": "finetune", "steps": 0, "seconds": 611.0, "tokens": 0, "tokens_per_s": 0.0}
    results["name"] = "finetune-demo"
    results["config"] = {"finetune.tasks": ["sst-2", "cola", "squad_v1.1"]}
    return {**results, "stages": [{**stage, "digest": "0c1d22e4"}], "finetune": part}


def _page(folder: Path, results: dict[str, Any]) -> tuple[str, Page, str]:
    report_page.write_report(results, {}, folder / "report.html")
    text = (folder / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    return text, page, " ".join(page.visible.split())


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, Page, str]:
    folder = tmp_path_factory.mktemp("alone")
    return folder, *_page(folder, stand_alone(finetuned()))


def _cells(page_text: str, start: str) -> list[str]:
    """The words of each cell of the first table row that holds `start`."""
    for row in re.findall(r"<tr.*?</tr>", page_text, re.S):
        if start in row:
            cells = re.findall(r"<t[hd].*?</t[hd]>", row, re.S)
            return [" ".join(re.sub(r"<[^>]*>", " ", cell).split()) for cell in cells]
    raise AssertionError(f"no row with {start}")


def test_table_holds_metrics_ranges_settings_and_digests(
    alone: tuple[Path, str, Page, str],
) -> None:
    text = alone[1]
    assert _cells(text, ">accuracy<") == [
        "Student batch 32, learning rate 2e-5, 4 epochs, 5 seeds",
        "accuracy",
        "91.2 90.8\N{EN DASH}91.5",
        "92.1‡ dev 92.8 test",
        "\N{MINUS SIGN}0.9",
        "9f8e7d6c",
    ]
    assert _cells(text, ">Matthews correlation<")[3:5] == ["50.5 test", "\N{MINUS SIGN}2.3†"]
    # Main metrics first; a single seed has no range.
    assert text.index(">f1<") < text.index(">exact<")
    assert _cells(text, ">f1<")[2:5] == ["90.5", "90.0 dev", "+0.5"]
    assert "1 seed" in _cells(text, ">f1<")[0]
    assert _cells(text, ">exact<") == ["exact", "83.4", "82.9 dev", "+0.5"]


def test_rows_oddities_and_averages_are_said(alone: tuple[Path, str, Page, str]) -> None:
    said = alone[3]
    assert "67,349 train, 872 dev, 1,821 test rows" in said
    assert "3 rows left out" in said
    assert said.count("rows left out") == 1
    assert _cells(alone[1], "of 9 tasks<")[:3] == ["Student", "not official, 2 of 9 tasks", "69.7"]


def test_official_average_says_so(tmp_path: Path) -> None:
    part = finetuned()
    paper = [{"value": 77.7, "split": "test", "verified": True}]
    part["averages"] = {
        "student": {"value": 78.1, "tasks": 9, "official": True, "published": paper}
    }
    text, _, said = _page(tmp_path, stand_alone(part))
    assert _cells(text, "<td class=\"name\">official")[:5] == [
        "Student", "official, all 9 tasks", "78.1", "77.7 test", "+0.4†",
    ]  # fmt: skip
    assert "not official" not in said


def test_stand_alone_page_holds_nothing_of_the_evaluation(
    alone: tuple[Path, str, Page, str],
) -> None:
    folder, text, page, said = alone
    assert page.sections() == ["tasks", "stages", "provenance"]
    assert "Fine-tuning of demo/distill-ab12cd34 on 3 tasks" in said
    assert "runs/demo/distill-ab12cd34" in said
    assert "<title>finetune-demo: fine-tuning</title>" in text
    for word in ("held-out", "perplexity", "nats", "baseline", "teacher", "untrained", "hidden"):
        assert word not in said.replace("teacher 1b7e19c41a", "").replace("baseline 4b7e19c44a", "")
    assert len(page.ids) == len(set(page.ids))
    saved = json.loads((folder / "results.json").read_text())
    assert saved == json.loads(json.dumps(stand_alone(finetuned())))


def test_one_task_is_named_in_the_title(tmp_path: Path) -> None:
    part = {"tasks": finetuned()["tasks"][1:2], "averages": {}}
    said = _page(tmp_path, stand_alone(part))[2]
    assert "Fine-tuning of demo/distill-ab12cd34 on CoLA" in said
    assert "GLUE average" not in said
    part["tasks"][0]["networks"] = [
        _network("untrained", [_figure("accuracy", [50.0])], _points(50.0, 1), 1)
    ]
    assert task_page.headline(part) == "Fine-tuning of an untrained network on CoLA"


def test_a_whole_run_shows_tasks_after_its_results(tmp_path: Path) -> None:
    folder, results = tmp_path, {**synthetic_results(), "finetune": compared()}
    report_page.write_report(results, synthetic_curves(), folder / "report.html")
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    assert page.sections()[:3] == ["results", "tasks", "curves"]
    said = " ".join(page.visible.split())
    assert "The student beats the from-scratch baseline by 0.51 nats." in said
    assert "Fine-tuning of" not in said


@pytest.mark.parametrize(("verified", "split"), [(True, "dev"), (False, "dev"), (True, "test")])
def test_footnotes_stand_only_where_their_marks_do(
    tmp_path: Path, verified: bool, split: str
) -> None:
    figure = _figure("accuracy", [91.0, 92.0], (91.9, split, verified))
    network = _network("student", [figure], _points(91.5, 2), 2)
    part = {"tasks": [_task("rte", "RTE", [network])], "averages": {}}
    said = _page(tmp_path, stand_alone(part))[2]
    assert (said.count("‡"), said.count("†")) == (0 if verified else 2, 0 if split == "dev" else 2)
    assert ("not verified against the publication" in said) is not verified
    assert ("minus a test figure" in said) is (split == "test")


def test_networks_stand_together_in_order(tmp_path: Path) -> None:
    text, page, said = _page(tmp_path, stand_alone(compared()))
    body = text[text.index('<table class="tasks"') :]
    order = re.findall(r'<th scope="row"[^>]*><span class="c-(\w+)', body)
    assert order == ["student", "baseline", "untrained"] * 3  # two tasks and the averages
    labels = [given["aria-label"] for tag, given in page.elements if "aria-label" in given]
    assert labels[:2] == ["Main figure of each network by task"] * 2
    assert labels[2:] == [
        f"Sweep of {task}, {name}" for task in ("SST-2", "MNLI") for name in order[:3]
    ]
    assert page.classes.count("panels") == 2
    assert "network with random parameters" in said


def test_only_what_was_swept_is_drawn(alone: tuple[Path, str, Page, str]) -> None:
    text, page = alone[1:3]
    labels = [given["aria-label"] for tag, given in page.elements if "aria-label" in given]
    assert labels == ["Sweep of SST-2"]
    for words in (
        "32 · 2e-5",
        "16 · 1e-4",
        "batch · learning rate",
        "accuracy (%)",
        "all with 4 epochs",
    ):
        assert words in text
    # Six points of five seeds, and a stroke at the median of each.
    drawing = text[text.index('aria-label="Sweep') :].partition("</svg>")[0]
    uses = re.findall(r"<use [^>]*fill: var\(--student\)", drawing)
    assert len(uses) == 6 * 5 + 6
    body = text.partition("</style>")[2]
    assert not re.search(r"#[0-9a-f]{6}\b", body)


def test_a_large_sweep_keeps_its_best_points_and_the_chosen_one(tmp_path: Path) -> None:
    network = finetuned()["tasks"][0]["networks"][0]
    network["points"] = [
        {
            "point": {"batch_size": 32, "learning_rate": 5e-5, "epochs": epochs},
            "main": [50.0 + epochs],
        }
        for epochs in range(1, 61)
    ]
    network["points"][3]["main"] = [math.nan]
    network["point"] = network["points"][1]["point"]
    part = {"tasks": [_task("sst-2", "SST-2", [network])], "averages": {}}
    text, _, said = _page(tmp_path, stand_alone(part))
    assert "the best 24 of 60 points; all with batch 32, learning rate 5e-5" in said
    drawing = text[text.index('aria-label="Sweep') :].partition("</svg>")[0]
    rows = re.findall(r"<text [^>]*text-anchor: end[^>]*>(\d+)</text>", drawing)
    assert [int(row) for row in rows] == [2, *range(38, 61)]


def test_names_of_tasks_cannot_become_markup(tmp_path: Path) -> None:
    part = compared()
    part["tasks"][0]["title"] = "<b>$x_1$</b> [red]"
    part["tasks"][0]["notes"] = {"<i>odd</i> rows": 1}
    text, _, said = _page(tmp_path, stand_alone(part))
    assert "<b>$x_1$</b> [red]" in said
    assert "<i>odd</i> rows" in said
    assert "<b>$" not in text
    assert "<b>$x_1$</b> [red]" in _printed(part, 120)


def test_a_figure_that_is_undefined_still_has_a_page(tmp_path: Path) -> None:
    figure = _figure("Pearson correlation", [math.nan, math.nan], (84.4, "dev", True))
    points = _points(50.0, 2, (1e-5, 2e-5))
    for entry in points:
        entry["main"] = ["NaN", "NaN"]
    part = {
        "tasks": [_task("sts-b", "STS-B", [_network("student", [figure], points, 2)])],
        "averages": {},
    }
    text = _page(tmp_path, stand_alone(part))[0]
    assert _cells(text, ">Pearson correlation<")[2:5] == [
        "nan nan\N{EN DASH}nan",
        "84.4 dev",
        "nan",
    ]


# ---- console -----------------------------------------------------------------------------------


def _printed(part: dict[str, Any], width: int = 80) -> str:
    output = io.StringIO()
    console = Console(file=output, width=width)
    summary.print_summary(stand_alone(part), console, report=Path("runs/demo/report.html"))
    return output.getvalue()


def _line(text: str, start: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(start))
    return [cell.strip() for cell in line.split("│")]


def test_console_shows_metrics_beside_the_paper() -> None:
    text = _printed(finetuned())
    assert _line(text, "SST-2") == [
        "SST-2", "accuracy", "91.2 [90.8, 91.5]", "92.1 dev‡", "\N{MINUS SIGN}0.9",
    ]  # fmt: skip
    assert _line(text, "CoLA")[2:] == ["48.2 [47.0, 50.1]", "50.5 test", "\N{MINUS SIGN}2.3†"]
    assert _line(text, "SQuAD v1.1")[1:3] == ["f1", "90.5 (1 seed)"]
    assert "median" in text
    assert "[min, max]" in text
    assert "dev sets: student" in text
    assert task_summary.UNVERIFIED_NOTE in text
    assert "held-out" not in text
    assert text.splitlines()[-1] == "report: runs/demo/report.html"


def test_console_of_several_networks_fits_80_columns_whole() -> None:
    part = compared()
    part["tasks"][0]["title"] = "SQuAD v2.0"
    worst = _figure("Matthews correlation", [-10.0, 100.0, 100.0], (100.0, "test", False))
    for network in part["tasks"][0]["networks"]:
        network["metrics"] = [worst]
    text = _printed(part)
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "…" not in text
    assert text.count("100.0 [\N{MINUS SIGN}10.0, 100.0]") == 3
    assert text.count("100.0 test‡") == 3
    for name in ("student", "baseline", "untrained"):
        assert re.search(rf"│ {name} +│", text)


def test_console_of_a_whole_run_has_models_and_tasks() -> None:
    output = io.StringIO()
    results = {**synthetic_results(), "finetune": finetuned()}
    summary.print_summary(results, Console(file=output, width=100))
    text = output.getvalue()
    assert text.index("held-out examples") < text.index("dev sets") < text.index("stages")


# ---- words -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs", "text"),
    [
        (91.24, 91.2, "0.0"),
        (91.2, 91.25, "0.0"),
        (92.0, 91.9, "+0.1"),
        (80.0, 90.5, "\N{MINUS SIGN}10.5"),
    ],
)
def test_difference_is_signed_only_where_it_shows(ours: float, theirs: float, text: str) -> None:
    assert task_summary.difference(_figure("f1", [ours], (theirs, "dev", True))) == (text, False)
    assert task_summary.difference(_figure("f1", [ours])) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [(5e-05, "5e-5"), (1e-4, "1e-4"), (1.5e-05, "1.5e-5"), (0.1, "0.1"), (0.0, "0"), (32, "32")],
)
def test_settings_are_short(value: float, text: str) -> None:
    assert task_summary.setting(value) == text


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_stand_alone_page_opens_cleanly_in_a_browser(
    tmp_path: Path, width: int, scheme: str
) -> None:
    part = compared()
    part["tasks"] += finetuned()["tasks"][1:]
    _page(tmp_path, stand_alone(part))
    browser = Browser(browser_program(), tmp_path / "profile")
    try:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.call("Emulation.setDeviceMetricsOverride", **size)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.call("Emulation.setEmulatedMedia", features=[feature])
        browser.open((tmp_path / "report.html").as_uri())
        boxes = browser.evaluate(
            "[...document.querySelectorAll('figure, table, .numbers, .tasks tr')]"
            ".map(e => e.getBoundingClientRect()).map(box => [box.width, box.height])"
        )
        overflow = browser.evaluate("document.documentElement.scrollWidth - innerWidth")
        wide = browser.evaluate(
            "[...document.querySelectorAll('.tasks th, .tasks td')]"
            ".filter(e => e.getBoundingClientRect().right > innerWidth).length"
        )
    finally:
        browser.close()
    assert len(boxes) > 20
    assert all(box[0] > 0 and box[1] > 0 for box in boxes)
    assert overflow <= 0
    assert wide == 0
    assert complaints(browser) == []
    assert requested(browser) == {"file"}
