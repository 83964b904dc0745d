"""The entry point: flags -> typed config -> stages, with one readable line for every mistake.

    mobilebert-jax progressive_kt:demo --config.seed=1

Exit codes: see exit_codes.py.
"""

import contextlib
import faulthandler
import importlib.metadata
import os
import re
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import rich.console
from absl import flags
from ml_collections import config_flags

from mobilebert_jax import storage
from mobilebert_jax.ablations import variants
from mobilebert_jax.config import plan_assumptions, validation
from mobilebert_jax.config.config_dict import from_config_dict
from mobilebert_jax.config.plan_assumptions import Assumptions
from mobilebert_jax.config.schema import Config, InputError, flatten, nearest
from mobilebert_jax.distributed.cluster import Cluster, check
from mobilebert_jax.exit_codes import PeerLost, ending_of

USAGE = """usage: mobilebert-jax EXPERIMENT[:SCALE] [--config.KEY=VALUE ...] [FLAGS]
  EXPERIMENT is a path, or the name of one that comes with the package, such as progressive_kt
  --dry_run                 show parameters and stages, and do nothing
  --plan=TOPOLOGY           compile every stage for that machine, and say what it needs and takes
    --suggest               find the settings with the least estimated time that fit
    --plan_layers=all       compile all layers of a transfer, not only some
    --plan_json=FILE        write the plan there too
    --price=MONEY           of a chip for an hour: what the job costs
    --checkpoint_gb_per_s=N bandwidth of the place of checkpoints, all hosts together (1)
    --failures_per_chip_year=N
                            failures that end the job (0.17)
  --profile=FIRST:LAST      trace these steps of every stage
  --coordinator=HOST:PORT --processes=N --process=I
                            this is process I of N, where no cluster says so
A value may follow its flag after a blank as well as after =."""
SWITCHES = ("dry_run", "suggest")
"""Flags without a value."""
OF_A_PLAN = ("suggest", "plan_layers", "plan_json", *plan_assumptions.names())
"""Flags that mean nothing without --plan."""


class Command(NamedTuple):
    """What the command line asks for."""

    config: Config
    dry_run: bool
    cluster: Cluster
    profile: str
    plan: str
    suggest: bool
    plan_layers: str
    plan_json: str | None
    assumptions: Assumptions


def parse(arguments: Sequence[str]) -> Command:
    """Returns what the command line asks for, its configuration checked.

    Raises InputError naming the mistake and the nearest valid choice.
    """
    arguments, experiment = _with_experiment(_with_equals_signs(arguments))
    _check_scale(experiment)
    known = _parse_flags([f"--config={experiment}"])
    _check_overrides(arguments, list(flatten(known.config.to_dict())), list(known))
    values = _parse_flags(arguments)
    cluster = Cluster(values.coordinator, values.processes, values.process)
    check(cluster)
    config = from_config_dict(values.config)
    variants.check(config)
    return Command(
        config,
        values.dry_run,
        cluster,
        values.profile,
        values.plan,
        values.suggest,
        values.plan_layers,
        values.plan_json,
        _assumptions(values),
    )


def _assumptions(values: flags.FlagValues) -> Assumptions:
    """Returns what a plan takes as given; raises InputError for what is out of bounds, and for
    anything that is given without a plan."""
    alone = [name for name in OF_A_PLAN if values[name].value != values[name].default]
    if alone and not values.plan:
        raise InputError(f"--{alone[0]} says how to plan; add --plan=TOPOLOGY, such as v5e-256")
    return plan_assumptions.checked({name: values[name].value for name in plan_assumptions.names()})


def _with_equals_signs(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments with every flag and the value that follows it made one."""
    joined: list[str] = []
    wants_value = False
    for argument in arguments:
        if wants_value and not argument.startswith("--"):
            joined[-1] += f"={argument}"
            wants_value = False
        else:
            joined.append(argument)
            name = argument.lstrip("-").removeprefix("no")
            wants_value = argument.startswith("--") and "=" not in name and name not in SWITCHES
    return joined


def _parse_flags(arguments: Sequence[str]) -> flags.FlagValues:
    values, argv = flags.FlagValues(), ["mobilebert-jax", *arguments]
    config_flags.DEFINE_config_file(
        "config", None, "Experiment file.", flag_values=values, sys_argv=argv
    )
    for name in SWITCHES:
        flags.DEFINE_bool(name, False, "See USAGE.", flag_values=values)
    for name, default in (("profile", ""), ("plan", ""), ("plan_layers", "some")):
        flags.DEFINE_string(name, default, "See USAGE.", flag_values=values)
    for name in ("plan_json", "coordinator"):
        flags.DEFINE_string(name, None, "See USAGE.", flag_values=values)
    for name in plan_assumptions.names():
        default = getattr(plan_assumptions.DEFAULTS, name)
        flags.DEFINE_float(name, default, "See USAGE.", flag_values=values)
    for name in ("processes", "process"):
        flags.DEFINE_integer(name, None, "See USAGE.", flag_values=values)
    try:
        rest = values(argv)[1:]
    except (flags.Error, TypeError, ValueError) as error:
        raise InputError(f"{error}\n{USAGE}") from error
    if rest:
        raise InputError(f"unexpected argument {rest[0]!r}\n{USAGE}")
    return values


def _with_experiment(arguments: Sequence[str]) -> tuple[list[str], str]:
    """Returns the arguments and the experiment's `PATH[:SCALE]`, which they name by `--config=`.

    The experiment is the first argument, or what follows `--config`.
    """
    arguments = list(arguments)
    if arguments and not arguments[0].startswith("-"):
        arguments[0] = f"--config={arguments[0]}"
    for index, argument in enumerate(arguments):
        match = re.fullmatch(r"--?config=([^:]+)(:.*)?", argument)
        if match:
            if any(re.match("--?config(=|$)", other) for other in arguments[index + 1 :]):
                raise InputError("the experiment is named twice")
            experiment = f"{_find_experiment(match[1])}{match[2] or ''}"
            arguments[index] = f"--config={experiment}"
            return arguments, experiment
    raise InputError(f"no experiment given\n{USAGE}")


def _find_experiment(name: str) -> Path:
    """Returns the file of an experiment; raises InputError with the nearest one."""
    if Path(name).is_file():
        return Path(name)
    bundled = {path.stem: path for path in _bundled_experiments()}
    if name in bundled:
        return bundled[name]
    known = list(bundled)
    if Path(name).suffix:
        folder = Path(name).parent if Path(name).parent.is_dir() else Path("experiments")
        known = [str(path) for path in sorted(folder.glob("*.py"))] or known
    hint = f"; the nearest is {nearest(name, known)}" if known else ""
    raise InputError(f"there is no experiment {name}{hint}")


def _bundled_experiments() -> list[Path]:
    """Returns the experiments beside the package's source, or of the installed distribution."""
    source = Path(__file__).parent.parent / "experiments"
    if source.is_dir():
        return sorted(source.glob("*.py"))
    try:
        files = importlib.metadata.files("mobilebert-jax") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    found = [Path(str(file.locate())) for file in files if file.parent.name == "experiments"]
    return sorted(path for path in found if path.suffix == ".py")


def _check_scale(experiment: str) -> None:
    """Finds a misspelt scale before the flag library turns it into a traceback."""
    path, given, scale = experiment.partition(":")
    allowed = runpy.run_path(path).get("SCALES", ())
    if given and allowed and scale not in allowed:
        raise InputError(
            f"{path} has no scale {scale!r}; it has {', '.join(allowed)}; "
            f"the nearest is {nearest(scale, allowed)!r}"
        )


def _check_overrides(
    arguments: Sequence[str], known: Sequence[str], known_flags: list[str]
) -> None:
    """Finds a misspelt key or flag, of which the flag library only knows that it is unknown."""
    for argument in arguments:
        key, given, _ = argument.lstrip("-").partition("=")
        if not argument.startswith("-"):
            raise InputError(f"unexpected argument {argument!r}\n{USAGE}")
        if key.startswith("config."):
            key = key.removeprefix("config.")
            if key not in known:
                raise InputError(
                    f"there is no setting config.{key}; the nearest is config.{nearest(key, known)}"
                )
            if not given:
                raise InputError(f"--config.{key} needs a value: --config.{key}=VALUE")
        elif key.removeprefix("no") not in known_flags and key not in known_flags:
            raise InputError(
                f"there is no flag --{key}; the nearest is --{nearest(key, known_flags)}"
            )


def main(arguments: Sequence[str]) -> int:
    """Does what `arguments` ask for and returns the exit code."""
    try:
        _run(parse(arguments), rich.console.Console())
        return 0
    except (Exception, KeyboardInterrupt) as error:
        end = ending_of(error)
        if end is None:
            raise
        with contextlib.suppress(OSError):  # the disk that is full may hold the log too
            print(end.message, file=sys.stderr)
        return end.code


def _run(command: Command, console: rich.console.Console) -> None:
    for remark in validation.remarks(command.config):
        console.print(remark, style="yellow", markup=False, highlight=False, soft_wrap=True)
    if command.dry_run:
        from mobilebert_jax.pipeline import dry_run

        dry_run.show(command.config, console)
        if command.config.ablations.variants:
            from mobilebert_jax.ablations import table

            table.show_planned(command.config, console)
        return
    if command.plan:
        from mobilebert_jax import plan

        plan.show(
            command.config,
            command.plan,
            console,
            suggest=command.suggest,
            layers=command.plan_layers,
            json_path=command.plan_json,
            assumptions=command.assumptions,
        )
        return
    # Imported late: a mistake in the configuration should not wait for jax to load.
    import jax

    from mobilebert_jax.distributed import processes
    from mobilebert_jax.pipeline import runner
    from mobilebert_jax.sharding import cpu_devices
    from mobilebert_jax.training import health, profiler

    window = profiler.parse(command.profile)
    execution = command.config.execution
    _keep_programs(execution.runs_dir)
    cpu_devices.divide(execution.cpu_devices)
    try:
        processes.join(
            command.cluster, execution.heartbeat_timeout_seconds, execution.watchdog_minutes * 60
        )
        console.quiet = not processes.is_first()
        if command.config.ablations.variants:
            from mobilebert_jax.ablations import runner as ablations

            ablations.run(command.config, console, window)
        else:
            runner.run(command.config, console, window)
    except PeerLost as error:
        health.abort(str(error))
    except jax.errors.JaxRuntimeError as error:
        if not processes.was_lost(error):
            raise
        health.abort(f"another process was lost: {error}")


def _keep_programs(runs_dir: str) -> None:
    """Keeps compiled programs beside the runs, for restarts and for trials of the same shape.

    A place that the user has chosen (JAX_COMPILATION_CACHE_DIR) goes first. On a disk it keeps
    small programs too, which JAX compiles anew by default: a trial has fifty of them, which
    together take longer than its large ones. A bucket takes as long to find a file.
    """
    import jax

    if jax.config.values["jax_compilation_cache_dir"]:
        return
    folder = storage.path(runs_dir) / "compiled"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    least = "jax_persistent_cache_min_compile_time_secs"
    if not storage.is_remote(folder) and least.upper() not in os.environ:
        jax.config.update(least, 0.0)


def run() -> None:
    """Runs the command line and ends the process with its exit code."""
    # Prints the stacks when the process is aborted from outside of Python, as a lost peer does.
    faulthandler.enable()
    code = main(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    if code and "jax" in sys.modules:
        # Leaving a cluster in order needs all of its processes, and the others know nothing yet.
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    run()
