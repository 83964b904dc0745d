"""Reads the text of a compiled program: its instructions, and how often a step runs each.

The text is what `jax.stages.Compiled.as_text()` gives. A scan becomes a `while` whose body runs as
often as the compiler noted there, so that counts are those of a whole step, not of the text.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

BYTES = {
    "pred": 1,
    "s4": 0.5,
    "u4": 0.5,
    "s8": 1,
    "u8": 1,
    "s16": 2,
    "u16": 2,
    "f16": 2,
    "bf16": 2,
    "s32": 4,
    "u32": 4,
    "f32": 4,
    "s64": 8,
    "u64": 8,
    "f64": 8,
    "c64": 8,
    "c128": 16,
}
"""Bytes of one element; 8-bit floats (`f8e4m3fn` and others) have one, tokens none."""

_HEADER = re.compile(r"^(ENTRY\s+)?%?([\w.\-]+)\s*\(.*->.*\{\s*$")
_NAME = re.compile(r"^\s+(?:ROOT\s+)?%?([\w.\-]+) = ")
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,<=]*)\]")
_TRIP_COUNT = re.compile(r'"known_trip_count":\s*\{\s*"n":\s*"?(\d+)"?')
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")


@dataclasses.dataclass(frozen=True)
class Array:
    """Type and shape of one array."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> float:
        size = 1 if self.dtype.startswith("f8") else BYTES.get(self.dtype, 0)
        return size * math.prod(self.shape)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation: `name = result opcode(operands), attributes`."""

    name: str
    opcode: str
    result: str
    """Shape of the result as it is written, a tuple in parentheses."""
    rest: str
    """Operands and attributes."""

    def called(self, *attributes: str) -> list[str]:
        """Returns the computations that any of `attributes` (`body`, `calls` ...) names."""
        pattern = rf"\b(?:{'|'.join(attributes)})=\{{?%?([\w.\-]+)"
        return re.findall(pattern, self.rest)


@dataclasses.dataclass(frozen=True)
class Counted:
    """An instruction and how often one step runs it."""

    instruction: Instruction
    times: int
    known: bool
    """False below a loop whose number of rounds the compiler does not state; it counts once."""
    fused: bool
    """Whether it is part of a fusion, whose costs the fusion's own line states."""


def parse(text: str) -> tuple[str, dict[str, list[Instruction]]]:
    """Returns the entry's name and the instructions of every computation of a compiled program.

    Raises ValueError where the text has no entry computation.
    """
    computations: dict[str, list[Instruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        if not line.startswith(" "):
            header = _HEADER.match(line)
            if header:
                current = computations.setdefault(header[2], [])
                entry = header[2] if header[1] else entry
            continue
        name = _NAME.match(line)
        if name and current is not None:
            result, opcode, rest = _split(line[name.end() :])
            current.append(Instruction(name[1], opcode, result, rest))
    if not entry:
        raise ValueError("this is not the text of a compiled program: it has no ENTRY computation")
    return entry, computations


def _split(text: str) -> tuple[str, str, str]:
    """Cuts `shape opcode(operands), attributes`; layouts and tuples hold parentheses and blanks."""
    depth = 0
    for end, character in enumerate(text):
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character == " " and depth == 0:
            opcode, _, rest = text[end + 1 :].partition("(")
            return text[:end], opcode, rest
    return text, "", ""


def walk(text: str) -> Iterator[Counted]:
    """Yields every instruction that a step runs, with how often it does."""
    entry, computations = parse(text)
    yield from _walk(entry, computations, times=1, known=True, fused=False)


def _walk(
    name: str, computations: dict[str, list[Instruction]], times: int, known: bool, fused: bool
) -> Iterator[Counted]:
    for instruction in computations.get(name, []):
        yield Counted(instruction, times, known, fused)
        opcode = instruction.opcode
        rounds, inside, below = 1, fused, known
        if opcode == "while":
            called = instruction.called("body", "condition")
            count = trip_count(instruction, computations)
            rounds, below = count or 1, known and count is not None
        elif opcode == "fusion":
            called, inside = instruction.called("calls"), True
        elif opcode == "conditional":
            # Every branch counts, since which one runs is not known before it does.
            called = instruction.called("true_computation", "false_computation")
            for branches in _BRANCHES.findall(instruction.rest):
                called += [branch.strip().lstrip("%") for branch in branches.split(",")]
        elif opcode == "call" or opcode.startswith("async-start"):
            called = instruction.called("to_apply", "calls", "called_computations")
        else:
            continue
        for computation in called:
            yield from _walk(computation, computations, times * rounds, below, inside)


def trip_count(loop: Instruction, computations: dict[str, list[Instruction]]) -> int | None:
    """Returns how often the body of a `while` runs, or None where its text does not tell.

    CPU and GPU note it beside the loop. On TPU it is what the condition compares the counter with,
    which a scan counts up from 0 by 1.
    """
    noted = _TRIP_COUNT.search(loop.rest)
    if noted:
        return int(noted[1])
    condition = computations.get("".join(loop.called("condition")), [])
    constants = {
        instruction.name: int(instruction.rest.partition(")")[0])
        for instruction in condition
        if instruction.opcode == "constant" and instruction.result.startswith("s32[]")
    }
    for instruction in condition:
        if instruction.opcode == "compare" and "direction=LT" in instruction.rest:
            limit = re.findall(r"%?([\w.\-]+)", instruction.rest.partition(")")[0])[-1]
            return constants.get(limit)
    return None


def arrays(shape: str) -> list[Array]:
    """Returns the arrays of a shape as it is written, those of nested tuples in order."""
    return [
        Array(dtype, tuple(int(size.lstrip("<=")) for size in sizes.split(",") if size))
        for dtype, sizes in _ARRAY.findall(shape)
    ]


def elements(shape: str) -> list[str]:
    """Returns the elements of a tuple shape, of which each may be a tuple, or the shape alone."""
    if not shape.startswith("("):
        return [shape]
    found, depth, start = [], 0, 1
    for position, character in enumerate(shape):
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        if depth == 0 or (depth == 1 and character == ","):
            found.append(shape[start:position].strip())
            start = position + 1
    return [element for element in found if element]
