"""The part of the demo's report that compares with image codecs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater.server.charts import section, table
from headwater.simulations.charts import Cloud, Dot, rate_accuracy, time_bars
from headwater.simulations.codecs import standard_error
from headwater.simulations.demo.comparison import CODECS, TOLERANCE, Comparison, Peer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater.simulations.codecs import Scored

OURS = "headwater"


def beside_codecs(compared: Sequence[Comparison], scored: Sequence[Scored]) -> list[str]:
    """Bytes against accuracy, the same accuracy in a table, and what that means on each link."""
    if not compared:
        return []
    return [_bytes_and_accuracy(compared, scored), _on_the_link(compared)]


def times(peer: Peer) -> str:
    """A codec's bytes as a multiple of ours."""
    if peer.times_ours is None:
        return "not reached" if peer.scored is None else "we sent none"
    return f"{peer.times_ours:.1f} ×"  # noqa: RUF001 - a multiplication


def _bytes_and_accuracy(compared: Sequence[Comparison], scored: Sequence[Scored]) -> str:
    note = (
        f"Each small mark is one of the {len(scored) - 1} settings of image codecs that were tried, scored on "
        f"{len(scored[0].correct)} of the same pictures by the same network before its split, untouched. A network "
        "tuned on a codec's pictures does better. Lines join each codec's best settings, error "
        "bars are one standard error. What is the same in every picture (JPEG's tables, WebP's container) is not "
        "counted against the codecs."
    )
    heading = f"<h3>The cheapest setting that is as accurate as ours, or at most {100 * TOLERANCE:g} point less</h3>"
    parts = [_clouds(compared, scored), heading, _same_accuracy(compared), _all_settings(scored)]
    return section("Bytes and accuracy", *parts, note=note)


def _clouds(compared: Sequence[Comparison], scored: Sequence[Scored]) -> str:
    ours = Cloud(f"{OURS}, a mark a link", tuple(map(_dot, compared)))
    codecs = [
        Cloud(codec, tuple(_small(one) for one in scored if one.setting and one.setting.codec == codec), line=True)
        for codec in CODECS
    ]
    return rate_accuracy(
        [ours, *codecs],
        scored[0].accuracy,
        f"unsplit network, nothing lost: {scored[0].accuracy:.1%}",
        "accuracy over bytes a picture: our frames on each link, and every setting of JPEG and WebP",
    )


def _dot(one: Comparison) -> Dot:
    title = f"{one.tally.title}: {one.mean_bytes:.0f} bytes, {one.accuracy:.1%} of {one.count}"
    return Dot(one.mean_bytes, one.accuracy, one.tally.title.split(",")[0], title, one.error)


def _small(one: Scored) -> Dot:
    size = float(one.sizes.mean())
    return Dot(size, one.accuracy, "", f"{one.setting}: {size:.0f} bytes, {one.accuracy:.1%}")


def _same_accuracy(compared: Sequence[Comparison]) -> str:
    head = ["link", "pictures", "ours: bytes", "accuracy", "beside", "bytes", "times ours", "accuracy less ours"]
    rows = []
    for one in compared:
        ours = [one.tally.title, f"{one.count}", f"{one.mean_bytes:.0f}", f"{one.accuracy:.1%} ± {100 * one.error:.1f}"]
        rows += [[*(ours if at == 0 else [""] * 4), *_cells(peer)] for at, peer in enumerate(one.peers)]
    return table(head, rows)


def _cells(peer: Peer) -> list[str]:
    if peer.scored is None or peer.difference is None or peer.error is None:
        return [f"{peer.codec}: no setting is", "-", times(peer), "-"]
    difference = f"{100 * peer.difference:+.1f} ± {100 * peer.error:.1f}"
    return [str(peer.scored.setting), f"{peer.scored.sizes.mean():.0f}", times(peer), difference]


def _all_settings(scored: Sequence[Scored]) -> str:
    count = len(scored[0].correct)
    rows = [
        [
            str(one.setting or "nothing lost"),
            f"{one.sizes.mean():.0f}",
            f"{one.file_sizes.mean():.0f}",
            f"{one.accuracy:.1%} ± {100 * standard_error(one.accuracy, count):.1f}",
        ]
        for one in scored
    ]
    head = ["setting", "bytes counted", "bytes as a file", "accuracy"]
    return f"<details><summary>Every setting that was tried</summary>{table(head, rows)}</details>"


def _on_the_link(compared: Sequence[Comparison]) -> str:
    note = (
        "Time of one picture on its way up: its bytes, and what gRPC adds to each of ours, at the link's rate, plus "
        "the link's delay. The codecs' pictures are of the settings in the table above."
    )
    rows = [(one.tally.title, _transfers(one)) for one in compared]
    description = "time of one picture on each link, ours and that of each codec at the same accuracy"
    return section("The same accuracy, on the link", time_bars(rows, [OURS, *CODECS], description), note=note)


def _transfers(one: Comparison) -> dict[str, float]:
    times_s: dict[str, float] = {OURS: one.transfer_s}
    times_s.update((peer.codec, peer.transfer_s) for peer in one.peers if peer.transfer_s is not None)
    return times_s
