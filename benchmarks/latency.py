"""Time of one example through MobileBERT, TINY, SqueezeBERT and BERT_BASE, beside published ratios.

    launch/test.sh --all                         # makes .venv-parity, once
    .venv-parity/bin/python -m benchmarks.latency --folder /tmp/files --out latency.json

Batch 1, random weights, encoder without heads, full-length input. Runtimes: LiteRT with XNNPACK
(float32, and int8 weights with activations rounded as they come), jitted JAX, and Hugging Face's
PyTorch. Every number of threads is a process of its own that may use so many cores. Inside it the
runtimes of all networks take turns, so that a slow spell of the machine meets all of them; medians
are printed, and their ratio to BERT_BASE on the same runtime.

The paper (on a Pixel 4 phone with 4 threads, length 128): MobileBERT 62 ms and BERT_BASE 342 ms,
which is 5.5 times faster; and 4.3 times smaller. SqueezeBERT's paper (Iandola et al., 2020, on a
Pixel 3 phone): 4.3 times faster than BERT_BASE.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PAPER_RATIOS = {"mobilebert": 5.5, "squeezebert": 4.3}
"""Each from the paper of the network, of different phones."""
NETWORKS = ("bert_base", "mobilebert", "mobilebert_tiny", "squeezebert")
LITERT = {"litert float32": "float32", "litert int8": "dynamic_int8"}

Call = Callable[[], Any]


def make_model(name: str) -> Any:
    """Returns a network of published size with random weights, without heads."""
    import flax.linen as nn
    import jax
    import numpy as np

    from mobilebert_jax.interop.model import Model
    from mobilebert_jax.model import encoder, sizes
    from mobilebert_jax.model.layers import Network

    config = sizes.PUBLISHED[name]
    made = jax.jit(lambda: nn.unbox(encoder.init(Network(config), jax.random.key(0))))()
    kept = {part: made[part] for part in made if part not in ("masked_lm", "next_sentence")}
    params: dict[str, Any] = jax.tree.map(np.asarray, kept)
    return Model(config, "bare", params, (), None)


def file_of(folder: Path, network: str, mode: str, length: int) -> Path:
    return folder / f"{network}-{mode}-{length}.tflite"


def write_files(folder: Path, lengths: list[int]) -> None:
    """Exports what is not in `folder` yet."""
    from mobilebert_jax.interop.litert import model as litert

    folder.mkdir(parents=True, exist_ok=True)
    for network in NETWORKS:
        model = None
        for mode in LITERT.values():
            for length in lengths:
                path = file_of(folder, network, mode, length)
                if not path.exists():
                    model = model or make_model(network)
                    print(f"writing {path.name}", file=sys.stderr, flush=True)
                    litert.export(model, path, length=length, mode=mode)  # type: ignore[arg-type]


def litert_call(path: Path, length: int, threads: int) -> Call:
    """Returns a run of a file that has already run once."""
    import numpy as np

    from mobilebert_jax.interop import verification

    module = verification.package("ai_edge_litert.interpreter")
    interpreter = module.Interpreter(model_path=str(path), num_threads=threads)
    interpreter.allocate_tensors()
    signature = interpreter.get_signature_runner("serving_default")
    ids = np.full((1, length), 7, np.int32)
    inputs = {"input_ids": ids, "input_mask": np.ones_like(ids), "segment_ids": np.zeros_like(ids)}
    signature(**inputs)
    return lambda: signature(**inputs)


def jax_call(network: str, length: int) -> Call:
    """Returns a compiled forward pass of ours that has already run once."""
    import jax
    import jax.numpy as jnp

    from mobilebert_jax.interop import forward

    ids = jnp.full((1, length), 7, jnp.int32)
    function = jax.jit(forward.function(make_model(network)))
    compiled = function.lower(ids, jnp.ones_like(ids), jnp.zeros_like(ids)).compile()

    def call() -> None:
        jax.block_until_ready(compiled(ids, jnp.ones_like(ids), jnp.zeros_like(ids)))

    call()
    return call


def torch_call(network: str, length: int, threads: int) -> Call:
    """Returns a forward pass of Hugging Face's PyTorch network that has already run once."""
    import tempfile

    import torch
    import transformers

    from mobilebert_jax.interop.huggingface import model as huggingface

    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        huggingface.write(make_model(network), Path(folder))
        model = transformers.AutoModel.from_pretrained(folder).eval()
    ids = torch.full((1, length), 7)

    def call() -> None:
        with torch.inference_mode():
            model(ids, attention_mask=torch.ones_like(ids))

    call()
    return call


def measure(calls: dict[str, Call], rounds: int) -> dict[str, float]:
    """Returns the median milliseconds of every call; each round runs all, in alternating order."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for index in range(rounds):
        for name in list(calls) if index % 2 == 0 else reversed(list(calls)):
            start = time.perf_counter()
            calls[name]()
            seconds[name].append(time.perf_counter() - start)
    return {name: 1e3 * statistics.median(values) for name, values in seconds.items()}


def one_process(folder: Path, length: int, threads: int, rounds: int) -> dict[str, float]:
    """Returns milliseconds by `network|runtime`, on so many cores."""
    # Before anything counts the cores.
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:threads]))
    calls: dict[str, Call] = {}
    for network in NETWORKS:
        for runtime, mode in LITERT.items():
            path = file_of(folder, network, mode, length)
            calls[f"{network}|{runtime}"] = litert_call(path, length, threads)
        calls[f"{network}|jax"] = jax_call(network, length)
        calls[f"{network}|pytorch"] = torch_call(network, length, threads)
    return measure(calls, rounds)


def show(results: dict[str, Any]) -> None:
    """Prints a table for every length and number of threads, and the sizes."""
    for key, times in results["milliseconds"].items():
        print(f"\n{key}: milliseconds, and times faster than BERT_BASE")
        runtimes = list(dict.fromkeys(name.partition("|")[2] for name in times))
        print("".join(f"{cell:>22}" for cell in ("", *NETWORKS)))
        for runtime in runtimes:
            base = times[f"bert_base|{runtime}"]
            cells = [
                f"{times[f'{n}|{runtime}']:.1f} ({base / times[f'{n}|{runtime}']:.2f})"
                for n in NETWORKS
            ]
            print("".join(f"{cell:>22}" for cell in (runtime, *cells)))
        ratios = [f"({PAPER_RATIOS[n]})" if n in PAPER_RATIOS else "" for n in NETWORKS]
        print("".join(f"{cell:>22}" for cell in ("papers, phones", *ratios)))
    base = results["parameters"]["bert_base"]
    print("\nparameters, and times smaller (the paper: MobileBERT 4.3):")
    for name, count in results["parameters"].items():
        print(f"{name:>22}{count:>14,}{base / count:>8.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="where the files are kept")
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 384])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        found = one_process(options.folder, options.lengths[0], options.threads[0], options.rounds)
        print(json.dumps(found))
        return
    from mobilebert_jax.model import sizes

    write_files(options.folder, options.lengths)
    results: dict[str, Any] = {
        "milliseconds": {},
        "parameters": {n: sizes.encoder_parameters(sizes.PUBLISHED[n]) for n in NETWORKS},
    }
    for length in options.lengths:
        for threads in options.threads:
            command = [sys.executable, __file__, "--inside", "--folder", str(options.folder)]
            command += ["--lengths", str(length), "--threads", str(threads)]
            command += ["--rounds", str(options.rounds)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            key = f"length {length}, {threads} thread{'s' * (threads > 1)}"
            results["milliseconds"][key] = json.loads(done.stdout.splitlines()[-1])
    show(results)
    if options.out:
        options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
