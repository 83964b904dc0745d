"""The report: well-formed, self-contained, complete, and free of sections that have no metrics."""

import base64
import html.parser
import io
import json
import math
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from mobilebert_jax.report import page as report_page

LAYERS, HEADS, PHASE, DISTILL = 6, 4, 120, 800
SENTENCE = "[CLS] this method returns a new [MASK] with the given name , cut ##ting none . [SEP]"
PIECES = re.split(" ", SENTENCE)


def _curve(stage: str, steps: int, start: float, end: float, seed: int) -> list[dict[str, Any]]:
    """Rows of a stage whose masked-LM loss falls from `start` to `end`, with noise."""
    noise = np.random.default_rng(seed)
    rows = []
    for step in [*range(0, steps, 10), steps - 1]:
        loss = end + (start - end) * math.exp(-4.5 * step / steps) + noise.normal(0, 0.09)
        row = {
            "step": step,
            "time": 1.7e9 + 0.2 * step,
            "tokens_per_s": 21e3,
            "loss": loss + 0.6,
            "masked_lm_loss": loss,
            "masked_lm_accuracy": 0.6 * math.exp(-loss / 3),
            "next_sentence_loss": 0.6,
            "next_sentence_accuracy": 0.65,
            "learning_rate": 1e-3 * (1 - step / steps),
            "gradient_norm": 1.0,
        }
        if stage == "distill":
            row["distillation_loss"] = 0.8 * loss - 0.7 + noise.normal(0, 0.05)
        rows.append(row)
    return rows


def _transfer_curve(seed: int) -> list[dict[str, Any]]:
    """Rows of a progressive transfer: every loss falls within the phase of its layer."""
    noise = np.random.default_rng(seed)
    rows = []
    for step in range(0, LAYERS * PHASE, 4):
        layer, inside = divmod(step, PHASE)
        fall = {"feature_map": 2.2, "attention": 1.2, "mean": 3.2, "variance": 2.7}
        row: dict[str, Any] = {"step": step, "layer": layer}
        for term, rate in fall.items():
            level = (0.15 + 0.85 * math.exp(-rate * 3 * inside / PHASE)) * (1 + 0.2 * layer)
            row[term] = 0.02 * level * math.exp(noise.normal(0, 0.09)) / rate
        row["loss"] = 100 * row["feature_map"] + row["attention"] + 5e3 * row["mean"] / 40
        rows.append(row)
    return rows


def _maps(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Teacher's and student's attention (L, H, S, S): heads that look near, at [SEP], at self."""
    random = np.random.default_rng(seed)
    size = len(PIECES)
    row, column = np.indices((size, size))
    patterns = [
        -abs(row - column - 1.0),
        np.where(column == size - 1, 3.0, 0.0) - 0.1 * abs(row - column),
        -0.5 * (row - column) ** 2.0 + 1.0,
        np.where(column == 6, 2.5, 0.0) + np.where(column == 0, 1.5, 0.0),
    ]
    teacher = np.stack(
        [
            [patterns[(h + lay) % 4] * 1.2 + random.normal(0, 0.8, row.shape) for h in range(HEADS)]
            for lay in range(LAYERS)
        ]
    )
    student = teacher * 0.85 + random.normal(0, 0.55, teacher.shape)
    exp_t, exp_s = np.exp(teacher), np.exp(student)
    return exp_t / exp_t.sum(-1, keepdims=True), exp_s / exp_s.sum(-1, keepdims=True)


def _model(role: str, parameters: int, gflops: float, loss: float) -> dict[str, Any]:
    return {
        "role": role,
        "parameters": parameters,
        "encoder_parameters": int(0.86 * parameters),
        "megabytes_float32": 4e-6 * parameters,
        "forward_gflops": gflops,
        "masked_lm_loss": loss,
        "masked_lm_accuracy": 0.92 * math.exp(-loss / 3.1),
        "next_sentence_accuracy": 0.93 - 0.05 * loss,
        "next_sentence_loss": 0.2 + 0.1 * loss,
    }


def synthetic_results() -> dict[str, Any]:
    """Results of a demo-sized progressive run, shaped as the evaluate stage writes them."""
    teacher, student = _maps(5)
    words = ["instance", "object", "copy", "string", "list"]
    guesses = {
        name: [{"piece": words[(i + turn) % 5], "probability": top * 0.55**i} for i in range(5)]
        for turn, (name, top) in enumerate(
            (("teacher", 0.46), ("student", 0.37), ("baseline", 0.18))
        )
    }
    steps = {"teacher": 1500, "transfer": LAYERS * PHASE, "distill": DISTILL, "baseline": 1520}
    tokens = {name: 4096 * count for name, count in steps.items()}
    seconds = {"teacher": 412.0, "transfer": 118.0, "distill": 236.0, "baseline": 291.0}
    return {
        "name": "progressive_kt-demo",
        "seed": 0,
        "created": "2026-11-22T18:04:11+00:00",
        "config": {
            "data.source": "python_docs",
            "distill.alpha": 0.5,
            "distill.steps": DISTILL,
            "student.num_hidden_layers": LAYERS,
            "transfer.steps": LAYERS * PHASE,
            "transfer.strategy": "progressive",
        },
        "digests": {name: f"{i}b7e19c4{i}a" for i, name in enumerate(("prepare", *steps))},
        "versions": {
            "python": "3.11.2",
            "jax": "0.10.2",
            "flax": "0.12.8",
            "platform": "cpu",
            "devices": "1 x cpu",
        },
        "models": {
            "teacher": _model("IB-BERT teacher", 5_214_080, 0.61, 2.48),
            "student": _model("MobileBERT student", 1_312_064, 0.148, 2.91),
            "baseline": _model("MobileBERT without a teacher", 1_312_064, 0.148, 3.42),
        },
        "unigram": {"masked_lm_loss": 6.12, "masked_lm_accuracy": 0.061},
        "examples": 1024,
        "stages": [
            {"name": n, "steps": s, "seconds": t, "tokens": k, "tokens_per_s": k / t, "digest": d}
            for n, s, t, k, d in [
                ("prepare", 0, 21.0, 2_410_000, "0b7e19c40a"),
                *((n, steps[n], seconds[n], tokens[n], f"{i}c1d22e") for i, n in enumerate(steps)),
                ("evaluate", 0, 14.0, 131_072, "77aa01bc"),
            ]
        ],
        "attention": {
            "pieces": PIECES,
            "teacher": teacher.tolist(),
            "student": student.tolist(),
        },
        "feature_rms": {
            "teacher": [1.0 + 0.02 * i for i in range(LAYERS + 1)],
            "student": [1.1 * 1.32**i for i in range(LAYERS + 1)],
            "baseline": [1.2 * 1.5**i for i in range(LAYERS + 1)],
        },
        "fill_mask": {
            "sentence": "This method returns a new [MASK] with the given name.",
            "models": guesses,
        },
    }


def synthetic_curves() -> dict[str, list[dict[str, Any]]]:
    """Rows of every stage's metrics.jsonl, noisy."""
    return {
        "teacher": _curve("teacher", 1500, 8.3, 2.4, 1),
        "transfer": _transfer_curve(2),
        "distill": _curve("distill", DISTILL, 6.3, 2.85, 3),
        "baseline": _curve("baseline", 1520, 8.3, 3.35, 4),
    }


class Page(html.parser.HTMLParser):
    """Reads a page strictly: every element is closed in order, every id is given once."""

    VOID = frozenset({"meta", "link", "img", "br", "hr", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.classes: list[str] = []
        self.addresses: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.visible = ""
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(tag, attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing, line {self.getpos()[0]}"
        assert self.open[-1] == tag, f"</{tag}> closes {self.open[-1]}, line {self.getpos()[0]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.visible += data + " "

    def _note(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"an attribute of <{tag}> is given twice"
        given = dict(attrs)
        self.elements.append((tag, given))
        self.ids += [given["id"] or ""] if "id" in given else []
        self.classes += (given.get("class") or "").split()
        self.addresses += [given[n] or "" for n in ("src", "href", "xlink:href") if n in given]

    def sections(self) -> list[str | None]:
        return [given.get("id") for tag, given in self.elements if tag == "section"]


ALL_SECTIONS = [
    "results", "curves", "transfer", "attention", "features", "sizes", "fill-mask", "stages",
    "provenance",
]  # fmt: skip


def _write(
    directory: Path, results: dict[str, Any], curves: dict[str, list[dict[str, Any]]]
) -> tuple[str, Page]:
    report_page.write_report(results, curves, directory / "report.html")
    text = (directory / "report.html").read_text(encoding="utf-8")
    return text, Page(text)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, Page]:
    directory = tmp_path_factory.mktemp("report") / "new"
    return directory, *_write(directory, synthetic_results(), synthetic_curves())


def test_page_is_complete_and_in_order(written: tuple[Path, str, Page]) -> None:
    _, _, page = written
    assert page.sections() == ALL_SECTIONS
    drawings = [given for tag, given in page.elements if tag == "svg" and "role" in given]
    # Two widths of two drawings, three stages, the layers, two large attention maps.
    assert len(drawings) == 2 * 2 + 3 + LAYERS + 2
    assert all(given.get("aria-label") for given in drawings)
    images = [given for tag, given in page.elements if tag == "img"]
    assert len(images) == 2 * LAYERS * HEADS
    assert all(given.get("alt") for given in images)


def test_headline_and_tables_say_what_was_measured(written: tuple[Path, str, Page]) -> None:
    said = " ".join(written[2].visible.split())
    assert "The student beats the from-scratch baseline by 0.51 nats. A student" in said
    assert "for as many steps" in said
    assert "Without a control nothing tells what layer-wise transfer gained" in said
    assert "\N{MINUS SIGN}0.51 nats" in said
    assert "+5.5 points" in said
    assert "54 %" in said
    for figure in ("2.480", "2.910", "3.420", "6.120", "1.31 M", "0.148 GFLOP", "6 min 52 s"):
        assert figure in said
    for part in ("Layer 6", "46.0 %", "transfer.strategy", "guessing by word frequency"):
        assert part in said


def test_page_needs_nothing_but_itself(written: tuple[Path, str, Page]) -> None:
    _, text, page = written
    assert not re.search(r"https?:|@import|//[a-z]", text.replace("base64,", "").partition("<b")[0])
    assert "http" not in re.sub(r"base64,[^\"]+", "", text)
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    inside = set(re.findall(r"url\(([^)]*)\)", text))
    assert inside
    assert all(address.startswith("#") for address in inside)
    assert len(text) < 3e6


def test_ids_are_unique_and_references_are_met(written: tuple[Path, str, Page]) -> None:
    _, text, page = written
    assert len(page.ids) == len(set(page.ids))
    wanted = set(re.findall(r"url\(#([^)]*)\)", text))
    wanted |= {address[1:] for address in page.addresses if address.startswith("#")}
    assert wanted
    assert wanted <= set(page.ids)


def test_drawings_take_all_colours_from_the_style_sheet(written: tuple[Path, str, Page]) -> None:
    _, text, _ = written
    body = text.partition("</style>")[2]
    assert not re.search(r"#[0-9a-f]{6}\b", re.sub(r"base64,[^\"]+", "", body))
    for name in re.findall(r"var\(--([a-z-]+)\)", body):
        assert text.count(f"--{name}: #") >= 2, f"--{name} lacks its light or its dark form"


def test_metrics_lie_beside_the_page_as_json(written: tuple[Path, str, Page]) -> None:
    directory, _, _ = written
    results = json.loads((directory / "results.json").read_text())
    assert results == json.loads(json.dumps(synthetic_results()))
    assert json.loads((directory / "curves.json").read_text()) == synthetic_curves()


def test_the_same_metrics_give_the_same_bytes(
    tmp_path: Path, written: tuple[Path, str, Page]
) -> None:
    assert _write(tmp_path, synthetic_results(), synthetic_curves())[0] == written[1]


@pytest.mark.parametrize(
    ("part", "section", "words"),
    [
        ("attention", "attention", ["head"]),
        ("feature_rms", "features", ["RMS"]),
        ("fill_mask", "fill-mask", ["probable"]),
    ],
)
def test_a_missing_part_leaves_no_trace(
    tmp_path: Path, part: str, section: str, words: list[str]
) -> None:
    results = synthetic_results()
    del results[part]
    _, page = _write(tmp_path, results, {})
    absent = {section, "curves", "transfer"}
    assert page.sections() == [name for name in ALL_SECTIONS if name not in absent]
    assert not any(word in page.visible for word in words)


def test_without_a_baseline_nothing_speaks_of_one(tmp_path: Path) -> None:
    results, curves = synthetic_results(), synthetic_curves()
    for holder in (
        results["models"], results["feature_rms"], results["fill_mask"]["models"],
        results["digests"], curves,
    ):  # fmt: skip
        del holder["baseline"]
    results["stages"] = [stage for stage in results["stages"] if stage["name"] != "baseline"]
    _, page = _write(tmp_path, results, curves)
    assert "baseline" not in page.visible.lower()
    assert "loss of 2.91 nats" in page.visible
    assert page.sections() == ALL_SECTIONS


def test_without_transfer_nothing_speaks_of_layers_taught(tmp_path: Path) -> None:
    results, curves = synthetic_results(), synthetic_curves()
    del curves["transfer"], results["digests"]["transfer"]
    results["config"] = {"transfer_": "none"}
    results["stages"] = [stage for stage in results["stages"] if stage["name"] != "transfer"]
    _, page = _write(tmp_path, results, curves)
    assert "transfer" not in page.visible.lower().replace("transfer_", "")
    assert "layer by layer" not in page.visible
    assert "1,520 steps instead of 800" in page.visible
    assert page.sections() == [name for name in ALL_SECTIONS if name != "transfer"]


def test_a_teacher_alone_has_a_page(tmp_path: Path) -> None:
    results = synthetic_results()
    teacher = results["models"]["teacher"]
    results |= {"models": {"teacher": teacher}, "config": {}, "stages": results["stages"][:2]}
    results["digests"] = {"teacher": "0b7e19c4"}
    results["feature_rms"] = {"teacher": results["feature_rms"]["teacher"]}
    results["attention"] = {"pieces": PIECES, "teacher": results["attention"]["teacher"]}
    del results["fill_mask"]
    _, page = _write(tmp_path, results, {"teacher": synthetic_curves()["teacher"]})
    assert page.sections() == ["results", "curves", "features", "stages", "provenance"]
    assert "student" not in page.visible.lower()
    assert "The teacher predicts hidden words with a loss of 2.48 nats." in page.visible


@pytest.mark.parametrize(
    ("loss", "headline", "number"),
    [
        (3.11, "Layer-wise transfer gains the student 0.20 nats.", "\N{MINUS SIGN}0.20 nats"),
        (2.83, "Layer-wise transfer costs the student 0.08 nats.", "+0.08 nats"),
    ],
)
def test_the_headline_compares_with_the_control_first(
    tmp_path: Path, loss: float, headline: str, number: str
) -> None:
    results, curves = synthetic_results(), synthetic_curves()
    control = _model("the same without layer-wise transfer", 1_312_064, 0.148, loss)
    for name, worth in (("teacher", 0.35), ("student", 0.125), ("baseline", -0.001)):
        results["models"][name]["attention_worth"] = worth
    results["models"]["control"] = control | {"attention_worth": 0.064}
    results["stages"].append({**results["stages"][4], "name": "control"})
    curves["control"] = _curve("control", 1520, 6.5, loss, 6)
    _, page = _write(tmp_path, results, curves)
    said = " ".join(page.visible.split())
    assert headline in said and number in said
    assert "baseline by" not in said and "Without a control" not in said
    copied = 3.42 - loss
    assert f"Copied embeddings and distillation without it gain {copied:.2f} nats" in said
    assert "what attention is worth to the teacher; student 0.12, control 0.06" in said
    assert "\N{MINUS SIGN}0.001" in said


def test_a_student_behind_its_baseline_is_not_praised(tmp_path: Path) -> None:
    results = synthetic_results()
    results["models"]["student"]["masked_lm_loss"] = 3.5
    _, page = _write(tmp_path, results, {})
    said = " ".join(page.visible.split())
    assert "The student stays 0.08 nats behind the from-scratch baseline." in said
    assert "beats" not in said
    assert "of the way" not in said


def test_a_run_that_diverged_still_has_a_page(tmp_path: Path) -> None:
    results, curves = synthetic_results(), synthetic_curves()
    results["models"]["baseline"]["masked_lm_loss"] = math.nan
    results["feature_rms"]["baseline"][-1] = math.inf
    for row in curves["baseline"]:
        row["masked_lm_loss"] = "NaN"
    text, page = _write(tmp_path, results, curves)
    assert page.sections() == ALL_SECTIONS
    saved = json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)
    assert saved["models"]["baseline"]["masked_lm_loss"] == "NaN"
    assert _write(tmp_path, saved, curves)[0] == text


def test_text_of_a_run_cannot_become_markup(tmp_path: Path) -> None:
    results = synthetic_results()
    results["name"] = "<img src=x onerror=alert(1)>"
    results["attention"]["pieces"] = ["</script><b>", *PIECES[1:]]
    results["fill_mask"]["models"]["student"][0]["piece"] = "<b>&amp;"
    text, page = _write(tmp_path, results, synthetic_curves())
    assert "<b>&amp;" in page.visible
    assert "x" not in page.addresses
    assert text.count("</script>") == 2
    weights = re.search(r'id="weights">(.*?)</script>', text, re.S)
    assert weights is not None
    assert json.loads(weights[1])["pieces"][0] == "</script><b>"


def test_attention_images_hold_the_weights() -> None:
    weights = np.array([[0.25, 0.75], [1.0, 0.0]])
    data = base64.b64decode(report_page._png(weights, (1, 2, 3)).partition(",")[2])
    pixels = np.rint(255 * matplotlib.image.imread(io.BytesIO(data), format="png"))
    np.testing.assert_array_equal(pixels[0, 0, :3], [1, 2, 3])
    np.testing.assert_allclose((pixels[..., 3] / 255) ** 2, weights, atol=0.005)


def test_the_first_attention_pair_is_of_median_overlap() -> None:
    teacher = np.broadcast_to(np.eye(4), (3, 1, 4, 4))
    student = np.stack([[w * np.eye(4) + (1 - w) / 4] for w in (1.0, 0.0, 0.6)])
    shown = report_page._attention({"pieces": list("abcd"), "teacher": teacher.tolist(),
                               "student": student.tolist()})  # fmt: skip
    assert shown is not None
    assert [pair["overlap"] for pair in shown["pairs"]] == pytest.approx([1.0, 0.25, 0.7])
    assert shown["first"] == 2
    assert shown["weights"][2]["student"][:2] == [700, 100]


def test_a_large_model_keeps_the_page_small(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    maps = random.dirichlet(np.full(40, 0.2), (24, 6, 40)).round(4).tolist()
    results = synthetic_results()
    results["attention"] = {"pieces": ["piece"] * 40, "teacher": maps, "student": maps}
    text, page = _write(tmp_path, results, {})
    assert len(text) < 3e6
    assert "A choice of layers and heads is shown." in page.visible
    assert "cut after 32 pieces" in page.visible
    assert "layer 24" in text


class Browser:
    """Headless chromium over its DevTools pipe: fd 3 takes commands, fd 4 gives answers."""

    def __init__(self, program: str, profile: Path) -> None:
        command_end, self._commands = os.pipe()
        self._answers, answer_end = os.pipe()
        flags = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            f"--user-data-dir={profile}",
            "--remote-debugging-pipe",
        ]
        # The shell gives the pipes the two numbers that the browser expects.
        script = f'exec "$0" "$@" 3<&{command_end} 4>&{answer_end}'
        self._process = subprocess.Popen(
            ["bash", "-c", script, program, *flags, "about:blank"],
            pass_fds=(command_end, answer_end),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(command_end)
        os.close(answer_end)
        self._buffer, self._count, self._session = b"", 0, ""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def open(self, url: str) -> None:
        self.events.clear()
        self.call("Page.navigate", url=url)
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())

    def evaluate(self, expression: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def close(self) -> None:
        os.close(self._commands)
        os.close(self._answers)
        self._process.terminate()
        self._process.wait(timeout=30)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            part = os.read(self._answers, 1 << 16)
            assert part, "the browser ended"
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)


def browser_program() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    pytest.fail("no browser: install chromium (Debian: apt-get install chromium)")


def complaints(browser: Browser) -> list[dict[str, Any]]:
    """Returns what went wrong or was said on the console since the page was opened."""
    bad = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded",
           "Network.loadingFailed")  # fmt: skip
    return [event for event in browser.events if event.get("method") in bad]


def requested(browser: Browser) -> set[str]:
    """Returns the schemes of all addresses that the page asked for."""
    return {
        event["params"]["request"]["url"].partition(":")[0]
        for event in browser.events
        if event.get("method") == "Network.requestWillBeSent"
    }


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_opens_cleanly_in_a_browser(
    tmp_path: Path, written: tuple[Path, str, Page], width: int, scheme: str
) -> None:
    browser = Browser(browser_program(), tmp_path / "profile")
    try:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.call("Emulation.setDeviceMetricsOverride", **size)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.call("Emulation.setEmulatedMedia", features=[feature])
        browser.open((written[0] / "report.html").as_uri())
        boxes = browser.evaluate(
            "[...document.querySelectorAll('figure, table, .heads img, .bar, .numbers')]"
            ".filter(e => e.checkVisibility()).map(e => e.getBoundingClientRect())"
            ".map(box => [box.width, box.height])"
        )
        overflow = browser.evaluate("document.documentElement.scrollWidth - innerWidth")
        before = browser.evaluate("document.querySelector('#detail image').href.baseVal")
        browser.evaluate("document.querySelector('.heads button').click()")
        after = browser.evaluate("document.querySelector('#detail image').href.baseVal")
        pressed = browser.evaluate(
            "[...document.querySelectorAll('.heads button')]"
            ".findIndex(button => button.ariaPressed === 'true')"
        )
    finally:
        browser.close()
    assert len(boxes) > 60
    assert all(box[0] > 0 and box[1] > 0 for box in boxes)
    assert overflow <= 0
    assert before != after
    assert pressed == 0
    assert complaints(browser) == []
    assert requested(browser) == {"file", "data"}
