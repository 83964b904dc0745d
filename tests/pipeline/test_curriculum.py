"""What each stage is: its steps, phases, starting point, and the batches it reads."""

import dataclasses
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilebert_jax.config import schema, stage_settings
from mobilebert_jax.config.execution import Mesh
from mobilebert_jax.config.schema import Config
from mobilebert_jax.data.masking import Vocabulary
from mobilebert_jax.model.layers import Network
from mobilebert_jax.objective import distill, initialize, transfer
from mobilebert_jax.objective.loss_terms import Measured, Term, weighted
from mobilebert_jax.optimizer import schedules
from mobilebert_jax.pipeline import curriculum
from mobilebert_jax.pipeline.curriculum import Setting
from mobilebert_jax.sharding import cpu_features, rules
from mobilebert_jax.sharding.mesh import make_mesh
from mobilebert_jax.train import Training
from mobilebert_jax.training import state as state_lib
from mobilebert_jax.training.state import Layout
from mobilebert_jax.training.step import make_step
from tests import tiny
from tests.parity.cases import random_params

SPECIALS = 5
VOCABULARY = Vocabulary(
    0,
    2,
    3,
    4,
    ordinary=np.arange(SPECIALS, tiny.VOCABULARY, dtype=np.int32),
    starts_word_V=np.ones(tiny.VOCABULARY, bool),
)
TRANSFER_STEPS, DISTILL_STEPS = 10, 7
CONFIG = Config(
    seed=3,
    data=schema.Data(max_seq_length=tiny.LENGTH, max_predictions_per_seq=3),
    teacher=schema.Teacher(
        model=dataclasses.replace(tiny.TEACHER.config, vocab_size=0), steps=9, batch_size=4
    ),
    student=tiny.STUDENT.config,
    transfer=schema.Transfer(steps=TRANSFER_STEPS, batch_size=tiny.ROWS),
    distill=schema.Distill(steps=DISTILL_STEPS, batch_size=tiny.ROWS),
)


class RandomDocuments:
    """Fifty documents of six sentences."""

    weight = 1.0
    token_counts = np.full(50, 30, np.int64)
    document_numbers = np.arange(50)

    def __len__(self) -> int:
        return 50

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        tokens = np.random.default_rng(index).integers(SPECIALS, tiny.VOCABULARY, 30)
        return tokens.astype(np.int32), np.full(6, 5, np.int32)


def with_strategy(strategy: str, **changes: Any) -> Config:
    chosen = dataclasses.replace(CONFIG.transfer, strategy=strategy, **changes)
    return dataclasses.replace(CONFIG, transfer=chosen)


def setting(settings: Config = CONFIG) -> Setting:
    mesh = make_mesh(Mesh(1, 1, 1), jax.devices()[:1])
    return Setting(settings, Layout(mesh), [RandomDocuments()], VOCABULARY)


@pytest.fixture(scope="module")
def teacher() -> dict[str, Any]:
    return tiny.on_mesh(tiny.teacher_params(), tiny.TEACHER, setting().layout)


@pytest.fixture(autouse=True)
def quick_initial_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real ones, like these, follow network, seed and stream, but take long to compile."""

    def draw(network: Network, layout: Layout, seed: int, stream: int) -> Any:
        params = drawn(network.config, 10 * seed + stream)
        return tiny.on_mesh(params, network, layout)

    monkeypatch.setattr(state_lib, "init_params", draw)


drawn = functools.cache(random_params)


def same(one: Any, other: Any) -> bool:
    return all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), one, other)))


def spans(training: Training) -> list[tuple[str, int, int]]:
    return [(phase.label, phase.start, phase.stop) for phase in training.phases]


# How networks are computed


@pytest.mark.parametrize(
    ("heads", "model", "expected"), [(2, 1, True), (4, 1, False), (2, 2, False)]
)
def test_whole_heads_of_full_registers_are_computed_one_by_one(
    heads: int, model: int, expected: bool
) -> None:
    wide = dataclasses.replace(
        CONFIG.teacher.model, intra_bottleneck_size=256, num_attention_heads=heads
    )
    mesh = make_mesh(Mesh(1, 1, model), jax.devices()[:model])
    assert Setting(CONFIG, Layout(mesh), [], VOCABULARY).network(wide).wide is expected


def test_what_is_kept_and_unrolled_depends_on_the_stage(teacher: Any) -> None:
    execution = dataclasses.replace(
        CONFIG.execution,
        remat="full",
        teacher_remat="feedforward",
        student_scan_unroll=4,
        teacher_scan_unroll=2,
    )
    chosen = setting(dataclasses.replace(CONFIG, execution=execution))
    stages = (
        curriculum.teacher_training(chosen),
        curriculum.transfer_training(chosen, teacher),
        curriculum.distill_training(chosen, teacher, None),
        curriculum.baseline_training(chosen),
    )
    found = [(stage.network.remat, stage.network.unroll) for stage in stages]
    assert found == [("feedforward", 1), ("full", 4), ("full", 4), ("full", 4)]
    assert chosen.watched_teacher("distill").unroll == 2
    assert chosen.network(CONFIG.student).unroll == 1


def test_only_training_rounds_what_it_multiplies(
    teacher: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_features, "multiplies_bfloat16", lambda: True)
    execution = dataclasses.replace(CONFIG.execution, cpu_matmul_dtype="bfloat16")
    chosen = setting(dataclasses.replace(CONFIG, execution=execution))
    stages = (
        curriculum.teacher_training(chosen),
        curriculum.transfer_training(chosen, teacher),
        curriculum.distill_training(chosen, teacher, None),
        curriculum.baseline_training(chosen),
    )
    assert all(stage.network.bfloat16_matmuls for stage in stages)
    assert not chosen.network(CONFIG.student).bfloat16_matmuls


# Steps and phases


def test_stages_have_the_steps_of_the_configuration(teacher: Any) -> None:
    taught = curriculum.teacher_training(setting())
    assert (taught.name, spans(taught), taught.steps) == ("teacher", [("teacher", 0, 9)], 9)
    assert taught.teacher is None
    assert taught.tokens == taught.steps * 4 * tiny.LENGTH
    # Ten steps over three layers are three whole phases of three steps.
    training = curriculum.transfer_training(setting(), teacher)
    expected = [("layer 0", 0, 4), ("layer 1", 4, 7), ("layer 2", 7, 9)]
    assert (training.name, spans(training), training.steps) == ("transfer", expected, 9)
    assert [phase.metrics for phase in training.phases] == [{"layer": n} for n in (0.0, 1.0, 2.0)]
    assert [phase.part.blocks for phase in training.phases] == [(0, 1), (0, 2), (0, 3)]
    assert training.tokens == training.steps * tiny.ROWS * tiny.LENGTH
    distilled = curriculum.distill_training(setting(), teacher, None)
    assert (spans(distilled), distilled.feed_offset) == ([("distill", 0, 7)], 9)
    baseline = curriculum.baseline_training(setting())
    assert (baseline.name, spans(baseline), baseline.feed_offset) == (
        "baseline",
        [("baseline", 0, 16)],
        0,
    )
    assert baseline.teacher is None


@given(layers=st.integers(1, 6), length=st.integers(2, 9), surplus=st.integers(0, 5))
def test_phases_tile_the_steps_and_follow_the_schedule(
    layers: int, length: int, surplus: int
) -> None:
    steps = layers * length + surplus % layers
    settings = dataclasses.replace(
        with_strategy("progressive", steps=steps),
        student=dataclasses.replace(tiny.STUDENT.config, num_hidden_layers=layers),
    )
    training = curriculum.transfer_training(setting(settings), {})
    assert training.steps == stage_settings.transfer_steps(settings) == layers * length
    found = {
        step: phase.metrics["layer"]
        for phase in training.phases
        for step in range(phase.start, phase.stop)
    }
    assert list(found) == list(range(training.steps))
    for step, layer in found.items():
        assert layer == schedules.active_layer(step, steps, layers)


@pytest.mark.parametrize("lower_layer_lr_scale", [0.0, 0.1])
def test_progressive_rates_reach_the_optimizer(lower_layer_lr_scale: float) -> None:
    settings = with_strategy("progressive", steps=30, lower_layer_lr_scale=lower_layer_lr_scale)
    optimizer = curriculum.transfer_training(setting(settings), {}).optimizer
    found = optimizer.multipliers(jnp.int32(15))
    active = 3.0 * (0.9 + 0.1 * 0.5**0.5)
    np.testing.assert_allclose(
        found.blocks_N, [lower_layer_lr_scale * active, active, 0.0], rtol=1e-5
    )
    assert float(found.others) == 0.0
    assert float(optimizer.base(15)) == pytest.approx(1.5e-3)


def test_joint_transfer_is_one_phase_of_all_layers(teacher: Any) -> None:
    settings = with_strategy("joint")
    training = curriculum.transfer_training(setting(settings), teacher)
    assert spans(training) == [("all layers", 0, TRANSFER_STEPS)]
    multiplier = training.optimizer.multipliers(jnp.int32(4))
    np.testing.assert_array_equal(multiplier.blocks_N, 1.0)
    assert float(multiplier.others) == 0.0
    distilled = curriculum.distill_training(setting(settings), teacher, None)
    assert (distilled.steps, distilled.feed_offset) == (DISTILL_STEPS, TRANSFER_STEPS)
    assert curriculum.baseline_training(setting(settings)).steps == TRANSFER_STEPS + DISTILL_STEPS


@pytest.mark.parametrize(
    ("strategy", "steps"),
    [("auxiliary", TRANSFER_STEPS + DISTILL_STEPS), ("none", DISTILL_STEPS)],
)
def test_strategies_without_a_transfer_stage(strategy: str, steps: int, teacher: Any) -> None:
    shared = setting(with_strategy(strategy))
    distilled = curriculum.distill_training(shared, teacher, None)
    assert spans(distilled) == [("distill", 0, steps)]
    assert distilled.feed_offset == 0
    assert curriculum.baseline_training(shared).steps == steps
    multiplier = distilled.optimizer.multipliers(jnp.int32(4))
    np.testing.assert_array_equal(multiplier.blocks_N, 1.0)
    assert float(multiplier.others) == 1.0
    # The rate falls over all of the stage's steps.
    assert (
        float(distilled.optimizer.base(steps))
        < 0.01 * shared.config.distill.optimizer.peak_learning_rate
    )


def test_the_auxiliary_objective_is_the_sum_of_both(teacher: Any) -> None:
    settings = with_strategy("auxiliary")
    both = curriculum.distill_training(setting(settings), teacher, None).phases[0].objective
    parts = (
        distill.objective(tiny.STUDENT, tiny.TEACHER, settings.distill),
        transfer.joint_objective(tiny.STUDENT, tiny.TEACHER, settings.transfer),
    )

    @tiny.jit
    def losses(*arguments: Any) -> list[dict[str, jax.Array]]:
        return [
            {
                name: term.factor * term.mean.value()
                for name, term in measure(*arguments).terms.items()
            }
            for measure in (both, *parts)
        ]

    found, *expected = losses(tiny.student_params(), teacher, tiny.batch(), jax.random.key(0))
    assert {"distillation_loss", "masked_lm_loss", "next_sentence_loss", *transfer.LOSSES} == set(
        found
    )
    assert len(found) == sum(len(part) for part in expected)
    for part in expected:
        for name, value in part.items():
            assert float(found[name]) == pytest.approx(float(value), rel=1e-5)


# Where stages start


def test_student_and_baseline_start_from_the_same_parameters_but_for_the_copied(
    teacher: Any,
) -> None:
    start = curriculum.transfer_training(setting(), teacher).initial()
    baseline = curriculum.baseline_training(setting()).initial()
    assert jax.tree.structure(start) == jax.tree.structure(baseline)
    assert same(start, initialize.from_teacher(baseline, teacher))
    assert same(start["blocks"], baseline["blocks"])
    assert same(start["embeddings"]["norm"], baseline["embeddings"]["norm"])
    assert not same(start["embeddings"]["word"], baseline["embeddings"]["word"])


def test_distillation_goes_on_with_the_given_student_or_starts_like_transfer(teacher: Any) -> None:
    given = tiny.student_params(seed=9)
    assert same(curriculum.distill_training(setting(), teacher, given).initial(), given)
    untaught = setting(with_strategy("none"))
    own = curriculum.distill_training(untaught, teacher, None).initial()
    assert same(own, curriculum.transfer_training(setting(), teacher).initial())


def test_teacher_and_student_are_drawn_apart_and_follow_the_seed() -> None:
    def word(training: Training) -> Any:
        return training.initial()["blocks"]["output"]["bias"]

    equal = dataclasses.replace(
        CONFIG, teacher=dataclasses.replace(CONFIG.teacher, model=CONFIG.student)
    )
    reseeded = dataclasses.replace(equal, seed=4)
    drawn = [
        word(make(setting(settings)))
        for settings in (equal, reseeded)
        for make in (curriculum.teacher_training, curriculum.baseline_training)
    ]
    assert not any(same(one, other) for one, other in itertools.combinations(drawn, 2))
    assert same(drawn[0], word(curriculum.teacher_training(setting(equal))))


def test_the_vocabulary_of_a_model_may_be_left_to_the_tokenizer() -> None:
    assert setting().network(CONFIG.teacher.model).config.vocab_size == tiny.VOCABULARY
    larger = dataclasses.replace(tiny.STUDENT.config, vocab_size=64)
    assert setting().network(larger).config.vocab_size == 64


def test_a_student_that_is_cut_starts_cut_from_a_teacher_that_is_whole() -> None:
    mesh = make_mesh(Mesh(1, 4, 1), jax.devices()[:4])
    shared = Setting(CONFIG, Layout(mesh, "params_gathered_once"), [RandomDocuments()], VOCABULARY)
    whole = jax.tree.map(
        lambda leaf: jax.device_put(leaf, rules.replicated(mesh)), tiny.teacher_params()
    )
    training = curriculum.transfer_training(shared, whole)
    wanted = state_lib.abstract_params(training.network, shared.layout)
    for leaf, like in zip(
        jax.tree.leaves(training.initial()), jax.tree.leaves(wanted), strict=True
    ):
        assert leaf.sharding.is_equivalent_to(like.sharding, leaf.ndim)


def test_training_leaves_the_teacher_intact(teacher: Any) -> None:
    """The state is donated: a student that shared the teacher's buffers would destroy it."""
    shared = setting()
    training = curriculum.transfer_training(shared, teacher)
    before = jax.tree.map(np.array, teacher)

    def imitate(params: Any, teacher: Any, batch: Any, key: jax.Array) -> Measured:
        gap = params["blocks"]["output"]["kernel"] - teacher["blocks"]["output"]["kernel"].mean()
        return Measured({"gap": Term(weighted(gap**2, jnp.ones(gap.shape)), 1.0)}, {})

    step = tiny.jit(make_step(imitate, training.optimizer), donate_argnums=0)
    found = []
    for _ in range(2):
        state = state_lib.start(
            training.initial(), training.network, training.optimizer, shared.layout
        )
        donated = state.params["embeddings"]["word"]
        for _ in range(2):
            state, _ = step(state, teacher, {}, jax.random.key(0))
        assert donated.is_deleted()
        found.append(jax.tree.map(np.array, state.params))
    assert same(*found)
    assert same(teacher, before)
    moved = (
        found[0]["blocks"]["output"]["kernel"] != training.initial()["blocks"]["output"]["kernel"]
    )
    assert moved[0].any()


# What stages read


def test_student_and_baseline_read_the_same_batches_in_the_same_order(teacher: Any) -> None:
    taught = curriculum.transfer_training(setting(), teacher)
    distilled = curriculum.distill_training(setting(), teacher, None)
    baseline = curriculum.baseline_training(setting())
    read = [taught.feed[step + taught.feed_offset] for step in range(taught.steps)]
    read += [distilled.feed[step + distilled.feed_offset] for step in range(distilled.steps)]
    assert len(read) == baseline.steps
    for step, batch in enumerate(read):
        assert same(batch, baseline.feed[step + baseline.feed_offset])
    assert not same(read[0], read[1])
    shapes = {name: array.shape for name, array in read[0].items()}
    assert shapes == {name: array.shape for name, array in tiny.batch().items()}


@pytest.mark.parametrize("strategy", ["progressive", "joint", "auxiliary"])
def test_the_control_differs_from_the_student_in_layer_wise_transfer_alone(
    strategy: str, teacher: Any
) -> None:
    chosen = setting(with_strategy(strategy))
    control = curriculum.control_training(chosen, teacher)
    student = curriculum.distill_training(chosen, teacher, None)
    assert control.name == "control"
    assert control.steps == stage_settings.student_steps(chosen.config)
    tiny.assert_close(control.initial(), student.initial(), 0.0)
    first = student if strategy == "auxiliary" else curriculum.transfer_training(chosen, teacher)
    for step in (0, control.steps - 1):
        stage = first if step < first.steps else student
        at = step if step < first.steps else step - first.steps + student.feed_offset
        theirs, own = stage.feed[at], control.feed[control.feed_offset + step]
        assert all((theirs[name] == own[name]).all() for name in own)
    batch, key = tiny.batch(), jax.random.key(0)
    params = control.initial()
    measured = control.phases[0].objective(params, teacher, batch, key)
    wanted = distill.objective(
        chosen.network(chosen.config.student),
        chosen.network(chosen.config.teacher.model),
        chosen.config.distill,
    )(params, teacher, batch, key)
    assert measured.terms.keys() == wanted.terms.keys()
    for name, term in wanted.terms.items():
        assert measured.terms[name].factor == term.factor
        assert float(measured.terms[name].mean.value()) == pytest.approx(
            float(term.mean.value()), rel=1e-6
        )


def test_the_teacher_reads_another_order() -> None:
    one, other = setting().feed(tiny.ROWS, 0), setting().feed(tiny.ROWS, 1)
    assert not same(one[0], other[0])
    assert same(one[0], setting().feed(tiny.ROWS, curriculum.TEACHER_STREAM)[0])
