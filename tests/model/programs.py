"""Reads a traced program: what it multiplies and how often its loops run."""

import math
from collections.abc import Iterator
from typing import Any

import jax
from jax.extend import core


def _equations(jaxpr: Any, times: int = 1) -> Iterator[tuple[Any, int]]:
    """Yields every equation, those inside loops and calls too, and how often it is executed."""
    for equation in jaxpr.eqns:
        yield equation, times
        name, parts = equation.primitive.name, list(equation.params.values())
        repeats = equation.params["length"] if name == "scan" else 1
        if name == "cond":
            # One branch is executed; ours are of different platforms and multiply the same.
            parts = [equation.params["branches"][0]]
        for inner in jax.tree.leaves(parts, is_leaf=lambda p: hasattr(p, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from _equations(inner, times * repeats)


def scan_lengths(program: core.ClosedJaxpr) -> list[int]:
    """Returns the number of rounds of each loop, in program order."""
    found = _equations(program.jaxpr)
    return [e.params["length"] for e, _ in found if e.primitive.name == "scan"]


def matrix_flops(program: core.ClosedJaxpr) -> int:
    """Returns FLOPs of all matrix multiplications, 2 per multiply-add, loops multiplied out."""
    total = 0
    for equation, times in _equations(program.jaxpr):
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            depth = math.prod(left[axis] for axis in contracted)
            total += 2 * times * depth * math.prod(equation.outvars[0].aval.shape)
    return total
