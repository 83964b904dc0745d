"""The TPU compiler's own estimate of how long a step takes, summed over its instructions."""

import re

from mobilebert_jax.plan import hlo

_ESTIMATE = re.compile(r'"estimated_cycles":\s*"?(\d+)"?')


def estimate(text: str) -> float | None:
    """Returns the cycles of one step on one device, or None where the text states none.

    Loops count all their rounds. Instructions that run beside each other are added up, so that the
    sum is rather too long than too short; waiting for other devices is not in it.
    """
    total, stated = 0.0, False
    for counted in hlo.walk(text):
        if counted.fused:
            continue
        found = _ESTIMATE.search(counted.instruction.rest)
        if found:
            total, stated = total + counted.times * float(found[1]), True
    return total if stated else None
