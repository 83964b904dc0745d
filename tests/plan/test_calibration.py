"""The figure *likely*: factors of made-up jobs, and those that the package holds."""

import dataclasses
import io
import json
import math

import pytest
import rich.console

from benchmarks import published_jobs
from mobilebert_jax.model import sizes
from mobilebert_jax.pipeline import flops
from mobilebert_jax.plan import calibration
from mobilebert_jax.plan.calibration import Comparison, Planned, factor, likely, predicted
from mobilebert_jax.plan.roofline import times
from mobilebert_jax.plan.topology import FAMILIES, parse


def job(name, chip, ratio, *, rows_of=None):
    """A job that took `ratio` times its estimate; `rows_of` names the table of a whole job."""
    plan = Planned(flops=1.0, low_s=4.0, estimated_s=10.0, high_s=12.0)
    source = rows_of or name
    return Comparison(name, chip, "v3-32", source, rows_of is not None, ratio * 10, plan, plan)


TIMED = (job("a", "v3", 0.8), job("b", "v3", 1.25), job("c", "v4", 0.5))
WHOLE = tuple(job(f"row {n}", "v3", 2.0, rows_of="table") for n in range(7))


def test_a_chip_has_the_mean_of_its_own_jobs():
    made = factor("v3", TIMED)
    assert made.value == pytest.approx(1.0)
    assert (made.least, made.most, made.jobs, made.chips) == (0.8, 1.25, 2, ("v3",))


def test_a_chip_without_jobs_has_the_mean_of_the_other_chips():
    made = factor("v5e", TIMED)
    assert made.value == pytest.approx(math.sqrt(1.0 * 0.5))
    assert (made.least, made.most, made.chips) == (0.5, 1.25, ("v3", "v4"))
    assert "not calibrated: no job on v5e" in calibration.words("v5e", True, TIMED)
    assert "2 published job(s) on v3" in calibration.words("v3", True, TIMED)


def test_whole_jobs_of_one_table_weigh_a_quarter_together():
    made = factor("v3", TIMED + WHOLE)
    assert made.value == pytest.approx(2.0 ** (0.25 / 2.25))
    assert made.value == pytest.approx(factor("v3", TIMED + WHOLE[:1]).value)
    assert made.most == 2.0


def test_no_job_at_all_is_an_error():
    with pytest.raises(ValueError, match="no job"):
        factor("v3", ())


def test_a_job_is_predicted_by_the_others_alone():
    for wrong in (0.1, 10.0):
        jobs = (dataclasses.replace(TIMED[0], measured_s=wrong), *TIMED[1:])
        assert predicted(jobs[0], jobs) == pytest.approx(1.25 * 10)
        assert predicted(jobs[1], jobs) == pytest.approx(wrong)
    assert predicted(TIMED[2], TIMED) == pytest.approx(factor("v4", TIMED[:2]).value * 10)


def test_another_network_counts_by_its_flops():
    smaller = dataclasses.replace(TIMED[0].stand_in, flops=0.5)
    assert dataclasses.replace(TIMED[0], stand_in=smaller).ratio == pytest.approx(0.4)


def test_likely_is_never_below_the_least_possible():
    value = factor("v4").value
    assert likely("v4", 1.0, low=0.1, high=9.0) == pytest.approx(value)
    assert likely("v4", 1.0, low=7.0, high=9.0) == 7.0


def test_without_a_compiler_likely_is_the_middle_of_the_range():
    assert likely("h200", None, low=1.0, high=9.0) == 3.0
    assert "not calibrated" in calibration.words("h200", compiled=False)


def test_a_step_has_all_three_figures():
    v4 = parse("v4-128")
    found = times(v4, 0.1 * v4.chip.peak_flops * 64, 0, [], 0.3 * v4.chip.clock, "none")
    assert found.low == pytest.approx(0.1)
    assert found.likely == pytest.approx(0.3 * factor("v4").value)


def test_what_the_package_holds_is_what_was_published():
    """Every job of the benchmark is in the package with its time, and every program was compiled
    with both networks, each kind of step once."""
    held = {one.job: one for one in calibration.comparisons()}
    assert list(held) == [job.name for job in published_jobs.PUBLISHED]
    for published in published_jobs.PUBLISHED:
        one = held[published.name]
        assert one.measured_s == pytest.approx(published.measured_s)
        assert one.chip == parse(published.topology).chip.name
        for network, planned in (
            (calibration.TRAINED, one.trained),
            (calibration.STAND_IN, one.stand_in),
        ):
            parts = published_jobs.PROGRAMS[published.program].parts
            work = sum(
                part.share
                * flops.step_flops(
                    published_jobs.settings(published.program, part, network), "teacher"
                )
                for part in parts
            )
            assert planned.flops == pytest.approx(published.steps * work)
            assert 0 < planned.low_s < planned.estimated_s <= planned.high_s


def test_shares_of_a_job_add_up_to_one():
    for program in published_jobs.PROGRAMS.values():
        assert sum(part.share for part in program.parts) == pytest.approx(1.0)


def test_every_tpu_has_a_factor():
    for family in FAMILIES.values():
        made = factor(family.chip)
        assert made.least <= made.value <= made.most


def test_the_tables_have_a_line_for_every_job():
    jobs = calibration.comparisons()
    planned = published_jobs.planned_table(jobs).splitlines()
    assert len(planned) == 2 + len(jobs) + 1  # the last one is too large to be compiled
    assert len(published_jobs.factor_table(jobs).splitlines()) == 2 + len(jobs)


def test_a_stopped_calibration_goes_on_where_it_was(monkeypatch, tmp_path):
    made, path = [], tmp_path / "calibration.json"

    def compiled(name, part, network, console):
        made.append((name, network, part.length))
        if len(made) == 5:
            raise KeyboardInterrupt
        return {"program": name, "network": network, "length": part.length}

    monkeypatch.setattr(published_jobs, "compiled", compiled)
    monkeypatch.setattr(published_jobs, "versions", lambda: {"libtpu": "1"})
    console = rich.console.Console(file=io.StringIO())
    with pytest.raises(KeyboardInterrupt):
        published_jobs.compile_all(path, console)
    published_jobs.compile_all(path, console)
    published_jobs.compile_all(path, console)
    assert len(made) == len(set(made)) + 1 == 15
    assert len(json.loads(path.read_text())["steps"]) == 14
    monkeypatch.setattr(published_jobs, "versions", lambda: {"libtpu": "2"})
    with pytest.raises(SystemExit, match="remove it first"):
        published_jobs.compile_all(path, console)


def test_the_largest_encoder_is_bounded_by_its_arithmetic():
    assert sizes.encoder_parameters(published_jobs.ENCODER_200B) == pytest.approx(
        199_717_148_096, rel=0.01
    )
    low, high = published_jobs.bounds_200b()
    assert low < published_jobs.LARGEST_S < high
