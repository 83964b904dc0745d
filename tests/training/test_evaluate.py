"""Figures on held-out documents against a literal computation, and looking inside a network.

Shapes: B batch, P predicted positions, V vocabulary.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from mobilebert_jax.config import schema
from mobilebert_jax.config.execution import Mesh
from mobilebert_jax.config.schema import InputError
from mobilebert_jax.data import tokenizer as tokenizer_lib
from mobilebert_jax.data.feed import Feed
from mobilebert_jax.data.masking import Vocabulary
from mobilebert_jax.data.tokenizer import Tokenizer
from mobilebert_jax.model import encoder, sizes
from mobilebert_jax.model.layers import Network
from mobilebert_jax.sharding.mesh import make_mesh
from mobilebert_jax.training import evaluate, introspection
from mobilebert_jax.training import state as state_lib
from tests.miniature import NARROW

PIECES = (
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *("the", "a", "tea", "rain", "is", "hot", "cold", "##er", "."),
)
DATA = schema.Data(max_seq_length=16, max_predictions_per_seq=3)
EXAMPLES = 24
MODEL = dataclasses.replace(
    sizes.MOBILEBERT, **{**NARROW, "vocab_size": len(PIECES) + 2}, initializer_range=0.5
)


class ListDocuments:
    """Documents of two or more sentences, with tokens of unequal frequency."""

    def __init__(self, count: int, seed: int, weight: float = 1.0):
        generator = np.random.default_rng(seed)
        self.weight = weight
        self._lengths = [generator.integers(2, 7, generator.integers(2, 6)) for _ in range(count)]
        self._tokens = [
            np.minimum(generator.geometric(0.3, n.sum()) + 4, len(PIECES) - 1).astype(np.int32)
            for n in self._lengths
        ]
        self.token_counts = np.array([len(tokens) for tokens in self._tokens])
        self.document_numbers = np.arange(len(self.token_counts))

    def __len__(self) -> int:
        return len(self._tokens)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self._tokens[index], self._lengths[index].astype(np.int32)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path: Path = tmp_path_factory.mktemp("tokenizer") / "vocab.txt"
    path.write_text("".join(f"{piece}\n" for piece in PIECES))
    return tokenizer_lib.load(path, schema.Tokenizer())


@pytest.fixture(scope="module")
def mesh() -> jax.sharding.Mesh:
    return make_mesh(Mesh(), jax.devices()[:1])


@pytest.fixture(scope="module")
def network() -> Network:
    return Network(MODEL, "float32", "none")


@pytest.fixture(scope="module")
def params(network: Network, mesh: jax.sharding.Mesh) -> dict[str, Any]:
    return state_lib.init_params(network, state_lib.Layout(mesh), seed=0, stream=0)


def feed(tokenizer: Tokenizer, batch_size: int) -> Feed:
    documents = [ListDocuments(20, seed=1)]
    return Feed(documents, Vocabulary.of(tokenizer), DATA, batch_size=batch_size, seed=0)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def literal_scores(network: Network, params: dict[str, Any], stream: Feed) -> dict[str, float]:
    """One example after the other: a mean over predicted words, and one over pairs."""

    @jax.jit
    def predict(batch: dict[str, jax.Array]) -> encoder.Predictions:
        hidden_BTD = encoder.encode(network, params, batch).hidden_BTD
        return encoder.predict(network, params, hidden_BTD, batch)

    word_losses, words_right, order_losses, orders_right = [], [], [], []
    for index in range(EXAMPLES):
        row = stream[index]
        logits_1PV, logits_12 = (np.asarray(x, np.float64) for x in predict(row))
        for position in np.flatnonzero(row["masked_lm_weights"][0]):
            word = row["masked_lm_ids"][0, position]
            word_losses.append(-log_softmax(logits_1PV[0, position])[word])
            words_right.append(logits_1PV[0, position].argmax() == word)
        order = row["next_sentence_labels"][0]
        order_losses.append(-log_softmax(logits_12[0])[order])
        orders_right.append(logits_12[0].argmax() == order)
    assert EXAMPLES < len(word_losses) < 3 * EXAMPLES  # not every example has as many words
    return {
        "masked_lm_loss": float(np.mean(word_losses)),
        "masked_lm_accuracy": float(np.mean(words_right)),
        "next_sentence_loss": float(np.mean(order_losses)),
        "next_sentence_accuracy": float(np.mean(orders_right)),
    }


def test_scores_are_means_over_words_and_examples_at_any_batch_size(
    tokenizer: Tokenizer, network: Network, params: dict[str, Any], mesh: jax.sharding.Mesh
) -> None:
    expected = literal_scores(network, params, feed(tokenizer, 1))
    for batch_size in (4, 12, 24):
        stream = feed(tokenizer, batch_size)
        scores = evaluate.held_out_scorer(network, stream, EXAMPLES // batch_size, mesh)(params)
        assert scores == pytest.approx(expected, rel=1e-5)


def test_what_attention_is_worth_is_the_loss_of_averages_minus_the_own(
    tokenizer: Tokenizer, network: Network, params: dict[str, Any], mesh: jax.sharding.Mesh
) -> None:
    stream = feed(tokenizer, 8)
    found = evaluate.with_attention_worth(network, stream, EXAMPLES // 8, mesh)(params)
    own = evaluate.held_out_scorer(network, stream, EXAMPLES // 8, mesh)(params)
    # Queries of 0 make all scores equal: the same distribution by other means.
    blocks = {
        name: jax.tree.map(lambda x: 0 * x, part) if name == "attention" else part
        for name, part in params["blocks"].items()
    }
    blocks["attention"] = {**params["blocks"]["attention"], "query": blocks["attention"]["query"]}
    averaged = {**params, "blocks": blocks}
    flat = evaluate.held_out_scorer(network, stream, EXAMPLES // 8, mesh)(averaged)
    assert found.items() >= own.items()
    assert found["uniform_attention_loss"] == pytest.approx(flat["masked_lm_loss"], rel=1e-5)
    assert found["attention_worth"] == pytest.approx(
        flat["masked_lm_loss"] - own["masked_lm_loss"], abs=1e-5
    )
    assert abs(found["attention_worth"]) > 1e-4
    nothing = evaluate.with_attention_worth(network, stream, EXAMPLES // 8, mesh)(averaged)
    assert nothing["attention_worth"] == pytest.approx(0.0, abs=1e-6)


def test_unigram_scores_count_words(tokenizer: Tokenizer) -> None:
    training = [ListDocuments(30, seed=2, weight=0.75), ListDocuments(5, seed=3, weight=0.25)]
    counts_V = [1.0] * tokenizer.size
    for source in training:
        for index in range(len(source)):
            for token in source[index][0]:
                counts_V[token] += source.weight
    likeliest = max(range(tokenizer.size), key=counts_V.__getitem__)
    losses, right = [], []
    stream = feed(tokenizer, 1)
    for index in range(EXAMPLES):
        row = stream[index]
        for position in np.flatnonzero(row["masked_lm_weights"][0]):
            word = row["masked_lm_ids"][0, position]
            losses.append(-np.log(counts_V[word] / sum(counts_V)))
            right.append(word == likeliest)
    scores = evaluate.unigram_scores(training, feed(tokenizer, 8), EXAMPLES // 8, tokenizer.size)
    assert scores["masked_lm_loss"] == pytest.approx(np.mean(losses))
    assert scores["masked_lm_accuracy"] == pytest.approx(np.mean(right))
    assert 0 < scores["masked_lm_accuracy"] < 1


def test_unigram_counting_stops_when_it_has_seen_enough(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []

    class Counting(ListDocuments):
        def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
            read.append(len(self._tokens[index]))
            return super().__getitem__(index)

    monkeypatch.setattr(evaluate, "UNIGRAM_TOKENS", 100)
    evaluate.unigram_scores([Counting(60, seed=4)], feed(tokenizer, 8), 1, tokenizer.size)
    assert sum(read) >= 100 > sum(read[:-1])


def test_one_sentence_is_a_batch_of_one_row(tokenizer: Tokenizer) -> None:
    batch = introspection.one_sentence(tokenizer, "The [MASK] is hot.", 16)
    pieces = tokenizer.pieces(np.asarray(batch["input_ids"])[0].tolist())
    assert pieces == ["[CLS]", "the", "[MASK]", "is", "hot", ".", "[SEP]"]
    assert np.asarray(batch["masked_lm_positions"]).tolist() == [[2]]
    assert np.asarray(batch["input_mask"]).tolist() == [[1] * 7]
    assert np.asarray(batch["segment_ids"]).tolist() == [[0] * 7]


def test_a_sentence_that_cannot_be_shown_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match=r"has no mask; write \[MASK\] where"):
        introspection.one_sentence(tokenizer, "The tea is hot.", 16)
    assert introspection.one_sentence(tokenizer, "The [MASK] is hot.", 7)
    with pytest.raises(InputError, match=r"has 7 tokens with .* data.max_seq_length=6 are allowed"):
        introspection.one_sentence(tokenizer, "The [MASK] is hot.", 6)


def test_the_guesses_for_a_blank_are_ordered_probabilities(
    tokenizer: Tokenizer, network: Network, params: dict[str, Any]
) -> None:
    batch = introspection.one_sentence(tokenizer, "The [MASK] is [MASK].", 16)
    every = introspection.fill_mask(network, params, batch, tokenizer, count=tokenizer.size)
    probabilities = [guess["probability"] for guess in every]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sorted(guess["piece"] for guess in every) == sorted(PIECES)
    # The network has two words more than the tokenizer, which are never guessed but have a share.
    assert 0.5 < sum(probabilities) < 1.0
    hidden_BTD = encoder.encode(network, params, batch).hidden_BTD
    logits_V = np.asarray(encoder.predict(network, params, hidden_BTD, batch).masked_lm_BPV)[0, 0]
    expected_V = np.exp(log_softmax(logits_V.astype(np.float64)))
    assert sum(probabilities) == pytest.approx(expected_V[: tokenizer.size].sum(), rel=1e-5)
    for guess in every:
        index = PIECES.index(guess["piece"])
        assert guess["probability"] == pytest.approx(expected_V[index], rel=1e-4)
    assert introspection.fill_mask(network, params, batch, tokenizer) == every[:5]


def test_attention_rows_are_distributions(
    tokenizer: Tokenizer, network: Network, params: dict[str, Any]
) -> None:
    batch = introspection.one_sentence(tokenizer, "The [MASK] is hot.", 16)
    maps_NHTT = introspection.attention_maps(network, params, batch)
    assert maps_NHTT.shape == (MODEL.num_hidden_layers, MODEL.num_attention_heads, 7, 7)
    assert (maps_NHTT >= 0).all()
    np.testing.assert_allclose(maps_NHTT.sum(-1), 1.0, rtol=1e-5)


def test_feature_sizes_leave_padding_out(
    tokenizer: Tokenizer, network: Network, params: dict[str, Any]
) -> None:
    batch = feed(tokenizer, 6)[0]
    mask_BT = batch["input_mask"].astype(bool)
    assert not mask_BT.all()
    found = introspection.feature_rms(network, params, batch)
    encoded = encoder.encode(network, params, batch, capture=tuple(range(MODEL.num_hidden_layers)))
    features = [encoded.embedded_BTD, *encoded.shown.features_BTD]
    expected = [float(np.sqrt(np.mean(np.asarray(h_BTD)[mask_BT] ** 2))) for h_BTD in features]
    assert found == pytest.approx(expected, rel=1e-5)
