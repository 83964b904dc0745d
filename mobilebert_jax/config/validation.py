"""Settings that are each within their bounds and cannot be run together."""

import itertools

from mobilebert_jax.config import fused_attention
from mobilebert_jax.config.schema import (
    EXPORT_FORMATS,
    FILE_TASKS,
    INT8_DEFAULT,
    INT8_PARTS,
    NETWORKS,
    OPTIMIZERS,
    SQUAD_TASKS,
    STAGES,
    TASKS,
    Config,
    nearest,
)
from mobilebert_jax.model import sizes


def problems(config: Config) -> list[str]:
    """Returns one sentence for each contradiction in `config`; empty when it can be run."""
    found = [f"teacher.model.{p}" for p in sizes.contradictions(config.teacher.model)]
    found += [f"student.{p}" for p in sizes.contradictions(config.student)]
    for stage in config.stages:
        if stage not in STAGES:
            found.append(
                f"stages names {stage!r}; stages are {', '.join(STAGES)}; "
                f"the nearest is {nearest(stage, STAGES)!r}"
            )
    if config.precision == "bfloat16" == config.execution.cpu_matmul_dtype:
        found.append(
            "execution.cpu_matmul_dtype=bfloat16 rounds the matmuls of precision=float32; "
            "precision=bfloat16 computes all of a block in bfloat16 already"
        )
    found += fused_attention.problems(config, trained=bool(batch_sizes(config)))
    found += _data_problems(config) + _pairing_problems(config) + _optimizer_problems(config)
    if "finetune" in config.stages:
        found += _finetune_problems(config)
    if "export" in config.stages:
        found += _export_problems(config)
    return found


def _data_problems(config: Config) -> list[str]:
    found = []
    if config.data.max_predictions_per_seq > config.data.max_seq_length:
        found.append(
            f"data.max_predictions_per_seq={config.data.max_predictions_per_seq} must be at most "
            f"data.max_seq_length={config.data.max_seq_length}"
        )
    for name, model in (("teacher.model", config.teacher.model), ("student", config.student)):
        if config.data.max_seq_length > model.max_position_embeddings:
            found.append(
                f"data.max_seq_length={config.data.max_seq_length} exceeds "
                f"{name}.max_position_embeddings={model.max_position_embeddings}"
            )
        if not config.tokenizer.path and 0 < model.vocab_size < config.tokenizer.vocab_size:
            found.append(
                f"{name}.vocab_size={model.vocab_size} is smaller than "
                f"tokenizer.vocab_size={config.tokenizer.vocab_size}"
            )
    for stage, size in batch_sizes(config):
        if size % config.execution.micro_batches:
            found.append(
                f"{stage}.batch_size={size} does not divide into "
                f"execution.micro_batches={config.execution.micro_batches}"
            )
    return found


def remarks(config: Config) -> list[str]:
    """Returns a sentence for each setting that can be obeyed only in part."""
    found = []
    for stage in ("teacher", "transfer", "distill"):
        settings = getattr(config, stage)
        warmup = settings.optimizer.warmup_steps
        if stage in config.stages and warmup > settings.steps:
            found.append(
                f"{stage}.optimizer.warmup_steps={warmup} is above {stage}.steps={settings.steps}: "
                "the learning rate rises to the end and only then reaches its peak"
            )
    return found


def _optimizer_problems(config: Config) -> list[str]:
    """Names without a dot; a function that a full name calls is looked for when it is built."""
    found = []
    for stage in ("teacher", "transfer", "distill"):
        settings = getattr(config, stage).optimizer
        key = f"{stage}.optimizer"
        if settings.name in OPTIMIZERS and settings.arguments:
            found.append(
                f"{key}.arguments are those of a named function; {settings.name} takes beta1, "
                "beta2, epsilon, weight_decay and bias_correction"
            )
        elif settings.name not in OPTIMIZERS and "." not in settings.name:
            choices = ", ".join(map(repr, OPTIMIZERS))
            found.append(
                f"{key}.name={settings.name!r} is not one of {choices}, nor the full name of a "
                "function such as optax.lion; the nearest is "
                f"{nearest(settings.name, OPTIMIZERS)!r}"
            )
    return found


def batch_sizes(config: Config) -> list[tuple[str, int]]:
    """Returns the batch size of every pretraining stage, if any of them is among the stages."""
    sizes_of = {
        "teacher": config.teacher.batch_size,
        "transfer": config.transfer.batch_size,
        "distill": config.distill.batch_size,
    }
    trains = {*sizes_of, "control", "baseline"} & set(config.stages)
    return list(sizes_of.items()) if trains else []


def _pairing_problems(config: Config) -> list[str]:
    """Where the student could not be compared with, or started from, the teacher."""
    found, way_out = [], {}
    shared = ["vocab_size"]
    if config.transfer.copy_embeddings:
        copied = (
            "type_vocab_size",
            "max_position_embeddings",
            "hidden_size",
            "embedding_size",
            "trigram_input",
        )
        shared += copied
        way_out = dict.fromkeys(copied, ", or transfer.copy_embeddings=False")
    if config.transfer.strategy != "none":
        compared = ("hidden_size", "num_hidden_layers", "num_attention_heads")
        shared += [name for name in compared if name not in shared]
        way_out |= dict.fromkeys(compared, ", or transfer.strategy=none")
    for name in shared:
        teacher, student = getattr(config.teacher.model, name), getattr(config.student, name)
        if teacher != student:
            found.append(
                f"teacher.model.{name}={teacher} and student.{name}={student} must be equal"
                + way_out.get(name, "")
            )
    at_once = [stage for stage in ("control", "baseline") if stage in config.stages]
    if at_once and config.transfer.batch_size != config.distill.batch_size:
        found.append(
            f"the stage '{at_once[0]}' reads the student's data in one go, so that "
            f"transfer.batch_size={config.transfer.batch_size} and "
            f"distill.batch_size={config.distill.batch_size} must be equal"
        )
    layers = config.student.num_hidden_layers
    if config.transfer.strategy == "progressive" and config.transfer.steps < 2 * layers:
        found.append(
            f"transfer.steps={config.transfer.steps} leaves no step to some of the "
            f"{layers} layers; at least {2 * layers} are needed"
        )
    return found


def _finetune_problems(config: Config) -> list[str]:
    settings, search, span = config.finetune, config.finetune.search, config.finetune.squad
    found = _name_problems("finetune.tasks", settings.tasks, TASKS)
    found += _name_problems("finetune.networks", settings.networks, NETWORKS)
    if "control" in settings.networks and config.transfer.strategy == "none":
        found.append(
            "finetune.networks names control, which with transfer.strategy=none is the student "
            "itself; leave it out, or choose another strategy"
        )
    for key in ("batch_sizes", "learning_rates", "epochs", "seeds"):
        values = getattr(search, key)
        if not values:
            found.append(f"finetune.search.{key} is empty; it must hold at least one number")
        if len(set(values)) < len(values):
            found.append(f"finetune.search.{key}={values} names a value twice")
    if span.max_seq_length < span.max_query_length + 4:
        found.append(
            f"finetune.squad.max_seq_length={span.max_seq_length} leaves no room for the text "
            f"beside a question of finetune.squad.max_query_length={span.max_query_length} tokens "
            f"and 3 special ones; it must be at least {span.max_query_length + 4}"
        )
    if 0 in search.epochs and "untrained" in settings.networks:
        found.append(
            "finetune.networks names untrained, whose output layer says nothing before it is "
            "trained; take 0 out of finetune.search.epochs"
        )
    return found + _length_problems(config) + _file_problems(config)


def _length_problems(config: Config) -> list[str]:
    """Rows longer than a network of this run; one of another run is checked when it is opened."""
    settings, found = config.finetune, []
    squad = any(task in SQUAD_TASKS for task in settings.tasks)
    others = any(task not in SQUAD_TASKS for task in settings.tasks)
    for role in settings.networks:
        given = settings.pretrained and role in ("student", "untrained")
        model = config.teacher.model if role == "teacher" else config.student
        for key, length, wanted in (
            ("max_seq_length", settings.max_seq_length, others),
            ("squad.max_seq_length", settings.squad.max_seq_length, squad),
        ):
            most = model.max_position_embeddings
            if wanted and not given and length > most:
                found.append(
                    f"finetune.{key}={length} exceeds the {most} positions of the {role}; use at "
                    f"most {most}"
                )
    return found


def _export_problems(config: Config) -> list[str]:
    found = _name_problems("export.formats", config.export.formats, EXPORT_FORMATS)
    if parts := config.export.int8_float_parts:
        found += _name_problems("export.int8_float_parts", parts, (INT8_DEFAULT, *INT8_PARTS))
    if "huggingface" in config.export.formats and not config.export.model:
        model = config.student
        if model.use_bottleneck and model.query_key == "block_input":
            found.append(
                "export.formats names 'huggingface', which cannot express a student with "
                "query_key='block_input'; use 'mobilebert_jax'"
            )
        if sizes.has_groups(model) and not sizes.is_bert_form(model):
            found.append(
                "export.formats names 'huggingface', which has groups in SqueezeBERT alone, and a "
                "student with bottlenecks, a trigram, NoNorm or several feed-forward networks is "
                "none; use 'mobilebert_jax'"
            )
    return found


def _name_problems(key: str, names: tuple[str, ...], allowed: tuple[str, ...]) -> list[str]:
    if not names:
        stage = key.partition(".")[0]
        return [f"{key} is empty; the stage {stage!r} needs some of {', '.join(allowed)}"]
    found = [
        f"{key} names {name!r}; there are {', '.join(allowed)}; "
        f"the nearest is {nearest(name, allowed)!r}"
        for name in names
        if name not in allowed
    ]
    if len(set(names)) < len(names):
        found.append(f"{key}={','.join(names)} names something twice")
    return found


def _file_problems(config: Config) -> list[str]:
    """Files belong to one task: the same columns, or contexts, would not fit two."""
    settings, files = config.finetune, config.finetune.files
    with_files = [task for task in settings.tasks if task in (*FILE_TASKS, *SQUAD_TASKS)]
    found = []
    given = [name for name in ("train", "dev", "test") if getattr(files, name)]
    if given and not with_files:
        found.append(
            f"finetune.files.{given[0]}={getattr(files, given[0])!r} would be read by none of the "
            f"tasks {', '.join(settings.tasks)}; files of your own are for "
            f"{', '.join((*FILE_TASKS, *SQUAD_TASKS))}"
        )
    if files.train and len(with_files) > 1:
        found.append(
            f"finetune.files.train={files.train!r} would be read by the tasks "
            f"{' and '.join(with_files)}; name one of them in finetune.tasks"
        )
    for task in settings.tasks:
        if task in FILE_TASKS and not (files.dev and (files.train or not settings.search.trains)):
            found.append(
                f"the task {task!r} needs finetune.files.train and finetune.files.dev, the files "
                "to learn from and to choose settings by"
            )
    if "classify" in settings.tasks:
        columns = {"text": files.text, "second_text": files.second_text, "label": files.label}
        for one, other in itertools.combinations(columns, 2):
            if columns[one] == columns[other]:
                found.append(
                    f"finetune.files.{one} and finetune.files.{other} both name the column "
                    f"{columns[one]!r}"
                )
    if bool(files.train) != bool(files.dev) and (files.train or settings.search.trains):
        found.append("finetune.files.train and finetune.files.dev must be given together")
    return found
