"""Rows outlive their process, and a measurement that ends it is not tried for ever."""

from pathlib import Path

from benchmarks.kept_rows import KeptRows, why


def test_every_row_is_on_disk_when_it_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "folder/rows.json"
    kept = KeptRows(path)
    assert kept.rows("steps") == {}
    kept.keep("steps", "a", {"milliseconds": 1.5})
    kept.keep("port", "b", {"failed": "x"})
    again = KeptRows(path)
    assert again.rows("steps") == {"a": {"milliseconds": 1.5}}
    assert again.rows("port") == {"b": {"failed": "x"}}
    assert [file.name for file in path.parent.iterdir()] == ["rows.json"]


def test_a_measurement_that_ends_its_process_twice_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    for attempt in (0, 1):
        kept = KeptRows(path)
        assert kept.attempts("a") == attempt
        assert not kept.is_given_up("a")
        kept.begin(["a"])
    assert KeptRows(path).is_given_up("a")


def test_what_is_stopped_for_want_of_time_is_forgiven(tmp_path: Path) -> None:
    kept = KeptRows(tmp_path / "rows.json")
    kept.begin(["a", "b"])
    kept.keep("steps", "a", {})
    kept.forgive()
    assert {key: KeptRows(kept.path).attempts(key) for key in "ab"} == {"a": 1, "b": 0}


def test_want_of_memory_is_told_from_failure() -> None:
    assert why(RuntimeError("RESOURCE_EXHAUSTED: Out of memory")) == {"out_of_memory": True}
    assert why(ValueError("no such head\nmore")) == {"failed": "ValueError: no such head"}
    assert why(ValueError()) == {"failed": "ValueError: "}
