"""The compiler's process does not outlive the plan that it compiles for."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests import process_groups
from tests.miniature import ROOT

COMPILING = """
import time
from mobilebert_jax.plan import topology
from mobilebert_jax.plan.child_process import Compiler

if __name__ == "__main__":
    compiler = Compiler(topology.parse("v5e-16"))
    print(compiler._call(time.sleep, 0), flush=True)  # its process has started
    compiler._call(time.sleep, 600)
"""


def test_the_compiler_ends_with_a_killed_plan(tmp_path: Path) -> None:
    script = tmp_path / "plan.py"
    script.write_text(COMPILING)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    plan = subprocess.Popen(
        [sys.executable, str(script)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert plan.stdout is not None
    assert plan.stdout.readline() == "None\n"
    plan.kill()
    assert plan.wait() == -signal.SIGKILL
    assert process_groups.ends(plan.pid)
