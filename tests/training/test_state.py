"""How parameters are laid out for those who train them, and for those who only look."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobilebert_jax.config import schema
from mobilebert_jax.model import encoder
from mobilebert_jax.optimizer import schedules
from mobilebert_jax.optimizer.build import build
from mobilebert_jax.training import state as state_lib
from mobilebert_jax.training.checkpoint import Checkpoints, load_params
from tests import tiny
from tests.sharding.stage_programs import layout_of


def test_a_teacher_is_read_in_the_type_of_its_products_and_computes_the_same(
    tmp_path: Path,
) -> None:
    layout, network = layout_of("1x1x1"), dataclasses.replace(tiny.TEACHER, dtype="bfloat16")
    trained = tiny.on_mesh(tiny.teacher_params(), network, layout)
    with Checkpoints(tmp_path / "checkpoints", keep=1) as checkpoints:
        checkpoints.save_params(trained, 1)
    looked_at = load_params(tmp_path / "checkpoints", state_lib.abstract_teacher(network, layout))
    kernels = {
        leaf.dtype
        for path, leaf in jax.tree_util.tree_leaves_with_path(looked_at["blocks"])
        if path[-1].key == "kernel"
    }
    assert kernels == {jnp.dtype("bfloat16")}
    others = [
        looked_at["embeddings"],
        looked_at["masked_lm"],
        looked_at["blocks"]["output"]["bias"],
    ]
    assert {leaf.dtype for leaf in jax.tree.leaves(others)} == {jnp.dtype("float32")}
    batch = tiny.batch()
    run = tiny.jit(lambda params: encoder.encode(network, params, batch).hidden_BTD)
    np.testing.assert_array_equal(run(looked_at).astype("float32"), run(trained).astype("float32"))


@pytest.mark.parametrize("rule", ["lamb", "adamw", "optax.lion", "optax.adafactor"])
def test_the_state_of_every_rule_comes_back_as_it_was(rule: str, tmp_path: Path) -> None:
    settings = schema.Optimizer(name=rule, bias_correction=True, skip_gradient_norm_ratio=3.0)
    rates = schedules.base_rate(settings, 10), schedules.uniform(tiny.LAYERS)
    layout, optimizer = layout_of("1x1x1"), build(settings, *rates)
    params = tiny.on_mesh(tiny.student_params(), tiny.STUDENT, layout)
    saved = state_lib.start(params, tiny.STUDENT, optimizer, layout)
    with Checkpoints(tmp_path / "checkpoints", keep=1) as checkpoints:
        checkpoints.save(saved, 0)
    with Checkpoints(tmp_path / "checkpoints", keep=1) as checkpoints:
        abstract = state_lib.abstract_state(tiny.STUDENT, optimizer, layout)
        found = checkpoints.restore(abstract)
    assert jax.tree.structure(found) == jax.tree.structure(saved)
    jax.tree.map(np.testing.assert_array_equal, found, saved)
