"""Writes collectives.json: what one step of each stage sends, on two meshes.

    python -m tests.golden.make_collectives

It adds the metrics of the installed jax, and leaves those of other releases as they are. A
difference that a change of this project makes wants an explanation in its commit.
"""

import json
from pathlib import Path

import jax

import tests.conftest  # noqa: F401 - eight simulated devices, asked for before jax has any
from mobilebert_jax.plan.collectives import collectives
from tests.sharding.stage_programs import STAGES, arguments, compiled, layout_of

GOLDEN = Path(__file__).with_name("collectives.json")
MESHES = ("1x8x1", "2x2x2")


def version() -> str:
    """Returns the release of jax without its last number: compilers differ between releases."""
    return ".".join(jax.__version__.split(".")[:2])


def messages(stage: str, mesh: str) -> dict[str, dict[str, int]]:
    """Returns what a step exchanges, by kind and number of devices that take part.

    `messages` counts every round of a loop, `bytes` adds up what they deliver, and `largest` is the
    largest array delivered.
    """
    layout = layout_of(mesh)
    program = compiled(stage, layout, arguments(stage, layout))
    found: dict[str, dict[str, int]] = {}
    for one in collectives(program.as_text()):
        assert one.known, "a loop of unknown length"
        kind = found.setdefault(
            f"{one.kind} over {one.group_size}", {"messages": 0, "bytes": 0, "largest": 0}
        )
        kind["messages"] += one.times
        kind["bytes"] += int(one.times * one.bytes)
        kind["largest"] = max(kind["largest"], *(int(array.bytes) for array in one.arrays))
    return found


def main() -> None:
    """Writes the file."""
    known = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    known[version()] = {mesh: {stage: messages(stage, mesh) for stage in STAGES} for mesh in MESHES}
    GOLDEN.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
