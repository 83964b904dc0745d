"""Layer-wise knowledge transfer: feature maps, their statistics, and attention.

Only what a loss reads is computed: for layer l, blocks 0..l of both networks run, and scores are
kept for block l alone. Features and scores of padding never count.

Shapes: N layers, M feature maps of the teacher, B batch, T positions, S key positions, D hidden
width, H heads.
Source: paper sections 3.2 and 3.4; the authors' losses with the factors of their code.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mobilebert_jax.config import schema
from mobilebert_jax.model import encoder, teacher_student
from mobilebert_jax.model.block import Captured
from mobilebert_jax.model.layers import Network, normalize
from mobilebert_jax.model.teacher_student import SideBySide
from mobilebert_jax.objective.loss_terms import Batch, Mean, Measured, Objective, Params, Term

LOSSES = ("feature_map", "mean", "variance", "attention")


class Statistics(NamedTuple):
    """Mean and variance over the channels of feature maps, float32."""

    mean_MBT: jax.Array
    variance_MBT: jax.Array


def objective(student: Network, teacher: Network, config: schema.Transfer, layer: int) -> Objective:
    """Returns the sum of the transfer losses of one layer.

    With `config.lower_layer_lr_scale` 0 no gradient flows below that layer's block.
    """
    freeze_below = layer if config.lower_layer_lr_scale == 0 else None
    depth = layer + 1

    def measure(params: Params, teacher_params: Params, batch: Batch, key: jax.Array) -> Measured:
        taught = encoder.encode(
            student, params, batch, layers=depth, capture=(layer,), freeze_below=freeze_below
        ).shown
        statistics = None
        if config.statistics_of_all_teacher_layers:
            every, statistics = _with_statistics(teacher, teacher_params, batch)
            wanted = jax.tree.map(lambda x_N: x_N[layer], every)
        else:
            wanted = encoder.encode(
                teacher, teacher_params, batch, layers=depth, capture=(layer,), freeze_below=depth
            ).shown
            wanted = jax.tree.map(lambda x_1: x_1[0], wanted)
        taught = jax.tree.map(lambda x_1: x_1[0], taught)
        totals = layer_totals(taught, wanted, batch["input_mask"], statistics)
        return as_measured(totals, batch["input_mask"], _factors(student, config))

    return measure


def joint_objective(student: Network, teacher: Network, config: schema.Transfer) -> Objective:
    """Returns the sum of the transfer losses of all layers."""

    def measure(params: Params, teacher_params: Params, batch: Batch, key: jax.Array) -> Measured:
        return every_layer(student, teacher, config, params, teacher_params, batch)[0]

    return measure


def every_layer(
    student: Network,
    teacher: Network,
    config: schema.Transfer,
    params: Params,
    teacher_params: Params,
    batch: Batch,
) -> tuple[Measured, SideBySide]:
    """Returns the transfer losses of all layers, and what both networks gave."""
    statistics = None
    if config.statistics_of_all_teacher_layers:
        statistics = _with_statistics(teacher, teacher_params, batch)[1]

    def compare(taught: Captured, wanted: Captured) -> dict[str, jax.Array]:
        return layer_totals(taught, wanted, batch["input_mask"], statistics)

    both = teacher_student.run(student, teacher, params, teacher_params, batch, compare)
    return as_measured(both.found, batch["input_mask"], _factors(student, config)), both


def _with_statistics(teacher: Network, params: Params, batch: Batch) -> tuple[Captured, Statistics]:
    """Returns what the teacher shows of every layer, and the statistics of all its feature maps."""
    depth = teacher.config.num_hidden_layers
    source = encoder.encode(teacher, params, batch, capture=tuple(range(depth)), freeze_below=depth)
    features_MBTD = jnp.concatenate([source.embedded_BTD[None], source.shown.features_BTD])
    return source.shown, statistics_of(features_MBTD)


def _factors(student: Network, config: schema.Transfer) -> dict[str, float]:
    scale = 1.0 / student.config.num_hidden_layers if config.average_over_layers else 1.0
    return {name: scale * getattr(config, f"{name}_weight") for name in LOSSES}


def as_measured(
    totals: dict[str, jax.Array], mask_BT: jax.Array, factors: dict[str, float]
) -> Measured:
    """Makes terms of the totals of one layer, or of all [N], which are reported one by one too."""
    weight = jnp.sum(mask_BT.astype(jnp.float32))
    terms = {
        name: Term(Mean(jnp.sum(total), weight), factors[name]) for name, total in totals.items()
    }
    metrics = {
        f"{name}/layer_{layer:02d}": Mean(total[layer], weight)
        for name, total in totals.items()
        for layer in range(total.size if total.ndim else 0)
    }
    return Measured(terms, metrics)


def layer_totals(
    student: Captured,
    teacher: Captured,
    mask_BT: jax.Array,
    statistics: Statistics | None = None,
) -> dict[str, jax.Array]:
    """Returns the four losses of a layer, summed over real positions.

    feature_map: mean squared difference of layer-normalised features; mean, variance: squared
    difference of means and absolute difference of variances over channels; attention:
    KL(teacher || student) of the attention distributions, averaged over heads.

    Means and variances are compared with `statistics`, averaged over M; by default with those of
    the teacher's features.
    """
    mask_BT = mask_BT.astype(jnp.float32)
    teacher = jax.lax.stop_gradient(teacher)
    h_s = student.features_BTD.astype(jnp.float32)
    h_t = teacher.features_BTD.astype(jnp.float32)
    others = statistics_of(h_t[None]) if statistics is None else jax.lax.stop_gradient(statistics)
    mean_gap_MBT = jnp.square(others.mean_MBT - jnp.mean(h_s, -1))
    variance_gap_MBT = jnp.abs(others.variance_MBT - jnp.var(h_s, -1))

    def total(values_BT: jax.Array) -> jax.Array:
        return jnp.sum(values_BT * mask_BT)

    return {
        "feature_map": total(jnp.mean(jnp.square(normalize(h_t) - normalize(h_s)), axis=-1)),
        "mean": total(jnp.mean(mean_gap_MBT, axis=0)),
        "variance": total(jnp.mean(variance_gap_MBT, axis=0)),
        "attention": total(attention_divergence(student.scores_BHTS, teacher.scores_BHTS)),
    }


def statistics_of(features_MBTD: jax.Array) -> Statistics:
    """Returns mean and variance over channels of every feature map."""
    features_MBTD = features_MBTD.astype(jnp.float32)
    return Statistics(jnp.mean(features_MBTD, -1), jnp.var(features_MBTD, -1))


def attention_divergence(scores_s: jax.Array, scores_t: jax.Array) -> jax.Array:
    """Returns KL(softmax(scores_t) || softmax(scores_s)) averaged over heads, [B, T]."""
    log_t = jax.nn.log_softmax(jax.lax.stop_gradient(scores_t).astype(jnp.float32))
    log_s = jax.nn.log_softmax(scores_s.astype(jnp.float32))
    return jnp.mean(jnp.sum(jnp.exp(log_t) * (log_t - log_s), axis=-1), axis=1)
