import gzip
import json
import os
import pickle
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.data import corpus, text_files


def _read(spec: str, shard_bytes: int = 1 << 20) -> list[corpus.Document]:
    (source,) = corpus.parse_sources(spec)
    return [d for shard in corpus.plan_shards(source, shard_bytes) for d in corpus.read(shard)]


def _lines(spec: str, shard_bytes: int = 1 << 20) -> list[tuple[str, ...]]:
    return [document.lines for document in _read(spec, shard_bytes)]


def test_sources_are_parsed_with_weights_and_fields() -> None:
    found = corpus.parse_sources("0.7 text:a b/*.txt + 3e-1 python_docs + jsonl:x#y.json#body")
    assert found == (
        corpus.Source(0.7, "text", "a b/*.txt"),
        corpus.Source(0.3, "python_docs"),
        corpus.Source(1.0, "jsonl", "x#y.json", "body"),
    )
    assert [s.label for s in found] == ["text:a b/*.txt", "python_docs", "jsonl:x#y.json#body"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("txt:a", "the nearest is 'text'"),
        ("python_doc", "the nearest is 'python_docs'"),
        ("text", "write text:GLOB"),
        ("jsonl:a#", r"write jsonl:GLOB\[#FIELD\]"),
        ("python_docs:numpy", "takes nothing"),
        ("0 python_docs", "above 0"),
        ("-1 text:a", "above 0"),
        ("1x text:a", "above 0"),
        ("text:a + ", "empty term"),
        ("", "empty term"),
    ],
)
def test_a_wrong_source_is_refused_with_what_is_allowed(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        corpus.parse_sources(spec)


def test_a_pattern_without_files_names_the_nearest_file(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("a\n")
    with pytest.raises(InputError, match=r"trian\.txt matches no file; .* is 'train\.txt'"):
        _read(f"text:{tmp_path}/trian.txt")
    with pytest.raises(InputError, match=r"no folder .*missing; .* is 'train\.txt'"):
        _read(f"text:{tmp_path}/missing/*.txt")


def test_text_is_cut_into_documents_at_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeff\n\n one \r\ntwo\r\n \t\r\n\r\nthrée\n\nfour".encode())
    documents = _read(f"text:{path}")
    assert [d.lines for d in documents] == [("one", "two"), ("thrée",), ("four",)]
    assert [d.origin for d in documents] == [f"{path}:{n}" for n in (3, 7, 9)]


_LINE = st.text(alphabet="aé家 \t", max_size=6)


@given(st.lists(_LINE, max_size=40), st.integers(1, 50), st.sampled_from(["\n", "\r\n"]))
def test_documents_do_not_depend_on_where_the_work_is_cut(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], shard_bytes: int, end: str
) -> None:
    path = tmp_path_factory.mktemp("cut") / "a.txt"
    path.write_bytes(end.join(lines).encode())
    assert _read(f"text:{path}", shard_bytes) == _read(f"text:{path}", 1 << 30)


def test_a_document_border_at_the_edge_of_a_read_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(
        "x" * (text_files._READ_BYTES - 1) + "\n\n" + "y" * text_files._READ_BYTES + "\n"
    )
    assert [len(lines[0]) for lines in _lines(f"text:{path}", 100)] == [
        text_files._READ_BYTES - 1,
        text_files._READ_BYTES,
    ]


def test_text_without_blank_lines_is_handed_out_in_pieces(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(text_files, "MAX_DOCUMENT_CHARACTERS", 10)
    (tmp_path / "a.txt").write_text("aaaaaa\nbbbbbb\ncc\n")
    assert _lines(f"text:{tmp_path}/a.txt") == [("aaaaaa", "bbbbbb"), ("cc",)]


def test_a_file_of_one_endless_line_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(text_files, "MAX_LINE_BYTES", 1 << 20)
    (tmp_path / "a.txt").write_text("ok\n" + "a" * (2 << 20))
    with pytest.raises(InputError, match=r"line 2 of .*a\.txt is longer than 1 MB"):
        _read(f"text:{tmp_path}/a.txt")


def test_compressed_text_reads_as_the_plain_text(tmp_path: Path) -> None:
    text = "one\ntwo\n\nthree\n" * 1000
    half = len(text) // 2
    (tmp_path / "a.txt").write_text(text)
    # Both formats allow several frames in one file; parallel compressors write them so.
    for name, compress in (("a.gz", gzip.compress), ("a.zst", zstandard.compress)):
        frames = compress(text[:half].encode()) + compress(text[half:].encode())
        (tmp_path / name).write_bytes(frames)
        assert _lines(f"text:{tmp_path}/{name}", 100) == _lines(f"text:{tmp_path}/a.txt")


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_damaged_compression_is_refused(tmp_path: Path, suffix: str) -> None:
    compress = {"gz": gzip.compress, "zst": zstandard.compress}[suffix]
    whole = compress(os.urandom(3000).hex().encode())
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="ends in the middle"):
        _read(f"text:{path}")
    path.write_bytes(b"plain text under a wrong name\n")
    with pytest.raises(InputError, match="damaged"):
        _read(f"text:{path}")


def test_a_format_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt.bz2").write_bytes(b"BZh9")
    with pytest.raises(InputError, match=r"a\.txt\.bz2 cannot be read; allowed are"):
        _read(f"text:{tmp_path}/*")


def test_text_that_is_not_utf8_is_located(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"eins\nzwei\n\n" + "fünf\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"0xfc at offset 12 \(line 4\).*iconv"):
        _read(f"text:{path}", shard_bytes=4)
    (tmp_path / "a.gz").write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(InputError, match="decompressed offset 12"):
        _read(f"text:{tmp_path}/a.gz")


def test_a_file_that_goes_or_changes_after_planning_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\n")
    shards = corpus.plan_shards(corpus.Source(1.0, "text", str(path)), 100)
    path.write_text("one\ntwo\n")
    with pytest.raises(InputError, match=r"has changed .* 4 bytes .* 8 now"):
        list(corpus.read(shards[0]))
    path.unlink()
    with pytest.raises(InputError, match="cannot be opened now"):
        list(corpus.read(shards[0]))


def test_wikiextractor_documents_lose_the_repeated_title(tmp_path: Path) -> None:
    path = tmp_path / "wiki_00"
    path.write_text(
        '<doc id="1" url="u" title="A &amp; "B"">\nA & "B"\n\nText one.\nText two.\n\n</doc>\n\n'
        '<doc id="2" url="u" title="C">\nNo title here.\n</doc>\n'
        '<doc id="3" url="u" title="D">\nD\n\n</doc>\n'
    )
    documents = _read(f"wikiextractor:{tmp_path}/wiki_*")
    assert [d.lines for d in documents] == [("Text one.", "Text two."), ("No title here.",)]
    assert [d.origin for d in documents] == [f"{path}:1", f"{path}:9"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("plain\n", r"wiki:1: text outside <doc \.\.\.>"),
        ('<doc id="1" title="A">\nA\n', "line 1 is never closed"),
        ('<doc title="A">\nx\n<doc title="B">\n', r"wiki:3: <doc> opens inside .* line 1"),
    ],
)
def test_broken_wikiextractor_output_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "wiki").write_text(text)
    with pytest.raises(InputError, match=message):
        _read(f"wikiextractor:{tmp_path}/wiki")


def test_jsonl_reads_the_field(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a\\n\\nb", "body": "c"}\n\n{"text": " ", "body": "d"}\n')
    assert _read(f"jsonl:{path}") == [corpus.Document(("a", "b"), f"{path}:1")]
    assert _lines(f"jsonl:{path}#body") == [("c",), ("d",)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"txet": "a"}', r"a\.jsonl:2 has no field 'text'; the nearest is 'txet'"),
        ('{"text": 3}', "holds a int"),
        ("[1]", "holds a list"),
        ('{"text": ', r"a\.jsonl:2 is not JSON"),
        ('{"text": "a \\ud800"}', r"a\.jsonl:2: the field 'text' holds half of a surrogate pair"),
        ('{"text": ' + "[" * 100_000, r"a\.jsonl:2 cannot be read as JSON"),
        ('{"text": "a", "n": ' + "1" * 5000 + "}", r"a\.jsonl:2 cannot be read as JSON"),
        ('{"text": "a", "text": "b"}', "the field 'text' occurs twice"),
    ],
)
def test_wrong_jsonl_is_located(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "ok"}\n' + line + "\n")
    with pytest.raises(InputError, match=message):
        _read(f"jsonl:{tmp_path}/a.jsonl")


def test_small_files_share_a_shard_in_sorted_order(tmp_path: Path) -> None:
    for name in ("b/2", "a/9", "a/1"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{name}\n")
    source = corpus.Source(1.0, "text", f"{tmp_path}/**/*")
    shards = corpus.plan_shards(source, 8)
    assert [[p.name for p in s.parts] for s in shards] == [["a/1", "a/9"], ["b/2"]]
    assert pickle.loads(pickle.dumps(shards)) == shards
    assert [s.digest for s in corpus.plan_shards(source, 8)] == [s.digest for s in shards]
    assert len({s.digest for s in shards}) == 2


def test_fingerprint_follows_the_content_and_not_the_place(tmp_path: Path) -> None:
    prints = []
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.txt").write_text("one\n")
        found = corpus.fingerprint(corpus.Source(1.0, "text", f"{tmp_path}/{folder}/*.txt"))
        prints.append(json.loads(json.dumps(found["files"])))
    assert prints[0] == prints[1]
    (tmp_path / "y" / "a.txt").write_text("two\n")
    changed = corpus.fingerprint(corpus.Source(1.0, "text", f"{tmp_path}/y/*.txt"))
    assert changed["files"] != prints[0]


def test_another_text_of_the_same_size_and_time_has_another_fingerprint(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\n")
    os.utime(path, ns=(1, 1))
    source = corpus.Source(1.0, "text", str(path))
    first = corpus.fingerprint(source)
    assert corpus.fingerprint(source) == first
    path.write_text("six\n")
    os.utime(path, ns=(1, 1))
    assert corpus.fingerprint(source) != first


def test_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n")
    (tmp_path / "b.txt").symlink_to(tmp_path / "gone.txt")
    with pytest.raises(InputError, match=r"b\.txt, a link to .*gone\.txt, which is not there"):
        corpus.fingerprint(corpus.Source(1.0, "text", f"{tmp_path}/*.txt"))


@pytest.mark.parametrize("zeros", [1, 512, 300_000])
def test_zeros_at_the_end_of_a_gzip_file_are_padding(tmp_path: Path, zeros: int) -> None:
    packed = gzip.compress(b"one\n\ntwo\n") + bytes(zeros)
    (tmp_path / "a.gz").write_bytes(packed)
    assert _lines(f"text:{tmp_path}/a.gz") == [("one",), ("two",)]
    (tmp_path / "b.gz").write_bytes(packed + gzip.compress(b"\nthree\n"))
    assert _lines(f"text:{tmp_path}/b.gz") == [("one",), ("two",), ("three",)]
    (tmp_path / "c.gz").write_bytes(bytes(zeros))
    with pytest.raises(InputError, match=r"damaged|ends in the middle"):
        _read(f"text:{tmp_path}/c.gz")


def test_a_long_window_of_zstd_is_read(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=28)
    packed = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    (tmp_path / "a.zst").write_bytes(packed.compress(b"one\n\ntwo\n") + packed.flush())
    assert _lines(f"text:{tmp_path}/a.zst") == [("one",), ("two",)]
