"""The numbers that a run is judged by, and the tables at its end."""

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from mobilebert_jax.number_format import compact, duration
from mobilebert_jax.report import summary


def _model(loss: float, parameters: int) -> dict[str, Any]:
    return {
        "role": "model",
        "parameters": parameters,
        "encoder_parameters": parameters,
        "megabytes_float32": 4e-6 * parameters,
        "forward_gflops": 1e-6 * parameters,
        "masked_lm_loss": loss,
        "masked_lm_accuracy": 1.0 - loss / 10,
        "next_sentence_accuracy": 0.75,
        "next_sentence_loss": 0.5,
    }


def _results() -> dict[str, Any]:
    return {
        "name": "demo",
        "examples": 1024,
        "models": {
            "baseline": _model(3.4, 1_300_000),
            "control": _model(3.1, 1_300_000),
            "student": _model(2.9, 1_300_000),
            "teacher": _model(2.4, 5_200_000),
        },
        "unigram": {"masked_lm_loss": 6.0, "masked_lm_accuracy": 0.06},
        "stages": [
            {
                "name": "teacher",
                "steps": 1500,
                "seconds": 412.0,
                "tokens": 6_144_000,
                "tokens_per_s": 14_913.0,
                "digest": "ab12",
            }
        ],
        "fill_mask": {
            "sentence": "A new [MASK] is returned.",
            "models": {"student": [{"piece": "[unused1]", "probability": 0.375}]},
        },
    }


def _printed(results: dict[str, Any], **options: Any) -> str:
    output = io.StringIO()
    summary.print_summary(results, Console(file=output, width=120), **options)
    return output.getvalue()


def test_comparison_measures_the_student_against_baseline_and_teacher() -> None:
    found = summary.comparison(_results())
    assert found["loss_gain"] == pytest.approx(0.5)
    assert found["accuracy_gain"] == pytest.approx(0.05)
    assert found["gap_closed"] == pytest.approx(0.5)
    assert found["transfer_gain"] == pytest.approx(0.2)
    assert found["copy_gain"] == pytest.approx(0.3)
    assert found["parameter_share"] == pytest.approx(0.25)


def test_comparison_without_a_baseline_or_headroom_says_nothing_of_them() -> None:
    results = _results()
    results["models"]["teacher"]["masked_lm_loss"] = 3.5
    assert "gap_closed" not in summary.comparison(results)
    del results["models"]["baseline"], results["models"]["control"]
    assert set(summary.comparison(results)) == {"parameter_share"}
    del results["models"]["teacher"]
    assert summary.comparison(results) == {}


def test_summary_names_models_in_order_with_perplexities() -> None:
    lines = _printed(_results(), report=Path("runs/demo/report.html")).splitlines()
    row = {name: next(i for i, line in enumerate(lines) if f"│ {name}" in line) for name in
           ("unigram", "teacher", "student", "control", "baseline")}  # fmt: skip
    assert list(row.values()) == sorted(row.values())
    assert all(
        text in lines[row["student"]] for text in ("2.900", "18.2", "71.0%", "1.30 M", "5.2")
    )
    assert "403.4" in lines[row["unigram"]]
    assert lines[-1] == "report: runs/demo/report.html"


def test_the_gain_is_that_over_the_control_and_what_else_gained_is_named() -> None:
    results = _results()
    assert summary.verdict(results) == (
        "Layer-wise transfer gains the student 0.20 nats; copied embeddings and distillation alone "
        "are 0.30 ahead of training from scratch."
    )
    assert summary.verdict(results) in " ".join(_printed(results).split())
    results["models"]["control"] = _model(2.85, 1_300_000)
    results["config"] = {"transfer.copy_embeddings": False}
    results["models"]["baseline"] = _model(2.75, 1_300_000)
    assert summary.verdict(results) == (
        "Layer-wise transfer costs the student 0.05 nats; distillation alone is 0.10 behind "
        "training from scratch."
    )
    del results["models"]["baseline"]
    assert summary.verdict(results) == "Layer-wise transfer costs the student 0.05 nats."
    results["models"]["student"] = _model(math.nan, 1_300_000)
    assert summary.verdict(results) == ""
    del results["models"]["control"]
    assert summary.verdict(results) == ""


def test_summary_shows_stages_and_guesses_literally() -> None:
    text = _printed(_results())
    assert all(part in text for part in ("6 min 52 s", "6.14 M", "14.9 k", "[unused1]", "37.5%"))
    assert "A new [MASK] is returned." in text


def test_summary_leaves_out_what_was_not_measured() -> None:
    results = _results()
    del results["fill_mask"], results["models"]["student"]
    results["stages"] = []
    text = _printed(results)
    assert "student" not in text
    assert "stages" not in text
    assert "report" not in text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"), (0.1484, "0.148"), (9.994, "9.99"), (9.996, "10.0"), (1000, "1.00 k"),
        (999.4, "999"), (999.6, "1.00 k"), (4312064, "4.31 M"), (25_300_000, "25.3 M"),
        (1.5e12, "1.50 T"), (math.inf, "inf"), (-2500.0, "-2.50 k"),
    ],
)  # fmt: skip
def test_compact_keeps_three_digits(number: float, text: str) -> None:
    assert compact(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"), (59.6, "1 min 0 s"), (412, "6 min 52 s"), (3725, "1 h 2 min"),
        (200_000, "2 d 7 h"), (math.nan, "?"),
    ],
)  # fmt: skip
def test_duration_names_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_perplexity_of_a_diverged_model_is_infinite() -> None:
    assert summary.perplexity(0.0) == 1.0
    assert summary.perplexity(1e4) == math.inf


def test_series_reads_strings_that_stand_for_what_is_not_finite() -> None:
    rows = [{"step": 0, "loss": 2.0}, {"step": 4, "other": 1.0}, {"step": 8, "loss": "NaN"}]
    steps, values = summary.series(rows, "loss")
    np.testing.assert_array_equal(steps, [0, 8])
    np.testing.assert_array_equal(values, [2.0, np.nan])
    assert [len(part) for part in summary.series([], "loss")] == [0, 0]


def test_phases_of_a_progressive_transfer_begin_at_100_per_cent() -> None:
    rows = [
        {"step": s, "layer": float(s // 10), "feature_map": (20.0 - s % 10) * (1 + s // 10)}
        for s in range(30)
    ]
    phases = summary.transfer_phases(rows)
    assert [label for label, _ in phases] == ["Layer 1", "Layer 2", "Layer 3"]
    for _, [(term, steps, shares)] in phases:
        assert term == "feature_map"
        np.testing.assert_array_equal(steps, np.arange(10))
        np.testing.assert_allclose(shares, 100 - 5.0 * np.arange(10))


def test_phases_of_a_joint_transfer_are_its_layers() -> None:
    rows = [
        {"step": s, "mean": 2.0, "mean/layer_00": 4.0 - s, "mean/layer_11": 0.0} for s in range(3)
    ]
    phases = summary.transfer_phases(rows)
    assert [label for label, _ in phases] == ["Layer 1", "Layer 12"]
    np.testing.assert_allclose(phases[0][1][0][2], [100, 75, 50])
    assert np.isnan(phases[1][1][0][2]).all()
    averaged = [{"step": 0, "mean": 2.0}, {"step": 1, "mean": 1.0}]
    assert [label for label, _ in summary.transfer_phases(averaged)] == ["All layers"]
    assert summary.transfer_phases([]) == []


def test_grouping_bounds_the_points_and_keeps_the_mean() -> None:
    values = np.arange(12_000.0)
    grouped = summary.grouped(values)
    assert len(grouped) == summary.MOST_POINTS
    assert grouped.mean() == pytest.approx(values.mean())
    np.testing.assert_array_equal(summary.grouped(values[:7]), values[:7])


def test_smoothing_keeps_a_line_and_bridges_what_is_not_finite() -> None:
    values = np.arange(200.0)
    np.testing.assert_allclose(summary.smoothed(values)[10:-10], values[10:-10])
    values[100] = np.nan
    assert np.isfinite(summary.smoothed(values)).all()
    np.testing.assert_array_equal(summary.smoothed(values[:9]), values[:9])
