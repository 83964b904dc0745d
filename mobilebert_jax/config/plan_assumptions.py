"""What a plan cannot know and takes as given: the flags that stand beside `--plan`.

Must not import jax, as the other files of this folder.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from mobilebert_jax import bounds
from mobilebert_jax.config.schema import InputError


@dataclasses.dataclass(frozen=True)
class Assumptions:
    """Prices, rates and bandwidths; each field is a flag of its name."""

    price: bounds.PriceOrNone = 0.0
    """Money for a chip for an hour, in any currency; 0 leaves money out."""
    checkpoint_gb_per_s: bounds.GigabytesPerSecond = 1.0
    """What all hosts together write to, and read from, the place of checkpoints."""
    failures_per_chip_year: bounds.FailuresOrNone = 0.17
    """Failures that end a job, by chip and year. The default is that of 16,384 H100 in 54 days, 419
    of them (Llama Team, The Llama 3 Herd of Models, 2024, section 3.3.4); of TPUs none is known."""


DEFAULTS = Assumptions()


def names() -> list[str]:
    """Returns the names of the flags."""
    return [field.name for field in dataclasses.fields(Assumptions)]


def checked(values: Mapping[str, Any]) -> Assumptions:
    """Returns the assumptions of all flags' `values`.

    Raises InputError for every value out of bounds, with the nearest that is within.
    """
    assumptions = Assumptions(**values)
    found = bounds.problems(assumptions, "--")
    if found:
        raise InputError("\n".join(found.values()))
    return assumptions
