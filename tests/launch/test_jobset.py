"""The rendered manifest against the published schema of JobSet, and what it says for each machine.

jobset_v1alpha2.json holds the facts of that schema; its `$comment` names the version it states.
"""

import json
import sys
from typing import Any

import jsonschema
import pytest
import yaml

from tests.launch.conftest import ROOT

sys.path.append(str(ROOT / "launch"))
import manifest
import options

SCHEMA = json.loads((ROOT / "tests/launch/jobset_v1alpha2.json").read_text())
TEMPLATE = (ROOT / "launch/gke_jobset.yaml").read_text()


def render(*arguments: str) -> dict[str, Any]:
    values, _ = options.parse("gke", arguments)
    return yaml.safe_load(manifest.jobset(TEMPLATE, "job", values))


def errors(manifest_: dict[str, Any]) -> list[str]:
    return [e.message for e in jsonschema.Draft202012Validator(SCHEMA).iter_errors(manifest_)]


def worker(manifest_: dict[str, Any]) -> dict[str, Any]:
    (replicated,) = manifest_["spec"]["replicatedJobs"]
    return replicated


def pod(manifest_: dict[str, Any]) -> dict[str, Any]:
    return worker(manifest_)["template"]["spec"]["template"]["spec"]


TPU = ("--tpu-type=v5e", "--topology=4x8", "--slices=2")
EVERYTHING = (
    *TPU,
    *("--capacity=reserved", "--reservation=r", "--queue=q", "--service-account=s"),
    *("--privileged", "--namespace=n", '--image=a"b: #c', "--restarts=3", "--chips-per-host=8"),
)
GPU = ("--gpu-type=nvidia-h100-80gb", "--gpus-per-node=8", "--nodes=2", "--capacity=spot")


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert "v1alpha2" in SCHEMA["$comment"]


@pytest.mark.parametrize("arguments", [TPU, EVERYTHING, GPU])
def test_the_manifest_fits_the_published_schema(arguments: tuple[str, ...]) -> None:
    assert errors(render(*arguments)) == []


@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        (("spec", "failurePolicy"), "maxRestart", 1),
        (("spec", "failurePolicy"), "maxRestarts", "many"),
        (("spec", "failurePolicy", "rules", 0), "action", "FailJob"),
        (("spec", "replicatedJobs", 0), "replicas", 1.5),
        (("spec", "replicatedJobs", 0, "template", "spec"), "completion", 4),
        (("spec", "replicatedJobs", 0, "template", "spec", "podFailurePolicy"), "rules", {}),
        (("spec", "replicatedJobs", 0, "template", "spec", "template", "spec"), "restart", "Never"),
        (("metadata",), "labels", {"a": 1}),
        ((), "apiVersion", "jobset.x-k8s.io/v1"),
    ],
)
def test_a_wrong_manifest_is_refused(path: tuple[Any, ...], key: str, value: object) -> None:
    wrong = render(*TPU)
    place: Any = wrong
    for step in path:
        place = place[step]
    place[key] = value
    assert len(errors(wrong)) == 1


def test_a_manifest_without_its_jobs_template_is_refused() -> None:
    wrong = render(*TPU)
    del worker(wrong)["template"]
    assert errors(wrong) == ["'template' is a required property"]


@pytest.mark.parametrize(
    ("tpu_type", "topology", "accelerator", "hosts", "chips"),
    [
        ("v5e", "1x1", "tpu-v5-lite-podslice", 1, 1),
        ("v5e", "2x4", "tpu-v5-lite-podslice", 1, 8),
        ("v5e", "4x4", "tpu-v5-lite-podslice", 4, 4),
        ("v6e", "16x16", "tpu-v6e-slice", 64, 4),
        ("v5p", "2x2x4", "tpu-v5p-slice", 4, 4),
        ("v4", "2x2x1", "tpu-v4-podslice", 1, 4),
    ],
)
def test_a_slice_is_cut_into_hosts(
    tpu_type: str, topology: str, accelerator: str, hosts: int, chips: int
) -> None:
    made = render(f"--tpu-type={tpu_type}", f"--topology={topology}")
    job = worker(made)["template"]["spec"]
    assert job["parallelism"] == job["completions"] == hosts
    assert pod(made)["containers"][0]["resources"] == {"limits": {"google.com/tpu": chips}}
    assert pod(made)["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": accelerator,
        "cloud.google.com/gke-tpu-topology": topology,
    }


def test_a_topology_that_does_not_divide_is_refused() -> None:
    with pytest.raises(options.Mistake, match="9 chips are not a multiple of 4"):
        render("--tpu-type=v5e", "--topology=3x3")


def test_slices_are_jobs_on_node_pools_of_their_own() -> None:
    made = render(*TPU)
    assert worker(made)["replicas"] == 2
    assert made["spec"]["network"] == {"enableDNSHostnames": True}
    exclusive = "alpha.jobset.sigs.k8s.io/exclusive-topology"
    assert made["metadata"]["annotations"] == {exclusive: "cloud.google.com/gke-nodepool"}


def test_options_reach_their_fields() -> None:
    made = render(*EVERYTHING)
    assert made["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "q"}
    assert made["metadata"]["namespace"] == "n"
    assert made["spec"]["failurePolicy"]["maxRestarts"] == 3
    assert pod(made)["serviceAccountName"] == "s"
    assert pod(made)["nodeSelector"]["cloud.google.com/reservation-name"] == "r"
    (program,) = pod(made)["containers"]
    assert program["image"] == 'a"b: #c'
    assert program["securityContext"] == {"privileged": True}
    assert program["resources"]["limits"] == {"google.com/tpu": 8}


def test_gpu_processes_are_told_where_they_are() -> None:
    made = render(*GPU)
    (program,) = pod(made)["containers"]
    assert program["resources"]["limits"] == {"nvidia.com/gpu": 8}
    assert program["command"][-3:] == [
        "--coordinator=job-worker-0-0.job:8476",
        "--processes=2",
        "--process=$(JOB_COMPLETION_INDEX)",
    ]
    assert pod(made)["nodeSelector"] == {
        "cloud.google.com/gke-accelerator": "nvidia-h100-80gb",
        "cloud.google.com/gke-spot": "true",
    }
    alone = render("--gpu-type=nvidia-l4", "--gpus-per-node=1")
    assert pod(alone)["containers"][0]["command"][-1] == "job", "one process needs no coordinator"


def test_the_policies_are_those_that_kubernetes_takes() -> None:
    """What the schema leaves to the API server: names, and the order and number of the codes."""
    made = render(*TPU)
    job = worker(made)["template"]["spec"]
    (rule,) = job["podFailurePolicy"]["rules"]
    codes = rule["onExitCodes"]["values"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"]["operator"] == "NotIn"
    assert codes == sorted(set(codes)) == [42, *range(127, 256)]
    assert job["backoffLimit"] == 0
    assert job["completionMode"] == "Indexed"
    assert pod(made)["restartPolicy"] == "Never", "needed by a pod failure policy"
    names = [container["name"] for container in pod(made)["containers"]]
    assert rule["onExitCodes"]["containerName"] in names
    (failure,) = made["spec"]["failurePolicy"]["rules"]
    assert failure["onJobFailureReasons"] == ["PodFailurePolicy"]
