"""Losses on held-out documents, measured while a stage trains."""

import math
from pathlib import Path

from mobilebert_jax.pipeline import runner
from mobilebert_jax.training.metric_log import read_rows
from tests import miniature


def test_they_are_written_every_so_many_steps_and_change_nothing(tmp_path: Path) -> None:
    only = ("prepare", "teacher")
    digests = []
    for name, every in (("with", 2), ("without", 0)):
        with miniature.one_quick_device(tmp_path / "compiled"):
            config = miniature.experiment(
                tmp_path, name=name, stages=only, execution__eval_every=every
            )
            runner.run(config, miniature.console())
        (teacher,) = (tmp_path / "runs" / name).glob("teacher-*")
        rows = read_rows(teacher / "metrics.jsonl")
        measured = [row for row in rows if "held_out/masked_lm_loss" in row]
        assert [row["step"] for row in measured] == ([1, 3] if every else [])
        assert all(math.isfinite(row["held_out/next_sentence_loss"]) for row in measured)
        digests.append((teacher / "manifest.json").read_text().split('"params_sha256": ')[1][:66])
    assert digests[0] == digests[1]
