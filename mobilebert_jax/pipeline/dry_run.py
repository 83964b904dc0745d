"""What an experiment would do: parameters of its networks and its plan of stages, nothing run."""

import dataclasses

import rich.console
import rich.table

from mobilebert_jax.config.schema import AFTERWARDS, Config, ModelConfig
from mobilebert_jax.finetune import foreseen
from mobilebert_jax.model import sizes
from mobilebert_jax.pipeline import flops, imported_teacher


def show(config: Config, console: rich.console.Console) -> None:
    """Prints the networks that are trained and every stage with its steps, batch and compute.

    Raises InputError for a network from elsewhere that is not there or does not fit.
    """
    if config.teacher.path:
        imported_teacher.compared(config)
        console.print(f"teacher: as it is, {config.teacher.path}", markup=False, soft_wrap=True)
    console.print(f"{config.name}, seed {config.seed}, {config.precision}", markup=False)
    if set(config.stages) - set(AFTERWARDS):
        console.print(f"text: {config.data.source}", markup=False)
        console.print(f"examples of {config.data.max_seq_length} tokens")
        console.print(_networks(config))
    elif "finetune" in config.stages:
        # Sizes and tokenizer are those that the pretrained network brings.
        console.print(f"pretrained: {config.finetune.pretrained or 'none named'}", markup=False)
    if "finetune" in config.stages and config.finetune.pretrained:
        for line in foreseen.output_layers(config):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(_stages(config))


def _settled(config: Config, model: ModelConfig) -> ModelConfig:
    return dataclasses.replace(model, vocab_size=model.vocab_size or config.tokenizer.vocab_size)


def _networks(config: Config) -> rich.table.Table:
    """One column a network, so that the largest counts stay whole on a narrow terminal."""
    models = [_settled(config, model) for model in (config.teacher.model, config.student)]
    table = rich.table.Table("network")
    for name in ("teacher", "student"):
        table.add_column(name, justify="right", no_wrap=True)
    length = config.data.max_seq_length
    for label, values in (
        ("layers", [str(model.num_hidden_layers) for model in models]),
        ("hidden", [str(model.hidden_size) for model in models]),
        ("bottleneck", [str(model.intra_bottleneck_size) for model in models]),
        ("encoder parameters", [f"{sizes.encoder_parameters(model):,}" for model in models]),
        ("with heads", [f"{sizes.pretraining_parameters(model):,}" for model in models]),
        (
            "GFLOPs a sequence",
            [f"{sizes.forward_flops(model, length) / 1e9:.2f}" for model in models],
        ),
    ):
        table.add_row(label, *values)
    return table


def _stages(config: Config) -> rich.table.Table:
    table = rich.table.Table()
    table.add_column("stage", no_wrap=True)
    for name in ("steps", "batch", "FLOPs"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("how", overflow="fold")
    plan = stage_plan(config)
    for name in config.stages:
        steps, batch, total, how = plan[name]
        if name == "teacher" and config.teacher.path:
            steps, total, how = 0, 0.0, "as it is"
        table.add_row(
            name,
            f"{steps:,}" if steps else "",
            f"{batch:,}" if steps else "",
            f"{total:.2e}" if total else "",
            how,
        )
    return table


def stage_plan(config: Config) -> dict[str, tuple[int, int, float, str]]:
    """Returns each stage's steps, batch size, FLOPs of the encoders, and a word on how."""
    rows = {
        name: (
            flops.steps(config, name),
            flops.batch_size(config, name),
            flops.stage_flops(config, name),
            how,
        )
        for name, how in (
            ("teacher", f"masked LM + next sentence, {config.teacher.optimizer.name}"),
            ("transfer", _transfer_words(config)),
            (
                "distill",
                f"alpha {config.distill.alpha:g}, temperature {config.distill.temperature:g}",
            ),
            ("control", "the student without layer-wise transfer"),
            ("baseline", "the student without a teacher"),
        )
    }
    return {
        "prepare": (0, 0, 0.0, f"{config.tokenizer.kind}, records, split"),
        **rows,
        "evaluate": (0, 0, 0.0, f"{config.evaluate.examples:,} held-out examples"),
        "finetune": (0, 0, 0.0, _finetune_words(config)),
        "export": (0, 0, 0.0, _export_words(config)),
    }


def _finetune_words(config: Config) -> str:
    settings, search = config.finetune, config.finetune.search
    points = len(search.batch_sizes) * len(search.learning_rates) * len(search.epochs)
    return (
        f"{', '.join(settings.tasks)}: {', '.join(settings.networks)}; "
        f"{points} settings x {len(search.seeds)} seeds"
    )


def _export_words(config: Config) -> str:
    settings = config.export
    return f"{settings.model or 'the student'} as {', '.join(settings.formats)}"


def _transfer_words(config: Config) -> str:
    settings, layers = config.transfer, config.student.num_hidden_layers
    if settings.strategy != "progressive":
        return settings.strategy
    lower = (
        "frozen"
        if settings.lower_layer_lr_scale == 0
        else f"at {settings.lower_layer_lr_scale:g} of the rate"
    )
    steps = flops.steps(config, "transfer") // layers
    return f"{layers} layers x {steps:,} steps, those below {lower}"
