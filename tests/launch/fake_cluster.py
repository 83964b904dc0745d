"""Stands in for gcloud, kubectl and SLURM: records every call and runs the workers' commands here.

`python fake_cluster.py PROGRAM ARGUMENT...` with the folder CLUSTER in the environment, which holds

    calls.jsonl   every call, as [PROGRAM, ARGUMENT...]
    host-<i>/     home of a TPU VM's host, of a pod or of the machine of SLURM
    state         what has become of the queued resource, the job set or the SLURM job
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

CLUSTER = Path(os.environ.get("CLUSTER", "."))
STATE = CLUSTER / "state"
PROGRAMS = ("gcloud", "kubectl", "sbatch", "srun", "scontrol", "squeue")


def install(folder: Path) -> str:
    """Makes the programs in `folder` and returns a PATH on which they come first."""
    folder.mkdir()
    for name in PROGRAMS:
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" {name} "$@"\n')
        program.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def option(arguments: list[str], name: str) -> str:
    """The value of `--name=value`, or "" where it is not given."""
    values = [a.removeprefix(f"{name}=") for a in arguments if a.startswith(f"{name}=")]
    return values[-1] if values else ""


def hosts() -> list[Path]:
    """The homes of all hosts, in order."""
    return sorted(CLUSTER.glob("host-*"))


def gcloud(arguments: list[str]) -> int:
    """A queued resource whose state is the first word of `state`, the last one staying."""
    _, _, kind, verb, name = arguments[:5]
    if verb == "describe":
        if kind == "tpu-vm" or not STATE.exists():
            print("ERROR: (gcloud) NOT_FOUND: no such resource", file=sys.stderr)
            return 1
        state, *later = STATE.read_text().split()
        STATE.write_text(" ".join(later or [state]))
        print(state)
    elif verb == "create":
        STATE.write_text("WAITING_FOR_RESOURCES ACTIVE")
    elif verb == "delete":
        STATE.unlink()
    elif verb == "scp":
        files = [a for a in arguments[4:] if not a.startswith("--")][:-1]
        for host in hosts():
            for file in files:
                shutil.copy(file, host)
    elif verb == "ssh":
        return ssh(name, option(arguments, "--command"))
    return 0


def ssh(name: str, command: str) -> int:
    """Runs `command` on all hosts at once; like gcloud, returns the first code that is not 0."""
    if (CLUSTER / "preempt").exists():
        (CLUSTER / "preempt").unlink()
        STATE.write_text("SUSPENDED")
        return 255
    running = [
        subprocess.Popen(["bash", "-c", command], cwd=host, env=os.environ | {"HOME": str(host)})
        for host in hosts()
    ]
    return next((code for code in [process.wait() for process in running] if code), 0)


def kubectl(arguments: list[str]) -> int:
    """A cluster that runs a job set to its end while it is applied."""
    words = [a for a in arguments if not a.startswith("-")]
    if words[0] == "create":
        source = option(arguments, "--from-file").partition("=")[2]
        shutil.copy(source, CLUSTER / "job.tar.gz")
    elif words[0] == "apply":
        run_job_set(Path(words[1]))
    elif words[0] == "get" and words[1] == "jobset":
        if not STATE.exists():
            print('Error (NotFound): jobsets "x" not found', file=sys.stderr)
            return 1
        print(json.loads(STATE.read_text())["state"], end="")
    elif words[0] == "get" and "name" in words:
        print("pod/first")
    elif words[0] == "get":
        print(*json.loads(STATE.read_text())["codes"], sep="\n")
    elif words[0] == "logs":
        print((CLUSTER / "host-0" / "log").read_text(), end="")
    return 0


def run_job_set(path: Path) -> None:
    """Obeys the parts of a JobSet that decide about restarts."""
    import yaml

    spec = yaml.safe_load(path.read_text())["spec"]
    (replicated,) = spec["replicatedJobs"]
    job = replicated["template"]["spec"]
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob" and rule["onExitCodes"]["operator"] == "NotIn"
    assert spec["failurePolicy"]["rules"][0]["action"] == "FailJobSet"
    restarted, most = rule["onExitCodes"]["values"], spec["failurePolicy"]["maxRestarts"]
    count = replicated["replicas"] * job["completions"]
    restarts, state, codes = 0, "", [1]
    while not state:
        codes = [run_pod(job["template"]["spec"], index) for index in range(count)]
        failed = [code for code in codes if code]
        if not failed:
            state = "Completed"
        elif restarts == most or any(code not in restarted for code in failed):
            state = "Failed"
        restarts += 1
    STATE.write_text(json.dumps({"state": state, "codes": codes}))


def run_pod(pod: dict[str, Any], index: int) -> int:
    """Runs the container's command with the host's folder in place of the container's disk."""
    host = CLUSTER / f"host-{index}"
    text = json.dumps(pod["containers"][0]["command"])
    text = text.replace("/opt/mobilebert_jax", str(host / "mobilebert_jax"))
    text = text.replace("/job/", f"{CLUSTER}/").replace("$(JOB_COMPLETION_INDEX)", str(index))
    with (host / "log").open("a") as log:
        return subprocess.run(
            json.loads(text), env=os.environ | {"HOME": str(host)}, stdout=log, stderr=log
        ).returncode


def sbatch(arguments: list[str]) -> int:
    """Starts the script in the background, again each time it is requeued."""
    script = arguments[-1]
    print("77")
    sys.stdout.flush()
    if os.fork():
        return 0
    os.setsid()
    STATE.write_text(str(os.getpid()))
    lines = Path(script).read_text().splitlines()
    options = [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH ")]
    tasks = int(option(options, "--nodes")) * int(option(options, "--ntasks-per-node"))
    environment = os.environ | {
        "SLURM_JOB_ID": "77",
        "SLURM_NTASKS": str(tasks),
        "HOME": str(CLUSTER / "host-0"),
    }
    with open(option(arguments, "--output").replace("%%", "%"), "a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        requeued = CLUSTER / "requeued"
        while True:
            subprocess.run(["bash", script], env=environment, stdin=subprocess.DEVNULL)
            if not requeued.exists():
                break
            requeued.unlink()
    STATE.unlink()
    os._exit(0)


def srun(arguments: list[str]) -> int:
    """Runs all tasks at once and returns the highest code."""
    command = [a for a in arguments if not a.startswith("--")]
    running = [
        subprocess.Popen(command, env=os.environ | {"SLURM_PROCID": str(index)})
        for index in range(int(os.environ["SLURM_NTASKS"]))
    ]
    if (CLUSTER / "terminate").exists():
        if (CLUSTER / "terminate").read_text() == "all":
            os.kill(os.getppid(), signal.SIGTERM)
        (CLUSTER / "terminate").unlink()
        while not all((CLUSTER / "host-0" / f"up-{i}").exists() for i in range(len(running))):
            time.sleep(0.02)
        for process in running:
            process.send_signal(signal.SIGTERM)
            supervisors = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
            for child in supervisors.split():
                os.kill(int(child), signal.SIGTERM)
    return max(process.wait() for process in running)


def scontrol(arguments: list[str]) -> int:
    """Only `scontrol requeue JOB`."""
    assert arguments == ["requeue", "77"], arguments
    (CLUSTER / "requeued").touch()
    return 0


def squeue(arguments: list[str]) -> int:
    """Says RUNNING as long as the job's process lives."""
    if STATE.exists():
        print("RUNNING")
    return 0


def calls(cluster: Path) -> list[list[str]]:
    """All calls so far."""
    return [json.loads(line) for line in (cluster / "calls.jsonl").read_text().splitlines()]


def shown(output: str, program: str) -> list[list[str]]:
    """The calls of `program` that `--print` has shown."""
    found = [line for line in output.splitlines() if line.startswith(f"{program} ")]
    return [shlex.split(line) for line in found]


if __name__ == "__main__":
    with (CLUSTER / "calls.jsonl").open("a") as record:
        record.write(json.dumps(sys.argv[1:]) + "\n")
    sys.exit(globals()[sys.argv[1]](sys.argv[2:]))
