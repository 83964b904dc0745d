"""Attacks on the command line: every setting with every kind of value."""

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import strategies as st

from mobilebert_jax import main
from mobilebert_jax.config.schema import Config, flatten
from tests import miniature
from tests.fuzz.attack import attack

pytestmark = pytest.mark.fuzz

EXPERIMENTS = ("progressive_kt.py:demo", "glue.py", "squad.py", "ablations.py:demo", "export.py")
VALUES = (
    *("", "0", "-0", "1", "-1", "2", "7", "0.5", "-0.5", "1e-30", "1e30", "1e999", "nan", "inf"),
    *("-inf", "True", "False", "None", "(", "()", "(1,)", "[1]", "{}", "a", "a,b", "0,1", "1,1"),
    *("99999999999999999999", "0x10", "1_000", "lamb", "adamw", "optax.lion", "os.system"),
    *("text:/nowhere/*.txt", "/dev/null", "..", "~", "a/b", "a\nb", "a\0b", "\ud800", "x" * 300),
)


def numbers(value: Any) -> list[float]:
    """Returns all numbers of a configuration."""
    if isinstance(value, int | float):
        return [float(value)]
    if isinstance(value, tuple):
        return [number for item in value for number in numbers(item)]
    return []


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_overrides(request: pytest.FixtureRequest, experiment: str) -> None:
    keys = sorted(flatten(Config()))
    override = st.tuples(
        st.sampled_from(keys), st.sampled_from(VALUES) | st.text(max_size=8) | st.floats().map(str)
    )

    def attempt(overrides: list[tuple[str, str]]) -> None:
        arguments = [f"--config.{key}={value}" for key, value in overrides]
        command = main.parse([f"{miniature.ROOT}/experiments/{experiment}", *arguments])
        for value in flatten(command.config).values():
            assert all(map(math.isfinite, numbers(value)))
        assert dataclasses.is_dataclass(command.config)

    attack(request, st.lists(override, min_size=1, max_size=3), attempt)


def test_flags(request: pytest.FixtureRequest) -> None:
    names = ("config", "config.seed", "plan", "profile", "coordinator", "processes", "process")
    of_a_plan = ("suggest", "plan_layers", "plan_json", "price", "failures_per_chip_year")
    known = st.sampled_from([*names, "dry_run", "nosuggest", *of_a_plan])
    flag = st.tuples(known | st.text(max_size=6), st.sampled_from(VALUES) | st.text(max_size=6))
    words = flag.map(lambda pair: f"--{pair[0]}={pair[1]}") | known.map("--{}".format)
    arguments = st.lists(words | st.sampled_from(VALUES) | st.text(max_size=6), max_size=4)
    experiment = f"{miniature.ROOT}/experiments/progressive_kt.py"

    def attempt(arguments: list[str]) -> None:
        main.parse([experiment, *arguments])

    attack(request, arguments, attempt)
