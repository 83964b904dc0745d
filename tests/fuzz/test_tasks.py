"""Attacks on the files of tasks: tables of texts, GLUE, SQuAD, tagged words."""

import json
from pathlib import Path

import pytest
from hypothesis import strategies as st

from mobilebert_jax.config.finetune import Files
from mobilebert_jax.finetune.classification import files as table_files
from mobilebert_jax.finetune.glue import files as glue_files
from mobilebert_jax.finetune.glue.tasks import GLUE
from mobilebert_jax.finetune.squad import files as squad_files
from mobilebert_jax.finetune.tagging import conll
from tests.finetune import tiny_tasks
from tests.fuzz.attack import attack
from tests.fuzz.mutations import damaged, damaged_json

pytestmark = pytest.mark.fuzz

TABLES = {
    ".csv": b'text,label\n"Well, ""yes""\nof course",joy\nno,anger\nso,joy\n',
    ".tsv": b'text\tlabel\nWell, "yes\tjoy\nno\tanger\n',
    ".jsonl": b'{"text": "Well", "label": "joy"}\n\n{"label": "anger", "text": "no"}\n',
}
TAGGED = b"-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\nPeter NNP B-NP B-PER\n"


@pytest.mark.parametrize("kind", ["classes", "number"])
@pytest.mark.parametrize("ending", TABLES)
def test_tables(request: pytest.FixtureRequest, tmp_path: Path, ending: str, kind: str) -> None:
    whole = TABLES[ending]
    if kind == "number":
        whole = whole.replace(b"joy", b"1.5").replace(b"anger", b"-2")
    names = ("train", "dev", "test")
    paths = {name: tmp_path / f"{name}{ending}" for name in names}
    cases = st.tuples(st.sampled_from(names), damaged([whole]))

    def attempt(case: tuple[str, bytes]) -> None:
        for name, path in paths.items():
            path.write_bytes(case[1] if name == case[0] else whole)
        files = Files(**{name: str(path) for name, path in paths.items()}, kind=kind)
        data = table_files.read(files)
        for row in (*data.train, *data.dev["dev"], *data.test["test"]):
            row.first.encode()

    attack(request, cases, attempt)


@pytest.fixture(scope="module")
def glue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("glue")
    tiny_tasks.write_glue(folder)
    return folder


def test_glue(request: pytest.FixtureRequest, glue: Path) -> None:
    whole = {
        (name, file): (glue / file).read_bytes()
        for name, task in GLUE.items()
        for source in (task.train, *task.dev.values(), *task.test.values())
        for file in source.files[:1]
    }
    cases = st.sampled_from(list(whole)).flatmap(
        lambda key: st.tuples(st.just(key), damaged([whole[key]]))
    )

    def attempt(case: tuple[tuple[str, str], bytes]) -> None:
        (name, file), content = case
        (glue / file).write_bytes(content)
        try:
            data = glue_files.read(GLUE[name], glue)
        finally:
            (glue / file).write_bytes(whole[name, file])
        for row in data.train:
            row.first.encode()

    attack(request, cases, attempt)


@pytest.mark.parametrize("form", ["bytes", "json"])
def test_squad(request: pytest.FixtureRequest, tmp_path: Path, form: str) -> None:
    whole = [tiny_tasks.squad(version, "dev") for version in ("v1.1", "v2.0")]
    path = tmp_path / "squad.json"
    cases = (
        damaged_json(whole) if form == "json" else damaged([json.dumps(w).encode() for w in whole])
    )

    def attempt(content: bytes) -> None:
        path.write_bytes(content)
        data = squad_files.read(path)
        for context in data.contexts:
            context.encode()

    attack(request, cases, attempt)


def test_tagged_words(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    paths = {name: tmp_path / f"{name}.conll" for name in ("train", "dev")}
    whole = [TAGGED, TAGGED.replace(b" ", b"\t")]
    cases = st.tuples(st.sampled_from(list(paths)), damaged(whole), st.sampled_from(whole))

    def attempt(case: tuple[str, bytes, bytes]) -> None:
        for name, path in paths.items():
            path.write_bytes(case[1] if name == case[0] else case[2])
        data = conll.read(Files(**{name: str(path) for name, path in paths.items()}))
        for row in data.train:
            assert len(row.words) == len(row.tags)

    attack(request, cases, attempt)
