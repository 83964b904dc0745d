"""Measuring networks on held-out documents: losses, accuracies, and the guess they must beat.

Shapes: P predicted positions, V vocabulary.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mobilebert_jax.config.schema import Config
from mobilebert_jax.data.feed import Feed
from mobilebert_jax.data.masking import Vocabulary
from mobilebert_jax.data.pretraining import Documents
from mobilebert_jax.data.tokenizer import Tokenizer
from mobilebert_jax.model.layers import Network
from mobilebert_jax.objective import pretrain
from mobilebert_jax.objective.loss_terms import Batch, Mean, Params
from mobilebert_jax.sharding import rules
from mobilebert_jax.sharding.global_batch import to_devices

HELD_OUT_SEED = 0
"""The same held-out examples and masks for every seed, so that runs can be compared."""
UNIGRAM_TOKENS = 4_000_000
"""Training tokens that the unigram predictor counts at most."""


def held_out_feed(
    config: Config,
    tokenizer: Tokenizer,
    held_out: Sequence[Documents],
    mesh: jax.sharding.Mesh | None,
) -> tuple[Feed, int]:
    """Returns the held-out examples of the run, and how many batches of them are measured.

    With a mesh they are this process's rows, without one all of them.
    """
    batch_size = config.evaluate.batch_size
    feed = Feed(
        held_out,
        Vocabulary.of(tokenizer),
        config.data,
        batch_size=batch_size,
        seed=HELD_OUT_SEED,
        rows=rules.rows_of_process(mesh, batch_size) if mesh is not None else None,
    )
    return feed, -(-config.evaluate.examples // batch_size)


def held_out_scorer(
    network: Network, feed: Feed, batches: int, mesh: jax.sharding.Mesh
) -> Callable[[Params], dict[str, float]]:
    """Returns a function from parameters to their scores over the first `batches` of `feed`.

    The scores are masked-LM and next-sentence loss and accuracy, without dropout.
    """
    objective = pretrain.objective(network, dropout=False)

    @jax.jit
    def measure(params: Params, batch: Batch) -> dict[str, Mean]:
        with rules.on(mesh):
            terms, metrics = objective(params, None, batch, jax.random.key(0))
        return {**{name: term.mean for name, term in terms.items()}, **metrics}

    # Compiled, because arrays of several processes cannot be added one by one.
    add = jax.jit(lambda total, part: jax.tree.map(jnp.add, total, part))

    def scores(params: Params) -> dict[str, float]:
        total: dict[str, Mean] = {}
        for rows in feed.iterate(0, batches, prefetch=2):
            part = measure(params, to_devices(feed, rows, mesh))
            total = add(total, part) if total else part
        return {name: float(mean.value()) for name, mean in total.items()}

    return scores


def with_attention_worth(
    network: Network, feed: Feed, batches: int, mesh: jax.sharding.Mesh
) -> Callable[[Params], dict[str, float]]:
    """Returns a function from parameters to their held-out scores and what attention is worth.

    `uniform_attention_loss` is the masked-LM loss (nats) with every attention distribution replaced
    by the uniform one; `attention_worth` is how much higher that is than the network's own loss.
    Near 0 the network does not use attention, and there is none that a student could learn.
    """
    uniform = dataclasses.replace(network, uniform_attention=True)
    own_scores = held_out_scorer(network, feed, batches, mesh)
    uniform_scores = held_out_scorer(uniform, feed, batches, mesh)

    def scores(params: Params) -> dict[str, float]:
        own = own_scores(params)
        loss = uniform_scores(params)["masked_lm_loss"]
        worth = loss - own["masked_lm_loss"]
        return {**own, "uniform_attention_loss": loss, "attention_worth": worth}

    return scores


def unigram_scores(
    training: Sequence[Documents], feed: Feed, batches: int, vocabulary_size: int
) -> dict[str, float]:
    """Returns the masked-LM loss and accuracy of guessing every word by its training frequency.

    Frequencies are counted in at most `UNIGRAM_TOKENS` tokens, one added to each.
    """
    counts_V = np.ones(vocabulary_size)
    for source in training:
        order = np.random.default_rng(0).permutation(len(source))
        enough = np.searchsorted(np.cumsum(source.token_counts[order]), UNIGRAM_TOKENS) + 1
        for index in order[:enough]:
            tokens, _ = source[int(index)]
            counts_V += source.weight * np.bincount(tokens, minlength=vocabulary_size)
    loss_V = -np.log(counts_V / counts_V.sum())
    words, weights = [], []
    for batch in feed.iterate(0, batches, prefetch=2):
        words.append(batch["masked_lm_ids"].ravel())
        weights.append(batch["masked_lm_weights"].ravel())
    words_P, weights_P = np.concatenate(words), np.concatenate(weights)
    right_P = words_P == np.argmax(counts_V)
    return {
        "masked_lm_loss": float(np.average(loss_V[words_P], weights=weights_P)),
        "masked_lm_accuracy": float(np.average(right_P, weights=weights_P)),
    }
