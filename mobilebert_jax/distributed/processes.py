"""The processes of one run: how they find each other, agree, wait, and notice that one is gone.

On a TPU pod, under SLURM or with explicit flags one process runs on every host. Process 0 alone
writes what is shared; every wait for another process ends, at the latest, after a time limit.
"""

import itertools
import json
import os
import re
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import distributed  # the only way to the key-value store and to barriers with a limit
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.distributed.cluster import Cluster
from mobilebert_jax.exit_codes import PeerLost

POLL_SECONDS = 5.0
_numbers = itertools.count()
_limit_s = 1800.0


def join(cluster: Cluster, heartbeat_timeout_seconds: int, limit_s: float) -> None:
    """Connects this process with the others of its run, if there are others.

    `limit_s` bounds every later wait for another process. Raises PeerLost when the others cannot
    be reached.
    """
    global _limit_s
    _limit_s = limit_s
    if cluster.coordinator is None and not in_cluster(os.environ):
        return
    try:
        jax.distributed.initialize(
            coordinator_address=cluster.coordinator,
            num_processes=cluster.processes,
            process_id=cluster.process,
            initialization_timeout=int(min(limit_s, 600)),
            heartbeat_timeout_seconds=heartbeat_timeout_seconds,
        )
    except jax.errors.JaxRuntimeError as error:
        raise PeerLost(f"the processes of this run did not find each other: {error}") from error
    if jax.process_count() > 1:
        _client().key_value_set(f"host/{jax.process_index()}", socket.gethostname())
        wait_for_all("connection")
        _connect()


def _connect() -> None:
    """Exchanges a number between all devices, which makes the connections between their hosts.

    On CPUs the library gloo waits 30 s for a host to connect, and hosts are never again as close
    together as now: one may compile the first step for longer than another.
    """
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("all",))
    one_each = jax.jit(
        lambda: jnp.ones(len(jax.devices())), out_shardings=NamedSharding(mesh, P("all"))
    )
    add = jax.jit(jnp.sum, out_shardings=NamedSharding(mesh, P()))
    try:
        jax.block_until_ready(add(one_each()))
    except jax.errors.JaxRuntimeError as error:
        raise PeerLost(f"the processes of this run could not connect: {error}") from error


def was_lost(error: jax.errors.JaxRuntimeError) -> bool:
    """Whether `error` says that another process could not be reached, and not what is wrong here.

    gloo names itself in all of its errors.
    """
    return jax.process_count() > 1 and "gloo" in str(error).lower()


def in_cluster(environment: Mapping[str, str]) -> bool:
    """Whether this is one of several processes that JAX can find by itself.

    A Cloud TPU VM always asks its metadata server, which knows of the other hosts; a pod of GKE is
    given their names; SLURM counts its tasks.
    """
    if int(environment.get("SLURM_STEP_NUM_TASKS", environment.get("SLURM_NTASKS", "1"))) > 1:
        return "SLURM_PROCID" in environment
    if platforms() and "tpu" not in platforms():
        return False
    if "," in environment.get("TPU_WORKER_HOSTNAMES", "") or environment.get(
        "MEGASCALE_COORDINATOR_ADDRESS"
    ):
        return True
    on_tpu_vm = bool(jax._src.hardware_utils.num_available_tpu_chips_and_device_id()[0])
    return on_tpu_vm and "TPU_SKIP_MDS_QUERY" not in environment


def platforms() -> str:
    """Returns the kinds of devices that JAX was told to use, nothing where it may choose."""
    return jax.config.values["jax_platforms"] or ""


def is_first() -> bool:
    """Whether this process writes what is shared."""
    return jax.process_index() == 0


def agree(name: str, compute: Callable[[], Any]) -> Any:
    """Returns what `compute` gives in process 0, in every process; a value that JSON can hold.

    An InputError there is raised everywhere. All processes must call this in the same order. The
    others wait as long as process 0 calls `beat` within the time limit.
    """
    if jax.process_count() == 1:
        return compute()
    key = f"agree/{next(_numbers)}/{name}"
    if not is_first():
        answer = json.loads(_wait_for_key(key, name))
        if "error" in answer:
            raise InputError(answer["error"])
        return answer["value"]
    try:
        value = compute()
    except InputError as error:
        _client().key_value_set(key, json.dumps({"error": str(error)}))
        raise
    _client().key_value_set(key, json.dumps({"value": value}))
    return value


def beat() -> None:
    """Tells the processes that wait for process 0 that it is at work."""
    if jax.process_count() > 1 and is_first():
        _client().key_value_set("beat", str(time.monotonic()), allow_overwrite=True)


def wait_for_all(name: str) -> None:
    """Returns when every process is here; raises PeerLost naming the hosts that did not come."""
    if jax.process_count() == 1:
        return
    key = f"wait/{next(_numbers)}/{name}"
    try:
        _client().wait_at_barrier(key, timeout_in_ms=int(_limit_s * 1000))
    except jax.errors.JaxRuntimeError as error:
        late = sorted({int(number) for number in re.findall(r"task:(\d+)", str(error))})
        raise PeerLost(
            f"waited {_limit_s:.0f} s at '{name}' for {hosts(late) or 'other processes'}"
        ) from error


def hosts(numbers: list[int] | None = None) -> str:
    """Returns processes (all others by default) with the names of their hosts."""
    if jax.process_count() == 1:
        return ""
    if numbers is None:
        numbers = [i for i in range(jax.process_count()) if i != jax.process_index()]
    names = []
    for number in numbers:
        try:
            names.append(f"process {number} on {_client().key_value_try_get(f'host/{number}')}")
        except jax.errors.JaxRuntimeError:
            names.append(f"process {number}")
    return ", ".join(names)


def _wait_for_key(key: str, name: str) -> str:
    heard, last = time.monotonic(), None
    while True:
        try:
            value: str = _client().blocking_key_value_get(key, int(POLL_SECONDS * 1000))
            return value
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise PeerLost(f"lost process 0 at '{name}': {error}") from error
        sign = _beat_seen()
        if sign != last:
            heard, last = time.monotonic(), sign
        if time.monotonic() - heard > _limit_s:
            raise PeerLost(f"waited {_limit_s:.0f} s at '{name}' for {hosts([0])}")


def _beat_seen() -> str | None:
    try:
        sign: str = _client().key_value_try_get("beat")
        return sign
    except jax.errors.JaxRuntimeError:
        return None


def _client() -> Any:
    return distributed.global_state.client
