"""Versions and releases for people, and as plain values."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

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
    releases = Table("release", "until", "bundle", "stage", "devices", "why", title="Releases")
    for release in versions.releases():
        stage = _STAGES[release.stage]
        if release.stage == "canary":
            stage = f"{stage} by {release.share:.0%}"
        what = f"{release.name} {release.bundle[:5].hex()}" + (" (back)" if release.back else "")
        began, until = _when(release.began_unix_ms), _when(release.expires * 1000)[:10]
        releases.add_row(began, until, what, stage, _standings(versions, release), release.reason)
    bundles = Table("bundle", "built", "frames", "failed", "agreement", "confidence", title="Bundles in the field")
    for version in versions.all():
        figures = versions.figures(version.id)
        bundles.add_row(f"{version.name} {version.id[:5].hex()}", version.created, *_field(figures))
    return [releases, bundles]


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


def _standings(versions: Versions, release: Released) -> str:
    counts = Counter(standing for standing, _ in versions.members(release.serial).values())
    return ", ".join(f"{count} {standing}" for standing, count in sorted(counts.items())) or "none"


def _field(figures: Figures) -> tuple[str, str, str, str]:
    agreement = f"{figures.agreed / figures.judged:.1%}" if figures.judged else "-"
    confidence = f"{figures.confidence / figures.answered:.1%}" if figures.answered else "-"
    return str(figures.frames), str(figures.failed), agreement, confidence


def _when(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1e3, UTC).strftime("%Y-%m-%d %H:%M:%S")
