"""What the encoder computes, what it leaves out, and what must not change its numbers."""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobilebert_jax.model import encoder, sizes
from mobilebert_jax.model.layers import Network, Norm
from mobilebert_jax.model.sizes import ModelConfig
from tests.model import programs
from tests.parity.cases import QUICK_COMPILATION, random_batch, random_params

NARROW: dict[str, Any] = {
    "vocab_size": 50,
    "max_position_embeddings": 16,
    "hidden_size": 16,
    "embedding_size": 8,
    "intermediate_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_feedforward_networks": 2,
}
STUDENT = dataclasses.replace(sizes.MOBILEBERT, intra_bottleneck_size=8, **NARROW)
NETWORK = Network(STUDENT)


def narrow(name: str) -> ModelConfig:
    """Returns a published network with its form kept and its widths shrunk."""
    config = sizes.PUBLISHED[name]
    changes = NARROW | {
        "num_hidden_layers": 2,
        "num_feedforward_networks": min(config.num_feedforward_networks, 2),
    }
    if config.use_bottleneck:
        wider = config.intra_bottleneck_size > config.hidden_size
        return dataclasses.replace(
            config, **(changes | {"intra_bottleneck_size": 32 if wider else 8})
        )
    return dataclasses.replace(
        config, **(changes | {"intra_bottleneck_size": 16, "embedding_size": 16})
    )


@functools.lru_cache
def params_of(config: ModelConfig) -> dict[str, Any]:
    return jax.tree.map(jnp.asarray, random_params(config))


@functools.lru_cache
def batch_of(config: ModelConfig) -> dict[str, jax.Array]:
    return {name: jnp.asarray(value) for name, value in random_batch(config).items()}


PARAMS, BATCH = params_of(STUDENT), batch_of(STUDENT)


def loss_of(
    params: dict[str, Any],
    network: Network,
    batch: dict[str, jax.Array],
    **choices: Any,
) -> jax.Array:
    """Returns a sum in which every output counts, padding excepted."""
    encoded = encoder.encode(network, params, batch, **choices)
    predicted = encoder.predict(network, params, encoded.hidden_BTD, batch)
    masked_lm = jax.nn.log_softmax(predicted.masked_lm_BPV)[..., 3]
    return -jnp.mean(masked_lm) - jnp.mean(jax.nn.log_softmax(predicted.next_sentence_B2)[:, 1])


@functools.lru_cache
def gradients_of(
    network: Network, freeze_below: int | None = None
) -> tuple[jax.Array, dict[str, Any]]:
    function = functools.partial(
        loss_of, network=network, batch=batch_of(network.config), freeze_below=freeze_below
    )
    run = jax.jit(jax.value_and_grad(function), compiler_options=QUICK_COMPILATION)
    return run(params_of(network.config))


encode = jax.jit(
    encoder.encode,
    static_argnums=0,
    static_argnames=("layers", "capture", "freeze_below"),
    compiler_options=QUICK_COMPILATION,
)


def assert_close(actual: Any, expected: Any, tolerance: float = 2e-6) -> None:
    """Compares trees leaf by leaf, relative to the largest magnitude of each expected leaf."""
    for mine, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        scale = max(float(np.abs(other).max()), 1e-3)
        np.testing.assert_allclose(mine, other, rtol=0, atol=tolerance * scale)


def at_real_tokens(encoded: encoder.Encoded, batch: dict[str, jax.Array]) -> np.ndarray:
    return np.asarray(encoded.hidden_BTD)[np.asarray(batch["input_mask"]) == 1]


def repadded(batch: dict[str, jax.Array], *, more: int, token: int) -> dict[str, jax.Array]:
    """Returns `batch` with `more` padding after it and `token` in all padding."""
    grown = {
        name: jnp.pad(batch[name], ((0, 0), (0, more)))
        for name in ("input_ids", "segment_ids", "input_mask")
    }
    ids_BT = jnp.where(grown["input_mask"] == 1, grown["input_ids"], token)
    return batch | grown | {"input_ids": ids_BT}


# Padding


FORMS = (
    "mobilebert",
    "mobilebert_paper_form",
    "mobilebert_tiny",
    "ib_bert_large",
    "bert_base",
    "squeezebert",
)
"""Published networks that differ in their wiring, not only in norm, activation or width."""


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize(("more", "token"), [(0, 7), (3, 9)])
def test_padding_changes_nothing(name: str, more: int, token: int) -> None:
    config = narrow(name)
    network, params, batch = Network(config), params_of(config), batch_of(config)
    other = repadded(batch, more=more, token=token)
    expected = at_real_tokens(encode(network, params, batch), batch)
    actual = at_real_tokens(encode(network, params, other), other)
    assert_close(actual, expected)


@pytest.mark.parametrize(("more", "token"), [(3, 0), (0, 7)])
def test_padding_is_seen_by_the_trigram_of_published_weights(more: int, token: int) -> None:
    """Longer padding is seen by a full sequence, other ids by those that were padded already."""
    config = dataclasses.replace(STUDENT, trigram_masks_padding=False)
    network = Network(config)
    other = repadded(BATCH, more=more, token=token)
    expected = at_real_tokens(encode(network, PARAMS, BATCH), BATCH)
    actual = at_real_tokens(encode(network, PARAMS, other), other)
    assert np.abs(actual - expected).max() > 0.01


def test_real_tokens_do_change_the_result() -> None:
    """Guards the padding tests: they would also pass for a network that ignores its input."""
    changed = BATCH | {"input_ids": BATCH["input_ids"].at[1, 2].set(44)}
    before = encode(NETWORK, PARAMS, BATCH).hidden_BTD
    after = encode(NETWORK, PARAMS, changed).hidden_BTD
    assert (np.abs(after - before)[1, :7].max(axis=-1) > 1e-4).all()
    np.testing.assert_array_equal(after[0], before[0])


def test_a_sequence_of_padding_only_stays_finite() -> None:
    empty = BATCH | {"input_mask": BATCH["input_mask"].at[2].set(0)}
    run = jax.jit(jax.value_and_grad(loss_of), static_argnums=1)
    loss, gradients = run(PARAMS, NETWORK, empty)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((loss, gradients)))


# Capturing, and running the lower blocks only


@pytest.mark.parametrize("capture", [(3,), (1, 2), (0, 2)])
def test_captured_layers_equal_those_of_a_full_capture(capture: tuple[int, ...]) -> None:
    full = encode(NETWORK, PARAMS, BATCH, capture=(0, 1, 2, 3))
    part = encode(NETWORK, PARAMS, BATCH, capture=capture)
    assert full.captured is not None and part.captured is not None
    assert part.captured.features_BTD.shape == (len(capture), 3, 10, 16)
    assert part.captured.scores_BHTS.shape == (len(capture), 3, 2, 10, 10)
    chosen = jax.tree.map(lambda x: x[jnp.array(capture)], full.captured)
    assert_close(part.captured, chosen)
    assert_close(part.hidden_BTD, full.hidden_BTD)


def test_nothing_is_captured_unasked() -> None:
    encoded = encode(NETWORK, PARAMS, BATCH)
    full = encode(NETWORK, PARAMS, BATCH, capture=(0, 1, 2, 3))
    assert encoded.captured is None
    assert full.captured is not None
    assert_close(encoded.hidden_BTD, full.captured.features_BTD[-1])


@pytest.mark.parametrize("layers", [1, 3])
def test_running_k_layers_gives_the_features_of_block_k(layers: int) -> None:
    full = encode(NETWORK, PARAMS, BATCH, capture=(0, 1, 2, 3))
    part = encode(NETWORK, PARAMS, BATCH, layers=layers)
    assert full.captured is not None
    outputs = [full.embedded_BTD, *full.captured.features_BTD]
    assert_close(part.hidden_BTD, outputs[layers])


def test_blocks_above_are_absent_from_the_program() -> None:
    broken = PARAMS | {"blocks": jax.tree.map(lambda p: p.at[2:].set(jnp.nan), PARAMS["blocks"])}
    choices: dict[str, Any] = {"layers": 2, "capture": (1,), "freeze_below": 1}
    run = jax.jit(jax.value_and_grad(functools.partial(loss_of, **choices)), static_argnums=1)
    loss, gradients = run(broken, NETWORK, BATCH)
    assert np.isfinite(loss)
    for leaf in jax.tree.leaves(gradients["blocks"]):
        assert np.isfinite(leaf).all()
        np.testing.assert_array_equal(leaf[2:], 0)


@pytest.mark.parametrize("layers", [1, 2, 4])
@pytest.mark.parametrize("capture", [(), (0,)])
def test_loops_run_over_the_asked_blocks_only(layers: int, capture: tuple[int, ...]) -> None:
    def run(params: dict[str, Any]) -> encoder.Encoded:
        return encoder.encode(NETWORK, params, BATCH, layers=layers, capture=capture)

    program = jax.make_jaxpr(run)(PARAMS)
    assert sum(programs.scan_lengths(program)) == layers
    flops = 3 * sizes.forward_flops(STUDENT, 10, layers=layers)
    assert programs.matrix_flops(program) == flops


# Freezing


@pytest.mark.parametrize("below", [0, 3])
def test_frozen_blocks_get_no_gradient_and_the_rest_keep_theirs(below: int) -> None:
    loss, gradients = gradients_of(NETWORK)
    frozen_loss, frozen = gradients_of(NETWORK, freeze_below=below)
    assert_close(frozen_loss, loss)
    for leaf, whole in zip(
        jax.tree.leaves(frozen["blocks"]), jax.tree.leaves(gradients["blocks"]), strict=True
    ):
        np.testing.assert_array_equal(leaf[:below], 0)
        assert_close(leaf[below:], whole[below:], 1e-5)
    for name in ("projection", "norm", "type", "position"):
        for leaf in jax.tree.leaves(frozen["embeddings"][name]):
            np.testing.assert_array_equal(leaf, 0)
    # The word table is the output matrix as well, and keeps the gradient of that use.
    assert_close(frozen["masked_lm"], gradients["masked_lm"], 1e-5)
    assert np.abs(frozen["embeddings"]["word"]).max() > 0


def test_a_network_frozen_as_a_whole_reads_its_layers_where_they_lie() -> None:
    def features(params: dict[str, Any]) -> jax.Array:
        return encoder.encode(NETWORK, params, BATCH, layers=3, freeze_below=3).hidden_BTD

    assert_close(jax.jit(features)(PARAMS), encode(NETWORK, PARAMS, BATCH, layers=3).hidden_BTD)
    gradients = jax.jit(jax.grad(lambda params: features(params).sum()))(PARAMS)
    for leaf in jax.tree.leaves(gradients):
        np.testing.assert_array_equal(leaf, 0)
    cuts = [e for e in jax.make_jaxpr(features)(PARAMS).eqns if e.primitive.name == "slice"]
    assert not [cut for cut in cuts if cut.invars[0].aval.shape[0] == STUDENT.num_hidden_layers]


def test_freezing_leaves_out_the_backward_pass_of_frozen_blocks() -> None:
    def flops(below: int) -> int:
        function = functools.partial(loss_of, network=NETWORK, batch=BATCH, freeze_below=below)
        return programs.matrix_flops(jax.make_jaxpr(jax.grad(function))(PARAMS))

    one_block = 3 * (
        sizes.forward_flops(STUDENT, 10, layers=1) - sizes.forward_flops(STUDENT, 10, layers=0)
    )
    # A backward pass has two products for each of the forward pass.
    assert flops(1) - flops(3) == 2 * 2 * one_block


# Precision, rematerialisation, dropout


@pytest.mark.parametrize(
    ("name", "policy"),
    [("mobilebert", "full"), ("ib_bert_large", "dots"), ("ib_bert_large", "feedforward")],
)
def test_rematerialisation_changes_no_number(name: str, policy: str) -> None:
    config = narrow(name)
    plain = gradients_of(Network(config))
    assert_close(gradients_of(Network(config, remat=policy)), plain, 1e-5)


# Four blocks in rounds of three, the last round being shorter, and without a loop.
@pytest.mark.parametrize("unroll", [3, 4])
def test_the_number_of_blocks_in_a_round_changes_no_number(unroll: int) -> None:
    plain = gradients_of(NETWORK)
    for remat in ("none", "full"):
        unrolled = dataclasses.replace(NETWORK, unroll=unroll, remat=remat)
        assert_close(gradients_of(unrolled), plain, 1e-5)


def test_without_a_loop_blocks_are_still_computed_again() -> None:
    def program(remat: str) -> str:
        network = dataclasses.replace(NETWORK, unroll=STUDENT.num_hidden_layers, remat=remat)
        function = jax.grad(functools.partial(loss_of, network=network, batch=BATCH))
        return jax.jit(function).lower(PARAMS).as_text()

    barriers = {remat: program(remat).count("optimization_barrier") for remat in ("none", "full")}
    assert barriers["full"] > barriers["none"]


def test_wide_networks_have_the_same_numbers() -> None:
    config = narrow("ib_bert_large")
    together, apart = Network(config), Network(config, wide=True)
    assert_close(gradients_of(apart), gradients_of(together), 1e-5)
    for choices in ({"dropout_key": jax.random.key(3)}, {"freeze_below": 2}):
        found, expected = (
            encode(network, params_of(config), BATCH, **choices) for network in (apart, together)
        )
        assert_close(found.hidden_BTD, expected.hidden_BTD, 1e-5)


def test_policies_recompute_as_much_as_they_say() -> None:
    def flops(policy: str) -> int:
        function = functools.partial(loss_of, network=Network(STUDENT, remat=policy), batch=BATCH)
        return programs.matrix_flops(jax.make_jaxpr(jax.grad(function))(PARAMS))

    assert flops("none") < flops("dots") < flops("feedforward") < flops("full")


def test_rounded_products_stay_close() -> None:
    loss, gradients = gradients_of(NETWORK)
    rough_loss, rough_gradients = gradients_of(Network(STUDENT, bfloat16_matmuls=True))
    assert rough_loss != loss
    assert rough_loss == pytest.approx(float(loss), rel=1e-3)
    assert_close(rough_gradients, gradients, 2e-2)


@pytest.mark.parametrize("name", ["mobilebert", "ib_bert_large", "bert_base"])
def test_bfloat16_stays_close_and_keeps_parameters_and_logits_in_float32(name: str) -> None:
    config = narrow(name)
    exact, rough = Network(config), Network(config, dtype="bfloat16")
    loss, _ = gradients_of(exact)
    rough_loss, rough_gradients = gradients_of(rough)
    assert rough_loss == pytest.approx(float(loss), rel=0.05)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(rough_gradients))
    exact_out = encode(exact, params_of(config), batch_of(config), capture=(1,))
    out = encode(rough, params_of(config), batch_of(config), capture=(1,))
    assert out.captured is not None
    assert out.hidden_BTD.dtype == jnp.bfloat16
    assert out.captured.scores_BHTS.dtype == jnp.float32
    assert_close(out.hidden_BTD.astype(jnp.float32), exact_out.hidden_BTD, 0.06)
    predicted = encoder.predict(rough, params_of(config), out.hidden_BTD, batch_of(config))
    assert {logits.dtype for logits in predicted} == {jnp.dtype("float32")}


def test_layer_norm_statistics_are_float32_under_bfloat16() -> None:
    """In bfloat16 the offset of 256 would leave steps of 2 and no variance at all."""
    norm = Norm("layer_norm", "hidden", dtype="bfloat16")
    x = 256.0 + jnp.linspace(-0.5, 0.5, 64)
    params = {"scale": jnp.ones(64), "shift": jnp.zeros(64)}
    y = norm.apply({"params": params}, x)
    assert y.dtype == jnp.bfloat16
    expected = (x - x.mean()) / x.std()
    np.testing.assert_allclose(y.astype(jnp.float32), expected, atol=0.01)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", sizes.PUBLISHED)
def test_every_parameter_is_float32_and_has_a_named_axis_for_each_dimension(
    name: str, dtype: str
) -> None:
    network = Network(sizes.PUBLISHED[name], dtype=dtype)
    boxed = jax.eval_shape(lambda: encoder.init(network, jax.random.key(0)))
    is_box = lambda leaf: isinstance(leaf, nn.LogicallyPartitioned)  # noqa: E731
    leaves = jax.tree.leaves(boxed, is_leaf=is_box)
    assert leaves
    for leaf in leaves:
        assert is_box(leaf)
        assert leaf.value.dtype == jnp.float32
        assert len(leaf.names) == leaf.value.ndim
        assert None not in leaf.names
    for leaf in jax.tree.leaves(boxed["blocks"], is_leaf=is_box):
        assert leaf.names[0] == "layers"


def test_fresh_parameters_follow_bert() -> None:
    make = jax.jit(lambda key: nn.unbox(encoder.init(NETWORK, key)))
    params = make(jax.random.key(0))
    flat = {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    drawn = []
    for name, leaf in flat.items():
        kind = name.rsplit("/", 1)[-1]
        if kind in ("scale", "shift", "bias"):
            np.testing.assert_array_equal(leaf, 1.0 if kind == "scale" else 0.0)
        else:
            drawn.append(leaf.ravel())
    # Cut at two deviations, which leaves 0.88 of the deviation of a whole normal.
    assert np.abs(np.concatenate(drawn)).max() <= 2.0 * STUDENT.initializer_range
    assert np.concatenate(drawn).std() == pytest.approx(0.88 * STUDENT.initializer_range, rel=0.05)
    query = flat["blocks/attention/query/kernel"]
    assert np.abs(query[0] - query[1]).max() > 0.01


def test_dropout_acts_only_with_a_key_and_follows_it() -> None:
    def hidden(key: jax.Array | None, config: ModelConfig = STUDENT) -> np.ndarray:
        encoded = encode(Network(config), PARAMS, BATCH, dropout_key=key)
        return np.asarray(encoded.hidden_BTD)

    one, other = jax.random.key(1), jax.random.key(2)
    np.testing.assert_array_equal(hidden(None), hidden(None))
    np.testing.assert_array_equal(hidden(one), hidden(one))
    assert np.abs(hidden(one) - hidden(other)).max() > 1e-3
    assert np.abs(hidden(one) - hidden(None)).max() > 1e-3
    without = dataclasses.replace(
        STUDENT, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    assert_close(hidden(one, without), hidden(None))


@pytest.mark.parametrize("kind", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
@pytest.mark.parametrize("name", ["ib_bert_large", "bert_base"])
def test_each_dropout_acts_on_its_own(name: str, kind: str) -> None:
    config = dataclasses.replace(
        narrow(name),
        **({"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0} | {kind: 0.3}),
    )

    def run(key: jax.Array | None) -> encoder.Encoded:
        return encode(Network(config), params_of(config), batch_of(config), dropout_key=key)

    noisy, quiet = run(jax.random.key(0)), run(None)
    assert np.abs(noisy.hidden_BTD - quiet.hidden_BTD).max() > 1e-3
    assert (np.abs(noisy.embedded_BTD - quiet.embedded_BTD).max() > 0) == (
        kind == "hidden_dropout_prob"
    )


# All published networks


@pytest.mark.parametrize("name", sizes.PUBLISHED)
def test_published_forms_run_forward_and_backward(name: str) -> None:
    network = Network(narrow(name))
    loss, gradients = gradients_of(network)
    assert np.isfinite(loss)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.isfinite(leaf).all(), path
        if "'key'" in jax.tree_util.keystr(path) and leaf.ndim == 2:
            continue  # softmax does not see what a key's bias adds
        assert np.abs(leaf).max() > 0, path
