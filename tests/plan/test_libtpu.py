"""Plans by the real TPU compiler, which runs without a TPU."""

import dataclasses
import io
import json

import pytest
import rich.console

from mobilebert_jax import plan
from mobilebert_jax.config.schema import InputError
from mobilebert_jax.plan import devices
from mobilebert_jax.plan.compiled import Compiled, compile_program
from mobilebert_jax.plan.programs import program
from mobilebert_jax.plan.topology import FAMILIES, parse
from mobilebert_jax.sharding.chips import CHIPS, chip_of
from mobilebert_jax.sharding.mesh import make_mesh
from mobilebert_jax.training.state import Layout
from tests.plan.small import SMALL

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("name", [f"{key}:{family.shapes[1]}" for key, family in FAMILIES.items()])
def test_the_compiler_knows_every_family_as_the_tables_do(name):
    topology = parse(name)
    found = devices.compile_only(topology)
    assert len(found) == topology.devices
    assert chip_of(found[0].device_kind) is topology.chip is CHIPS[topology.chip.name]


def test_slices_are_told_apart():
    found = devices.compile_only(parse("2xv5e-16"))
    assert [device.slice_index for device in found] == [0] * 16 + [1] * 16


def test_a_shape_that_hosts_do_not_make_up_is_refused():
    with pytest.raises(InputError, match="v5e:3x3"):
        devices.compile_only(parse("v5e:3x3"))


def test_a_plan_from_compiled_steps(tmp_path):
    path = tmp_path / "plan.json"
    console = rich.console.Console(width=160, file=io.StringIO())
    config = dataclasses.replace(SMALL, stages=("transfer",), precision="bfloat16")
    plan.show(config, "v5e-8", console, layers="1", json_path=str(path))
    content = json.loads(path.read_text())
    (step,) = content["stages"][0]["measured"]
    assert step["source"] == "compiled"
    assert step["compiler_cycles"] > 0
    assert step["times"]["low"] <= step["times"]["compiler"] <= step["times"]["high"]
    assert step["messages"]["all-reduce"]["bytes"] > 0
    assert "compiled transfer layer 1," in console.file.getvalue()


def compiled_with_two_rows_a_chip(name: str) -> Compiled:
    hardware = parse(name)
    distill = dataclasses.replace(SMALL.distill, batch_size=2 * hardware.devices)
    config = dataclasses.replace(SMALL, precision="bfloat16", distill=distill)
    layout = Layout(make_mesh(config.execution.mesh, devices.compile_only(hardware)))
    return compile_program(program(config, layout, "distill", None), config, layout)


def test_a_chip_of_a_thousand_does_and_sends_what_a_chip_of_eight_does():
    few, many = (compiled_with_two_rows_a_chip(name) for name in ("v5p:2x2x2", "v5p:8x8x16"))
    assert few.cycles == pytest.approx(many.cycles, rel=0.01)
    assert few.memory.peak == pytest.approx(many.memory.peak, rel=0.01)
    sent = [sum(one.times * one.bytes for one in found.collectives) for found in (few, many)]
    assert sent[0] == sent[1] > 0
