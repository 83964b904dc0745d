"""A comparison in miniature: what is shared, what is kept, what a second start does, the page."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mobilebert_jax.ablations import page, runner
from mobilebert_jax.training.metric_log import read_rows
from tests import miniature
from tests.report.test_page import Browser, Page, browser_program, complaints, requested

pytestmark = pytest.mark.usefixtures("quick")

VARIANTS = ("scratch baseline", "control control", "student distill")


def run(folder: Path, **settings: Any) -> str:
    console = miniature.console()
    config = miniature.experiment(
        folder,
        **{
            "ablations__variants": VARIANTS,
            "ablations__orders": ("student < control", "control < scratch"),
            "ablations__seeds": (0, 1),
            "execution__eval_every": 3,
            **settings,
        },
    )
    runner.run(config, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


class Grown(NamedTuple):
    """A comparison with seed 0, and then with seeds 0 and 1."""

    folder: Path
    first: set[str]
    """Folders after seed 0 alone."""
    said: str
    """By the second start."""


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Grown:
    folder = tmp_path_factory.mktemp("compared")
    run(folder, ablations__seeds=(0,))
    first = folders(folder, "*")
    return Grown(folder, first, run(folder))


@pytest.fixture(scope="module")
def compared(grown: Grown) -> Path:
    return grown.folder


def outcome(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "runs/tiny/ablations.json").read_text())


def folders(folder: Path, stage: str) -> set[str]:
    return {path.name for path in (folder / "runs/tiny").glob(f"{stage}-*")}


def test_records_and_teacher_are_made_once(compared: Path) -> None:
    count = {
        stage: len(folders(compared, stage))
        for stage in (
            "prepare",
            "teacher",
            "transfer",
            "distill",
            "control",
            "baseline",
            "held_out",
        )
    }
    assert count == {
        "prepare": 1, "teacher": 1, "transfer": 2, "distill": 2, "control": 2, "baseline": 2,
        "held_out": 7,
    }  # fmt: skip


def test_the_outcome_holds_scores_curves_and_verdicts(compared: Path) -> None:
    found = outcome(compared)
    assert found["student_steps"] == 9 and found["seeds"] == [0, 1]
    by_name = {variant["name"]: variant for variant in found["variants"]}
    assert list(by_name) == ["scratch", "control", "student"]
    for variant in by_name.values():
        losses = [trial["scores"]["masked_lm_loss"] for trial in variant["trials"].values()]
        assert len(set(losses)) == 2
        assert variant["loss"]["mean"] == pytest.approx(sum(losses) / 2)
        for trial in variant["trials"].values():
            assert [step for step, _ in trial["curve"]] == [3, 6, 9]
            # The last step is measured in training with the held-out examples of the end.
            assert trial["curve"][-1][1] == pytest.approx(
                trial["scores"]["masked_lm_loss"], rel=1e-5
            )
            assert "attention_worth" in trial["scores"]
    gains = [
        by_name["control"]["trials"][seed]["scores"]["masked_lm_loss"]
        - by_name["student"]["trials"][seed]["scores"]["masked_lm_loss"]
        for seed in ("0", "1")
    ]
    assert found["claims"][0]["claim"] == "student is ahead of control"
    assert found["claims"][0]["gain"]["mean"] == pytest.approx(sum(gains) / 2)
    assert len({row["verdict"] for row in found["claims"]} - {"reproduced", "contrary"}) <= 1


def test_seeds_start_and_read_differently(compared: Path) -> None:
    firsts = [
        read_rows(path / "metrics.jsonl")[0]["loss"]
        for path in (compared / "runs/tiny").glob("control-*")
    ]
    assert len(set(firsts)) == 2


def test_more_seeds_train_only_the_new_ones(grown: Grown) -> None:
    before = folders(grown.folder, "*")
    assert sorted(name.split("-")[0] for name in before - grown.first) == [
        "baseline", "control", "distill", *["held_out"] * 3, "transfer",
    ]  # fmt: skip
    assert "6 of 6: student, seed 1" in grown.said
    page_text = (grown.folder / "runs/tiny/ablations.html").read_text()
    said = run(grown.folder, ablations__only=("control", "student"))
    assert "made anew" not in said
    assert folders(grown.folder, "*") == before
    assert "student is ahead of control" in said and "control is ahead" not in said
    run(grown.folder)
    assert len((grown.folder / "runs/tiny/ablations.html").read_text()) == len(page_text)


def test_the_page_is_written_after_every_variant_of_the_first_seed_and_every_later_seed(
    compared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[list[int], list[str], int]] = []

    write = page.write

    def note(outcome: dict[str, Any], path: Path) -> None:
        names = [variant["name"] for variant in outcome["variants"]]
        written.append((outcome["seeds"], names, len(outcome["claims"])))
        write(outcome, path)

    monkeypatch.setattr(page, "write", note)
    run(compared)
    names = ["scratch", "control", "student"]
    assert written == [
        ([0], names[:1], 0),
        ([0], names[:2], 1),
        ([0], names, 2),
        ([0, 1], names, 2),
    ]


def synthetic() -> dict[str, Any]:
    def trial(loss: float, worth: float) -> dict[str, Any]:
        scores = {
            "masked_lm_loss": loss, "masked_lm_accuracy": 0.2, "attention_worth": worth,
        }  # fmt: skip
        return {"scores": scores, "curve": [[100, loss + 0.4], [200, loss + 0.1], [300, loss]]}

    spread = {"mean": 5.0, "low": 4.9, "high": 5.1, "minimum": 4.95, "maximum": 5.05}
    claim = {"claim": "a is ahead of b", "gain": {**spread, "mean": -0.05}}
    return {
        "name": "<b>tiny</b>",
        "created": "2026-11-22T18:04:11+00:00",
        "config": {"seed": 0},
        "digests": {"teacher": "ab12"},
        "versions": {"python": "3.11"},
        "student_steps": 300,
        "seeds": [0, 1],
        "teacher": {"masked_lm_loss": 4.5, "masked_lm_accuracy": 0.3, "attention_worth": -0.01},
        "variants": [
            {
                "name": name, "stage": "distill", "settings": {"transfer.attention_weight": 0.0},
                "loss": spread, "trials": {"0": trial(4.95, 0.1), "1": trial(5.05, 0.2)},
            }
            for name in "abcdefghijklmn"
        ],
        "claims": [{**claim, "verdict": v} for v in ("reproduced", "contrary", "undecided")],
    }  # fmt: skip


def test_the_page_needs_nothing_but_itself_and_shows_every_variant(tmp_path: Path) -> None:
    page.write(synthetic(), tmp_path / "ablations.html")
    text = (tmp_path / "ablations.html").read_text()
    read = Page(text)
    assert all(address.startswith(("data:", "#")) for address in read.addresses)
    said = " ".join(read.visible.split())
    assert "Of 3 claims, 1 reproduced, 1 contrary, 1 undecided." in said
    assert "<b>tiny</b>" in said and "transfer.attention_weight=0.0" in said
    assert "\N{MINUS SIGN}0.050" in said and "\N{MINUS SIGN}0.010" in said
    assert json.loads((tmp_path / "ablations.json").read_text()) == synthetic()
    for colour in set(re.findall(r"var\(--([a-z-]+)\)", text)):
        assert text.count(f"--{colour}: #") == 2, f"--{colour} lacks its light or its dark form"


def test_without_curves_or_claims_their_sections_are_left_out(tmp_path: Path) -> None:
    found = synthetic() | {"claims": []}
    for variant in found["variants"]:
        for trial in variant["trials"].values():
            trial["curve"] = []
    page.write(found, tmp_path / "ablations.html")
    assert Page((tmp_path / "ablations.html").read_text()).sections() == ["final", "provenance"]


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_opens_cleanly_in_a_browser(tmp_path: Path, width: int) -> None:
    page.write(synthetic(), tmp_path / "ablations.html")
    browser = Browser(browser_program(), tmp_path / "profile")
    try:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.call("Emulation.setDeviceMetricsOverride", **size)
        browser.open((tmp_path / "ablations.html").as_uri())
        boxes = browser.evaluate(
            "[...document.querySelectorAll('figure, table, svg')].filter(e => e.checkVisibility())"
            ".map(e => e.getBoundingClientRect()).map(box => [box.width, box.height])"
        )
        overflow = browser.evaluate("document.documentElement.scrollWidth - innerWidth")
    finally:
        browser.close()
    assert len(boxes) > 15
    assert all(box[0] > 0 and box[1] > 0 for box in boxes)
    assert overflow <= 0
    assert complaints(browser) == []
    assert requested(browser) <= {"file", "data"}
