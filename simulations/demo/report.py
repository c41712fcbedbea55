"""The demo's ``report.html``: one file, no request to anywhere, every figure from the run it reports."""

from __future__ import annotations

import html
import json
import math
import os
import platform
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwater.server.charts import cards, page, section, table
from headwater.simulations import charts
from headwater.simulations.charts import duration, share_bars
from headwater.simulations.codecs import standard_error
from headwater.simulations.demo import report_answers
from headwater.simulations.demo.comparison import Comparison, compare
from headwater.simulations.demo.report_act import last_act
from headwater.simulations.demo.report_act import result as act_result
from headwater.simulations.demo.report_answers import confusions, embedded, pictures
from headwater.simulations.demo.report_codecs import beside_codecs, times
from headwater.simulations.demo.tally import STAGES
from headwater.simulations.demo.watch import cells, number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater.simulations.codecs import Scored
    from headwater.simulations.demo.run import Run
    from headwater.simulations.demo.tally import Tally

_STYLE = (
    charts.STYLE
    + report_answers.STYLE
    + """
body { max-width: 62rem } section { margin-top: 2.6rem } section > h2 { margin-top: 0 }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem } table { font-size: .88rem }
figure + table, .cards + figure { margin-top: 1rem } th, td { padding: .3rem .55rem }
.cards { margin-top: 1.4rem } .card { flex: 1 1 9rem } .card b { font-size: 1.5rem } summary { cursor: pointer }
details { color: var(--soft); margin-top: .8rem }
ul.notes { max-width: 46rem; color: var(--soft); padding-left: 1.2rem } ul.notes li { margin: .35rem 0 }
.way { display: flex; flex-wrap: wrap; gap: .55rem; margin: 1rem 0; padding: 0; list-style: none }
.way li { flex: 1 1 6.4rem; background: var(--card); border-radius: 8px; padding: .6rem .7rem; position: relative }
.way li + li::before { content: "\\2192"; position: absolute; left: -.78rem; top: 38%; color: var(--soft) }
.way b { display: block; font-size: 1.1rem } .way span { color: var(--soft); font-size: .84rem; line-height: 1.35 }
.way span { display: block } .way img { display: block; border-radius: 6px }
"""
)


def write(run: Run, scored: Sequence[Scored], path: Path) -> Path:
    """Write the report, and what it shows as ``result.json`` beside it; returns the path.

    Args:
        run: what was measured.
        scored: of :func:`headwater.simulations.codecs.score`, on the first of the run's samples.
        path: of the HTML file.
    """
    compared = [one for tally in run.tallies if (one := compare(tally, scored)) is not None]
    parts = [
        cards(_headlines(run, compared)),
        _way(run),
        _links(run),
        *beside_codecs(compared, scored),
        *_stages(run),
        last_act(run),
        confusions(run),
        pictures(run),
        _notes(run, scored),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page("One frame's way: a demo of headwater", parts, _lead(run), style=_STYLE), encoding="utf-8")
    result = json.dumps(_result(run, compared), indent=1, allow_nan=False)
    path.with_name("result.json").write_text(result, encoding="utf-8")
    return path


def _lead(run: Run) -> str:
    frames = sum(len(tally.records) for tally in run.tallies)
    manifest = run.bundle.manifest
    return (
        f"{frames:,} frames of test pictures ({run.options.source}), sent by {len(run.tallies)} devices over links of "
        "very different speed to one edge server, each a process of its own on this machine. "
        f"Model {manifest.name} ({run.bundle.short_id}), task {manifest.tasks[0].name}; "
        f"{datetime.now().astimezone():%d %B %Y, %H:%M %Z}."
    )


def _headlines(run: Run, compared: Sequence[Comparison]) -> list[tuple[str, str]]:
    slowest = run.tallies[0]
    figures = [
        (f"{number(slowest.mean_bytes, '{:.0f}')} bytes", f"a frame on {slowest.title}"),
        (number(slowest.latency_ms(0.5), "{:.0f} ms"), "from picture to answer there (median)"),
    ]
    for one in (one for one in compared if one.tally is slowest):
        right = f"± {100 * one.error:.1f} right of {one.count}; unsplit network: {one.untouched:.1%}"
        figures.append((f"{one.accuracy:.1%}", right))
        figures += [(times(peer), f"our bytes, as {peer.codec} at that accuracy") for peer in one.peers]
    return figures


# ---------------------------------------------------------------- one frame


def _way(run: Run) -> str:
    """The steps of the frame of median latency on the slowest link, of those that were answered right."""
    tally = run.tallies[0]
    right = sorted((one for one in tally.served if tally.right(one)), key=lambda one: one.latency_ms)
    if not right:
        return ""
    record = right[len(right) // 2]
    sample, result, stages = tally.samples[record.name], record[tally.task], tally.stages_of(record)
    device, up = stages["head"] + stages["coding"], stages["waiting"] + stages["uplink"]
    server = stages["queue"] + stages["decode"] + stages["run"]
    steps = [
        (f'<img src="{embedded(sample, 72)}" width="72" height="72" alt="the picture">', html.escape(sample.label)),
        (duration(device / 1e3), f"head of width {record.width:g} and coder, on the device"),
        (f"{record.bytes} bytes", "the whole frame, header included"),
        (duration(up / 1e3), "up the link"),
        (duration(server / 1e3), "decoder and tails, on the server"),
        (duration(stages["downlink"] / 1e3), "the answer's way back"),
        (html.escape(result.label), f"answered with {result.score:.0%}"),
    ]
    items = "".join(f"<li><b>{value}</b><span>{what}</span></li>" for value, what in steps)
    note = f"One frame on the slowest link ({tally.title}), as it was measured: the right answer of median latency."
    return section("From picture to answer", f'<ol class="way">{items}</ol>', note=note)


# ---------------------------------------------------------------- links


def _links(run: Run) -> str:
    note = (
        "Bytes are of a frame with its header; on the wire also counts what gRPC and HTTP/2 add, the greeting too: up "
        "and down. The mode (width / gain) is the one used most; each device's own rule picks it for every frame. "
        "Latency is from picture to answer, for pictures taken after the first answer; what came before is connecting."
    )
    head = [
        "link",
        "frames",
        "accuracy",
        "bytes",
        "mode",
        "p50 ms",
        "p95 ms",
        "answered by",
        "connecting",
        "on the wire",
    ]
    rows = []
    for tally in run.tallies:
        row = cells(tally)
        row[2] = f"{row[2]} ± {number(100 * tally.error, '{:.1f}')}"
        wire = " + ".join(number(tally.wire_bytes(way), "{:.0f}") for way in ("up", "down"))
        rows.append([*row, number(tally.connecting_s, "{:.1f} s"), wire])
    odd = "".join(f"<p>{html.escape(f'{tally.title}: {tally.note}')}</p>" for tally in run.tallies if tally.note)
    return section("Four links, one server", table(head, rows), odd, note=note)


def _stages(run: Run) -> list[str]:
    rows = [(tally.title, stages) for tally in run.tallies if (stages := tally.stages_ms())]
    if not rows:
        return []
    note = (
        "Each bar is the mean latency of a link, parted by stage. Head: scaling the picture and running the network on "
        "the device; coding: entropy coder and frame; waiting: for a turn or the window; queue, decode, run: as the "
        "server tells; downlink: as the proxy saw the answer pass; uplink: the rest of the round trip."
    )
    figures = [
        [title, *(f"{stages[name]:.2f}" for name in STAGES), f"{sum(stages.values()):.1f}"] for title, stages in rows
    ]
    chart = share_bars(
        rows, STAGES, "share of each stage in the mean latency of each link; the table below has the figures"
    )
    return [section("Where the time goes", chart, table(["mean ms", *STAGES, "sum"], figures), note=note)]


# ---------------------------------------------------------------- how


def _notes(run: Run, scored: Sequence[Scored]) -> str:
    items = "".join(f"<li>{html.escape(note)}</li>" for note in (*_setting(run), *_statistics(run, scored)))
    return section("How this was measured", f'<ul class="notes">{items}</ul>')


def _setting(run: Run) -> tuple[str, ...]:
    options = run.options
    command = (
        f"headwater demo --source {options.source} --seconds {options.seconds:g} "
        f"--codec-pictures {options.codec_pictures} --seed {options.seed}"
    )
    delays = ", ".join(f"{tally.title.split(',')[0]} {duration(tally.link.up_delay_s)}" for tally in run.tallies)
    machine = f"Machine: {_machine()}, for all processes; the devices' own times are not those of a Raspberry Pi."
    links = (
        "The links are proxies on real TCP sockets, with the rates and gaps that their names say, a fixed delay each "
        f"way ({delays}) and bounded buffers. TCP's and IP's own headers and lost packets are not modelled."
    )
    return f"{command}. The devices ran for {run.seconds:.0f} s.", machine, links


def _statistics(run: Run, scored: Sequence[Scored]) -> tuple[str, ...]:
    count, accuracy = len(scored[0].correct), scored[0].accuracy
    order = (
        f"The pictures are the test part of {run.options.source}, set aside before training, in an order drawn by lot "
        "and the same for every device; a slower device sends fewer of them."
    )
    errors = (
        f"Standard errors are those of drawing so many pictures: with {count}, an accuracy of {accuracy:.0%} has one "
        f"of {100 * standard_error(accuracy, count):.1f} points. A difference to a codec is taken picture by picture."
    )
    choice = (
        "Of a codec's settings, the cheapest that is accurate enough is picked from all that were tried, by these very "
        "figures. Where they are noisy, that errs in the codec's favour."
    )
    return order, errors, choice


def _machine() -> str:
    cores, version = len(os.sched_getaffinity(0)), metadata.version("headwater")
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return (
        f"{cores} cores, {(names or [platform.machine()])[0]}; Python {platform.python_version()}, headwater {version}"
    )


def _result(run: Run, compared: Sequence[Comparison]) -> dict[str, Any]:
    """What the report shows, for programs."""
    by_title = {one.tally.title: one for one in compared}
    return {
        "bundle": run.bundle.id.hex(),
        "source": run.options.source,
        "links": [_link_result(tally, by_title.get(tally.title)) for tally in run.tallies],
        "last_act": None if run.act is None else act_result(run.act),
    }


def _link_result(tally: Tally, compared: Comparison | None) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "link": tally.link.name,
        "frames": len(tally.records),
        "answered": len(tally.answered),
        "accuracy": tally.accuracy,
        "bytes": tally.mean_bytes,
        "p50_ms": tally.latency_ms(0.5),
        "p95_ms": tally.latency_ms(0.95),
        "stages_ms": tally.stages_ms(),
    }
    for peer in compared.peers if compared else ():
        found = peer.scored
        figures[peer.codec] = None if found is None else {"setting": str(found.setting), "times_ours": peer.times_ours}
    return {name: None if _is_nan(value) else value for name, value in figures.items()}  # JSON has no NaN


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)
