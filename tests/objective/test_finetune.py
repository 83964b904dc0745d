"""Shapes: B batch, T positions, C classes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobilebert_jax.model import encoder
from mobilebert_jax.model.layers import Network, TaskHead
from mobilebert_jax.objective import finetune
from mobilebert_jax.objective.loss_terms import Batch
from tests import tiny

CLASSES = 3


def network(reads: str, outputs: int, dropout: float = 0.0, pooler: bool = False) -> Network:
    config = dataclasses.replace(tiny.STUDENT.config, pooler=pooler)
    return Network(config, task=TaskHead(reads, outputs, dropout))  # type: ignore[arg-type]


def params_of(net: Network) -> dict:
    import flax.linen as nn

    return jax.jit(lambda: nn.unbox(encoder.init(net, jax.random.key(3))))()


def batch(extra: int = 0) -> Batch:
    """Returns the tiny batch with labels, padded by `extra` more positions, a filler at its end."""
    rows = tiny.batch()
    found = {
        name: jnp.pad(rows[name], ((0, 0), (0, extra)))
        for name in ("input_ids", "input_mask", "segment_ids")
    }
    weights = jnp.ones(tiny.ROWS).at[-1].set(0.0)
    return {**found, "row_weights": weights}


def short_config(net: Network) -> Network:
    """The same network with room for more positions."""
    return dataclasses.replace(
        net, config=dataclasses.replace(net.config, max_position_embeddings=20)
    )


LOGITS_BC = jnp.asarray(np.random.default_rng(0).normal(size=(tiny.ROWS, CLASSES)), jnp.float32)
LABELS_B = jnp.asarray([0, 1, 2, 0, 1, 2, 0, 1])
WEIGHTS_B = jnp.asarray([1, 1, 1, 1, 1, 1, 1, 0], jnp.float32)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def test_classes_are_measured_by_cross_entropy_without_fillers() -> None:
    found = finetune.classes(LOGITS_BC, {"labels": LABELS_B, "row_weights": WEIGHTS_B})
    logs = log_softmax(np.asarray(LOGITS_BC))[:7]
    labels = np.asarray(LABELS_B)[:7]
    expected = -logs[np.arange(7), labels].mean()
    assert float(found.terms["task_loss"].mean.value()) == pytest.approx(expected, rel=1e-6)
    accuracy = (np.asarray(LOGITS_BC)[:7].argmax(-1) == labels).mean()
    assert float(found.metrics["accuracy"].value()) == pytest.approx(accuracy)


def test_a_number_is_measured_by_its_squared_error() -> None:
    labels_B = jnp.linspace(0.0, 5.0, tiny.ROWS)
    found = finetune.number(LOGITS_BC[:, :1], {"labels": labels_B, "row_weights": WEIGHTS_B})
    expected = np.square(np.asarray(LOGITS_BC)[:7, 0] - np.asarray(labels_B)[:7]).mean()
    assert float(found.terms["task_loss"].mean.value()) == pytest.approx(expected, rel=1e-6)


def test_tags_are_measured_at_first_pieces_alone() -> None:
    generator = np.random.default_rng(1)
    logits = generator.normal(size=(2, 4, CLASSES)).astype(np.float32)
    labels, first = generator.integers(0, CLASSES, (2, 4)), np.array([[0, 1, 0, 1], [1, 1, 1, 1]])
    measured = finetune.tags(
        jnp.asarray(logits),
        {
            "labels": jnp.asarray(labels),
            "label_weights": jnp.asarray(first, jnp.float32),
            "row_weights": jnp.asarray([1.0, 0.0]),
        },
    )
    logs = log_softmax(logits)[0]
    expected = -(logs[1, labels[0, 1]] + logs[3, labels[0, 3]]) / 2
    assert float(measured.terms["task_loss"].mean.value()) == pytest.approx(expected, rel=1e-6)


def test_a_span_is_measured_over_real_positions_alone() -> None:
    outputs = np.random.default_rng(2).normal(size=(2, 5, 2)).astype(np.float32)
    mask = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    rows = {
        "input_mask": jnp.asarray(mask),
        "starts": jnp.asarray([1, 0]),
        "ends": jnp.asarray([2, 4]),
        "row_weights": jnp.ones(2),
    }
    measured = finetune.span(jnp.asarray(outputs), rows)
    short, whole = log_softmax(outputs[0, :3].T), log_softmax(outputs[1].T)
    expected = -np.mean([short[0, 1] + short[1, 2], whole[0, 0] + whole[1, 4]]) / 2
    assert float(measured.terms["task_loss"].mean.value()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("kind", "reads", "outputs"),
    [
        ("classes", "first", CLASSES),
        ("number", "first", 1),
        ("tags", "every", 4),
        ("span", "every", 2),
    ],
)
def test_padding_changes_neither_loss_nor_gradient(kind: str, reads: str, outputs: int) -> None:
    net = short_config(network(reads, outputs))
    params = params_of(net)
    generator = np.random.default_rng(4)
    labels = {
        "classes": {"labels": LABELS_B},
        "number": {"labels": jnp.linspace(0.0, 5.0, tiny.ROWS)},
        "tags": {
            "labels": jnp.asarray(generator.integers(0, 4, (tiny.ROWS, tiny.LENGTH))),
            "label_weights": tiny.batch()["input_mask"].astype(jnp.float32),
        },
        "span": {"starts": jnp.zeros(tiny.ROWS, int), "ends": jnp.full(tiny.ROWS, 2)},
    }[kind]
    padded = {
        name: jnp.pad(x, ((0, 0), (0, 8))) if x.ndim == 2 else x for name, x in labels.items()
    }
    objective = finetune.objective(kind, net)  # type: ignore[arg-type]

    def loss(params: dict, rows: Batch) -> jax.Array:
        (term,) = objective(params, None, rows, jax.random.key(0)).terms.values()
        return term.mean.value()

    # The network's own attention dropout draws other masks for other shapes.
    assert net.config.hidden_dropout_prob == 0.0
    still = dataclasses.replace(
        net, config=dataclasses.replace(net.config, attention_probs_dropout_prob=0.0)
    )
    objective = finetune.objective(kind, still)  # type: ignore[arg-type]
    # One gradient shows what all share, the network: compiling it takes most of the time.
    measured = tiny.jit(jax.value_and_grad(loss) if kind == "span" else loss)
    short = measured(params, {**batch(), **labels})
    tiny.assert_close(measured(params, {**batch(8), **padded}), short)
    assert float(jax.tree.leaves(short)[0]) > 0
    assert sorted(params) == ["blocks", "embeddings", "task"]


def test_dropout_acts_on_what_the_output_layer_reads() -> None:
    net = network("first", CLASSES, dropout=0.5)
    net = dataclasses.replace(
        net, config=dataclasses.replace(net.config, attention_probs_dropout_prob=0.0)
    )
    params = params_of(net)
    outputs = tiny.jit(lambda key: encoder.task_outputs(net, params, batch(), dropout_key=key))
    one, other = outputs(jax.random.key(0)), outputs(jax.random.key(1))
    assert np.abs(one - other).max() > 1e-4
    still = tiny.jit(lambda: encoder.task_outputs(net, params, batch()))
    assert np.array_equal(still(), still())


def test_a_pooler_is_read_where_the_network_has_one() -> None:
    net = network("first", CLASSES, pooler=True)
    params = params_of(net)
    assert "pooler" in params
    outputs = tiny.jit(lambda params: encoder.task_outputs(net, params, batch()))
    changed = {**params, "pooler": jax.tree.map(lambda x: x + 1.0, params["pooler"])}
    assert np.abs(outputs(params) - outputs(changed)).max() > 1e-3


def test_a_network_without_a_task_has_no_task_outputs() -> None:
    with pytest.raises(ValueError, match="no task"):
        encoder.task_outputs(tiny.STUDENT, {}, batch())
