"""A small repository with the real launch scripts, whose requirements are wheels made here."""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Stands in for the program: says what it was given and which `tiny` it sees, then exits as told.
MAIN = """
import json, os, sys
import tiny
memory = {name: value for name, value in os.environ.items() if name.startswith("MALLOC_")}
said = {"arguments": sys.argv[1:], "folder": os.getcwd(), "tiny": tiny.VERSION, "memory": memory}
print(json.dumps(said))
sys.exit(int(os.environ.get("EXIT", "0")))
"""
# Stands in for pytest and mypy: says which environment runs it, then fails where FAIL names it.
TOOL = """
import os, pathlib, sys
name = pathlib.Path(__file__).parent.name
print(name, *sys.argv[1:], "in", pathlib.Path(sys.prefix).name, flush=True)
failing, _, code = os.environ.get("FAIL", "").partition("=")
sys.exit(int(code) if failing == " ".join([name, *sys.argv[1:3]]) else 0)
"""


def make_wheel(folder: Path, name: str, version: str, files: dict[str, str]) -> None:
    """Writes an installable wheel of `files` (path -> text) without building anything."""
    info = f"{name}-{version}.dist-info"
    files = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)


class Repository:
    """The small repository, and a way to start its scripts."""

    def __init__(self, root: Path):
        self.root = root
        shutil.copytree(ROOT / "launch", root / "launch")
        for version in ("1.0", "2.0"):
            make_wheel(
                root / "wheels", "tiny", version, {"tiny/__init__.py": f"VERSION = {version!r}\n"}
            )
        for tool in ("mypy", "pytest"):
            make_wheel(root / "wheels", tool, "1.0", {f"{tool}/__main__.py": TOOL})
        for extra in ("parity", "cuda", "export"):
            make_wheel(root / "wheels", f"{extra}_only", "1.0", {f"{extra}_only.py": ""})
            self.write(f"requirements-{extra}.txt", f"{extra}-only==1.0\n")
        self.write("requirements.txt", "tiny==1.0\nmypy==1.0\npytest==1.0\n")
        self.write("mobilebert_jax/main.py", MAIN)
        self.write("experiments/progressive_kt.py", '"""The paper, stage by stage."""\n')
        self.write("experiments/teacher.py", '"""The teacher alone.\n\nMore.\n"""\n')

    def write(self, path: str, text: str) -> Path:
        """Writes a file of the repository."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def environment(self, **variables: str) -> dict[str, str]:
        """The environment of a start: only the wheels made here can be installed."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PIP_", "MALLOC_"))
        }
        return kept | {
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.root / "wheels"),
            "PIP_CONFIG_FILE": os.devnull,
            "PYTHON": sys.executable,
            "ACCELERATOR": "cpu",
            **variables,
        }

    def start(
        self, script: str, *arguments: str, folder: Path | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Runs launch/`script` from `folder` (the repository, if not given) to its end."""
        return subprocess.run(
            ["bash", str(self.root / "launch" / script), *arguments],
            cwd=folder or self.root,
            env=self.environment(**variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def shell(self, command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Runs `command` in a shell that has sourced launch/setup.sh."""
        return subprocess.run(
            ["bash", "-c", f"set -euo pipefail; source launch/setup.sh; {command}"],
            cwd=self.root,
            env=self.environment(**variables),
            capture_output=True,
            text=True,
            timeout=60,
        )


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A repository in which nothing has been installed."""
    return Repository(tmp_path / "repository")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A repository whose environment has been made; for tests that leave it as it is."""
    repository = Repository(tmp_path_factory.mktemp("installed") / "repository")
    first = repository.start("run.sh", "teacher")
    assert first.returncode == 0, first.stderr
    assert "installing into .venv" in first.stderr
    return repository


@pytest.fixture
def programs(tmp_path: Path) -> Callable[..., str]:
    """Makes shell scripts by name and returns a PATH on which they come first."""

    def make(**scripts: str) -> str:
        folder = tmp_path / "programs"
        folder.mkdir()
        for name, text in scripts.items():
            program = folder / name.replace("_", ".").replace("nvidia.smi", "nvidia-smi")
            program.write_text(f"#!/bin/sh\n{text}\n")
            program.chmod(0o755)
        return f"{folder}{os.pathsep}{os.environ['PATH']}"

    return make
