"""What a job costs: made-up step times, and losses worked out by hand."""

import dataclasses
import math

import pytest

from mobilebert_jax.config.plan_assumptions import Assumptions
from mobilebert_jax.config.schema import Config, Data, Distill, Teacher, Transfer
from mobilebert_jax.plan import analytic, costs, job
from mobilebert_jax.plan.analytic import Cut
from mobilebert_jax.plan.costs import FEED, START_S, YEAR
from mobilebert_jax.plan.topology import parse

HARDWARE = parse("v5e-16")
STEP_S = 2.0
CONFIG = Config(
    stages=("teacher", "transfer"),
    data=Data(max_seq_length=512),
    teacher=Teacher(batch_size=64, steps=10_000),
    transfer=Transfer(batch_size=64, steps=2_400),
    distill=Distill(batch_size=64),
)
NO_FAILURES = Assumptions(failures_per_chip_year=0.0)


def made(config=CONFIG, step_s=STEP_S, compile_s=150.0, layers="0,23"):
    """Returns a plan whose steps are likely to take `step_s`, compiled in `compile_s` of a core.

    On several cores the compilation takes two thirds of that.
    """

    def measure(config, stage, layer):
        found = analytic.estimate(config, Cut(16, 1, 1), stage, layer)
        return dataclasses.replace(found, processor_seconds=compile_s, source="compiled")

    plan = job.make(config, HARDWARE, Cut(16, 1, 1), layers, measure)
    stages = []
    for stage in plan.stages:
        steps = tuple(
            dataclasses.replace(
                step,
                times=dataclasses.replace(step.times, low=step_s / 2, likely=step_s, high=3.0),
            )
            for step in stage.measured
        )
        stages.append(dataclasses.replace(stage, measured=steps, likely_s=stage.steps * step_s))
    return dataclasses.replace(plan, stages=tuple(stages))


def with_execution(**changes):
    return dataclasses.replace(CONFIG, execution=dataclasses.replace(CONFIG.execution, **changes))


def test_chip_hours_and_money_follow_from_the_time():
    cost = costs.of(made(), dataclasses.replace(NO_FAILURES, price=1.5))
    assert cost.chip_hours(3600.0) == 16
    assert cost.money(7200.0) == pytest.approx(2 * 16 * 1.5)
    assert cost.total_s == pytest.approx(sum(stage.total_s for stage in cost.stages))
    assert cost.stages[0].steps_s[1] == 20_000.0


def test_without_failures_and_with_a_fast_feed_only_compilation_is_lost():
    teacher = costs.of(made(), NO_FAILURES).stages[0]
    assert teacher.lost == {
        "input": 0.0,
        "checkpoints": 0.0,
        "compilation": 100.0,
        "failures": 0.0,
    }
    assert teacher.failures == 0
    assert teacher.goodput == pytest.approx(20_000 / 20_100)


def test_a_save_costs_time_only_where_the_next_begins_before_it_is_done():
    plan = made(with_execution(checkpoint_every=10))
    size = plan.stages[0].checkpoint_bytes
    fast = costs.of(plan, dataclasses.replace(NO_FAILURES, checkpoint_gb_per_s=size / 1e9 / 5))
    slow = costs.of(plan, dataclasses.replace(NO_FAILURES, checkpoint_gb_per_s=size / 1e9 / 50))
    assert fast.stages[0].saves == 1_000
    assert fast.stages[0].save_s == pytest.approx(5.0)
    assert fast.stages[0].save_share == pytest.approx(0.25)
    assert fast.stages[0].lost["checkpoints"] == 0
    assert slow.stages[0].lost["checkpoints"] == pytest.approx(1_000 * (50 - 20))
    assert slow.stages[0].save_share == 1.0


def test_later_programs_are_compiled_while_earlier_ones_run():
    """A layer of transfer has 100 steps, 200 seconds: a program of 100 is done by then."""
    assert costs.of(made(), NO_FAILURES).stages[1].lost["compilation"] == 100
    slow = costs.of(made(compile_s=375.0), NO_FAILURES).stages[1]
    assert slow.lost["compilation"] == pytest.approx(250 + 23 * 50)
    alone = made(with_execution(precompile_phases=0), compile_s=375.0)
    assert costs.of(alone, NO_FAILURES).stages[1].lost["compilation"] == pytest.approx(24 * 250)


def test_a_failure_costs_its_detection_a_start_restoring_and_half_an_interval():
    plan = made(with_execution(heartbeat_timeout_seconds=40, checkpoint_every=100))
    size = plan.stages[0].checkpoint_bytes
    given = Assumptions(checkpoint_gb_per_s=size / 1e9 / 5, failures_per_chip_year=10.0)
    teacher = costs.of(plan, given).stages[0]
    each = 40 + START_S + 5 + 200 / 2 + 5
    assert teacher.failures == pytest.approx(10 * 16 * teacher.total_s / YEAR)
    assert teacher.lost["failures"] == pytest.approx(teacher.failures * each)


def test_more_failures_than_checkpoints_are_a_job_without_an_end():
    plan = made(with_execution(checkpoint_every=10_000))
    teacher = costs.of(plan, Assumptions(failures_per_chip_year=10_000.0)).stages[0]
    assert math.isinf(teacher.total_s)
    assert teacher.goodput == 0.0


def test_steps_faster_than_the_feed_wait_for_it():
    plan = made(step_s=0.001)
    (teacher, first, last) = costs.of(plan, NO_FAILURES).feeding
    hosts = HARDWARE.chips / HARDWARE.chip.chips_per_host
    assert (teacher.step.label, first.step.label) == ("teacher", "transfer 0")
    assert last.likely == pytest.approx(64 / hosts / 0.001)
    assert last.most == pytest.approx(2 * last.likely)
    assert last.given == pytest.approx(FEED[512])
    lost = costs.of(plan, NO_FAILURES).stages[0].lost["input"]
    assert lost == pytest.approx(10_000 * (64 / hosts / FEED[512] - 0.001))


def test_the_feed_of_other_lengths_lies_on_a_line_of_the_time_an_example_takes():
    def at(length):
        return costs.feed(made(dataclasses.replace(CONFIG, data=Data(max_seq_length=length))))

    assert at(128) == pytest.approx(FEED[128])
    assert 1 / at(320) == pytest.approx((1 / FEED[128] + 1 / FEED[512]) / 2)
    assert at(64) > at(128) > at(512) > at(1024) > 0
