"""Stopping on request, steps that are not finite, and checkpoints that are torn or missing."""

import itertools
import json
import math
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mobilebert_jax import main as main_module
from mobilebert_jax.config.schema import InputError
from mobilebert_jax.exit_codes import NonFinite, Preempted
from mobilebert_jax.objective import pretrain
from mobilebert_jax.objective.loss_terms import Measured
from mobilebert_jax.optimizer.build import AdamState
from mobilebert_jax.pipeline import curriculum, runner
from mobilebert_jax.training.checkpoint import Checkpoints, load_params
from mobilebert_jax.training.health import SkippedSteps, StopRequest
from mobilebert_jax.training.metric_log import Meters, read_rows
from mobilebert_jax.training.state import Layout, State
from tests import miniature

pytestmark = pytest.mark.usefixtures("quick")

STAGES = ("prepare", "teacher")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    run(folder)
    return folder


@pytest.fixture
def folder(unbroken: Path, tmp_path: Path) -> Path:
    """A folder with the same text, where nothing has run."""
    shutil.copy2(unbroken / "text.txt", tmp_path / "text.txt")
    return tmp_path


def run(folder: Path, **settings: Any) -> None:
    config = miniature.experiment(folder, stages=STAGES, teacher__steps=6, **settings)
    runner.run(config, miniature.console())


def teacher(folder: Path) -> Path:
    (found,) = (folder / "runs/tiny").glob("teacher-*")
    return found


def digest(folder: Path) -> str:
    return json.loads((teacher(folder) / "manifest.json").read_text())["params_sha256"]


def saved_steps(folder: Path) -> list[int]:
    checkpoints = teacher(folder) / "checkpoints"
    return sorted(int(path.name) for path in checkpoints.iterdir() if path.name.isdigit())


def terminate_at(
    step: int, patch: pytest.MonkeyPatch, number: signal.Signals = signal.SIGTERM
) -> None:
    """Sends this process a signal while `step` is on its way."""
    push = Meters.push

    def pushing(self: Meters, at: int, metrics: Any, tokens: int, flops: float) -> Any:
        if at == step:
            os.kill(os.getpid(), number)
        return push(self, at, metrics, tokens, flops)

    patch.setattr(Meters, "push", pushing)


@pytest.mark.parametrize(
    ("step", "every"),
    [
        (3, 1),
        pytest.param(0, 1000, marks=pytest.mark.slow),
        pytest.param(4, 2, marks=pytest.mark.slow),
        (5, 4),
    ],
)
def test_sigterm_saves_and_a_restart_ends_the_same(
    step: int, every: int, folder: Path, unbroken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        terminate_at(step, patch)
        with pytest.raises(Preempted, match=f"teacher is saved at step {step + 1}"):
            run(folder, execution__checkpoint_every=every)
    assert saved_steps(folder)[-1] == step + 1
    assert [row["step"] for row in read_rows(teacher(folder) / "metrics.jsonl")][-1] == step
    assert not (teacher(folder) / "manifest.json").exists()
    run(folder, execution__checkpoint_every=every)
    assert digest(folder) == digest(unbroken)
    rows = read_rows(teacher(folder) / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(6))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_line_exits_with_42(
    number: signal.Signals, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = folder / "tiny.py"
    file.write_text(miniature.EXPERIMENT_FILE.format(folder=str(folder)))
    terminate_at(2, monkeypatch, number)
    arguments = [f"--config={file}", "--config.stages=prepare,teacher"]
    assert main_module.main(arguments) == 42
    assert saved_steps(folder)[-1] == 3


def test_ctrl_c_between_stages_exits_with_130_and_without_a_traceback(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    file = folder / "tiny.py"
    file.write_text(miniature.EXPERIMENT_FILE.format(folder=str(folder)))
    monkeypatch.setattr(runner, "run", interrupted)
    assert main_module.main([str(file)]) == 130
    assert capsys.readouterr().err == (
        "error: interrupted; the same command goes on from what is saved\n"
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_a_signal_did_before_is_restored(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopRequest() as stop_request:
        assert not stop_request.reached(0)
        os.kill(os.getpid(), number)
        assert stop_request.reached(1)
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_does_not_wait() -> None:
    with pytest.raises(KeyboardInterrupt), StopRequest():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def poison(bad_row_sums: set[int], patch: pytest.MonkeyPatch) -> None:
    """Makes the loss of a batch infinite when the sum of its token ids is one of these."""
    build = pretrain.objective
    bad = jnp.asarray(sorted(bad_row_sums))

    def poisoned(*arguments: Any, **keywords: Any) -> Any:
        measure = build(*arguments, **keywords)

        def measured(params: Any, teacher: Any, batch: Any, key: jax.Array) -> Measured:
            found = measure(params, teacher, batch, key)
            hit = jnp.any(jnp.sum(batch["input_ids"]) == bad)
            term = found.terms["masked_lm_loss"]
            total = jnp.where(hit, jnp.inf, term.mean.total)
            mean = term.mean._replace(total=total)
            return found._replace(terms={**found.terms, "masked_lm_loss": term._replace(mean=mean)})

        return measured

    patch.setattr(curriculum.pretrain, "objective", poisoned)


def sums_of_batches(folder: Path, count: int) -> list[int]:
    """The sum of all token ids in each of the teacher's first batches."""
    from mobilebert_jax.data import prepare
    from mobilebert_jax.data.masking import Vocabulary
    from mobilebert_jax.sharding.mesh import make_mesh

    config = miniature.experiment(folder)
    (prepared,) = (folder / "runs/tiny").glob("prepare-*/records")
    setting = curriculum.Setting(
        config,
        Layout(make_mesh(config.execution.mesh, jax.devices()[:1])),
        prepare.open_documents(prepared, "train"),
        Vocabulary.of(prepare.load_tokenizer(prepared)),
    )
    feed = setting.feed(config.teacher.batch_size, curriculum.TEACHER_STREAM)
    return [int(feed[step]["input_ids"].sum()) for step in range(count)]


def recorded(folder: Path) -> list[int]:
    lines = (teacher(folder) / "skipped.jsonl").read_text().splitlines()
    return [int(float(json.loads(line)["step"])) for line in lines]


def params_at(folder: Path, step: int) -> dict[str, np.ndarray]:
    import orbax.checkpoint as ocp

    path = teacher(folder) / "checkpoints" / str(step) / "params"
    restored = ocp.StandardCheckpointer().restore(path.absolute())
    return {jax.tree_util.keystr(k): np.asarray(v) for k, v in jax.tree.leaves_with_path(restored)}


def test_a_step_that_is_not_finite_is_recorded_and_not_applied(
    folder: Path, unbroken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sums = sums_of_batches(unbroken, 6)
    assert len(set(sums)) == 6
    poison({sums[2], sums[5]}, monkeypatch)
    # Rows are published for such steps even where log_every would leave them out.
    run(
        folder,
        execution__log_every=100,
        execution__checkpoint_every=1,
        execution__keep_checkpoints=6,
    )
    assert recorded(folder) == [2, 5]
    rows = {row["step"]: row for row in read_rows(teacher(folder) / "metrics.jsonl")}
    assert set(rows) == {0, 2, 5}
    assert rows[2]["nonfinite"] == 1 and math.isinf(rows[2]["loss"])
    params = [params_at(folder, step) for step in range(1, 7)]
    same = [all((a[n] == b[n]).all() for n in a) for a, b in itertools.pairwise(params)]
    assert same == [False, True, False, False, True]
    assert all(np.isfinite(value).all() for value in params[-1].values())


def test_too_many_such_steps_end_the_run_and_are_counted_over_restarts(
    folder: Path, unbroken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sums = sums_of_batches(unbroken, 6)
    poison({sums[1], sums[2], sums[4]}, monkeypatch)
    with pytest.raises(NonFinite) as error:
        run(folder, execution__max_nonfinite=2)
    assert "(steps 1, 2)" in str(error.value)
    assert str(teacher(folder) / "skipped.jsonl") in str(error.value)
    assert not (teacher(folder) / "manifest.json").exists()
    # One more is tolerated; steps 1 and 2 still count.
    with pytest.raises(NonFinite) as error:
        run(folder, execution__max_nonfinite=3)
    assert "(steps 1, 2, 4)" in str(error.value)
    run(folder, execution__max_nonfinite=4)
    assert set(recorded(folder)) == {1, 2, 4}


def test_the_command_line_exits_with_3(
    folder: Path,
    unbroken: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = folder / "tiny.py"
    file.write_text(miniature.EXPERIMENT_FILE.format(folder=str(folder)))
    poison(set(sums_of_batches(unbroken, 4)), monkeypatch)
    arguments = [
        f"--config={file}",
        "--config.stages=prepare,teacher",
        "--config.execution.max_nonfinite=3",
    ]
    assert main_module.main(arguments) == 3
    printed = capsys.readouterr().err
    assert printed.startswith("error: 3 steps had a loss, gradient or update that is not finite")
    assert "Traceback" not in printed


def state(value: float) -> State:
    params = {"layer": {"kernel": jnp.full((3, 2), value)}}
    return State(params, (AdamState(params, params), optax.EmptyState()), jnp.int32(0))


def abstract(shape: tuple[int, ...] = (3, 2)) -> dict[str, Any]:
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return {"layer": {"kernel": jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding)}}


def saved(directory: Path, *steps: int, keep: int = 2) -> None:
    checkpoints = Checkpoints(directory, keep)
    for step in steps:
        checkpoints.save(state(float(step)), step)
    checkpoints.close()


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    saved(tmp_path / "c", 1, 2, 3, 7, keep=2)
    assert sorted(path.name for path in (tmp_path / "c").iterdir() if path.is_dir()) == ["3", "7"]
    assert Checkpoints(tmp_path / "c", 2).latest() == 7


def test_the_newest_state_comes_back_with_its_step(tmp_path: Path) -> None:
    saved(tmp_path / "c", 4, 9)
    checkpoints = Checkpoints(tmp_path / "c", 2)
    params = abstract()
    step: Any = jax.ShapeDtypeStruct((), jnp.int32, sharding=params["layer"]["kernel"].sharding)
    opt_state = (AdamState(params, params), optax.EmptyState())
    restored = checkpoints.restore(State(params, opt_state, step))
    checkpoints.close()
    assert int(restored.step) == 9
    assert jax.tree.structure(restored.opt_state) == jax.tree.structure(opt_state)
    for tree in (restored.params, *restored.opt_state[0]):
        np.testing.assert_array_equal(tree["layer"]["kernel"], np.full((3, 2), 9.0))


@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_a_checkpoint_that_is_not_finite_is_not_written(tmp_path: Path, bad: float) -> None:
    folder = tmp_path / "teacher-0123abcd" / "checkpoints"
    saved(folder, 4)
    checkpoints = Checkpoints(folder, 2)
    for save in (
        lambda: checkpoints.save(state(bad), 9),
        lambda: checkpoints.save_params(state(bad).params, 9),
    ):
        with pytest.raises(NonFinite, match=r"teacher-0123abcd: 1 of 1 parameters .* layer/kernel"):
            save()
    checkpoints.close()
    assert Checkpoints(folder, 2).latest() == 4


def test_a_stage_of_which_no_step_was_applied_is_not_finished(tmp_path: Path) -> None:
    skipped = SkippedSteps(tmp_path / "skipped.jsonl", 5)
    for step in range(3):
        skipped.look_at({"step": step, "nonfinite": 1.0})
    skipped.check_some_applied(4)
    with pytest.raises(NonFinite, match="no step of 3 was applied"):
        skipped.check_some_applied(3)


def test_a_torn_checkpoint_is_not_taken_for_one(tmp_path: Path) -> None:
    saved(tmp_path / "c", 4)
    torn = tmp_path / "c" / "6.orbax-checkpoint-tmp"
    shutil.copytree(tmp_path / "c" / "4", torn)
    (torn / "_CHECKPOINT_METADATA").unlink()
    checkpoints = Checkpoints(tmp_path / "c", 2)
    assert checkpoints.latest() == 4
    checkpoints.save(state(6.0), 6)
    checkpoints.close()
    assert load_params(tmp_path / "c", abstract())["layer"]["kernel"][0, 0] == 6.0


def test_parameters_that_are_not_there_are_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no complete checkpoint in .*nowhere"):
        load_params(tmp_path / "nowhere", abstract())
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no complete checkpoint in .*empty"):
        load_params(tmp_path / "empty", abstract())
