"""The command line: one readable message and an exit code for every mistake, and the dry run."""

import errno
import io
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from mobilebert_jax import main as main_module
from mobilebert_jax.config.schema import InputError
from mobilebert_jax.exit_codes import NonFinite, Preempted
from tests.miniature import ROOT

DEMO = "--config=experiments/progressive_kt.py:demo"

MISTAKES = [
    ((), "no experiment given"),
    (("--dry_run",), "no experiment given"),
    (("--config",), "no experiment given"),
    (("--config=experiments/progresive_kt.py",), "the nearest is experiments/progressive_kt.py"),
    (("--config=experimants/progressive_kt.py",), "the nearest is experiments/progressive_kt.py"),
    (("--config=experiments/progressive_kt.py:papr",), "the nearest is 'paper'"),
    (("--config=experiments/progressive_kt.py:",), "has no scale ''"),
    (
        ("progresive_kt:demo",),
        "there is no experiment progresive_kt; the nearest is progressive_kt",
    ),
    (("progressive_kt:papr",), "has no scale 'papr'"),
    (("progressive_kt", "distill"), "unexpected argument 'distill'"),
    ((DEMO, "--config.distill.temprature=2"), "the nearest is config.distill.temperature"),
    ((DEMO, "--config.distill=2"), "there is no setting config.distill;"),
    ((DEMO, "--config.seed"), "--config.seed needs a value"),
    ((DEMO, "--config.seed=one"), "seed"),
    ((DEMO, "--config.teacher.steps=1.5"), "teacher.steps"),
    ((DEMO, "--config.distill.alpha=much"), "distill.alpha"),
    ((DEMO, "--config.data.whole_word_mask=perhaps"), "data.whole_word_mask"),
    ((DEMO, "--config.precision=float16"), "overflow float16"),
    ((DEMO, "--config.stages=prepare,teach"), "the nearest is 'teacher'"),
    ((DEMO, "--config.distill.alpha=2.0"), "distill.alpha=2.0 must be from 0 to 1"),
    ((DEMO, "--dryrun"), "there is no flag --dryrun; the nearest is --dry_run"),
    ((DEMO, "--dry_run=perhaps"), "dry_run"),
    ((DEMO, "distill"), "unexpected argument 'distill'"),
    ((DEMO, "--dry_run", "distill"), "unexpected argument 'distill'"),
    ((DEMO, "--config="), "the experiment is named twice"),
    ((DEMO, f"--config={DEMO}"), "the experiment is named twice"),
    ((DEMO, "--nosuggest="), "--nosuggest= does not take an argument"),
    ((DEMO, "--config.seed", "7", "distill"), "unexpected argument 'distill'"),
    ((DEMO, "--price=2"), "add --plan=TOPOLOGY"),
    ((DEMO, "--suggest"), "--suggest says how to plan; add --plan=TOPOLOGY"),
    ((DEMO, "--plan=v5e-8", "--price=much"), "--price=much"),
    ((DEMO, "--plan=v5e-8", "--price=-2"), "--price=-2.0 must be from 0 to 1000000"),
    ((DEMO, "--plan=v5e-8", "--price=nan"), "the nearest is 0.0"),
    ((DEMO, "--plan=v5e-8", "--checkpoint_gb_per_s=0"), "the nearest is 0.001"),
    (
        (DEMO, "--plan=v5e-8", "--failures_per_chip_year=1e9"),
        "must be from 0 to 10000; the nearest is 10000.0",
    ),
    ((DEMO, "--plan=v5e-8", "--prices=2"), "there is no flag --prices; the nearest is --price"),
    ((DEMO, "--config.seed", "--dry_run"), "--config.seed needs a value"),
    ((DEMO, "--config.sead", "7"), "the nearest is config.seed"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_a_mistake_is_one_message_and_exit_code_2(
    arguments: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(ROOT)
    assert main_module.main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ") and printed.err.count("error: ") == 1
    assert message in printed.err
    assert "Traceback" not in printed.err


def test_an_experiment_is_found_by_its_name_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    by_name = main_module.parse(["glue:search", "--config.seed=7"]).config
    by_path = main_module.parse([f"--config={ROOT}/experiments/glue.py:search", "--config.seed=7"])
    assert by_name == by_path.config and by_name.seed == 7
    # A file of that name goes before it.
    (tmp_path / "glue").write_text((ROOT / "experiments/tag.py").read_text())
    assert main_module.parse(["glue:quick"]).config.name.startswith("tag")


def test_a_warm_up_that_is_longer_than_its_stage_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert main_module.main(["progressive_kt", "--dry_run", "--config.teacher.steps=40"]) == 0
    said = capsys.readouterr().out
    assert "teacher.optimizer.warmup_steps=100 is above teacher.steps=40" in said
    assert "distill.optimizer" not in said


def test_the_process_ends_with_the_code_and_without_a_traceback() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "mobilebert_jax.main", DEMO, "--config.sead=1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr == "error: there is no setting config.sead; the nearest is config.seed\n"


@pytest.mark.parametrize(
    ("error", "code"), [(InputError("no text"), 2), (NonFinite("nan"), 3), (Preempted("saved"), 42)]
)
def test_each_end_has_its_exit_code(
    error: Exception,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("mobilebert_jax.pipeline.runner.run", fail)
    assert main_module.main([DEMO]) == code
    assert str(error) in capsys.readouterr().err


def test_a_lost_connection_ends_as_a_lost_process_does(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def fail(*_: object) -> None:
        raise jax.errors.JaxRuntimeError("UNKNOWN: Gloo all-reduce failed: closed by peer")

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("mobilebert_jax.pipeline.runner.run", fail)
    monkeypatch.setattr("mobilebert_jax.training.health.abort", said.append)
    with pytest.raises(jax.errors.JaxRuntimeError):
        main_module.main([DEMO])
    assert not said
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    main_module.main([DEMO])
    assert len(said) == 1 and "closed by peer" in said[0]


def test_a_value_may_follow_its_flag_after_a_blank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    line = f"{DEMO} --dry_run --config.seed=7 --config.data.whole_word_mask=True --plan=v5e-256"
    with_signs, with_blanks = (
        main_module.parse(text.split()) for text in (line, line.replace("=", " "))
    )
    assert with_signs == with_blanks
    assert with_blanks.dry_run and with_blanks.plan == "v5e-256"
    assert with_blanks.config.seed == 7 and with_blanks.config.data.whole_word_mask


def test_overrides_reach_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    order = main_module.parse(
        [DEMO, "--config.seed=3", "--config.stages=prepare,teacher", "--config.distill.alpha=1"]
    )
    config = order.config
    assert (config.seed, config.stages, config.distill.alpha) == (3, ("prepare", "teacher"), 1.0)
    assert not order.dry_run
    assert main_module.parse([DEMO, "--dry_run"]).dry_run
    assert not main_module.parse([DEMO, "--nodry_run"]).dry_run


def _experiments() -> list[str]:
    """Every experiment at every scale that it names."""
    return [
        f"{path.name}:{scale}"
        for path in sorted((ROOT / "experiments").glob("*.py"))
        for scale in runpy.run_path(str(path))["SCALES"]
    ]


@pytest.mark.parametrize("experiment", _experiments())
def test_the_dry_run_shows_every_stage_of_every_experiment(
    experiment: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    arguments = [f"--config={ROOT / 'experiments' / experiment}", "--dry_run"]
    assert main_module.main(arguments) == 0
    printed = capsys.readouterr().out
    for stage in main_module.parse(arguments).config.stages:
        assert re.search(rf"^│ {stage} +│", printed, re.MULTILINE), stage


@pytest.mark.parametrize("columns", [50, 60, 80, 200])
def test_the_dry_run_shows_whole_numbers_and_writes_nothing(
    columns: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", str(columns))
    experiment = os.path.relpath(ROOT / "experiments/progressive_kt.py", tmp_path)
    assert main_module.main([f"--config={experiment}:paper", "--dry_run"]) == 0
    printed = capsys.readouterr().out
    # A number that a narrow terminal breaks over lines cannot be read either.
    for number in ("24,581,888", "294,467,840", "240,000", "500,000", "4,096", "2,048"):
        assert re.search(rf"(?<![\d,]){number}(?![\d,])", printed), number
    for word in ("prepare", "teacher", "transfer", "distill", "evaluate"):
        assert word in printed
    assert "…" not in printed
    assert max(map(len, printed.splitlines())) <= columns
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_behind_the_log_changes_no_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys, "stderr", Full())
    assert main_module.main(["--dry_run"]) == 2


KEPT = """
import jax
from etils import epath
from mobilebert_jax import main, storage

storage.path = epath.Path  # which needs no package until a bucket is opened
names = "compilation_cache_dir", "persistent_cache_min_compile_time_secs"
least = jax.config.values["jax_" + names[1]]
for chosen, runs_dir in (("", "runs"), ("", "gs://bucket/runs"), ("own", "runs")):
    for name, value in zip(names, (chosen, least)):
        jax.config.update("jax_" + name, value)
    main._keep_programs(runs_dir)
    print(*(jax.config.values["jax_" + name] for name in names))
"""


@pytest.mark.parametrize(
    ("variables", "kept"),
    [
        ({}, ["runs/compiled 0.0", "gs://bucket/runs/compiled 1.0", "own 1.0"]),
        (
            {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "3"},
            ["runs/compiled 3.0", "gs://bucket/runs/compiled 3.0", "own 3.0"],
        ),
    ],
)
def test_programs_are_kept_beside_the_runs_small_ones_only_on_a_disk(
    variables: dict[str, str], kept: list[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KEPT],
        env={"PATH": "/usr/bin:/bin", "JAX_PLATFORMS": "cpu"} | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == kept
