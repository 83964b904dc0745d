"""An output layer that was trained before: kept, permuted, or made anew, and said so."""

import numpy as np
import pytest

from mobilebert_jax.finetune import output_layer
from mobilebert_jax.finetune.output_layer import match

BINARY = ("0", "1")
NAMES = ("negative", "positive")


@pytest.mark.parametrize(
    ("labels", "wanted", "names", "verdict", "outputs"),
    [
        (("a", "b", "c"), ("a", "b", "c"), (), "kept", (0, 1, 2)),
        (("c", "a", "b"), ("a", "b", "c"), (), "permuted", (1, 2, 0)),
        (("NEGATIVE", "Positive"), NAMES, (), "kept", (0, 1)),
        (("POSITIVE", "NEGATIVE"), BINARY, NAMES, "permuted", (1, 0)),
        (("LABEL_0", "LABEL_1", "LABEL_2"), ("a", "b", "c"), (), "kept", (0, 1, 2)),
        (("LABEL_1", "LABEL_0"), ("a", "b"), (), "new", ()),
        (("LABEL_0", "LABEL_1"), ("a", "b", "c"), (), "new", ()),
        (("a", "b"), ("a", "b", "c"), (), "new", ()),
        (("a", "b"), ("a", "d"), (), "new", ()),
        # Two labels that differ in case alone are two labels.
        (("a", "A"), ("A", "a"), (), "permuted", (1, 0)),
        (("a", "A"), ("b", "a"), (), "new", ()),
    ],
)
def test_labels_are_matched_by_name_and_then_by_number(
    labels: tuple[str, ...],
    wanted: tuple[str, ...],
    names: tuple[str, ...],
    verdict: str,
    outputs: tuple[int, ...],
) -> None:
    found = match("classes", labels, "classes", wanted, names)
    assert (found.verdict, found.outputs) == (verdict, outputs)
    assert f"{verdict}, because its labels" in str(found) or "because it has" in str(found)


def test_kinds_must_agree() -> None:
    assert match("classes", ("a", "b"), "tags", ("a", "b")).verdict == "new"
    assert match("span", (), "span", ()).verdict == "kept"
    assert match("number", (), "number", ()).verdict == "kept"


def test_a_permuted_layer_says_the_same_of_every_label() -> None:
    kernel, bias = np.arange(12.0).reshape(4, 3), np.array([10.0, 20.0, 30.0])
    params = {"blocks": 1, "task": {"dense": {"kernel": kernel, "bias": bias, "range": 7}}}
    found = output_layer.arranged(match("tags", ("c", "a", "b"), "tags", ("a", "b", "c")), params)
    x = np.array([1.0, -2.0, 0.5, 3.0])
    theirs = dict(zip("cab", x @ kernel + bias, strict=True))
    dense = found["task"]["dense"]
    ours = dict(zip("abc", x @ dense["kernel"] + dense["bias"], strict=True))
    assert ours == theirs
    assert dense["range"] == 7 and found["blocks"] == 1
    assert "task" not in output_layer.arranged(match("tags", ("x",), "tags", ("y",)), params)
    assert "task" not in output_layer.arranged(None, params)
