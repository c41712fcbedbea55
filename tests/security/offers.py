"""Hostile offers of bundles, after TUF's list: what is tried, and whether it went further than the device's refusal.

Each function tries its attacks and tells of each: the tests want all of them stopped, `benchmarks.attacks` counts them.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from headwater.compression import patch, signature
from headwater.compression.bundle import Bundle
from headwater.compression.bundle_cli import app as bundle_app
from headwater.compression.release import Signer
from headwater.compression.trust import KeyList
from headwater.device import Agent
from headwater.server.rollout.publish import publish, refresh
from tests.security.taken_over import NOW, THIEF, Evil, attacked, of, slip_in, stands, unchanged
from tests.server.releasing import ALL, BOUNDS, Fleet, fleet, settle
from tests.versions import KEY, SIGNER, signed, version, write_keys


@dataclass(frozen=True)
class Offer:
    """What an attacker's server offers."""

    envelope: bytes
    content: bytes
    bundle: Bundle
    why: str
    """Words of the refusal that is right."""
    claims: dict[str, object] = field(default_factory=dict)
    """Of the content, true or not."""


@dataclass(frozen=True)
class Tried:
    """One attack, and what became of it."""

    name: str
    stopped: bool
    """For the right reason, and nothing of the device has changed."""
    said: str


# ---------------------------------------------------------------- an attacker's own server


def to_announce() -> dict[str, Offer]:
    """What is to be refused before a byte is fetched."""
    good, new = SIGNER.release(11, version(3)), version(3)
    packed = patch.make(new, device=True)
    most = patch.most_bytes(of(new, 11).size)
    thief_keys = KeyList(1, 1 << 40, (THIEF.public_key(),), (THIEF.public_key(),)).signed(THIEF)
    old_keys = KeyList(1, NOW - 10, (KEY.public_key(),), (KEY.public_key(),)).signed(KEY)
    others_signature = good[:-76] + (new.signature or b"")
    ended = of(new, 11, issued=NOW - 99, expires=NOW - 9).signed(KEY)

    def offer(envelope: bytes, why: str, **claims: object) -> Offer:
        return Offer(envelope, packed, new, why, claims)

    return {
        "arbitrary: a stranger's release": offer(Signer(THIEF).release(11, new), "not by the trusted key"),
        "arbitrary: no release at all": offer(b"HWR\x02" + bytes(200), "signature has 76 beginning"),
        "arbitrary: nothing": offer(b"", "are no release"),
        "arbitrary: a bundle's signature": offer(others_signature, "not the one that"),
        "arbitrary: a stranger's keys": offer(Signer(THIEF, thief_keys).release(11, new), "no root key of"),
        "replay: a release that was followed and left": offer(SIGNER.release(9, version(1)), "9 was left behind"),
        "roll-back: the way back from an earlier one": offer(SIGNER.release(8, version(0), back=True), "left behind"),
        "roll-back: a changed serial": offer(good[:4] + bytes(7) + b"\x63" + good[12:], "not the one that was"),
        "freeze: a release that has ended": offer(ended, "ended at"),
        "mix and match: another model's release": offer(SIGNER.release(11, version(3, "other")), "release is of other"),
        "endless data: a petabyte": offer(good, f"at most {most} are fetched", content_bytes=1 << 50),
        "endless data: a byte too many": offer(good, f"at most {most} are fetched", content_bytes=most + 1),
        "freeze: keys that have ended": offer(Signer(KEY, old_keys).release(11, new), "list 1 of keys ended at"),
    }


def to_send() -> dict[str, Offer]:
    """What is to be refused when it has come; the right release of each, by serials from 11."""
    new, other, older = version(3), version(4), version(1)
    whole = patch.make(new, device=True)
    bare = patch.make(Bundle(new.manifest_bytes, {name: new.read(name) for name in new.manifest.files}), device=True)
    swapped = bytearray(whole)
    swapped[4:36] = other.id
    every: dict[str, tuple[Bundle, bytes, str, dict[str, object]]] = {
        "arbitrary: an attacker's bundle": (
            *(new, patch.make(signed(other, THIEF), device=True), "was sent; released", {}),
        ),
        "mix and match: one bundle's name on another's": (other, bytes(swapped), "manifest is not the one", {}),
        "mix and match: one's manifest, another's files": (new, mixed(new, other), "packed as", {}),
        "mix and match: a change of what is not there": (
            *(new, patch.make(new, other, device=True), "none is there", {}),
        ),
        "endless data: a file that swells": (new, swelling(whole), "packed as", {}),
        "endless data: more than was announced": (new, whole, "a chunk of", {"content_bytes": len(whole) - 7}),
        "arbitrary: other bytes than announced": (new, whole, "what came is no", {"content_sha256": bytes(32)}),
        "arbitrary: a bundle that nobody signed": (new, bare, "is not signed", {}),
        "arbitrary: a bundle that a stranger signed": (
            *(new, patch.make(signed(new, THIEF), device=True), "not by the trusted key", {}),
        ),
        "roll-back: an older bundle as a step forward": (older, patch.make(older, device=True), "older than", {}),
    }
    return {
        name: Offer(SIGNER.release(serial, bundle), content, bundle, why, claims)
        for serial, (name, (bundle, content, why, claims)) in enumerate(every.items(), 11)
    }


def mixed(manifest_of: Bundle, files_of: Bundle) -> bytes:
    """One bundle's manifest and signature before the files of another, as an attacker would pack them."""
    one, other = patch.make(manifest_of, device=True), patch.make(files_of, device=True)
    return one[: start_of_files(one)] + other[start_of_files(other) :]


def start_of_files(packed: bytes) -> int:
    at = 68
    for _ in range(2):
        at += 9 + int.from_bytes(packed[at + 5 : at + 9], "little")
    return at


def swelling(packed: bytes) -> bytes:
    """The first file that a device reads says that it is a gigabyte."""
    at = start_of_files(packed)
    while packed[at] == patch.Method.LEFT_OUT:
        at += 9
    return packed[: at + 1] + (1 << 30).to_bytes(4, "little") + packed[at + 5 :]


async def make(offers: dict[str, Offer], edge: Evil, agent: Agent) -> list[Tried]:
    """Make them to a device, one after the other."""
    tried = []
    for name, offer in offers.items():
        said = await edge.refused(offer.envelope, offer.content, offer.bundle, **offer.claims)
        tried.append(Tried(name, offer.why in said and unchanged(agent), said))
    return tried


# ---------------------------------------------------------------- a real server that was taken over


async def slipped_in(there: Fleet) -> list[Tried]:
    """Releases that are written into a real server's database, before its device `a`."""
    first = there.release(2)
    await settle(lambda: there.using(2) == ["a"])
    second = there.release(3)
    await settle(lambda: there.using(3) == ["a"])
    assert first.undo is not None
    evil = signed(version(4), THIEF)
    tried = []
    for name, statement, bundle, why in (
        ("arbitrary", Signer(THIEF).release(1 << 50, evil), evil, "not by the trusted key"),
        ("replay", first.statement, version(2), "was left behind"),
        ("roll-back", first.undo, version(0), "was left behind"),
    ):
        said = await stands(there, slip_in(there, bundle, statement))
        tried.append(Tried(f"{name}, slipped in", why in said and there.using(3) == ["a"], said))
    with warnings_of("headwater.device.rollout.swapping") as said_to_nobody:
        # The bundle's own word bears another number than the statement.
        slip_in(there, evil, SIGNER.release(second.serial + 5, version(5)))
        await settle(lambda: bool(said_to_nobody))
    stopped = f"{evil.short_id} was sent; released is {version(5).short_id}" in said_to_nobody[0]
    return [*tried, Tried("mix and match, slipped in", stopped and there.using(3) == ["a"], said_to_nobody[0])]


@contextmanager
def warnings_of(name: str) -> Iterator[list[str]]:
    """What a logger says meanwhile, from warnings on."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger(name).addHandler(handler)
    try:
        yield said
    finally:
        logging.getLogger(name).removeHandler(handler)


# ---------------------------------------------------------------- a stolen release key


@dataclass(frozen=True)
class Robbed:
    """A fleet, `a` and `asleep`, whose release key was stolen and then replaced with the root key from its drawer."""

    there: Fleet
    stolen: Ed25519PrivateKey
    before: bytes
    """The list of keys in which the stolen one may sign."""
    owner: Signer


@asynccontextmanager
async def robbed(folder: Path) -> AsyncIterator[Robbed]:
    """Only `a` has heard of the new keys yet; `asleep` is away, and both use version 1."""
    root, _ = write_keys(folder)
    first, second, lists = folder / "first.key", folder / "second.key", folder / "keys"
    for key in (first, second):
        command("keygen", key)
    command("rotate", lists, "--key", root, "--release", f"{first}.pub")
    before = lists.read_bytes()
    stolen = signature.load_private(first)
    async with fleet(folder, "a", "asleep") as there:
        publish(there.state, version(1), Signer(stolen, before), ALL, BOUNDS, served=version(0))
        await settle(lambda: len(there.using(1)) == 2)
        sleeper = there.agents.pop("asleep")
        await sleeper.__aexit__()
        shown = command("rotate", lists, "--key", root, "--release", f"{second}.pub")
        assert shown.count("list ") == 2
        owner = Signer(signature.load_private(second), lists.read_bytes())
        refreshed = refresh(there.state, owner)
        store = there.agents["a"]._store
        assert store is not None
        await settle(lambda: store.state.serial == refreshed.serial)
        assert store.trusting.trust.newest.number == 2
        yield Robbed(there, stolen, before, owner)


def command(*words: object) -> str:
    result = CliRunner().invoke(bundle_app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


async def signed_by_a_thief(robbed: Robbed) -> list[Tried]:
    """Releases by the stolen key, with the old list of keys, with none, and with one of the thief's own."""
    there, stolen = robbed.there, robbed.stolen
    evil = signed(version(2), stolen)
    fork = KeyList(2, 1 << 40, (THIEF.public_key(),), (THIEF.public_key(),)).signed(stolen, THIEF)
    tried = []
    for name, statement, why in (
        ("its old list", Signer(stolen, robbed.before).release(1 << 51, evil), "not by the trusted key"),
        ("no list", Signer(stolen).release(1 << 51, evil), "not by the trusted key"),
        ("a list of the thief's", robbed.before + fork + Signer(THIEF).release(1 << 51, evil), "another one than was"),
    ):
        said = await stands(there, slip_in(there, evil, statement))
        tried.append(Tried(f"a stolen key with {name}", why in said and there.using(1) == ["a"], said))
    return tried


async def every_one(folder: Path) -> list[Tried]:
    """All of these attacks, in folders of their own."""
    for name in ("announced", "sent", "taken", "robbed"):
        (folder / name).mkdir()
    async with attacked(folder / "announced") as (edge, agent):
        tried = await make(to_announce(), edge, agent)
    async with attacked(folder / "sent") as (edge, agent):
        tried += await make(to_send(), edge, agent)
    async with fleet(folder / "taken", "a") as there:
        tried += await slipped_in(there)
    async with robbed(folder / "robbed") as what:
        return tried + await signed_by_a_thief(what)
