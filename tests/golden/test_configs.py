"""No setting of an experiment changes without being seen."""

from pathlib import Path

import pytest

from tests.golden import make_configs

EXPERIMENTS = make_configs.experiments()


def test_there_are_experiments_and_no_dumps_of_others() -> None:
    made = {name for path in EXPERIMENTS for name in make_configs.dumps(path)}
    assert made
    stored = {path.name for path in make_configs.FOLDER.glob("*.txt")}
    assert stored <= made, f"no experiment has these; run: {make_configs.COMMAND}"


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda path: path.stem)
def test_the_settings_are_those_on_record(experiment: Path) -> None:
    for name, text in make_configs.dumps(experiment).items():
        path = make_configs.FOLDER / name
        assert path.exists(), f"{name} is missing; run: {make_configs.COMMAND}"
        changed = sorted(set(path.read_text().splitlines()) ^ set(text.splitlines()))
        assert not changed, (
            "\n".join([f"{name} differs in", *changed])
            + f"\nif that is meant, run: {make_configs.COMMAND}"
        )
