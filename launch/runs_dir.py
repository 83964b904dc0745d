"""Prints the folder for results of an experiment: runs_dir.py EXPERIMENT[:SCALE] OVERRIDE..."""

import runpy
import sys

FLAG = "--config.execution.runs_dir="


def main(target: str, *overrides: str) -> None:
    """Prints the last override of the setting, or else what the experiment has."""
    given = [override.removeprefix(FLAG) for override in overrides if override.startswith(FLAG)]
    if given:
        print(given[-1])
        return
    path, _, scale = target.partition(":")
    get_config = runpy.run_path(path)["get_config"]
    print((get_config(scale) if scale else get_config()).execution.runs_dir)


if __name__ == "__main__":
    main(*sys.argv[1:])
