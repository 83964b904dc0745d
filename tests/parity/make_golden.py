"""Writes the golden files from Hugging Face's PyTorch networks, without the network.

Run `python -m tests.parity.make_golden` from the repository's root, where torch and transformers
are installed.
"""

from tests.parity import cases, golden, torch_reference


def main() -> None:
    """Writes one file for each narrow case and prints its size."""
    golden.FOLDER.mkdir(exist_ok=True)
    for name, config in cases.NARROW.items():
        params, batch = cases.random_params(config), cases.random_batch(config)
        results = torch_reference.their_results(config, params, batch)
        path = golden.FOLDER / f"{name}.npz"
        golden.write(path, golden.Golden(config, params, batch, results))
        print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB, loss {float(results.loss):.4f}")


if __name__ == "__main__":
    main()
