"""A whole experiment in miniature: networks of two narrow layers, a made-up language, few steps."""

import contextlib
import dataclasses
import io
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest
import rich.console
from jax.experimental.compilation_cache import compilation_cache

from mobilebert_jax.config import schema
from mobilebert_jax.config.config_dict import from_config_dict, to_config_dict
from mobilebert_jax.config.execution import Execution
from mobilebert_jax.config.schema import Config, flatten
from mobilebert_jax.model import sizes
from mobilebert_jax.sharding.mesh import make_mesh

ROOT = Path(__file__).resolve().parents[1]
SYLLABLES = ("ka", "lo", "mi", "ren", "sta", "tu", "vo", "shi", "pel", "dan", "gro", "fe")
NARROW: dict[str, Any] = {
    "vocab_size": 0,
    "max_position_embeddings": 16,
    "hidden_size": 16,
    "intra_bottleneck_size": 8,
    "embedding_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_feedforward_networks": 1,
}
QUICK = {
    "jax_disable_most_optimizations": True,
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}
"""Nearly all the time of a tiny run is compilation: little of it, and the same program once."""
ADAMW = schema.Optimizer(
    name="adamw", peak_learning_rate=1e-2, warmup_steps=2, bias_correction=True
)

EXPERIMENT_FILE = """
from pathlib import Path
from mobilebert_jax.config.config_dict import to_config_dict
from tests.miniature import experiment

def get_config():
    return to_config_dict(experiment(Path({folder!r})))
"""


def write_corpus(path: Path, documents: int = 80, seed: int = 0) -> str:
    """Writes documents of made-up words and returns the `data.source` that reads them."""
    generator = random.Random(seed)
    words = ["".join(generator.choices(SYLLABLES, k=generator.randint(1, 3))) for _ in range(150)]
    lines = []
    for _ in range(documents):
        for _ in range(generator.randint(2, 6)):
            lines.append(" ".join(generator.choices(words, k=generator.randint(3, 8))) + ".")
        lines.append("")
    path.write_text("".join(f"{line}\n" for line in lines))
    return f"text:{path}"


def experiment(folder: Path, **settings: Any) -> Config:
    """Returns the tiny experiment whose text and runs lie in `folder`.

    `settings` are dotted keys with two underscores for each dot: `distill__steps=4`.
    """
    text = folder / "text.txt"
    source = f"text:{text}" if text.exists() else write_corpus(text)
    config = Config(
        name="tiny",
        # The control is distillation with another number of steps: where stages are killed or run
        # on several machines it would show nothing that distillation does not.
        stages=("prepare", "teacher", "transfer", "distill", "baseline", "evaluate"),
        data=schema.Data(
            source=source, validation_fraction=0.2, max_seq_length=16, max_predictions_per_seq=3
        ),
        tokenizer=schema.Tokenizer(vocab_size=120),
        teacher=schema.Teacher(
            model=dataclasses.replace(sizes.IB_BERT_LARGE, **NARROW),
            steps=4,
            batch_size=8,
            optimizer=ADAMW,
        ),
        student=dataclasses.replace(sizes.MOBILEBERT, **NARROW),
        transfer=schema.Transfer(steps=6, batch_size=8),
        distill=schema.Distill(steps=3, batch_size=8, optimizer=ADAMW),
        evaluate=schema.Evaluate(examples=16, batch_size=8, fill_mask_text="kalo [MASK] miren."),
        execution=Execution(
            runs_dir=str(folder / "runs"), workers=1, log_every=1, checkpoint_every=2
        ),
    )
    return changed(config, **settings)


def changed(config: Config, **settings: Any) -> Config:
    """Returns `config` with dotted keys changed, through the door that the command line takes."""
    config_dict = to_config_dict(config)
    flat = flatten(config)
    for name, value in settings.items():
        key = name.replace("__", ".")
        assert key in flat, key
        config_dict.update_from_flattened_dict({key: value})
    return from_config_dict(config_dict)


def console() -> rich.console.Console:
    """Returns a console that keeps what it prints; `.file.getvalue()` gives it."""
    return rich.console.Console(file=io.StringIO(), width=1000)


@contextlib.contextmanager
def one_quick_device(cache: Path) -> Iterator[None]:
    """Runs the stages on one of the simulated devices, compiling quickly, programs kept in `cache`.

    The process's other tests find everything as it was.
    """
    before = {name: jax.config.values[name] for name in (*QUICK, "jax_compilation_cache_dir")}
    with pytest.MonkeyPatch.context() as patch:
        first = jax.devices()[:1]
        patch.setattr(
            "mobilebert_jax.pipeline.runner.make_mesh", lambda mesh: make_mesh(mesh, first)
        )
        for name, value in {**QUICK, "jax_compilation_cache_dir": str(cache)}.items():
            jax.config.update(name, value)
        # Whether there is a cache is looked up once a process.
        compilation_cache.reset_cache()
        try:
            yield
        finally:
            for name, value in before.items():
                jax.config.update(name, value)
            compilation_cache.reset_cache()


def start(
    folder: Path, cache: Path, *arguments: str, devices: int = 1, **options: Any
) -> subprocess.Popen[str]:
    """Starts the tiny experiment of `folder` from the command line, on simulated devices.

    `options` are those of `subprocess.Popen`.
    """
    file = folder / "tiny.py"
    file.write_text(EXPERIMENT_FILE.format(folder=str(folder)))
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environment |= {name.upper(): str(value) for name, value in QUICK.items()}
    environment["JAX_COMPILATION_CACHE_DIR"] = str(cache)
    environment["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, "-m", "mobilebert_jax.main", f"--config={file}", *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )
