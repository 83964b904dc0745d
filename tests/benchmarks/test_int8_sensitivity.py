"""How an 8-bit file's answers are compared with those of float32."""

import json

import numpy as np
import pytest
import scipy.stats

from benchmarks.int8_sensitivity import by_block, by_choice, by_part, compare
from mobilebert_jax.interop.litert import parts
from tests.interop import exchanged

OURS_NC = np.array([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0], [0.5, 0.0]], np.float32)
CLASSES_N = np.array([0, 1, 0, 1])


def test_equal_logits_have_no_error() -> None:
    found = compare(OURS_NC, OURS_NC, CLASSES_N)
    assert (found.error, found.changed, found.points, found.p) == (0.0, 0, 0.0, 1.0)


def test_error_is_of_the_wider_logit_and_points_are_of_right_answers() -> None:
    theirs_NC = OURS_NC + np.array([[0, 0.5], [0, 0], [-3, 0], [0, 1]], np.float32)
    found = compare(theirs_NC, OURS_NC, CLASSES_N)
    assert found.error == pytest.approx((0.5 + 0 + 3 + 1) / 4)
    assert found.changed == 2, "the third answer and the last"
    assert found.points == 0.0, "one right answer was lost, and one gained"
    assert found.error_interval[0] <= found.error <= found.error_interval[1]
    assert found.points_interval[0] < 0 < found.points_interval[1]
    json.dumps(found._asdict())


def test_p_is_of_mcnemars_exact_test() -> None:
    theirs_NC = np.tile([[0.0, 1.0]], (9, 1))
    ours_NC = np.tile([[1.0, 0.0]], (9, 1))
    classes_N = np.array([1] * 7 + [0] * 2)
    found = compare(theirs_NC, ours_NC, classes_N)
    assert found.p == pytest.approx(scipy.stats.binomtest(7, 9).pvalue)
    assert found.points == pytest.approx(100 * 5 / 9)


def test_each_part_and_each_block_has_a_file_alone_and_a_file_without() -> None:
    bert, released = exchanged.CONFIGS["bert"], exchanged.CONFIGS["released"]
    of_bert = dict(by_part(bert))
    assert "only norms" not in of_bert and "only bottlenecks" not in of_bert
    assert {"only norms", "all but bottlenecks"} <= dict(by_part(released)).keys()
    only, but = of_bert["only head"], of_bert["all but head"]
    assert but == [parts.names_of("head")]
    assert not set(but) & set(only)
    assert len(only) == len(of_bert) // 2 - 1
    blocks = dict(by_block(bert))
    assert len(blocks) == 2 * bert.num_hidden_layers
    assert blocks["all but block 1"] == [parts.names_of_block(1)]


def test_choices_name_parts_beside_the_default() -> None:
    chosen = dict(by_choice(exchanged.CONFIGS["bert"], ["default+head"]))
    named = ("feedforward_output", "feedforward_residual", "head")
    assert chosen["default+head"] == [parts.names_of(part) for part in named]
    assert chosen["default"] == [parts.names_of(part) for part in named[:2]]
