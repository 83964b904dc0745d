"""Where `execution.attention_implementation=cudnn` cannot be used, as far as settings tell.

What it asks of the machine: `sharding.gpu_features`.
Source: jax.nn.dot_product_attention and what it checks, JAX 0.10 to 0.12. cuDNN itself has dropout
of attention probabilities; that function has no argument for it.
"""

from mobilebert_jax.config.schema import Config, ModelConfig

SETTING = "execution.attention_implementation=cudnn"
HEAD_MULTIPLE = 8
WIDEST_HEAD = 256
"""Numbers of a query, key or value."""


def head_size(model: ModelConfig) -> int:
    return model.intra_bottleneck_size // model.num_attention_heads


def problems(config: Config, trained: bool) -> list[str]:
    """Returns one sentence for each setting that excludes fused attention, where it is asked for.

    `trained` says whether any of the configured networks is pretrained; those that the stage
    finetune opens have settings of their own (`model_problem`).
    """
    if config.execution.attention_implementation != "cudnn":
        return []
    found = []
    if config.precision != "bfloat16":
        found.append(
            f"{SETTING} multiplies bfloat16, and precision={config.precision}; set "
            "precision=bfloat16, or use xla"
        )
    if trained:
        models = (("teacher.model", config.teacher.model), ("student", config.student))
        found += [problem for key, model in models if (problem := model_problem(key, model))]
    if "finetune" in config.stages and config.finetune.quantized:
        found.append(f"{SETTING} has no 8-bit form, which finetune.quantized=True needs; use xla")
    return found


def model_problem(key: str, model: ModelConfig) -> str | None:
    """Returns why a network is too wide or too odd, None where it is not."""
    size = head_size(model)
    if size % HEAD_MULTIPLE == 0 and size <= WIDEST_HEAD:
        return None
    return (
        f"{SETTING} takes heads of a multiple of {HEAD_MULTIPLE} numbers, at most {WIDEST_HEAD}; "
        f"{key}.intra_bottleneck_size={model.intra_bottleneck_size} over "
        f"{key}.num_attention_heads={model.num_attention_heads} makes {size}; use xla"
    )


def dropout_problem(stage: str, key: str, model: ModelConfig) -> str | None:
    """Returns why `stage` cannot train a network, None where it drops out no attention."""
    rate = model.attention_probs_dropout_prob
    if not rate:
        return None
    return (
        f"{SETTING} cannot drop out attention probabilities, with which the stage '{stage}' trains "
        f"({key}.attention_probs_dropout_prob={rate:g}); set that to 0, or finish the stage with "
        "xla first: the others then go on with cudnn"
    )


def trained_with_dropout(config: Config, stage: str) -> dict[str, ModelConfig]:
    """Returns the networks, by the settings that describe them, that `stage` trains with dropout.

    Distillation, control, baseline and transfer train without. Of fine-tuned networks those of the
    run itself; the others are known when they are opened.
    """
    if stage == "teacher" and not config.teacher.path:
        return {"teacher.model": config.teacher.model}
    if stage != "finetune" or not config.finetune.search.trains:
        return {}
    found = {}
    for role in config.finetune.networks:
        given = config.finetune.pretrained and role in ("student", "untrained")
        if role == "teacher":
            found["teacher.model"] = config.teacher.model
        elif not given:
            found["student"] = config.student
    return found
