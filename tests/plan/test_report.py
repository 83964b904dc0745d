"""The tables of a plan on a narrow terminal: nothing is cut, and no line is longer."""

import dataclasses
import io
import re

import pytest
import rich.console

from mobilebert_jax import plan
from mobilebert_jax.config.plan_assumptions import Assumptions
from mobilebert_jax.config.schema import Config, Data
from mobilebert_jax.plan import analytic, cost_report, costs, job, report
from mobilebert_jax.plan.analytic import Cut
from mobilebert_jax.plan.topology import parse

COLUMNS = 80
PUBLISHED = dataclasses.replace(
    Config(), name="progressive_kt-paper", data=Data(max_seq_length=512), precision="bfloat16"
)
HEADINGS = (
    "parameters",
    "moments",
    "teacher",
    "batch",
    "temporaries",
    "peak",
    "PFLOPs",
    "compute",
    "memory",
    "network",
    "compiler",
    "kind",
    "number",
    "stage",
    "steps",
    "MFU",
    "input",
    "checkpoints",
    "compilation",
    "failures",
    "goodput",
    "saves",
    "seconds",
    "money",
    "likely",
)


def narrow():
    return rich.console.Console(width=COLUMNS, file=io.StringIO())


def printed(topology, **options):
    console = narrow()
    plan.show(PUBLISHED, topology, console, **options)
    return console.file.getvalue()


def words(text):
    return set(re.findall(r"[A-Za-z]+", text))


def is_whole(text):
    return "…" not in text and max(map(len, text.splitlines())) <= COLUMNS


def test_nothing_is_cut_at_80_columns():
    text = printed("h200x64", suggest=True, assumptions=Assumptions(price=12_345.67))
    assert is_whole(text)
    assert set(HEADINGS) <= words(text)
    for numbers in (r"240,000", r"500,000", r"\d\d\d,\d\d\d,\d\d\d"):
        assert re.search(numbers, text)


def test_every_table_of_steps_fits_with_the_longest_of_words():
    """Steps that a compiler made, refused, or crashed on, with many messages of every kind."""
    console = narrow()
    made = compiled()
    report.show(made, console)
    cost_report.show(costs.of(made, Assumptions(price=1e5)), console)
    text = console.file.getvalue()
    assert is_whole(text)
    assert {"crashed", "transfer", "interpolated"} <= words(text)
    assert "does not fit" in text
    assert "collective-broadcast" in text


def compiled():
    hardware = parse("v5p-128")
    cut = Cut(2, 32, 1)

    def measure(config, stage, layer):
        found = analytic.estimate(config, cut, stage, layer)
        messages = tuple(
            dataclasses.replace(found.collectives[0], kind=kind, times=12_345)
            for kind in ("all-gather", "all-reduce", "collective-broadcast", "reduce-scatter")
        )
        return dataclasses.replace(
            found,
            cycles=1e9,
            fits=stage != "distill",
            collectives=messages,
            source="estimated: compiler crashed",
        )

    return job.make(PUBLISHED, hardware, cut, "0,23", measure)


def test_a_plan_prints_from_likely_and_to():
    text = printed("h200x64")
    assert text.count("likely") >= 3
    assert "not calibrated" in text


def test_a_job_that_never_ends_says_so():
    text = printed("h200x64", assumptions=Assumptions(failures_per_chip_year=1e4))
    assert "never" in text
    assert "checkpoint_every" in text


@pytest.mark.parametrize(
    ("numbers", "texts"),
    [
        ([0.123, 1.0], ["0.12", "1.00"]),
        ([1.23, 12.0], ["1.2", "12.0"]),
        ([1.23, 1234.5], ["1", "1,234"]),
    ],
)
def test_numbers_have_the_digits_that_the_largest_needs(numbers, texts):
    assert report.figures(numbers) == texts
