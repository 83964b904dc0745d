"""What becomes of the output layer of a network that was fine-tuned before.

It is kept where the task has its labels, permuted where they are the same in another order, and
made anew where nothing says which of its outputs belongs to which label.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from mobilebert_jax.interop.model import numbered_labels
from mobilebert_jax.objective.finetune import Kind


class Match(NamedTuple):
    """The verdict, its reason, and for each label of the task the output that says it."""

    verdict: Literal["kept", "permuted", "new"]
    reason: str
    outputs: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.verdict}, because {self.reason}"


def match(
    kind: Kind,
    labels: Sequence[str],
    wanted_kind: Kind,
    wanted: Sequence[str],
    names: Sequence[str] = (),
) -> Match:
    """Returns what becomes of an output layer for `kind` with `labels`.

    `wanted` are the labels of the task, `names` what they are called elsewhere, in the same order.
    Labels agree by name, in any order and case, or where the layer has only the numbers
    `LABEL_0`, `LABEL_1`, ... of `transformers`, by their number.
    """
    if kind != wanted_kind:
        return Match("new", f"it is one for {kind}, and the task is one of {wanted_kind}")
    if kind in ("number", "span"):
        return Match("kept", f"it is one for a {kind}, as the task needs")
    if len(labels) != len(wanted):
        return Match("new", f"it has {len(labels)} labels, and the task has {len(wanted)}")
    for spellings in (wanted, names):
        order = _by_name(labels, spellings)
        if order is None:
            continue
        if order == tuple(range(len(order))):
            return Match("kept", "its labels are those of the task", order)
        return Match("permuted", "its labels are those of the task in another order", order)
    if tuple(labels) == numbered_labels(len(labels)):
        numbers = tuple(range(len(labels)))
        reason = f"its labels are numbers, as many as the task has: {len(labels)}"
        return Match("kept", reason, numbers)
    theirs, ours = ", ".join(map(repr, labels[:5])), ", ".join(map(repr, wanted[:5]))
    return Match("new", f"its labels ({theirs}) have other names than those of the task ({ours})")


def _by_name(labels: Sequence[str], wanted: Sequence[str]) -> tuple[int, ...] | None:
    """Returns the place in `labels` of each wanted one, None where they are not the same."""
    for fold in (str, str.casefold):
        places = {fold(label): index for index, label in enumerate(labels)}
        found = [places.get(fold(label)) for label in wanted]
        if len(places) == len(labels) == len(set(found)) and None not in found:
            return tuple(index for index in found if index is not None)
    return None


def arranged(match: Match | None, params: dict[str, Any]) -> dict[str, Any]:
    """Returns `params` with the output layer that `match` says: without it where it is new."""
    if match is None or match.verdict == "new":
        return {name: part for name, part in params.items() if name != "task"}
    if match.verdict == "kept":
        return params
    order = list(match.outputs)
    dense = params["task"]["dense"]
    moved = {name: dense[name][..., order] for name in ("kernel", "bias")}
    return params | {"task": params["task"] | {"dense": dense | moved}}
