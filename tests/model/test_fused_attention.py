"""Fused attention computes what written-out attention does, where it may, and nowhere else.

cuDNN runs on no machine of the tests: its part is taken by the same function of JAX compiled for a
CPU, and the program for a GPU is looked at without being run.
"""

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo

from mobilebert_jax.model import encoder
from mobilebert_jax.model.attention import MASKED_SCORE, weighted_values
from mobilebert_jax.model.fused_attention import fused_attention
from mobilebert_jax.model.layers import Network
from tests import tiny
from tests.tiny import assert_close

ROWS, LENGTH, HEADS, SIZE = 4, 12, 2, 8
REAL = (12, 5, 1, 0)
MASK_BS = (np.arange(LENGTH) < np.array(REAL)[:, None]).astype(np.float32)

Triple = tuple[jax.Array, jax.Array, jax.Array]


def random_triple(dtype: str = "float32") -> Triple:
    query, key, value = jax.random.normal(jax.random.key(0), (3, ROWS, LENGTH, HEADS, SIZE), dtype)
    return query, key, value


def written_out(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    scores = jnp.einsum("bthc,bshc->bhts", query, key, preferred_element_type=jnp.float32)
    scores = scores * SIZE**-0.5 + MASKED_SCORE * (1.0 - MASK_BS[:, None, None])
    return weighted_values(0.0, scores, value, None)


def fused(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    return fused_attention(query, key, value, MASK_BS, "xla")


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 1e-2)])
def test_contexts_are_those_of_written_out_attention(dtype: str, tolerance: float) -> None:
    found, expected = fused(*random_triple(dtype)), written_out(*random_triple(dtype))
    assert found.dtype == expected.dtype == dtype
    assert_close(found.astype(jnp.float32), expected.astype(jnp.float32), tolerance)


def test_a_row_of_padding_gets_the_mean_of_its_values() -> None:
    _, _, value = random_triple()
    found = fused(*random_triple())[REAL.index(0)]
    expected = jnp.broadcast_to(value[REAL.index(0)].mean(0), (LENGTH, HEADS, SIZE))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_gradients_are_those_of_written_out_attention() -> None:
    """Queries and keys of a row of padding are left out: no loss counts it."""
    weights = jax.random.normal(jax.random.key(1), (ROWS, LENGTH, HEADS, SIZE))

    def gradients(attend: Any) -> Any:
        whole = jax.grad(lambda *given: jnp.sum(attend(*given) * weights), (0, 1, 2))
        query, key, value = whole(*random_triple())
        return query[:-1], key[:-1], value

    assert_close(gradients(fused), gradients(written_out), 1e-5)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """JAX's function compiles for a CPU what is asked of cuDNN; holds what was asked for."""
    implementations: list[str] = []
    original = jax.nn.dot_product_attention

    def instead(*arrays: jax.Array, implementation: str, **options: Any) -> jax.Array:
        implementations.append(implementation)
        return original(*arrays, implementation="xla", **options)

    monkeypatch.setattr(jax.nn, "dot_product_attention", instead)
    yield implementations


def loss_and_gradients(network: Network, params: Any, capture: tuple[int, ...]) -> Any:
    batch = tiny.batch() | {"input_mask": tiny.batch()["input_mask"].at[2].set(0)}

    def loss(params: Any) -> tuple[jax.Array, Any]:
        encoded = encoder.encode(network, params, batch, capture=capture)
        real_BT1 = batch["input_mask"][..., None]
        return jnp.sum(jnp.sin(encoded.hidden_BTD) * real_BT1), encoded.captured

    return tiny.jit(jax.value_and_grad(loss, has_aux=True))(params)


@pytest.mark.parametrize("capture", [(), (2,), (0, 1, 2)])
@pytest.mark.parametrize("wide", [False, True])
def test_a_network_has_the_same_numbers(
    asked: list[str], wide: bool, capture: tuple[int, ...]
) -> None:
    network = dataclasses.replace(tiny.TEACHER, wide=wide)
    params = tiny.teacher_params()
    expected = loss_and_gradients(network, params, capture)
    assert not asked
    own = dataclasses.replace(network, attention_implementation="cudnn")
    assert_close(loss_and_gradients(own, params, capture), expected, 2e-5)
    # Layers whose scores are compared compute them.
    assert set(asked) == ({"cudnn"} if len(capture) < tiny.LAYERS else set())


def test_uniform_attention_is_written_out(asked: list[str]) -> None:
    own = dataclasses.replace(
        tiny.STUDENT, attention_implementation="cudnn", uniform_attention=True
    )
    loss_and_gradients(own, tiny.student_params(), ())
    assert not asked


def test_attention_probabilities_are_never_left_undropped_unnoticed() -> None:
    own = dataclasses.replace(tiny.STUDENT, attention_implementation="cudnn")
    assert own.config.attention_probs_dropout_prob
    with pytest.raises(ValueError, match="no dropout of attention probabilities"):
        encoder.encode(own, tiny.student_params(), tiny.batch(), dropout_key=jax.random.key(0))


@pytest.mark.parametrize(
    ("capture", "expected"),
    [
        ((), {"__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward"}),
        ((2,), {"__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward"}),
        ((0, 1, 2), set()),
    ],
)
def test_the_program_for_a_gpu_calls_cudnn(
    monkeypatch: pytest.MonkeyPatch, capture: tuple[int, ...], expected: set[str]
) -> None:
    """Both passes; scores that are written to memory would be a bias, or an argument of its own."""
    for name, answer in (
        ("check_cudnn_version", 91_800),
        ("check_compute_capability", True),
        ("is_cuda_compute_capability_equal", False),
    ):
        monkeypatch.setattr(fused_attention_stablehlo, name, lambda *_, answer=answer: answer)
    network = dataclasses.replace(tiny.TEACHER, dtype="bfloat16", attention_implementation="cudnn")
    network = dataclasses.replace(
        network, config=dataclasses.replace(network.config, num_attention_heads=3)
    )

    def loss(params: Any) -> jax.Array:
        encoded = encoder.encode(network, params, tiny.batch(), capture=capture)
        scores = encoded.captured.scores_BHTS.sum() if encoded.captured else 0.0
        return jnp.sum(encoded.hidden_BTD.astype(jnp.float32)) + scores

    traced = jax.jit(jax.grad(loss)).trace(tiny.teacher_params())
    program = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert set(re.findall(r"__cudnn\$\w+", program)) == expected
    assert ("PADDING" in program) == bool(expected)
