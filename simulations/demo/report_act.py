"""The part of the demo's report on its last act: the round, the swap, and every frame meanwhile."""

from __future__ import annotations

import html
from datetime import datetime
from typing import TYPE_CHECKING, Any

from headwater.server.charts import cards, section, table
from headwater.simulations.charts import duration, figure
from headwater.simulations.codecs import standard_error
from headwater.simulations.demo.act_view import facts
from headwater.simulations.demo.last_act import CANARY_FRAMES, MAX_REGRESSION

if TYPE_CHECKING:
    from headwater.device.record import FrameRecord
    from headwater.simulations.demo.act import Act
    from headwater.simulations.demo.run import Run
    from headwater.simulations.demo.tally import Tally

_WIDTH, _LEFT, _RIGHT, _TOP, _ROW = 920, 190, 24, 34, 46
_LOST = 5  # the colour of frames without an answer


def last_act(run: Run) -> str:
    """The section; of a demo without a last act, why there was none."""
    if run.act is None:
        return section("A round and a swap", note=f"The last act was left out: {run.no_act}.")
    act = run.act
    parts = [cards(_figures(act)), _timeline(act), table(_HEAD, [_row(act, tally) for tally in act.tallies])]
    items = "".join(f"<li>{html.escape(text)}</li>" for text in (*facts(act), _caution(act)))
    parts.append(f'<ul class="notes">{items}</ul>')
    return section("A round and a swap", *parts, note=_note(act))


def _note(act: Act) -> str:
    return (
        f"Two more devices came, each with {act.learnt} labelled pictures that stay on it, and sent {act.shown} test "
        "pictures over and over. Meanwhile they trained in one federated round; the server built a bundle of what came "
        f"of it, measured it and the old one on the same {act.shown} pictures, signed it, and had one device try it "
        f"for {CANARY_FRAMES} frames before the other got it. A frame names the bundle that coded it, so the swap "
        "needs no pause. Every mark below is a frame, at the moment its picture was taken."
    )


def _caution(act: Act) -> str:
    """What these figures are no proof of."""
    one = 100 / act.shown
    return (
        f"One short round on {len(act.tallies) * act.learnt} pictures changes hardly anything: of {act.shown} "
        f"pictures, one is {one:.1f} points, and neither a gain nor a loss of a few means much. That is why the gate "
        f"was told to allow {MAX_REGRESSION:g} points a mode here (--max-regression); unless told, it allows 1."
    )


def _figures(act: Act) -> list[tuple[str, str]]:
    found = [(str(act.lost), f"frames lost, of {len(act.records)}")]
    if act.round is not None:
        took = duration((act.round.ended or act.round.began) - act.round.began)
        found += [
            (took, "the round, training included"),
            (f"{act.round.bytes_up:,} bytes", "up, all updates"),
            (f"{act.round.bytes_down:,} bytes", "down, all messages"),
        ]
    if pair := act.paired():
        count, before, after = pair
        error = 100 * standard_error(before, count)
        found.append((f"{before:.1%} → {after:.1%}", f"right before and after, same {count} (± {error:.1f})"))
    return found


_HEAD = ("link", "frames", "by the old bundle", "by the new one", "without answer", "p50 ms", "p95 ms")


def _row(act: Act, tally: Tally) -> list[str]:
    by = [sum(record.bundle == bundle for record in tally.answered) for bundle in (act.old, act.new)]
    missing = len(tally.records) - len(tally.answered)
    latencies = (f"{tally.latency_ms(share):.0f}" for share in (0.5, 0.95))
    return [tally.title, *map(str, (len(tally.records), *by, missing)), *latencies]


# ---------------------------------------------------------------- the drawing


def _timeline(act: Act) -> str:
    """A row a device, a mark a frame; above them what went on."""
    taken = {tally.title: [(_taken_s(record, tally), record) for record in tally.records] for tally in act.tallies}
    times = [when for rows in taken.values() for when, _ in rows]
    if not times:
        return ""
    begin, end = min(times), max(times)

    def x(when: float) -> float:
        return _LEFT + (when - begin) / max(end - begin, 1e-9) * (_WIDTH - _LEFT - _RIGHT)

    height = _TOP + _ROW * len(taken) + 24
    parts = []
    for at, span in enumerate(act.spans):
        left, right = x(max(span.began_s, begin)), x(min(span.ended_s or end, end))
        parts.append(_band(left, right, height - 24, span.name, shaded=at % 2 == 0))
    for at, (title, rows) in enumerate(taken.items()):
        y = _TOP + _ROW * at
        parts.append(
            f'<text class="strong" x="{_LEFT - 14}" y="{y + 21}" text-anchor="end">{html.escape(title)}</text>'
        )
        parts += [_tick(x(when), y, record, act) for when, record in rows]
    step = next((step for step in (1, 5, 10, 20, 30, 60) if (end - begin) / step <= 12), 120)
    for second in range(0, round(end - begin) + 1, step):
        where = f'x="{x(begin + second):.1f}" y="{height - 7}"'
        parts.append(f'<text class="soft" {where} text-anchor="middle">{second} s</text>')
    legend = [(f"old bundle {act.old}", 0), (f"new bundle {act.new or '(none)'}", 1), ("no answer", _LOST)]
    return figure(parts, height, "every frame of the last act, by the bundle that coded it", legend, square=True)


def _band(left: float, right: float, bottom: float, name: str, *, shaded: bool) -> str:
    width = max(right - left, 0.0)
    fill = (
        f'<rect x="{left:.1f}" y="4" width="{width:.1f}" height="{bottom - 4:.1f}" fill="var(--line)" opacity="0.5"/>'
    )
    text = f'<text class="soft small" x="{left + 5:.1f}" y="19">{html.escape(name)}</text>'
    return (fill if shaded else "") + text


def _tick(x: float, y: float, record: FrameRecord, act: Act) -> str:
    kind = _LOST if record.status != "ok" else int(record.bundle == act.new)
    what = html.escape(f"{record.name}: {record.bundle}, {record.status}")
    return (
        f'<rect x="{x - 0.8:.1f}" y="{y + 4}" width="1.6" height="{_ROW - 18}" fill="var(--k{kind})">'
        f"<title>{what}</title></rect>"
    )


def _taken_s(record: FrameRecord, tally: Tally) -> float:
    return datetime.fromisoformat(record.taken).timestamp() - tally.wall_offset_s


def result(act: Act) -> dict[str, Any]:
    """What the section shows, for programs."""
    pair = act.paired()
    return {
        "old": act.old,
        "new": act.new or None,
        "frames": len(act.records),
        "answered_by_old": len(act.answered(act.old)),
        "answered_by_new": len(act.answered(act.new)) if act.new else 0,
        "lost": act.lost,
        "pictures": None if pair is None else pair[0],
        "right_before": None if pair is None else pair[1],
        "right_after": None if pair is None else pair[2],
        "round": None if act.round is None else _round(act),
        "refused": act.refused,
        "gate": act.passed,
        "note": act.note,
        "seconds": {span.name: span.ended_s - span.began_s for span in act.spans if span.ended_s is not None},
    }


def _round(act: Act) -> dict[str, Any]:
    one = act.round
    assert one is not None
    return {"bytes_up": one.bytes_up, "bytes_down": one.bytes_down, "seconds": (one.ended or one.began) - one.began}
