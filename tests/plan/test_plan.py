"""Whole plans: of a small experiment compiled for the simulated devices, and of GPUs, estimated."""

import dataclasses
import io
import json
import os

import jax
import pytest
import rich.console

from mobilebert_jax import plan
from mobilebert_jax.config.execution import Mesh
from mobilebert_jax.config.schema import Config, Data, InputError, Teacher
from mobilebert_jax.model import sizes
from mobilebert_jax.pipeline import flops
from mobilebert_jax.plan import devices, job
from mobilebert_jax.plan.child_process import Compiler
from mobilebert_jax.plan.planner import Planner
from mobilebert_jax.plan.programs import arguments, program
from mobilebert_jax.plan.topology import parse
from mobilebert_jax.sharding.mesh import make_mesh
from mobilebert_jax.training.state import Layout
from tests.plan.small import SMALL


def with_execution(**changes):
    return dataclasses.replace(SMALL, execution=dataclasses.replace(SMALL.execution, **changes))


@pytest.fixture
def simulated(monkeypatch):
    """Makes the simulated devices stand for those of a TPU, which no compiler is here for."""
    monkeypatch.setattr(devices, "compile_only", lambda topology: jax.devices())
    monkeypatch.setattr(Compiler, "_call", lambda self, function, *given: function(*given))
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)  # a fifth of the time
    yield
    jax.config.update("jax_disable_most_optimizations", before)


def printed(config, topology, **options):
    console = rich.console.Console(width=160, file=io.StringIO())
    plan.show(config, topology, console, **options)
    return console.file.getvalue()


def parameter_bytes(model):
    return 4 * sizes.pretraining_parameters(dataclasses.replace(model, vocab_size=64))


def test_a_plan_compiles_the_step_that_would_run(simulated, tmp_path):
    path = tmp_path / "plan.json"
    config = dataclasses.replace(SMALL, stages=("transfer",))
    text = printed(config, "v5e-8", layers="0", json_path=str(path))
    content = json.loads(path.read_text())
    (transfer,) = content["stages"]
    (step,) = transfer["measured"]
    assert (transfer["stage"], step["layer"], transfer["interpolated"]) == ("transfer", 0, True)
    assert content["fits"]
    assert content["low_s"] <= content["likely_s"]
    assert content["low_s"] <= content["high_s"]
    assert content["costs"]["stages"][0]["checkpoint_bytes"] == transfer["checkpoint_bytes"]
    assert "compiling 1 program(s): transfer 0; about" in text
    # The gradients are summed over the devices, of layer 0 alone.
    assert 0 < step["messages"]["all-reduce"]["bytes"] < parameter_bytes(SMALL.student)
    held = step["memory"]
    assert held["temporaries"] > 0
    assert held["parameters"] == parameter_bytes(SMALL.student) == 4 * transfer["parameters"]
    assert 2 * held["parameters"] <= held["moments"] < 2.1 * held["parameters"]
    assert held["teacher"] == parameter_bytes(SMALL.teacher.model)
    assert step["flops"] == flops.step_flops(SMALL, "transfer", 0)
    for word in ("transfer 0", "interpolated", "all-reduce", "fits"):
        assert word in text


@pytest.mark.slow
def test_a_plan_of_every_stage_with_parameters_in_pieces(simulated, tmp_path):
    path = tmp_path / "plan.json"
    printed(with_execution(mesh=Mesh(fsdp=4)), "v5e-8", layers="2", json_path=str(path))
    stages = json.loads(path.read_text())["stages"]
    assert [stage["stage"] for stage in stages] == ["teacher", "transfer", "distill"]
    for stage in stages:
        (step,) = stage["measured"]
        assert step["memory"]["parameters"] < 4 * stage["parameters"] / 2
        assert step["messages"]["all-gather"]["count"] > 0
        assert step["messages"]["all-reduce"]["count"] > 0


def test_a_batch_has_the_shapes_of_the_feed():
    layout = Layout(make_mesh(Mesh()))
    given = arguments(program(SMALL, layout, "distill", None), layout)
    shapes = {name: (leaf.shape, leaf.dtype.name) for name, leaf in given.batch.items()}
    assert shapes == {
        "input_ids": ((16, 16), "int32"),
        "input_mask": ((16, 16), "int32"),
        "segment_ids": ((16, 16), "int32"),
        "masked_lm_positions": ((16, 3), "int32"),
        "masked_lm_ids": ((16, 3), "int32"),
        "masked_lm_weights": ((16, 3), "float32"),
        "next_sentence_labels": ((16,), "int32"),
    }


def test_gpus_are_estimated_and_the_plan_says_so(tmp_path):
    path = tmp_path / "plan.json"
    text = printed(SMALL, "h200x16", json_path=str(path), suggest=True)
    assert "nothing compiled" in text
    assert "best: " in text
    content = json.loads(path.read_text())
    assert content["tried"]
    assert all(step["compiler_cycles"] is None for step in content["stages"][0]["measured"])


def test_a_plan_that_does_not_fit_says_what_to_change():
    large = dataclasses.replace(
        Config(),
        data=Data(max_seq_length=512),
        stages=("teacher",),
        teacher=Teacher(batch_size=4096),
    )
    text = printed(large, "a100-40gbx1")
    assert "does not fit" in text
    assert "micro_batches" in text


@pytest.mark.parametrize(
    ("config", "options", "hint"),
    [
        (with_execution(mesh=Mesh(data=3)), {}, "multiply to 8"),
        (with_execution(micro_batches=16), {}, "nearest that does"),
        (SMALL, {"layers": "7"}, "0 to 2"),
        (SMALL, {"layers": "first"}, "0 to 2"),
        (dataclasses.replace(SMALL, stages=("prepare",)), {}, "trains"),
    ],
)
def test_mistakes_are_named(config, options, hint):
    with pytest.raises(InputError) as raised:
        printed(config, "h100x8", **options)
    assert hint in str(raised.value)


def test_attention_that_the_hardware_has_not_is_refused(simulated):
    with pytest.raises(InputError, match="runs on NVIDIA GPUs only"):
        printed(with_execution(attention_implementation="cudnn"), "v5e-8")


def test_layers_between_those_measured_are_interpolated():
    made = [dataclasses.replace(_step(), layer=layer) for layer in (0, 2)]
    assert job.per_phase(made, [1.0, 3.0], phases=3).tolist() == [1.0, 2.0, 3.0]
    assert job.per_phase(made[:1], [1.0], phases=1).tolist() == [1.0]


def _step():
    hardware = parse("h100x8")
    console = rich.console.Console(file=io.StringIO())
    planner = Planner(hardware, Compiler(hardware), "some", console)
    return planner.estimate(SMALL).stages[0].measured[0]


def test_phases_are_chosen_by_number():
    assert job.chosen_layers("some", SMALL) == [0, 1, 2]
    assert job.chosen_layers("all", SMALL) == [0, 1, 2]
    assert job.chosen_layers("2, 0", SMALL) == [0, 2]


def test_a_compiler_that_crashes_leaves_an_estimate(monkeypatch):
    monkeypatch.setattr(devices, "compile_only", lambda topology: jax.devices())
    monkeypatch.setattr(Compiler, "compile", lambda self, *given: self._call(os._exit, 11))
    text = printed(dataclasses.replace(SMALL, stages=("teacher",)), "v5e-8")
    assert "the compiler crashed on teacher" in text
    assert "estimated: compiler crashed" in text
