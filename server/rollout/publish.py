"""Publishing a bundle, and going back from one: what the commands do. The serving process does the rest when it hears.

Signing is done here and nowhere else, so that the key need not be on the machine that serves, and the release back is
signed along with each release (versions.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from headwater.compression.errors import RolloutError
from headwater.server.mail.doorbell import ring
from headwater.server.rollout import gate
from headwater.server.rollout.versions import Versions, Wish

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from headwater.compression.bundle import Bundle
    from headwater.compression.manifest import Manifest
    from headwater.compression.release import Signer
    from headwater.server.rollout.canary import Rules
    from headwater.server.rollout.gate import Bounds, Passed
    from headwater.server.rollout.versions import Released


@dataclass(frozen=True)
class Published:
    """What came of it."""

    release: Released
    passed: Passed | None
    """What the gate found; None where there was nothing to compare with."""


def publish(
    state: Path,
    bundle: Bundle,
    signer: Signer,
    rules: Rules,
    bounds: Bounds,
    *,
    served: Bundle | None = None,
    again: Callable[[Bundle], Manifest] | None = None,
) -> Published:
    """Check, sign and release a bundle.

    Args:
        state: the server's folder.
        bundle: the new one; signed here, unless it is.
        signer: whom the devices trust.
        rules: how the release goes.
        bounds: how much worse than the one in use it may be.
        served: what is in use where nothing was released before; None for what a server with this folder served.
        again: measures the one in use on the images that the new one was measured on, where those are others.

    Raises:
        RolloutError: it is worse than the bounds allow, or cannot be compared, or a release is under way.
    """
    with Versions(state) as versions:
        name = bundle.manifest.name
        current = versions.in_force(name)
        if current is not None and current.stage == "canary":
            raise _still_tried(current)
        previous = served if current is None and served is not None else versions.in_use(name)
        if previous is not None and previous.id == bundle.id:
            anew = "" if current is None else "; `headwater server refresh` signs its release anew"
            raise RolloutError(f"the bundle {bundle.short_id} is the one in use{anew}")
        passed = None if previous is None else gate.check(bundle.manifest, _figures(previous, bundle, again), bounds)
        _begin(versions, bundle, previous, signer, rules)
        release = versions.in_force(name)
        assert release is not None
    ring(state)
    return Published(release, passed)


def refresh(state: Path, signer: Signer, name: str | None = None) -> Released:
    """Sign the release in force anew, before its time is over or when keys have changed; devices keep their bundle.

    Raises :class:`RolloutError` where nothing was released, or it is still tried.
    """
    with Versions.existing(state) as versions:
        release = _only(versions, name)
        if release.stage == "canary":
            raise _still_tried(release)
        before = None if release.undo is None or release.previous is None else versions.load(release.previous)
        rules = replace(release.rules, share=1.0)
        serial = _begin(versions, versions.load(release.bundle), before, signer, rules, back=release.back)
        versions.explain(serial, f"{release.serial}, signed anew")
        found = _only(versions, release.name)
    ring(state)
    return found


def _begin(
    versions: Versions, bundle: Bundle, before: Bundle | None, signer: Signer, rules: Rules, *, back: bool = False
) -> int:
    """Sign a release and the way back from it, with the bundles of both, and put it in force; its serial."""
    serial = versions.next_serial()
    for each in (before, bundle):
        if each is not None:
            versions.add(signer.signed(each), anew=True)
    undo = None if before is None else signer.release(serial + 1, before, back=True)
    statement = signer.release(serial, bundle, back=back)
    versions.release(Wish(serial, bundle, None if before is None else before.id, statement, undo, rules, back=back))
    return serial


def _still_tried(release: Released) -> RolloutError:
    return RolloutError(
        f"release {release.serial} of {release.name} is still tried by {release.share:.0%} of the devices; wait, or "
        "`headwater server rollback` first"
    )


def _figures(old: Bundle, new: Bundle, again: Callable[[Bundle], Manifest] | None) -> Manifest:
    """The manifest of the bundle in use, measured on the new one's images if it can be."""
    same = gate.same_images(new.manifest, old.manifest)
    return old.manifest if same or again is None else again(old)


def roll_back(state: Path, reason: str, name: str | None = None) -> Released:
    """Go back from the release in force; raises :class:`RolloutError` where there is none, or nothing before it."""
    with Versions.existing(state) as versions:
        release = _only(versions, name)
        if release.back:
            raise RolloutError(
                f"release {release.serial} went back already; name a bundle with --to, and give the key, to go further"
            )
        back = versions.leave(release.serial, reason)
    ring(state)
    return back


def roll_back_to(state: Path, start: str, signer: Signer, reason: str) -> Released:
    """Go to any earlier bundle, named by the start of its id; raises :class:`RolloutError`."""
    with Versions.existing(state) as versions:
        wanted = versions.find(start)
        release = _only(versions, wanted.name)
        if release.bundle == wanted.id:
            raise RolloutError(f"the bundle {wanted.id[:5].hex()} is the one in use")
        serial, bundle = versions.next_serial(), signer.signed(versions.load(wanted.id))
        versions.add(bundle, anew=True)
        statement = signer.release(serial, bundle, back=True)
        versions.release(Wish(serial, bundle, release.bundle, statement, None, release.rules, back=True))
        versions.explain(serial, reason)
        back = _only(versions, wanted.name)
    ring(state)
    return back


def _only(versions: Versions, name: str | None) -> Released:
    names = versions.names()
    if name is None and len(names) > 1:
        raise RolloutError(f"there are releases of {', '.join(names)}; say of which with --name")
    release = versions.in_force(name or next(iter(names), ""))
    if release is None:
        others = f"of {name}; there are releases of {', '.join(names)}"
        raise RolloutError(f"nothing was released {others if names else 'yet; `headwater server publish` does'}")
    return release
