import json

import pytest

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.finetune.squad import files as squad_files

CONTEXT = "The cat sat. The dog sat. The cat ran."


def qa(id="q", question="Who?", answers=(("cat", 4),), **others):
    found = [{"text": text, "answer_start": start} for text, start in answers]
    return {"id": id, "question": question, "answers": found, **others}


def content(*qas, context=CONTEXT, version="1.1"):
    return {
        "version": version,
        "data": [{"title": "t", "paragraphs": [{"context": context, "qas": list(qas)}]}],
    }


def test_a_file_is_read(tmp_path):
    path = tmp_path / "dev.json"
    path.write_text(json.dumps(content(qa("a"), qa("b", "What?", [("dog", 17), ("The dog", 13)]))))
    data = squad_files.read(path)
    assert data.contexts == [CONTEXT]
    assert not data.v2
    assert data.questions[1] == squad_files.Question(
        "b", "What?", 0, ("dog", "The dog"), (17, 13), False,
        f"{path}: data[0].paragraphs[0].qas[1]",
    )  # fmt: skip
    assert data.notes == dict.fromkeys(squad_files.NOTES, 0)


@pytest.mark.parametrize(
    ("version", "others", "v2"),
    [("1.1", {}, False), ("v2.0", {}, True), ("x", {"is_impossible": False}, True)],
)
def test_the_version_follows_from_the_flag_or_the_name(version, others, v2):
    data = squad_files.from_json(content(qa("a", **others), qa("b"), version=version), "file")
    assert data.v2 is v2
    assert not any(question.impossible for question in data.questions)


def test_impossible_questions_of_v2():
    made = content(
        qa("a", answers=(), is_impossible=True), qa("b"), qa("c", answers=()),
        qa("d", is_impossible=True), qa("e", answers=(), is_impossible=False),
    )  # fmt: skip
    data = squad_files.from_json(made, "file")
    assert [question.impossible for question in data.questions] == [True, False, True, True, False]
    assert data.notes["questions without an answer"] == 1


def test_oddities_are_counted():
    data = squad_files.from_json(
        content(
            qa("a", answers=[("cat", 5), ("cat", 4), ("cat", 9999), ("cat", -3)]),
            qa("a", question="  "),
            qa("b", answers=[("bird", 4), ("", 0), ("CAT", 4)]),
            qa("a", answers=()),
            {"id": "c", "question": "unlabelled?"},
        ),
        "file",
    )
    assert data.notes == {
        "duplicate ids": 2,
        "empty questions": 1,
        "answers moved to their nearest occurrence in the text": 3,
        "answers not findable in the text": 3,
        "questions without an answer": 2,
    }
    assert data.questions[0].starts == (4, 4, 30, 4)
    assert data.questions[2].starts == (-1, -1, -1)
    assert data.questions[2].answers == ("bird", "", "CAT")


@pytest.mark.parametrize(("start", "found"), [(0, 4), (16, 4), (17, 4), (18, 30), (31, 30)])
def test_a_misplaced_answer_moves_to_the_nearest_occurrence(start, found):
    data = squad_files.from_json(content(qa(answers=[("cat", start)])), "file")
    assert data.questions[0].starts == (found,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("data"), "dev: the key 'data' is missing; there are 'version'"),
        (
            lambda c: c["data"][0]["paragraphs"][0].pop("context"),
            r"dev: data\[0\]\.paragraphs\[0\]: the key 'context' is missing",
        ),
        (
            lambda c: c["data"][0]["paragraphs"][0]["qas"][1].pop("id"),
            r"dev: data\[0\]\.paragraphs\[0\]\.qas\[1\]: the key 'id' is missing",
        ),
        (
            lambda c: c["data"][0]["paragraphs"][0]["qas"][0]["answers"][0].pop("answer_start"),
            r"qas\[0\]\.answers\[0\]: the key 'answer_start' is missing; there are 'text'",
        ),
        (
            lambda c: c["data"][0]["paragraphs"][0]["qas"][0].update(answers={"text": ["cat"]}),
            r"qas\[0\]: 'answers' must be a list, not \{",
        ),
        (
            lambda c: c["data"][0]["paragraphs"][0]["qas"][0].update(id=7),
            r"qas\[0\]: 'id' must be a text, not 7",
        ),
        (
            lambda c: c["data"][0]["paragraphs"][0]["qas"][0].update(is_impossible="false"),
            r"qas\[0\]: 'is_impossible' must be true or false, not \"false\"",
        ),
        (
            lambda c: c["data"][0]["paragraphs"][0]["qas"][0]["answers"][0].update(
                answer_start=0.0
            ),
            r"'answer_start' must be a whole number, not 0\.0",
        ),
        (
            lambda c: c["data"][0]["paragraphs"][0]["qas"][0].update(question="\ud800?"),
            r"qas\[0\]: 'question' has half a surrogate pair at character 0",
        ),
        (lambda c: c["data"].append("text"), r'dev: data\[1\]: this must be an object, not "text"'),
        (lambda c: c["data"].clear(), "dev: holds no questions"),
    ],
)
def test_a_wrong_structure_is_refused_with_its_path(change, message):
    made = content(qa("a"), qa("b"))
    change(made)
    with pytest.raises(InputError, match=message):
        squad_files.from_json(made, "dev")


def test_json_of_another_kind_is_refused():
    with pytest.raises(InputError, match=r"dev: the file must be an object, not \[\]"):
        squad_files.from_json([], "dev")


def test_broken_files_are_refused(tmp_path):
    path = tmp_path / "dev.json"
    whole = json.dumps(content(qa("é")), indent=1, ensure_ascii=False).encode()
    path.write_bytes(whole[:-4])
    with pytest.raises(InputError, match=rf"dev\.json: line 24, byte {len(whole) - 4}: not valid"):
        squad_files.read(path)
    path.write_bytes(b'{"data": "\xff"}')
    with pytest.raises(InputError, match=r"dev\.json: not UTF-8 at byte 10"):
        squad_files.read(path)
    path.write_bytes(b"[" * 100_000)
    with pytest.raises(InputError, match="nested too deeply"):
        squad_files.read(path)
    with pytest.raises(InputError, match=r"none\.json: cannot be read \(No such file"):
        squad_files.read(tmp_path / "none.json")


def test_a_byte_order_mark_is_no_mistake(tmp_path):
    path = tmp_path / "dev.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(content(qa("a"))).encode())
    assert len(squad_files.read(path).questions) == 1
