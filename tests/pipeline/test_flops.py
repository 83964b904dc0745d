"""FLOPs of a step, worked out by hand from those of one sequence."""

import dataclasses

import pytest

from mobilebert_jax.config.schema import Config, Data, Distill, Teacher, Transfer
from mobilebert_jax.model import sizes
from mobilebert_jax.pipeline import flops

CONFIG = Config(
    data=Data(max_seq_length=128),
    teacher=Teacher(batch_size=8, steps=10),
    transfer=Transfer(batch_size=4, steps=50),
    distill=Distill(batch_size=2, steps=7),
)
STUDENT = sizes.forward_flops(sizes.MOBILEBERT, 128)
TEACHER = sizes.forward_flops(sizes.IB_BERT_LARGE, 128)


def with_transfer(**changes):
    return dataclasses.replace(CONFIG, transfer=dataclasses.replace(CONFIG.transfer, **changes))


def student(layers):
    return sizes.forward_flops(sizes.MOBILEBERT, 128, layers=layers)


def teacher(layers):
    return sizes.forward_flops(sizes.IB_BERT_LARGE, 128, layers=layers)


def test_training_costs_three_forward_passes_and_a_teacher_one():
    assert flops.step_flops(CONFIG, "teacher") == 8 * 3 * TEACHER
    assert flops.step_flops(CONFIG, "distill") == 2 * (3 * STUDENT + TEACHER)
    assert flops.step_flops(CONFIG, "baseline") == 2 * 3 * STUDENT


def test_a_teacher_without_a_share_of_the_loss_costs_nothing():
    alone = dataclasses.replace(CONFIG, distill=Distill(batch_size=2, steps=7, alpha=1.0))
    assert flops.step_flops(alone, "distill") == 2 * 3 * STUDENT
    all_along = dataclasses.replace(alone, transfer=Transfer(strategy="auxiliary"))
    assert flops.step_flops(all_along, "distill") == 2 * (3 * STUDENT + TEACHER)


def test_a_phase_of_transfer_runs_the_blocks_up_to_its_own():
    assert flops.step_flops(CONFIG, "transfer", 0) == 4 * (3 * student(1) + teacher(1))
    assert flops.step_flops(CONFIG, "transfer", 23) == 4 * (3 * STUDENT + TEACHER)


def test_frozen_blocks_have_no_backward_pass():
    frozen = with_transfer(lower_layer_lr_scale=0.0)
    one_block = student(6) - student(5)
    assert flops.step_flops(frozen, "transfer", 5) == 4 * (student(6) + 2 * one_block + teacher(6))


def test_statistics_of_every_teacher_layer_need_the_whole_teacher():
    whole = with_transfer(statistics_of_all_teacher_layers=True)
    assert flops.step_flops(whole, "transfer", 0) == 4 * (3 * student(1) + TEACHER)


def test_without_a_layer_transfer_is_the_mean_of_its_phases():
    phases = [flops.step_flops(CONFIG, "transfer", layer) for layer in range(24)]
    assert flops.step_flops(CONFIG, "transfer") == pytest.approx(sum(phases) / 24)
    joint = with_transfer(strategy="joint")
    assert flops.step_flops(joint, "transfer") == 4 * (3 * STUDENT + TEACHER)


def test_steps_follow_the_strategy():
    assert flops.steps(CONFIG, "transfer") == 48  # 24 whole phases of two steps
    assert flops.steps(CONFIG, "distill") == 7
    assert flops.steps(CONFIG, "baseline") == 55
    auxiliary = with_transfer(strategy="auxiliary")
    assert flops.steps(auxiliary, "transfer") == 0
    assert flops.steps(auxiliary, "distill") == 57
    assert flops.stage_flops(CONFIG, "teacher") == 10 * 8 * 3 * TEACHER


def test_a_stage_that_does_not_train_has_no_steps():
    with pytest.raises(ValueError, match="evaluate"):
        flops.step_flops(CONFIG, "evaluate")
