"""Fills the templates gke_jobset.yaml and slurm.sbatch."""

import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from options import Mistake, Values

# What `cloud.google.com/gke-tpu-accelerator` calls each generation.
ACCELERATORS = {
    "v3": "tpu-v3-slice",
    "v4": "tpu-v4-podslice",
    "v5e": "tpu-v5-lite-podslice",
    "v5p": "tpu-v5p-slice",
    "v6e": "tpu-v6e-slice",
    "tpu7x": "tpu7x",
}
RESTARTED = (42, *range(127, 256))
# The node's own service of JAX's coordinator; any free port would do.
COORDINATOR_PORT = 8476
# Gives the program time to save after SIGTERM.
GRACE_SECONDS = 120
UNPACK = (
    "mkdir -p /opt/mobilebert_jax && cd /opt/mobilebert_jax && tar -xzf /job/job.tar.gz"
    ' && exec bash job.sh "$@"'
)
EXPLICIT_PROCESSES = (
    "--coordinator={name}-worker-0-0.{name}:{port}",
    "--processes={processes}",
    "--process=$(JOB_COMPLETION_INDEX)",
)


def fill(template: str, values: Mapping[str, str]) -> str:
    """Returns `template` with every `{{key}}` replaced. Raises KeyError for one without a value."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], template)


def chips_per_host(tpu_type: str, chips: int) -> int:
    """Returns the TPU chips that one host of a slice holds, as GKE's machine types have them."""
    if tpu_type in ("v5e", "v6e") and chips <= 8:
        return chips  # single-host machines with 1, 4 or 8 chips
    return min(chips, 4)


def jobset(template: str, name: str, values: Values) -> str:
    """Returns the manifest of a JobSet, for TPU slices or for GPU nodes."""
    on_gpu = bool(values["gpu-type"])
    if on_gpu:
        slices, hosts = 1, int(str(values["nodes"]))
        selector = {"cloud.google.com/gke-accelerator": values["gpu-type"]}
        resources = {"nvidia.com/gpu": int(str(values["gpus-per-node"]))}
    else:
        slices = int(str(values["slices"]))
        tpu_type, topology = str(values["tpu-type"]), str(values["topology"])
        hosts, chips = _hosts(tpu_type, topology, str(values["chips-per-host"]))
        selector = {
            "cloud.google.com/gke-tpu-accelerator": ACCELERATORS[tpu_type],
            "cloud.google.com/gke-tpu-topology": topology,
        }
        resources = {"google.com/tpu": chips}
    selector |= _capacity(values)
    command = ["bash", "-c", UNPACK, "job"]
    if on_gpu and hosts > 1:
        places = {"name": name, "port": COORDINATOR_PORT, "processes": hosts}
        command += [text.format(**places) for text in EXPLICIT_PROCESSES]
    annotations = {}
    if slices > 1:  # every slice on a node pool of its own
        annotations["alpha.jobset.sigs.k8s.io/exclusive-topology"] = "cloud.google.com/gke-nodepool"
    filled: dict[str, Any] = {
        "name": name,
        "namespace": values["namespace"],
        "labels": {"kueue.x-k8s.io/queue-name": values["queue"]} if values["queue"] else {},
        "annotations": annotations,
        "restarts": int(str(values["restarts"])),
        "slices": slices,
        "hosts": hosts,
        "restarted_codes": list(RESTARTED),
        "grace_seconds": GRACE_SECONDS,
        "selector": selector,
        "tolerations": _tolerations(on_gpu, str(values["capacity"])),
        "service_account": values["service-account"] or "default",
        "image": values["image"],
        "command": command,
        "privileged": bool(values["privileged"]),
        "resources": resources,
    }
    return fill(template, {key: json.dumps(value) for key, value in filled.items()})


def _hosts(tpu_type: str, topology: str, given: str) -> tuple[int, int]:
    """Returns the hosts of a slice and the chips of each."""
    chips = math.prod(int(side) for side in topology.split("x"))
    per_host = int(given) if given else chips_per_host(tpu_type, chips)
    if not chips or chips % per_host:
        raise Mistake(f"--topology={topology}: {chips} chips are not a multiple of {per_host}")
    return chips // per_host, per_host


def _capacity(values: Values) -> dict[str, Any]:
    if values["capacity"] == "spot":
        return {"cloud.google.com/gke-spot": "true"}
    if values["capacity"] == "reserved":
        return {"cloud.google.com/reservation-name": values["reservation"]}
    return {}


def _tolerations(on_gpu: bool, capacity: str) -> list[dict[str, str]]:
    keys = ["nvidia.com/gpu" if on_gpu else "google.com/tpu"]
    if capacity == "spot":
        keys.append("cloud.google.com/gke-spot")
    return [{"key": key, "operator": "Exists", "effect": "NoSchedule"} for key in keys]


def sbatch(template: str, name: str, folder: str, values: Values) -> str:
    """Returns the batch script for a job whose files are in `folder`.

    Everything is quoted, as a shell and as sbatch read it; a line feed would begin a line of its
    own and is refused.
    """
    gpus = int(str(values["gpus-per-node"]))
    options = [
        f"--job-name={name}",
        f"--nodes={values['nodes']}",
        f"--ntasks-per-node={max(gpus, 1)}",
        f"--time={values['time']}",
        *([f"--gpus-per-node={gpus}"] if gpus else []),
        *(f"--{key}={values[key]}" for key in ("partition", "account") if values[key]),
        *_listed(values["sbatch"]),
    ]
    return fill(
        template,
        {
            "options": "\n".join(f"#SBATCH {_one_line(option)}" for option in options),
            "folder": shlex.quote(_one_line(folder)),
            "restarts": str(values["restarts"]),
        },
    )


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise Mistake(f"a script of SLURM cannot hold {text!r}, which is more than one line")
    return text


def _listed(value: str | list[str]) -> Sequence[str]:
    assert isinstance(value, list)
    for option in value:
        if not option.startswith("-") or "\n" in option:
            raise Mistake(f"--sbatch={option!r} is not an option of sbatch, such as --mem=64G")
    return value
