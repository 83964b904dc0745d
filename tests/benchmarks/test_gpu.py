"""The ten minutes on a GPU, rehearsed: every part runs to its end, and a second call goes on.

Nothing is timed here; what the rehearsal measures on a CPU is thrown away.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu_demo, gpu_steps, gpu_table
from benchmarks.gpu_cases import FULL, TINY, Case, cases, configured, first_batch
from benchmarks.kept_rows import KeptRows
from mobilebert_jax.config import fused_attention, validation
from mobilebert_jax.config.schema import STAGES
from tests.miniature import QUICK, ROOT, write_corpus

STEPS = ("student", "teacher", "transfer 0", "transfer 11", "transfer 23", "distill")


def test_the_steps_and_lengths_that_are_promised_come_first() -> None:
    labels = [case.label for case in cases(FULL)]
    promised = [f"{step}, length {length}, xla" for step in STEPS for length in (128, 512)]
    assert labels[: len(promised)] == promised
    assert len(set(labels)) == len(labels)
    fused = [case for case in cases(FULL) if case.attention == "cudnn"]
    assert {(case.stage, case.layer) for case in fused} == {
        ("student", None),
        ("transfer", 11),
        ("transfer", 23),
        ("distill", None),
        ("teacher", None),
    }


@pytest.mark.parametrize("scale", [FULL, TINY], ids=["full", "tiny"])
def test_every_case_is_a_valid_configuration(scale: Any) -> None:
    for case in cases(scale):
        batch = first_batch(case, scale)
        assert 1 <= batch <= scale.most_batch
        config = configured(case, scale, batch)
        assert validation.problems(config) == []
        assert (config.precision, config.data.max_seq_length) == ("bfloat16", case.length)
        assert config.execution.remat_of(case.stage) == "none"
        if case.attention == "cudnn":
            trained = fused_attention.trained_with_dropout(config, gpu_steps.stage_of(case))
            assert not any(model.attention_probs_dropout_prob for model in trained.values())


def keep(kept: KeptRows, case: Case, batch: int, **row: Any) -> None:
    key = gpu_steps.key_of((case, batch))
    kept.keep(gpu_steps.TABLE, key, {"case": case.label, **case._asdict(), "batch": batch, **row})


def test_other_ways_wait_for_the_best_batch_of_the_plain_one(tmp_path: Path) -> None:
    kept = KeptRows(tmp_path / "rows.json")
    plain, fused = Case("student", 128), Case("student", 128, attention="cudnn")
    first = first_batch(plain, FULL)

    def opened() -> dict[Case, int]:
        return dict(gpu_steps.open_pairs(kept, FULL))

    assert opened()[plain] == first
    assert fused not in opened()
    keep(kept, plain, first, sequences_per_s=100.0)
    keep(kept, plain, 2 * first, sequences_per_s=120.0)
    keep(kept, plain, 4 * first, out_of_memory=True)
    assert plain not in opened()
    assert opened()[fused] == 2 * first
    # A failure that is not one of memory ends a search; so does one that ended the process twice.
    keep(kept, fused, 2 * first, failed="InputError: no")
    assert fused not in opened()
    unrolled = Case("student", 128, unroll=FULL.depth)
    for _ in range(2):
        kept.begin([gpu_steps.key_of((unrolled, 2 * first))])
    assert unrolled not in opened()


def test_the_table_compares_with_the_best_of_the_port(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = KeptRows(tmp_path / "rows.json")
    figures = {"milliseconds": 10.0, "share_of_peak": 0.456, "gigabytes": 30.0, "first_loss": 8.0}
    keep(kept, Case("student", 128), 512, tokens_per_s=3e6, **figures)
    keep(kept, Case("student", 128), 256, tokens_per_s=2e6, **figures)
    keep(kept, Case("student", 128, attention="cudnn"), 512, tokens_per_s=2e6, **figures)
    keep(kept, Case("teacher", 128), 256, out_of_memory=True)
    for name, speed in (("slow", 1e6), ("fast", 2e6)):
        row = {"variant": name, "length": 128, "batch": 512, "milliseconds": 1.0}
        kept.keep("port", name, row | {"tokens_per_s": speed})
    gpu_table.show(kept, FULL)
    lines = capsys.readouterr().out.splitlines()
    assert "| student, length 128, xla | 512 | 10.00 | 3,000,000 | 45.6% | 30.0 |" in lines
    assert "| teacher, length 128, xla | | not measured | | | |" in lines
    assert "| slow | 512 | 1.00 | 1,000,000 |  |" in lines
    assert "| fast | 512 | 1.00 | 2,000,000 | **1.50** |" in lines
    assert "first loss, student, length 128, batch 512: cuDNN differs by 0.0e+00" in lines
    assert "| length 128 | 256 | 580 | 74,240 | 44% |" in lines
    assert "| length 512 | 32 | 210 | 107,520 | at most 68% |" in lines


def test_published_sizes_are_not_measured_on_a_cpu(tmp_path: Path) -> None:
    kept = KeptRows(tmp_path / "rows.json")
    with pytest.raises(SystemExit, match="there is no GPU here; --tiny rehearses"):
        gpu_steps.run(kept, FULL, until=time.time() + 1e6, call=0)
    assert kept.content == {}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One device, programs compiled quickly."""
    kept = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    return kept | {name.upper(): str(value) for name, value in QUICK.items()}


def command(out: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "benchmarks.gpu", "--tiny", f"--out={out}", *arguments]


def rehearse(environment: dict[str, str], out: Path, *arguments: str) -> str:
    given = command(out, "--seconds=1500", *arguments)
    done = subprocess.run(given, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_killed_call_loses_nothing_and_the_next_goes_on_to_the_end(
    environment: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "gpu.json"
    until = str(time.time() + 1500)
    # The part itself: a kill of the command alone would leave it running.
    part = command(tmp_path, "--parts=steps", "--part=steps", f"--until={until}", "--call=7")
    first = subprocess.Popen(part, cwd=ROOT, env=environment, process_group=0)
    while first.poll() is None and not KeptRows(path).rows("steps"):
        time.sleep(0.2)
    os.killpg(first.pid, signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    before = KeptRows(path).rows("steps")
    assert before
    said = rehearse(environment, tmp_path, "--parts=steps")
    assert "not finished" not in said
    rows = KeptRows(path).rows("steps")
    assert {key: rows[key] for key in before} == before
    assert {row["call"] for row in rows.values()} == {7, 0}
    for case in cases(TINY):
        own = [row for row in rows.values() if row["case"] == case.label]
        if case.attention == "cudnn":
            assert [row["failed"] for row in own if "runs on NVIDIA GPUs only" in row["failed"]]
            continue
        assert {row["batch"] for row in own} >= {first_batch(case.plain, TINY)} or own
        for row in own:
            assert row["tokens_per_s"] > 0 and row["teraflops"] > 0 and row["gigabytes"] > 0
            assert row["first_loss"] > 0 and row["share_of_peak"] is None
    assert rehearse(environment, tmp_path, "--parts=steps").count(" ms, ") == 0
    assert KeptRows(path).rows("steps") == rows


@pytest.mark.slow
def test_the_demo_runs_every_stage_and_its_results_are_kept(
    environment: dict[str, str], tmp_path: Path
) -> None:
    source = write_corpus(tmp_path / "text.txt", documents=400)
    prepare = [sys.executable, "-m", "mobilebert_jax.main", "experiments/progressive_kt.py"]
    prepare += ["--config.stages=prepare", f"--config.data.source={source}"]
    prepare += ["--config.tokenizer.vocab_size=160", f"--config.execution.runs_dir={tmp_path}/runs"]
    subprocess.run(prepare, cwd=ROOT, env=environment, check=True)
    (records,) = (tmp_path / "runs/progressive_kt-demo").glob("prepare-*")
    given = f"--records={records}", f"--source={source}"
    said = rehearse(environment, tmp_path / "out", "--parts=demo", *given)
    assert "not finished" not in said
    rows = KeptRows(tmp_path / "out/gpu.json").rows("demo")
    assert {*rows} == {*STAGES, "results"} - {"prepare"}
    assert all(row["seconds"] > 0 for stage, row in rows.items() if stage != "results")
    results = json.loads((tmp_path / "out" / gpu_demo.RESULTS).read_text())
    assert {stage["name"] for stage in results["stages"]} == {*STAGES}
    assert results["finetune"] and results["export"]


def test_missing_records_and_unknown_parts_are_named(
    environment: dict[str, str], tmp_path: Path
) -> None:
    for arguments, expected in (
        ((), "is not the folder of a finished stage `prepare`"),
        ((f"--records={tmp_path}",), "is not the folder of a finished stage `prepare`"),
        (("--parts=demo,step",), "--parts has 'step'; there are demo, steps and port"),
    ):
        given = command(tmp_path / "out", *arguments)
        done = subprocess.run(given, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 2
        assert expected in done.stderr
    assert not (tmp_path / "out").exists()
