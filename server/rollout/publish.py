"""Publishing a bundle, and going back from one: what the commands do. The serving process does the rest when it hears.

Signing is done here and nowhere else, so that the key need not be on the machine that serves, and the release back is
signed along with each release (versions.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwater.compression.errors import RolloutError, SignatureError
from headwater.compression.release import Release
from headwater.compression.signature import sign, verify
from headwater.server.federation.doorbell import ring
from headwater.server.rollout import gate
from headwater.server.rollout.versions import Versions, Wish

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from headwater.compression.bundle import Bundle
    from headwater.compression.manifest import Manifest
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
    key: Ed25519PrivateKey,
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
        key: that the devices trust.
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
            raise RolloutError(
                f"release {current.serial} of {name} is still tried by {current.share:.0%} of the devices; wait, or "
                "`headwater server rollback` first"
            )
        previous = served if current is None and served is not None else versions.in_use(name)
        if previous is not None and previous.id == bundle.id:
            raise RolloutError(f"the bundle {bundle.short_id} is the one in use")
        passed = None if previous is None else gate.check(bundle.manifest, _figures(previous, bundle, again), bounds)
        signed = _signed(bundle, key)
        if previous is not None:
            versions.add(previous)
        versions.add(signed)
        serial = versions.next_serial()
        before = None if previous is None else previous.id
        undo = None if before is None else Release(serial + 1, before, name, back=True).signed(key)
        statement = Release(serial, signed.id, name).signed(key)
        versions.release(Wish(serial, signed, before, statement, undo, rules))
        release = versions.in_force(name)
        assert release is not None
    ring(state)
    return Published(release, passed)


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


def roll_back_to(state: Path, start: str, key: Ed25519PrivateKey, reason: str) -> Released:
    """Go to any earlier bundle, named by the start of its id; raises :class:`RolloutError`."""
    with Versions.existing(state) as versions:
        wanted = versions.find(start)
        release = _only(versions, wanted.name)
        if release.bundle == wanted.id:
            raise RolloutError(f"the bundle {wanted.id[:5].hex()} is the one in use")
        serial, bundle = versions.next_serial(), versions.load(wanted.id)
        statement = Release(serial, wanted.id, wanted.name, back=True).signed(key)
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
        raise RolloutError(f"nothing of {name or 'any name'} was released; there are {', '.join(names) or 'none'}")
    return release


def _signed(bundle: Bundle, key: Ed25519PrivateKey) -> Bundle:
    """The bundle, signed by the key that its release is signed with."""
    try:
        verify(bundle.manifest_bytes, bundle.signature, key.public_key())
    except SignatureError:
        return bundle.signed(sign(bundle.manifest_bytes, key))
    return bundle
