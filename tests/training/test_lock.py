"""Two runs in one folder: the second is refused while the first lives, and not after."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.training import lock
from tests.miniature import ROOT

HOLDER = """
import sys, time
from pathlib import Path
from mobilebert_jax.training import lock
with lock.held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_another_process_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "tiny"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError) as refused, lock.held(folder):
            pass
        message = str(refused.value)
        assert str(folder) in message and f"process {holder.pid} on " in message
        assert "--config.name" in message
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    with lock.held(folder):
        pass


def test_one_process_may_hold_it_again(tmp_path: Path) -> None:
    for _ in range(2):
        with lock.held(tmp_path), pytest.raises(InputError), lock.held(tmp_path):
            pass
