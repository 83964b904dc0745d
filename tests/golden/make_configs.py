"""The settings of every experiment at every scale, as text that a change has to be seen in.

Run `python -m tests.golden.make_configs` from the repository's root to write the files anew.
"""

import runpy
from pathlib import Path

from mobilebert_jax.config.config_dict import from_config_dict
from mobilebert_jax.config.schema import flatten

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).resolve().parent / "configs"
COMMAND = "python -m tests.golden.make_configs"


def experiments() -> list[Path]:
    return sorted((ROOT / "experiments").glob("*.py"))


def dumps(experiment: Path) -> dict[str, str]:
    """Returns `{file name: sorted "key: value" lines}` of an experiment at each of its scales."""
    module = runpy.run_path(str(experiment))
    made = {}
    for scale in module["SCALES"]:
        flat = flatten(from_config_dict(module["get_config"](scale)))
        lines = [f"{key}: {value!r}\n" for key, value in flat.items()]
        made[f"{experiment.stem}-{scale}.txt"] = "".join(lines)
    return made


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    written = {name: text for path in experiments() for name, text in dumps(path).items()}
    for old in FOLDER.glob("*.txt"):
        if old.name not in written:
            old.unlink()
    for name, text in written.items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    main()
