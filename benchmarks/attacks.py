"""Attacks on who is let in, on what devices run and on what they learn: how many are tried, how many go further.

    python -m benchmarks.attacks

The attacks are those of the tests, `tests/security` and `tests/server/federation`, over real ports, by real devices and
servers: enrolments without a right to one, connections that TLS is to refuse, hostile offers of bundles after The
Update Framework's list, forged updates in a round. Calls with bad credentials are in `benchmarks.overload`, hostile
bytes in `benchmarks.hostile`. ``--quick`` tries the same.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import claims
from headwater.server.access.arrivals import PATIENCE_S
from tests.security import enrolments, handshakes, offers
from tests.server.access import material
from tests.server.edges import edge
from tests.server.federation import forgeries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.claims import Claim
    from tests.security.offers import Tried

NAME = "attacks"
TIMED = False
SECONDS = 10
EACH = 5
"""Connections of each kind that TLS refuses."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Try and report."""
    options = claims.options(__doc__, arguments)
    logging.getLogger("headwater").propagate = False  # every refusal is a line
    logging.getLogger("headwater").addHandler(logging.NullHandler())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("enrolment", "handshake", "offers", "updates"):
            (folder / part).mkdir()
        found = [
            _went_further(
                asyncio.run(enrolments.every_one(folder / "enrolment")), "enrolments let in of {} without right"
            ),
            asyncio.run(uncounted(folder / "handshake")),
            _went_further(
                asyncio.run(offers.every_one(folder / "offers")), "hostile offers of bundles followed, of {}"
            ),
            forged(folder / "updates"),
        ]
    return claims.report("Attacks", found, options)


def _went_further(tried: Sequence[Tried], text: str) -> Claim:
    further = [one for one in tried if not one.stopped]
    for one in further:
        print(f"NOT STOPPED: {one.name}: {one.said}")
    return claims.at_most(NAME, text.format(len(tried)), len(further), unit="", target=0, peer="-")


async def uncounted(folder: Path) -> Claim:
    """Connections that end in TLS' handshake, held against the server's own count of them."""
    async with edge(tls=True, state=folder) as running:
        access = running.server.access
        assert access is not None
        host, port = running.addresses.grpc.split(":")
        long_ago = datetime.now(UTC) - timedelta(days=40)
        kinds = (
            None,
            access.authority.make_server(),
            material.member(material.stranger(folder)),
            material.member(access.authority, now=long_ago),
        )
        for shown in kinds:
            for _ in range(EACH):
                await asyncio.to_thread(handshakes.fail, (host, int(port)), access.authority, shown)
        now = access.arrivals.clock
        access.arrivals.clock = lambda: now() + PATIENCE_S
        access.count_arrivals()
        tried, counted = EACH * len(kinds), running.denied("handshake")
    text = f"connections refused in TLS' handshake and not counted, of {tried}"
    peer = "no certificate, the server's own, another authority's, an expired one"
    return claims.at_most(NAME, text, abs(tried - counted), unit="", target=0, peer=peer)


def forged(folder: Path) -> Claim:
    """Forged updates of one device, each in a round of its own; the round is to be as if it had not been there."""
    wanted = forgeries.round_without_b(folder / "honest")
    further = []
    for number, (name, (word, forgery)) in enumerate(forgeries.WRONG.items()):
        refused, others, model = forgeries.round_with(folder / str(number), forgery)
        if (refused, others, model) != ({word: 1}, [1, 1, 1, 1], wanted):
            further.append(name)
    text = f"forged updates that a round was changed by, of {len(forgeries.WRONG)}"
    return claims.at_most(NAME, text, len(further), unit="", target=0, peer=", ".join(further) or "-")


if __name__ == "__main__":
    sys.exit(main())
