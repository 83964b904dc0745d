"""The door: flags -> typed config -> stages, with one readable line for every mistake.

    python -m mobilebert_jax.main --config=experiments/progressive_kt.py:demo --config.seed=1

Exit codes: 0 done, 2 mistake in configuration or input, 3 numerics, 42 saved and preempted.
"""

import re
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

import rich.console
from absl import flags
from ml_collections import config_flags

from mobilebert_jax.config import Config, InputError, flatten, from_config_dict, nearest
from mobilebert_jax.run.health import (
    INPUT_ERROR_CODE,
    NON_FINITE_CODE,
    PREEMPTED_CODE,
    NonFinite,
    Preempted,
)

FLAGS = ("config", "dry_run", "nodry_run")
USAGE = "usage: mobilebert-jax --config=EXPERIMENT.py[:SCALE] [--config.KEY=VALUE ...] [--dry_run]"


def parse(arguments: Sequence[str]) -> tuple[Config, bool]:
    """Returns the configuration that the command line asks for, and whether only to show it.

    Raises InputError naming the mistake and the nearest valid choice.
    """
    experiment = _experiment(arguments)
    _check_experiment(experiment)
    known = _parse_flags([f"--config={experiment}"]).config.to_dict()
    _check_overrides(arguments, list(flatten(known)))
    values = _parse_flags(arguments)
    return from_config_dict(values.config), values.dry_run


def _parse_flags(arguments: Sequence[str]) -> flags.FlagValues:
    values, argv = flags.FlagValues(), ["mobilebert-jax", *arguments]
    config_flags.DEFINE_config_file(
        "config", None, "Experiment file.", flag_values=values, sys_argv=argv
    )
    flags.DEFINE_bool("dry_run", False, "Show parameters and stages.", flag_values=values)
    try:
        rest = values(argv)[1:]
    except (flags.Error, TypeError) as error:
        raise InputError(f"{error}\n{USAGE}") from error
    if rest:
        raise InputError(f"unexpected argument {rest[0]!r}\n{USAGE}")
    return values


def _experiment(arguments: Sequence[str]) -> str:
    """Returns what follows `--config`, a file with or without `:SCALE`."""
    for argument in arguments:
        match = re.fullmatch(r"--?config=(.+)", argument)
        if match:
            return match[1]
    raise InputError(f"no experiment given\n{USAGE}")


def _check_experiment(experiment: str) -> None:
    """Finds a misspelt file or scale before the flag library turns it into a traceback."""
    path, given, scale = experiment.partition(":")
    if not Path(path).is_file():
        folder = Path(path).parent if Path(path).parent.is_dir() else Path("experiments")
        known = [str(p) for p in sorted(folder.glob("*.py"))]
        hint = f"; the nearest is {nearest(path, known)}" if known else ""
        raise InputError(f"there is no experiment {path}{hint}")
    allowed = runpy.run_path(path).get("SCALES", ())
    if given and allowed and scale not in allowed:
        raise InputError(
            f"{path} has no scale {scale!r}; it has {', '.join(allowed)}; "
            f"the nearest is {nearest(scale, allowed)!r}"
        )


def _check_overrides(arguments: Sequence[str], known: Sequence[str]) -> None:
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
        elif key not in FLAGS:
            raise InputError(f"there is no flag --{key}; the nearest is --{nearest(key, FLAGS)}")


def main(arguments: Sequence[str]) -> int:
    """Runs the experiment that `arguments` ask for and returns the exit code."""
    console = rich.console.Console()
    try:
        config, dry_run = parse(arguments)
        if dry_run:
            from mobilebert_jax import overview

            overview.show(config, console)
            return 0
        # Imported late: a mistake in the configuration should not wait for jax to load.
        from mobilebert_jax import stages

        stages.run(config, console)
        return 0
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return INPUT_ERROR_CODE
    except NonFinite as error:
        print(f"error: {error}", file=sys.stderr)
        return NON_FINITE_CODE
    except Preempted as error:
        print(f"stopped: {error}", file=sys.stderr)
        return PREEMPTED_CODE


def run() -> None:
    """Runs the command line and ends the process with its exit code."""
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    run()
