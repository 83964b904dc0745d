"""Masked-LM and next-sentence losses, distillation, and what a student takes from its teacher.

Shapes: B batch, P predicted positions, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobilebert_jax.config import schema
from mobilebert_jax.model import encoder
from mobilebert_jax.objective import distill, initialize, pretrain
from mobilebert_jax.objective.loss_terms import Mean, Measured, Term, add, weighted
from tests import tiny

BATCH = tiny.batch()
KEY = jax.random.key(0)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = np.asarray(logits, np.float64)
    return logits - np.log(np.sum(np.exp(logits), axis=-1, keepdims=True))


def masked_lm(logits_BPV: np.ndarray) -> tuple[float, float]:
    """Returns loss and accuracy over the predictions that count, one by one."""
    losses, hits = [], []
    for b, p in np.argwhere(np.asarray(BATCH["masked_lm_weights"]) == 1):
        word = int(BATCH["masked_lm_ids"][b, p])
        losses.append(-log_softmax(logits_BPV[b, p])[word])
        hits.append(np.argmax(logits_BPV[b, p]) == word)
    assert len(losses) == 13
    return float(np.mean(losses)), float(np.mean(hits))


def next_sentence(logits_B2: np.ndarray) -> tuple[float, float]:
    labels = np.asarray(BATCH["next_sentence_labels"])
    losses = [-log_softmax(row)[label] for row, label in zip(logits_B2, labels, strict=True)]
    return float(np.mean(losses)), float(np.mean(np.argmax(logits_B2, -1) == labels))


@pytest.fixture(scope="module")
def student() -> dict[str, Any]:
    return tiny.student_params()


@pytest.fixture(scope="module")
def teacher() -> dict[str, Any]:
    return tiny.teacher_params()


@pytest.fixture(scope="module")
def logits(student: Any, teacher: Any) -> dict[str, encoder.Predictions]:
    @tiny.jit
    def run(params: Any) -> Any:
        return {
            name: encoder.predict(
                network,
                params[name],
                encoder.encode(network, params[name], BATCH).hidden_BTD,
                BATCH,
            )
            for name, network in (("student", tiny.STUDENT), ("teacher", tiny.TEACHER))
        }

    return jax.tree.map(np.asarray, run({"student": student, "teacher": teacher}))


@pytest.fixture(scope="module")
def measure_pretraining() -> Callable[..., Measured]:
    return tiny.jit(pretrain.objective(tiny.TEACHER, dropout=False))


@pytest.fixture(scope="module")
def measure_distillation() -> Callable[..., Measured]:
    """Takes alpha, for each value of which it is compiled, and the temperature."""

    def run(alpha: Any, temperature: Any, *arguments: Any) -> Measured:
        settings = schema.Distill(alpha=alpha, temperature=temperature)
        return distill.objective(tiny.STUDENT, tiny.TEACHER, settings)(*arguments)

    return tiny.jit(run, static_argnums=0)


def loss(measured: Measured) -> float:
    return float(sum(term.factor * term.mean.value() for term in measured.terms.values()))


# Pretraining


def test_pretraining_follows_its_definition(
    measure_pretraining: Any, teacher: Any, logits: Any
) -> None:
    found = measure_pretraining(teacher, None, BATCH, KEY)
    words, words_right = masked_lm(logits["teacher"].masked_lm_BPV)
    order, order_right = next_sentence(logits["teacher"].next_sentence_B2)
    assert float(found.terms["masked_lm_loss"].mean.value()) == pytest.approx(words, rel=1e-5)
    assert float(found.terms["next_sentence_loss"].mean.value()) == pytest.approx(order, rel=1e-5)
    assert loss(found) == pytest.approx(words + order, rel=1e-5)
    assert float(found.metrics["masked_lm_accuracy"].value()) == pytest.approx(words_right)
    assert float(found.metrics["next_sentence_accuracy"].value()) == pytest.approx(order_right)


def test_accuracy_counts_true_words() -> None:
    right_BPV = 9.0 * jax.nn.one_hot(BATCH["masked_lm_ids"], tiny.VOCABULARY)
    order_B2 = 9.0 * jax.nn.one_hot(BATCH["next_sentence_labels"], 2)
    for shift, accuracy in ((0, 1.0), (1, 0.0)):
        predictions = encoder.Predictions(
            jnp.roll(right_BPV, shift, axis=-1), jnp.roll(order_B2, shift, axis=-1)
        )
        metrics = pretrain.hard_labels(predictions, BATCH, 1.0).metrics
        assert float(metrics["masked_lm_accuracy"].value()) == accuracy
        assert float(metrics["next_sentence_accuracy"].value()) == accuracy


def test_predictions_without_weight_do_not_count(
    measure_pretraining: Any, measure_distillation: Any, student: Any, teacher: Any
) -> None:
    counts_BP = BATCH["masked_lm_weights"] == 1
    spoilt = BATCH | {
        "masked_lm_ids": jnp.where(counts_BP, BATCH["masked_lm_ids"], 49),
        "masked_lm_positions": jnp.where(counts_BP, BATCH["masked_lm_positions"], 0),
    }
    for run in (
        lambda batch: measure_pretraining(teacher, None, batch, KEY),
        lambda batch: measure_distillation(0.5, 2.0, student, teacher, batch, KEY),
    ):
        tiny.assert_close(run(spoilt), run(BATCH), 1e-6)
    changed = BATCH | {"masked_lm_ids": (BATCH["masked_lm_ids"] + 1) % tiny.VOCABULARY}
    before, after = (loss(measure_pretraining(teacher, None, b, KEY)) for b in (BATCH, changed))
    assert abs(before - after) > 0.01


def test_a_mean_over_nothing_is_zero() -> None:
    assert float(weighted(jnp.ones(3), jnp.zeros(3)).value()) == 0.0


# Distillation


@pytest.mark.parametrize("alpha", [0.0, 0.5])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_distillation_follows_its_definition(
    alpha: float,
    temperature: float,
    measure_distillation: Any,
    student: Any,
    teacher: Any,
    logits: Any,
) -> None:
    found = measure_distillation(alpha, temperature, student, teacher, BATCH, KEY)
    soft = []
    for b, p in np.argwhere(np.asarray(BATCH["masked_lm_weights"]) == 1):
        wanted = np.exp(log_softmax(logits["teacher"].masked_lm_BPV[b, p] / temperature))
        taught = log_softmax(logits["student"].masked_lm_BPV[b, p] / temperature)
        soft.append(-(temperature**2) * np.sum(wanted * taught))
    words, words_right = masked_lm(logits["student"].masked_lm_BPV)
    order, _ = next_sentence(logits["student"].next_sentence_B2)
    assert float(found.terms["distillation_loss"].mean.value()) == pytest.approx(
        np.mean(soft), rel=1e-5
    )
    expected = alpha * words + (1.0 - alpha) * np.mean(soft) + order
    assert loss(found) == pytest.approx(expected, rel=1e-5)
    # Reported for true words, whatever the share of the teacher's.
    assert float(found.terms["masked_lm_loss"].mean.value()) == pytest.approx(words, rel=1e-5)
    assert float(found.metrics["masked_lm_accuracy"].value()) == pytest.approx(words_right)


def test_a_teacher_without_a_share_of_the_loss_does_not_run(student: Any, logits: Any) -> None:
    objective = distill.objective(tiny.STUDENT, tiny.TEACHER, schema.Distill(alpha=1.0))
    found = tiny.jit(objective)(student, None, BATCH, KEY)
    words, _ = masked_lm(logits["student"].masked_lm_BPV)
    order, _ = next_sentence(logits["student"].next_sentence_B2)
    assert loss(found) == pytest.approx(words + order, rel=1e-5)


def test_published_share_and_temperature() -> None:
    assert (schema.Distill().alpha, schema.Distill().temperature) == (0.5, 1.0)


def test_the_teacher_gets_no_gradient_and_the_student_the_difference_of_distributions() -> None:
    """At a high temperature too: T^2 makes up for the 1 / T of each softmax but one."""
    generator = np.random.default_rng(0)
    taught, wanted = (jnp.asarray(generator.normal(0, 1, 7), jnp.float32) for _ in range(2))
    for temperature in (1.0, 4.0):
        of_student, of_teacher = jax.grad(distill.soft_cross_entropy, argnums=(0, 1))(
            taught, wanted, temperature
        )
        np.testing.assert_array_equal(of_teacher, 0.0)
        difference = jax.nn.softmax(taught / temperature) - jax.nn.softmax(wanted / temperature)
        np.testing.assert_allclose(of_student, temperature * difference, rtol=1e-4, atol=1e-6)


# Sums of objectives


def measured(name: str, total: float) -> Measured:
    mean = Mean(jnp.float32(total), jnp.float32(2.0))
    return Measured({name: Term(mean, 3.0)}, {f"{name}_figure": mean})


def test_the_sum_of_objectives_has_the_terms_and_metrics_of_both() -> None:
    both = add(measured("one", 4.0), measured("other", 6.0))
    assert loss(both) == 3.0 * 2.0 + 3.0 * 3.0
    assert set(both.terms) == {"one", "other"}
    assert set(both.metrics) == {"one_figure", "other_figure"}
    with pytest.raises(ValueError, match="share a term"):
        add(measured("one", 4.0), measured("one", 6.0))


# What the student takes from the teacher

COPIED = {
    "embeddings/word",
    "embeddings/type",
    "embeddings/position",
    "embeddings/projection/kernel",
    "embeddings/projection/bias",
    "masked_lm/transform/kernel",
    "masked_lm/transform/bias",
    "masked_lm/norm/scale",
    "masked_lm/norm/shift",
    "masked_lm/bias",
    "masked_lm/extra",
    "next_sentence/dense/kernel",
    "next_sentence/dense/bias",
}


def flat(params: Any) -> dict[str, np.ndarray]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }


def test_exactly_the_shared_parameters_are_copied(student: Any, teacher: Any) -> None:
    found, own, taught = map(flat, (initialize.from_teacher(student, teacher), student, teacher))
    assert found.keys() == own.keys()
    assert not any(name.startswith("pooler") for name in found)
    for name, leaf in found.items():
        source, other = (taught, own) if name in COPIED else (own, taught)
        np.testing.assert_array_equal(leaf, source[name])
        if name in other and other[name].shape == leaf.shape:
            assert (leaf != other[name]).any()
    assert found.keys() >= COPIED


def test_unequal_shapes_are_refused(student: Any, teacher: Any) -> None:
    embeddings = teacher["embeddings"] | {"word": teacher["embeddings"]["word"][:-1]}
    with pytest.raises(ValueError, match=r"embeddings/word.*\(50, 8\).*\(49, 8\)"):
        initialize.from_teacher(student, teacher | {"embeddings": embeddings})
