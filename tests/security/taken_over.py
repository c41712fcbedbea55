"""Two attackers on bundles: one owns the edge server with its disk, one has stolen a release key; no key is the anchor.

The first is a server of the attacker's own (:class:`Evil`), or a real one whose database was written to
(:func:`slip_in`). The device is a real one, over a real port.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from headwater.compression import patch
from headwater.compression.bundle import Bundle
from headwater.compression.release import Release
from headwater.device import Agent
from headwater.device.settings import DeviceSettings
from headwater.protos import edge_pb2 as pb
from headwater.server.mail.doorbell import ring
from headwater.server.rollout.versions import Versions, Wish
from tests.device.exchanges import ExchangingEdge
from tests.device.fake_edge import serving
from tests.server.releasing import ALL, Fleet, settle
from tests.versions import KEY, SIGNER, version, write_keys

THIEF = Ed25519PrivateKey.from_private_bytes(b"thief" + bytes(27))
NOW = int(time.time())


# ---------------------------------------------------------------- an attacker's own server


@dataclass
class Evil(ExchangingEdge):
    """Offers what it likes, and gives what it likes for it."""

    number: int = 0

    async def offer(self, envelope: bytes, content: bytes, bundle: Bundle, **claims: object) -> pb.Offer:
        """Offer a content, with claims of it that need not be true."""
        self.number += 1
        plain = {"content_sha256": hashlib.sha256(content).digest(), "content_bytes": len(content)} | claims
        offer = pb.Offer(offer=self.number, kind=pb.OFFER_KIND_BUNDLE, bundle_id=bundle.id, envelope=envelope, **plain)
        self.contents[offer.content_sha256] = content
        self.others.clear()
        await self.send(pb.ServerMessage(offer=offer))
        return offer

    async def refused(self, envelope: bytes, content: bytes, bundle: Bundle, **claims: object) -> str:
        """Offer it, and hear why the device will not have it."""
        await self.offer(envelope, content, bundle, **claims)
        await self.until(lambda: bool(self.details) or pb.BUNDLE_STATE_IN_USE in self.states)
        assert pb.BUNDLE_STATE_IN_USE not in self.states
        return self.details

    async def followed(self, envelope: bytes, bundle: Bundle) -> None:
        """Offer it as it should be, and see that it is used."""
        await self.offer(envelope, patch.make(bundle, device=True), bundle)
        await self.until(lambda: bool(self.details) or pb.BUNDLE_STATE_IN_USE in self.states)
        assert not self.details

    @property
    def states(self) -> list[int]:
        return [message.bundle_notice.state for message in self.others if message.HasField("bundle_notice")]

    @property
    def details(self) -> str:
        return " ".join(
            message.bundle_notice.detail
            for message in self.others
            if message.bundle_notice.state == pb.BUNDLE_STATE_REFUSED
        )


@asynccontextmanager
async def attacked(folder: Path) -> AsyncIterator[tuple[Evil, Agent]]:
    """A device that has followed release 10, to version 2, at a server that an attacker has taken over since."""
    _, public = write_keys(folder)
    settings = DeviceSettings(state=folder / "state", trusted_key=public, width=1.0, retry_s=0.1)
    edge = Evil()
    async with (
        asyncio.timeout(120),
        serving(edge),
        Agent(version(0), f"127.0.0.1:{edge.port}", settings, connect_timeout_s=30) as agent,
    ):
        await edge.followed(SIGNER.release(10, version(2)), version(2))
        edge.opens.clear()
        yield edge, agent


def unchanged(agent: Agent) -> bool:
    store = agent._store
    assert store is not None
    return agent.manifest.created == version(2).manifest.created and store.state.current == version(2).id.hex()


def of(bundle: Bundle, serial: int, **facts: object) -> Release:
    """What the holder of the key would sign."""
    return dataclasses.replace(Release.read(SIGNER.release(serial, bundle), KEY.public_key()), **facts)  # type: ignore[arg-type]


# ---------------------------------------------------------------- a real server that was taken over


def slip_in(there: Fleet, bundle: Bundle, statement: bytes) -> int:
    """Put a release into the server's database without the key, as who owns the server can; its serial there."""
    with Versions(there.state) as versions:
        serial = versions.next_serial()
        versions.add(bundle)
        versions.release(Wish(serial, bundle, None, statement, None, ALL))
    ring(there.state)
    return serial


async def stands(there: Fleet, serial: int, device: str = "a") -> str:
    """Why a device refuses a release of a real server."""
    await settle(lambda: there.versions().members(serial).get(device, ("", ""))[0] == "refused")
    return there.versions().members(serial)[device][1]
