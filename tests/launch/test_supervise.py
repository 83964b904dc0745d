"""launch/supervise.sh: what it starts again, how often, and how signals pass through it."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch.conftest import ROOT

SUPERVISE = str(ROOT / "launch" / "supervise.sh")
# Notes every start; fails with the codes in turn, the last one for good.
COMMAND = r"""
echo started >>starts
eval "$EACH"
set -- $CODES
shift $(($(wc -l <starts) > $# ? $# - 1 : $(wc -l <starts) - 1))
exit $1
"""


def supervise(
    folder: Path, codes: str, *options: str, each: str = ":"
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", SUPERVISE, "--backoff", "0", *options, "--", "bash", "-c", COMMAND],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "CODES": codes, "EACH": each, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
    )


def starts(folder: Path) -> int:
    return len((folder / "starts").read_text().splitlines())


@pytest.mark.parametrize("code", [0, 1, 2, 3, 41, 43, 126, 127, 130, 136, 255])
def test_other_codes_are_returned_at_once(tmp_path: Path, code: int) -> None:
    ended = supervise(tmp_path, str(code))
    assert ended.returncode == code
    assert starts(tmp_path) == 1
    assert len(ended.stderr.splitlines()) == (code != 0)


@pytest.mark.parametrize("code", [42, 134, 137, 139, 143])
def test_an_interruption_is_started_again(tmp_path: Path, code: int) -> None:
    ended = supervise(tmp_path, f"{code} {code} 0")
    assert ended.returncode == 0
    assert starts(tmp_path) == 3
    assert [f"exit code {code}; starting again" in x for x in ended.stderr.splitlines()] == [
        True,
        True,
    ]


def test_a_mistake_after_an_interruption_ends_it(tmp_path: Path) -> None:
    assert supervise(tmp_path, "42 2 0").returncode == 2
    assert starts(tmp_path) == 2


@pytest.mark.parametrize(("name", "code"), [("KILL", 137), ("ABRT", 134), ("TERM", 143)])
def test_a_signal_is_a_code(tmp_path: Path, name: str, code: int) -> None:
    ended = supervise(tmp_path, "0", "--restarts", "1", each=f"kill -{name} $$")
    assert ended.returncode == code
    assert starts(tmp_path) == 2


@pytest.mark.parametrize(("options", "limit"), [((), 5), (("--restarts", "2"), 2)])
def test_it_gives_up_without_progress(tmp_path: Path, options: tuple[str, ...], limit: int) -> None:
    ended = supervise(tmp_path, "137", *options)
    assert ended.returncode == 137
    assert starts(tmp_path) == 1 + limit
    assert f"given up after {limit} restarts without progress" in ended.stderr


def test_no_restart_at_all(tmp_path: Path) -> None:
    assert supervise(tmp_path, "42 0", "--restarts", "0").returncode == 42
    assert starts(tmp_path) == 1


def test_progress_is_what_is_counted(tmp_path: Path) -> None:
    grow = 'echo checkpoint >>"$PROGRESS_FILE"'
    ended = supervise(tmp_path, "134 134 134 134 134 0", "--restarts", "1", each=grow)
    assert ended.returncode == 0
    assert starts(tmp_path) == 6
    left = [path.name for path in tmp_path.iterdir()]
    assert left == ["starts"], "the progress file was left behind"


def test_progress_once_is_not_progress_for_good(tmp_path: Path) -> None:
    grow = '[ $(wc -l <starts) -gt 2 ] || echo checkpoint >>"$PROGRESS_FILE"'
    assert supervise(tmp_path, "134", "--restarts", "2", each=grow).returncode == 134
    # Starts 1 and 2 progress; after them 3 and 4 are the restarts that led nowhere.
    assert starts(tmp_path) == 4


def test_the_pause_doubles(tmp_path: Path) -> None:
    sleeps = 'sleep() { echo "$1" >>pauses; }; export -f sleep; exec bash "$0" "$@"'
    command = ["bash", "-c", sleeps, SUPERVISE, "--backoff", "100", "--restarts", "4"]
    subprocess.run([*command, "--", "bash", "-c", "exit 42"], cwd=tmp_path, timeout=60)
    assert (tmp_path / "pauses").read_text().split() == ["100", "200", "300", "300"]


# Says when it is up; answers a signal as the program does, by saving for a while and a code.
ANSWER = """
import signal, sys, time
def answer(number, frame):
    time.sleep(0.3)
    print("saved after", signal.Signals(number).name, flush=True)
    sys.exit(42)
signal.signal(signal.SIGTERM, answer)
signal.signal(signal.SIGINT, answer)
print("up", flush=True)
time.sleep(60)
"""

# Becomes a command to which no signal is ignored. Tests that run in the background or under `nohup`
# ignore some, which a shell's trap cannot undo.
ATTENTIVE = """
import os, signal, sys
for ignored in (signal.SIGINT, signal.SIGHUP):
    signal.signal(ignored, signal.SIG_DFL)
os.execvp(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("sent", "passed"),
    [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "SIGINT"), (signal.SIGHUP, "SIGTERM")],
)
def test_a_signal_is_passed_on_and_waited_for(sent: signal.Signals, passed: str) -> None:
    supervise_it = ["bash", SUPERVISE, "--", sys.executable, "-c", ANSWER]
    supervisor = subprocess.Popen(
        [sys.executable, "-c", ATTENTIVE, *supervise_it],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert supervisor.stdout is not None
    assert supervisor.stdout.readline() == "up\n"
    supervisor.send_signal(sent)
    out, err = supervisor.communicate(timeout=30)
    assert out == f"saved after {passed}\n"
    assert supervisor.returncode == 42
    assert "not started again" in err


def test_a_signal_during_the_pause_ends_it() -> None:
    supervisor = subprocess.Popen(
        ["bash", SUPERVISE, "--backoff", "60", "--", "bash", "-c", "exit 137"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert supervisor.stderr is not None
    assert "starting again in 60 s" in supervisor.stderr.readline()
    supervisor.terminate()
    assert supervisor.wait(timeout=10) == 137
    supervisor.stderr.close()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "no command given"),
        (("--restarts", "some", "true"), "needs a whole number, not 'some'"),
        (("--restart", "3", "true"), "there is no option --restart"),
    ],
)
def test_its_own_mistakes(arguments: tuple[str, ...], said: str) -> None:
    refused = subprocess.run(["bash", SUPERVISE, *arguments], capture_output=True, text=True)
    assert refused.returncode == 2
    assert said in refused.stderr
