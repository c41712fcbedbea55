"""The report: whole, self-contained, and every figure from the run."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from headwater.compression.bundle import Bundle
from headwater.simulations.codecs import Setting, score
from headwater.simulations.demo import report, watch
from headwater.simulations.demo.run import Run
from tests.simulations.demo import runs

VOID = {"meta", "img", "br", "line", "input", "link"}


class Page(HTMLParser):
    """Checks that every element ends, and keeps text, images and addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.addresses: list[str] = []
        self.headings: list[str] = []
        self.images: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.addresses += [value for key in ("src", "href", "xlink:href", "data") if (value := named.get(key))]
        if tag == "img":
            self.images.append(named.get("alt") or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if self.open and self.open[-1] in {"h1", "h2"}:
            self.headings.append(data)


@pytest.fixture
def run(tiny_bundle: Bundle, tmp_path: Path) -> Run:
    return runs.run(tiny_bundle, tmp_path)


def written(run: Run, **wanted: object) -> Page:
    settings = [Setting("JPEG", 32, 32, 50), Setting("WebP", 32, 32, 50), Setting("WebP", 2, 2, 10)]
    labels = [run.bundle.manifest.tasks[0].labels.index(sample.label) for sample in run.samples]
    scored = score(run.bundle, [sample.load() for sample in run.samples], labels, settings=settings)
    path = report.write(run, scored, run.options.out / "report.html", **wanted)
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    assert page.open == []
    return page


def test_every_part_is_there(run: Run) -> None:
    page = written(run)
    assert page.headings == [
        "One frame's way: a demo of headwater",
        "From picture to answer",
        "Four links, one server",
        "Bytes and accuracy",
        "The same accuracy, on the link",
        "Where the time goes",
        "A round and a swap",
        "Right and wrong",
        "Pictures and answers",
        "How this was measured",
    ]
    assert all(page.images), "a picture without a text for those who do not see it"


def test_nothing_is_asked_of_anybody(run: Run) -> None:
    page = written(run)
    assert page.addresses
    assert all(address.startswith("data:image/") for address in page.addresses)
    text = (run.options.out / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|<script|@import|url\(", text)
    assert "prefers-color-scheme: dark" in text


def test_figures_are_those_of_the_run(run: Run) -> None:
    text = " ".join(written(run).text)
    assert "30 bytes" in text
    assert "91.7%" in text  # 11 of 12 on the slow link
    assert "36 frames" in text
    result = json.loads((run.options.out / "result.json").read_text(encoding="utf-8"))
    slow, fast = result["links"]
    assert (slow["link"], slow["frames"], slow["bytes"]) == ("slow", 12, 30)
    assert slow["accuracy"] == pytest.approx(11 / 12)
    assert fast["JPEG"]["times_ours"] > 1


def test_a_link_without_an_answer_does_not_break_it(run: Run) -> None:
    run.tallies[0].records.clear()
    run.tallies[0].note = "stopped: <too slow>"
    page = written(run)
    assert "stopped: <too slow>" in " ".join(page.text)
    assert json.loads((run.options.out / "result.json").read_text(encoding="utf-8"))["links"][0]["accuracy"] is None


def test_names_are_escaped(run: Run) -> None:
    run.tallies[0].title = "<b>slow</b> & low"
    assert "<b>slow</b> & low" in written(run).text


def test_plain_lines_and_the_table_have_the_same_figures(run: Run) -> None:
    console = Console(record=True, width=200, force_terminal=False)
    with watch.Watch(console) as screen:
        screen.show(run)
        screen.show(run)  # too soon for lines again
    console.print(watch.table(run))
    shown = console.export_text()
    assert shown.count("slow, 8 kbit/s: 12 frames, accuracy 91.7%, 30 bytes, mode 0.25/0") == 1
    assert re.search(r"fast, 8 Mbit/s\s*│\s*24\s*│\s*100\.0%\s*│\s*30\s*│\s*1/3\s*│\s*20\s*│\s*20\s*│\s*edge 24", shown)


def test_at_a_terminal_the_table_is_live(run: Run) -> None:
    console = Console(record=True, width=160, force_terminal=True)
    with watch.Watch(console) as screen:
        screen.show(run)
        with screen.counting("codecs", 3) as progress:
            progress(3)
    assert "headwater demo" in console.export_text()
