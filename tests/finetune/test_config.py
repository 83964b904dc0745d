"""Settings of fine-tuning: every mistake in them, and lists from the command line."""

from typing import Any

import pytest

from mobilebert_jax import main
from mobilebert_jax.config.finetune import Files, Finetune
from mobilebert_jax.config.schema import Config, InputError
from mobilebert_jax.config.validation import problems
from tests.miniature import ROOT, changed

BASE = Config(stages=("finetune",), finetune=Finetune(tasks=("sst-2",)))


def refusal(**settings: Any) -> str:
    with pytest.raises(InputError) as error:
        changed(BASE, **{f"finetune__{key}": value for key, value in settings.items()})
    return str(error.value)


LEARN = {"files__train": "train.csv", "files__dev": "dev.csv"}

CONTRADICTIONS: list[tuple[dict[str, Any], str]] = [
    ({"tasks": ()}, "finetune.tasks is empty; the stage 'finetune' needs some of cola, sst-2"),
    ({"tasks": ("sst2",)}, "finetune.tasks names 'sst2'; there are cola, sst-2, mrpc"),
    ({"tasks": ("sst2",)}, "the nearest is 'sst-2'"),
    ({"tasks": ("squad",)}, "the nearest is 'squad_v"),
    ({"tasks": ("rte", "mrpc", "rte")}, "finetune.tasks=rte,mrpc,rte names something twice"),
    ({"networks": ()}, "finetune.networks is empty; the stage 'finetune' needs some of student"),
    ({"networks": ("techer",)}, "finetune.networks names 'techer'; there are student, teacher"),
    ({"networks": ("techer",)}, "the nearest is 'teacher'"),
    (
        {"networks": ("baseline", "baseline")},
        "finetune.networks=baseline,baseline names something twice",
    ),
    (
        {"search__batch_sizes": (0, 8)},
        "search.batch_sizes holds 0, which must be from 1 to 10,000,000",
    ),
    ({"search__batch_sizes": ()}, "search.batch_sizes is empty; it must hold at least one number"),
    (
        {"search__learning_rates": (0.0, 1e-5)},
        "search.learning_rates holds 0.0, which must be from 1e-12 to 10",
    ),
    (
        {"search__learning_rates": (-1e-5,)},
        "search.learning_rates holds -1e-05, which must be from 1e-12",
    ),
    ({"search__epochs": (-1,)}, "search.epochs holds -1, which must be from 0 to"),
    ({"search__seeds": (-1, 0)}, "search.seeds holds -1, which must be from 0 to 4,294,967,295"),
    ({"search__seeds": (0, 1 << 32)}, "search.seeds holds 4294967296, which must be from 0"),
    (
        {"tasks": ("classify",), "files__text": "label", **LEARN},
        "finetune.files.text and finetune.files.label both name the column 'label'",
    ),
    (
        {"tasks": ("classify",), "files__second_text": "text", **LEARN},
        "finetune.files.text and finetune.files.second_text both name the column 'text'",
    ),
    ({"search__seeds": ()}, "search.seeds is empty; it must hold at least one number"),
    ({"search__seeds": (1, 1)}, "finetune.search.seeds=(1, 1) names a value twice"),
    (
        {"search__learning_rates": (1e-5, 1e-5)},
        "finetune.search.learning_rates=(1e-05, 1e-05) names a value twice",
    ),
    ({"classifier_dropout": 1.0}, "finetune.classifier_dropout=1.0 must be from 0 to 0.99"),
    ({"warmup_proportion": -0.1}, "finetune.warmup_proportion=-0.1 must be from 0 to 0.99"),
    ({"max_seq_length": 7}, "finetune.max_seq_length=7 must be from 8 to"),
    ({"squad__doc_stride": 0}, "finetune.squad.doc_stride=0 must be from 1 to"),
    ({"squad__max_query_length": 0}, "finetune.squad.max_query_length=0 must be from 1"),
    ({"squad__max_answer_length": 0}, "finetune.squad.max_answer_length=0 must be from 1"),
    ({"squad__n_best_size": 0}, "finetune.squad.n_best_size=0 must be from 1"),
    (
        {"squad__max_seq_length": 67},
        "finetune.squad.max_seq_length=67 leaves no room for the text beside a question of "
        "finetune.squad.max_query_length=64 tokens and 3 special ones; it must be at least 68",
    ),
    ({"tasks": ("classify",)}, "the task 'classify' needs finetune.files.train and finetune.files"),
    ({"tasks": ("tag",), "files__train": "a"}, "the task 'tag' needs finetune.files.train and"),
    ({**LEARN}, "finetune.files.train='train.csv' would be read by none of the tasks sst-2"),
    ({"files__train": "a"}, "finetune.files.train and finetune.files.dev must be given together"),
    ({"files__dev": "a"}, "finetune.files.train and finetune.files.dev must be given together"),
    (
        {"tasks": ("classify", "tag"), **LEARN},
        "finetune.files.train='train.csv' would be read by the tasks classify and tag; name one",
    ),
    (
        {"tasks": ("squad_v1.1", "squad_v2.0"), **LEARN},
        "would be read by the tasks squad_v1.1 and squad_v2.0; name one of them in finetune.tasks",
    ),
    (
        {"files__kind": "numbers"},
        "finetune.files.kind='numbers' is not one of 'classes', 'number'; the nearest is 'number'",
    ),
]


@pytest.mark.parametrize(("settings", "sentence"), CONTRADICTIONS)
def test_contradictions_are_said_in_a_sentence(settings: dict[str, Any], sentence: str) -> None:
    assert sentence in refusal(**settings)


def test_all_mistakes_are_listed_at_once() -> None:
    message = refusal(tasks=("sst2",), networks=(), search__learning_rates=(0.0,), max_seq_length=1)
    lines = message.splitlines()
    assert lines[0] == "the configuration cannot be used:"
    for key in (
        "finetune.tasks",
        "finetune.networks",
        "finetune.search.learning_rates",
        "finetune.max_seq_length",
    ):
        assert any(line.startswith(f"  - {key}") for line in lines), key


@pytest.mark.parametrize(
    "finetune",
    [
        Finetune(tasks=("cola", "squad_v1.1", "squad_v2.0", "next_sentence")),
        Finetune(tasks=("mnli", "classify"), files=Files(train="a.csv", dev="b.csv")),
        Finetune(tasks=("squad_v2.0",), files=Files(train="a.json", dev="b.json", test="c.json")),
        Finetune(
            tasks=("tag",),
            files=Files(train="a", dev="b"),
            classifier_dropout=0.0,
            warmup_proportion=0.0,
        ),
    ],
)
def test_what_is_not_contradictory_passes(finetune: Finetune) -> None:
    assert problems(Config(stages=("finetune",), finetune=finetune)) == []


def test_settings_of_fine_tuning_do_not_matter_to_a_run_without_it() -> None:
    assert problems(Config(stages=("prepare",), finetune=Finetune(tasks=("sst2",)))) == []


def parsed(*overrides: str) -> Finetune:
    arguments = [f"--config.finetune.{override}" for override in overrides]
    return main.parse(["--config=experiments/glue.py", *arguments]).config.finetune


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("search.learning_rates=1e-5,3e-5", (1e-5, 3e-5)),
        ("search.learning_rates=1e-5", (1e-5,)),
        ("search.learning_rates=1", (1.0,)),
        ("search.learning_rates=(1e-5, 3e-5)", (1e-5, 3e-5)),
        ("search.seeds=3", (3,)),
        ("search.seeds=0,1,2", (0, 1, 2)),
        ("search.batch_sizes=16,32,48", (16, 32, 48)),
        ("search.epochs=3,10", (3, 10)),
        ("tasks=sst-2,mrpc", ("sst-2", "mrpc")),
        ("networks=student,untrained", ("student", "untrained")),
    ],
)
def test_lists_come_from_the_command_line(
    override: str, found: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    value: Any = parsed(override)
    for name in override.partition("=")[0].split("."):
        value = getattr(value, name)
    assert value == found
    assert [type(entry) for entry in value] == [type(entry) for entry in found]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "search.learning_rates=fast",
            "finetune.search.learning_rates='fast' must be a list of float",
        ),
        (
            "search.learning_rates=1e-5,fast",
            "finetune.search.learning_rates='1e-5,fast' must be a list of float",
        ),
        ("search.seeds=1.5", "finetune.search.seeds='1.5' must be a list of int"),
        ("search.epochs=some", "finetune.search.epochs='some' must be a list of int"),
        ("search.batch_sizes=16,big", "finetune.search.batch_sizes='16,big' must be a list of int"),
        ("search.rate=1e-5", "there is no setting config.finetune.search.rate; the nearest is"),
        ("dropout=half", "finetune.classifier_dropout"),
        ("tasks=", "finetune.tasks is empty"),
    ],
)
def test_a_word_in_place_of_a_number_is_named_with_its_key(
    override: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(InputError) as error:
        parsed(override)
    assert message in str(error.value)
