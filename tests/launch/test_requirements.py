"""The lock files: complete, exact, in agreement with pyproject.toml, and without torch."""

import tomllib
from collections.abc import Iterator

import jax
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.launch.conftest import ROOT

LOCKS = {"test": "requirements.txt", "cuda": "requirements-cuda.txt", "tpu": "requirements-tpu.txt"}
ENVIRONMENTS = [
    {
        "python_version": python,
        "python_full_version": f"{python}.4",
        "sys_platform": system,
        "platform_system": {"linux": "Linux", "darwin": "Darwin"}[system],
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
    }
    for python in ("3.11", "3.12", "3.13")
    for system, machine in (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"))
]


def name_of(environment: dict[str, str]) -> str:
    """A short name for one kind of machine."""
    kind = ("python_version", "sys_platform", "platform_machine")
    return "-".join(environment[key] for key in kind)


def lines(name: str) -> Iterator[Requirement]:
    """The requirements of a lock file."""
    for line in (ROOT / name).read_text().splitlines():
        text = line.partition(" #")[0].strip()
        if text and not text.startswith("#"):
            yield Requirement(text)


def pins(name: str, environment: dict[str, str]) -> dict[str, str]:
    """`{package: version}` that a lock file asks for on one kind of machine."""
    found: dict[str, str] = {}
    for line in lines(name):
        if line.marker is None or line.marker.evaluate(environment):
            package = canonicalize_name(line.name)
            assert package not in found, f"{name} pins {package} twice"
            (specifier,) = line.specifier
            assert specifier.operator == "==", f"{name} does not pin {package}"
            found[package] = specifier.version
    return found


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=name_of)
def test_locks_agree_with_the_project_and_with_each_other(environment: dict[str, str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    base = pins("requirements.txt", environment)
    for extra, name in LOCKS.items():
        locked = pins(name, environment)
        for text in project["dependencies"] + project["optional-dependencies"][extra]:
            wanted = Requirement(text)
            assert wanted.specifier.contains(locked[canonicalize_name(wanted.name)]), (text, name)
        shared = base.keys() & locked.keys()
        assert {package: locked[package] for package in shared} == {p: base[p] for p in shared}


@pytest.mark.parametrize("name", LOCKS.values())
def test_neither_torch_nor_tensorflow_is_required(name: str) -> None:
    refused = {"torch", "torchvision", "transformers", "tensorflow", "tensorflow-cpu", "keras"}
    assert refused.isdisjoint(canonicalize_name(line.name) for line in lines(name))


@pytest.mark.parametrize("name", LOCKS.values())
def test_locks_say_how_they_are_made(name: str) -> None:
    head = (ROOT / name).read_text().splitlines()[:2]
    assert all(line.startswith("#") for line in head)
    assert "uv pip compile" in head[1] and f"-o {name}" in head[1]


def test_the_suite_sees_eight_simulated_devices() -> None:
    assert jax.default_backend() == "cpu"
    assert jax.device_count() == 8
