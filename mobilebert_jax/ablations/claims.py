"""What a comparison of variants says: their losses over seeds, and a verdict on each claim."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from mobilebert_jax.ablations import statistics
from mobilebert_jax.ablations.variants import Order

Losses = Mapping[str, Sequence[float]]
"""Held-out masked-LM losses (nats) by variant, in the order of the seeds."""


def claims_of(
    orders: Sequence[Order], ladder: Sequence[str], largest: str, losses: Losses
) -> list[dict[str, Any]]:
    """Returns each claim with the gain in nats that decides it, its interval, and the verdict."""
    found = [
        _claim(
            f"{order.better} is ahead of {order.worse}",
            statistics.gain(losses[order.better], losses[order.worse]),
        )
        for order in orders
    ]
    if ladder and largest:
        index = list(ladder).index(largest)
        others = [
            f"{name} over {before}"
            for before, name in itertools.pairwise(ladder)
            if name != largest
        ]
        found.append(
            _claim(
                f"{largest} over {ladder[index - 1]} gains more than {' or '.join(others)}",
                statistics.largest_gain([losses[name] for name in ladder], index),
            )
        )
    return found


def _claim(text: str, difference: statistics.Spread) -> dict[str, Any]:
    return {
        "claim": text,
        "gain": difference._asdict(),
        "verdict": statistics.verdict(difference),
    }
