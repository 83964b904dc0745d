"""What a plan says before it compiles."""

import dataclasses

import pytest

from mobilebert_jax.config.schema import Config, InputError
from mobilebert_jax.plan import compile_time
from tests.plan.small import SMALL


def with_student_unroll(blocks):
    execution = dataclasses.replace(Config().execution, student_scan_unroll=blocks)
    return dataclasses.replace(Config(), execution=execution)


def test_the_announcement_names_every_program(monkeypatch):
    monkeypatch.setattr(compile_time, "seconds", lambda config, stage, layer: 36.0)
    line = compile_time.announcement(SMALL, "0,2", suggest=False)
    assert line.startswith("compiling 4 program(s): teacher, transfer 0, transfer 2, distill; ")
    assert "about 2 min 24 s, an estimate" in line
    assert "--suggest" not in line
    assert "--suggest" in compile_time.announcement(SMALL, "all", suggest=True)


def test_layers_that_there_are_not_are_named():
    with pytest.raises(InputError, match="0 to 2"):
        compile_time.announcement(SMALL, "7", suggest=False)


def test_deeper_layers_and_unrolled_students_take_longer(monkeypatch):
    monkeypatch.setattr(compile_time.os, "cpu_count", lambda: 1)
    config = with_student_unroll(24)
    first, middle, last = (compile_time.seconds(config, "transfer", n) for n in (0, 12, 23))
    assert (first, last) == (27.0, 167.0)
    assert first < middle < last
    looped = with_student_unroll(1)
    assert compile_time.seconds(looped, "distill", None) == 56.0
    assert compile_time.seconds(looped, "teacher", None) == 73.0
    frozen = dataclasses.replace(config.transfer, lower_layer_lr_scale=0.0)
    assert compile_time.seconds(dataclasses.replace(config, transfer=frozen), "transfer", 23) == 65
    monkeypatch.setattr(compile_time.os, "cpu_count", lambda: 2)
    assert compile_time.seconds(config, "transfer", 23) == pytest.approx(167 * 2 / 3)
