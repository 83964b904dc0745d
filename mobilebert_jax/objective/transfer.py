"""Layer-wise knowledge transfer: feature maps, their statistics, and attention.

Only what a loss reads is computed: for layer l, blocks 0..l of both networks run, and scores are
kept for block l alone. Features and scores of padding never count.

Shapes: N layers compared, B batch, T positions, S key positions, D hidden width, H heads.
Source: paper sections 3.2 and 3.4; the authors' losses with the factors of their code.
"""

import jax
import jax.numpy as jnp

from mobilebert_jax import config as config_lib
from mobilebert_jax.model import encoder
from mobilebert_jax.model.block import Captured
from mobilebert_jax.model.layers import Network, normalize
from mobilebert_jax.objective.losses import Batch, Mean, Measured, Objective, Params, Term

LOSSES = ("feature_map", "mean", "variance", "attention")


def objective(
    student: Network, teacher: Network, config: config_lib.Transfer, layers: tuple[int, ...]
) -> Objective:
    """Returns the sum of the transfer losses of `layers` (increasing indices).

    With `config.lower_rate` 0 and a single layer, no gradient flows below that layer's block.
    """
    frozen_below = config.lower_rate == 0 and len(layers) == 1
    freeze_below = layers[0] if frozen_below else None
    depth = layers[-1] + 1
    scale = 1.0 / student.config.layers if config.average_layers else 1.0
    factors = {name: scale * getattr(config, name) for name in LOSSES}

    def measure(params: Params, teacher_params: Params, batch: Batch, key: jax.Array) -> Measured:
        taught = encoder.encode(
            student, params, batch, layers=depth, capture=layers, freeze_below=freeze_below
        ).shown
        statistics_t = None
        if config.all_teacher_statistics:
            wanted, statistics_t = _with_every_feature_map(teacher, teacher_params, batch, layers)
        else:
            wanted = encoder.encode(
                teacher, teacher_params, batch, layers=depth, capture=layers, freeze_below=depth
            ).shown
        totals = layer_totals(taught, wanted, batch["input_mask"], statistics_t)
        return as_measured(totals, batch["input_mask"], factors, layers)

    return measure


def _with_every_feature_map(
    teacher: Network, params: Params, batch: Batch, layers: tuple[int, ...]
) -> tuple[Captured, jax.Array]:
    """Returns what the teacher shows of `layers`, and all its feature maps [M, 1, B, T, D]."""
    depth = teacher.config.layers
    source = encoder.encode(teacher, params, batch, capture=tuple(range(depth)), freeze_below=depth)
    features_MBTD = jnp.concatenate([source.embedded_BTD[None], source.shown.features_BTD])
    return jax.tree.map(lambda x: x[jnp.asarray(layers)], source.shown), features_MBTD[:, None]


def as_measured(
    totals: dict[str, jax.Array],
    mask_BT: jax.Array,
    factors: dict[str, float],
    layers: tuple[int, ...],
) -> Measured:
    """Sums per-layer totals [N] into terms; several layers are also reported one by one."""
    weight = jnp.sum(mask_BT.astype(jnp.float32))
    terms = {
        name: Term(Mean(jnp.sum(total_N), weight), factors[name])
        for name, total_N in totals.items()
    }
    figures = {
        f"{name}/layer_{layer:02d}": Mean(total_N[i], weight)
        for name, total_N in totals.items()
        for i, layer in enumerate(layers)
        if len(layers) > 1
    }
    return Measured(terms, figures)


def layer_totals(
    student: Captured,
    teacher: Captured,
    mask_BT: jax.Array,
    statistics_t: jax.Array | None = None,
) -> dict[str, jax.Array]:
    """Returns the four losses of each layer, summed over real positions, [N] each.

    feature_map: mean squared difference of layer-normalised features; mean, variance: squared
    difference of means and absolute difference of variances over channels; attention:
    KL(teacher || student) of the attention distributions, averaged over heads.

    Means and variances are compared with those of `statistics_t` [M, N or 1, B, T, D], averaged
    over M; by default with the teacher's features of the same layer.
    """
    mask_BT = mask_BT.astype(jnp.float32)
    teacher = jax.lax.stop_gradient(teacher)
    h_s = student.features_BTD.astype(jnp.float32)
    h_t = teacher.features_BTD.astype(jnp.float32)
    statistics_t = h_t[None] if statistics_t is None else jax.lax.stop_gradient(statistics_t)
    statistics_t = statistics_t.astype(jnp.float32)
    mean_gap = jnp.square(jnp.mean(statistics_t, -1) - jnp.mean(h_s, -1))
    variance_gap = jnp.abs(jnp.var(statistics_t, -1) - jnp.var(h_s, -1))

    def total(values_NBT: jax.Array) -> jax.Array:
        return jnp.sum(values_NBT * mask_BT, axis=(1, 2))

    return {
        "feature_map": total(jnp.mean(jnp.square(normalize(h_t) - normalize(h_s)), axis=-1)),
        "mean": total(jnp.mean(mean_gap, axis=0)),
        "variance": total(jnp.mean(variance_gap, axis=0)),
        "attention": total(attention_divergence(student.scores_BHTS, teacher.scores_BHTS)),
    }


def attention_divergence(scores_s: jax.Array, scores_t: jax.Array) -> jax.Array:
    """Returns KL(softmax(scores_t) || softmax(scores_s)) averaged over heads, [N, B, T]."""
    log_t = jax.nn.log_softmax(jax.lax.stop_gradient(scores_t).astype(jnp.float32))
    log_s = jax.nn.log_softmax(scores_s.astype(jnp.float32))
    return jnp.mean(jnp.sum(jnp.exp(log_t) * (log_t - log_s), axis=-1), axis=2)
