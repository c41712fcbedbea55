"""Versions and releases for people, and as plain values."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

if TYPE_CHECKING:
    from headwater.server.rollout.canary import Figures
    from headwater.server.rollout.versions import Released, Versions

_STAGES = {"canary": "tried", "everyone": "for all", "left": "left again"}


def as_plain(versions: Versions) -> dict[str, Any]:
    """Everything, for a program."""
    return {
        "bundles": [
            {
                "id": version.id.hex(),
                "name": version.name,
                "created": version.created,
                "parent": version.parent,
                "field": asdict(versions.figures(version.id)),
            }
            for version in versions.all()
        ],
        "releases": [_plain(versions, release) for release in versions.releases()],
    }


def tables(versions: Versions) -> list[Table]:
    """The releases, then the bundles, the newest first."""
    releases = _table("Releases", "release", "until", "bundle", "stage", "devices", "why")
    later: set[str] = set()
    for release in versions.releases():
        over = release.name in later
        later.add(release.name)
        what = f"{release.name} {release.bundle[:5].hex()}" + ("\n(back)" if release.back else "")
        named, until = f"{release.serial}\n{_when(release.began_unix_ms)}", _when(release.expires * 1000)[:10]
        stage, devices = _stage(release, over=over), _standings(versions, release, over=over)
        releases.add_row(named, until, what, stage, devices, release.reason)
    if not later:
        releases.caption = "none yet"
    bundles = _table("Bundles in the field", "bundle", "built", "frames", "failed", "agreement", "confidence")
    for version in versions.all():
        figures = versions.figures(version.id)
        built = version.created[:16].replace("T", " ")
        bundles.add_row(f"{version.name} {version.id[:5].hex()}", built, *_field(figures))
    return [releases, bundles]


def _table(title: str, *columns: str) -> Table:
    """One that fits a terminal of 80 columns."""
    table = Table(title=title, title_justify="left", caption_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, no_wrap=column in {"release", "until", "built"})
    return table


def _stage(release: Released, *, over: bool) -> str:
    """How far it is, or how far it came before a later one."""
    stage = _STAGES[release.stage] + (f" by {release.share:.0%}" if release.stage == "canary" else "")
    return f"over, was {stage}" if over and release.stage != "left" else stage


def _plain(versions: Versions, release: Released) -> dict[str, Any]:
    return {
        "serial": release.serial,
        "name": release.name,
        "bundle": release.bundle.hex(),
        "previous": None if release.previous is None else release.previous.hex(),
        "back": release.back,
        "stage": release.stage,
        "share": release.share,
        "reason": release.reason,
        "began_unix_ms": release.began_unix_ms,
        "expires": release.expires,
        "devices": {
            device: {"standing": standing, "detail": detail}
            for device, (standing, detail) in versions.members(release.serial).items()
        },
    }


def _standings(versions: Versions, release: Released, *, over: bool) -> str:
    standings = (standing for standing, _ in versions.members(release.serial).values())
    counts = Counter("used it" if over and standing == "in use" else standing for standing in standings)
    return ", ".join(f"{count} {standing}" for standing, count in sorted(counts.items())) or "none"


def _field(figures: Figures) -> tuple[str, str, str, str]:
    agreement = f"{figures.agreed / figures.judged:.1%}" if figures.judged else "-"
    confidence = f"{figures.confidence / figures.answered:.1%}" if figures.answered else "-"
    return str(figures.frames), str(figures.failed), agreement, confidence


def _when(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1e3, UTC).strftime("%Y-%m-%d %H:%M")
