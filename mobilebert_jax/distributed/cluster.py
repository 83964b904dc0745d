"""Where a process belongs among those of its run, as the command line says it."""

import re
from typing import NamedTuple

from mobilebert_jax.config.schema import InputError


class Cluster(NamedTuple):
    """One of several processes; None where that is to be found out."""

    coordinator: str | None = None
    """`HOST:PORT` of process 0."""
    processes: int | None = None
    process: int | None = None


def check(cluster: Cluster) -> None:
    """Raises InputError for flags that are incomplete or out of range."""
    missing = [name for name, value in cluster._asdict().items() if value is None]
    if len(missing) == len(cluster):
        return
    if cluster.coordinator is None or cluster.processes is None or cluster.process is None:
        raise InputError(
            "--coordinator=HOST:PORT, --processes=N and --process=I belong together; missing: "
            + ", ".join(f"--{name}" for name in missing)
        )
    if not re.fullmatch(r"[^\s:]+:\d+|\[[0-9a-fA-F:]+\]:\d+", cluster.coordinator):
        raise InputError(f"--coordinator={cluster.coordinator!r} must be HOST:PORT")
    if not 0 <= cluster.process < cluster.processes:
        raise InputError(
            f"--process={cluster.process} must lie between 0 and {cluster.processes - 1}, "
            f"for --processes={cluster.processes}"
        )
