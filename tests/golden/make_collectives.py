"""Writes collectives.json: what one step of each stage sends, on two meshes.

    python -m tests.golden.make_collectives

It adds the figures of the installed jax, and leaves those of other releases as they are. A
difference that a change of this project makes wants an explanation in its commit.
"""

import collections
import json
from pathlib import Path

import jax

from mobilebert_jax.plan.collectives import collectives
from tests.partition.stage_programs import STAGES, arguments, compiled, layout_of

GOLDEN = Path(__file__).with_name("collectives.json")
MESHES = ("1x8x1", "2x2x2")


def version() -> str:
    """Returns the release of jax without its last number: compilers differ between releases."""
    return ".".join(jax.__version__.split(".")[:2])


def messages(stage: str, mesh: str) -> dict[str, int]:
    """Returns how often a step runs each collective, by kind and delivered arrays."""
    layout = layout_of(mesh)
    program = compiled(stage, layout, arguments(stage, layout))
    counted: collections.Counter[str] = collections.Counter()
    for one in collectives(program.as_text()):
        arrays = ", ".join(str(array) for array in one.arrays)
        counted[f"{one.kind} over {one.group_size}: {arrays}"] += one.times
    return dict(sorted(counted.items()))


def main() -> None:
    """Writes the file."""
    known = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    known[version()] = {mesh: {stage: messages(stage, mesh) for stage in STAGES} for mesh in MESHES}
    GOLDEN.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
