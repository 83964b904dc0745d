"""Where a process belongs: flags that fit together, and clusters that are recognised."""

import pytest

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.distributed import cluster, processes
from mobilebert_jax.distributed.cluster import Cluster


def test_no_flags_and_all_flags_are_fine() -> None:
    cluster.check(Cluster())
    cluster.check(Cluster("host-0.pool:8476", 4, 3))
    cluster.check(Cluster("[::1]:8476", 1, 0))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Cluster("host:1"), "missing: --processes, --process"),
        (Cluster(None, 4, 0), "missing: --coordinator"),
        (Cluster("host", 4, 0), "must be HOST:PORT"),
        (Cluster("host:port", 4, 0), "must be HOST:PORT"),
        (Cluster("host:1", 4, 4), "must lie between 0 and 3"),
        (Cluster("host:1", 4, -1), "must lie between 0 and 3"),
    ],
)
def test_flags_that_do_not_fit_are_refused(given: Cluster, message: str) -> None:
    with pytest.raises(InputError, match=message):
        cluster.check(given)


SLURM = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "1", "SLURM_JOB_ID": "9"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        (SLURM, True),
        ({**SLURM, "SLURM_STEP_NUM_TASKS": "1"}, False),
        # A batch script's own shell is no task of its job.
        ({"SLURM_NTASKS": "4", "SLURM_JOB_ID": "9"}, False),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"TPU_WORKER_HOSTNAMES": "a-0.job,a-1.job"}, True),
        ({"MEGASCALE_COORDINATOR_ADDRESS": "a-0"}, True),
    ],
)
def test_clusters_are_recognised(
    environment: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "platforms", lambda: "tpu,cpu")
    assert processes.in_cluster(environment) == expected


def test_a_process_that_is_told_to_use_its_cpu_asks_no_tpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processes, "platforms", lambda: "cpu")
    assert not processes.in_cluster({"TPU_WORKER_HOSTNAMES": "a-0.job,a-1.job"})


def test_alone_a_process_agrees_with_itself_and_waits_for_nobody() -> None:
    assert processes.is_first()
    assert processes.agree("anything", lambda: [1]) == [1]
    processes.wait_for_all("nothing")
    processes.beat()
    assert processes.hosts() == ""
