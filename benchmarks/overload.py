"""What attackers and slow peers get, and what the others notice of them.

    python -m benchmarks.overload                      # simulations/bundles/solar
    python -m benchmarks.overload --bundle PATH        # any other
    python -m benchmarks.overload --quick

A server as a process of its own; whoever asks it for something is here, over real sockets. Every RPC that the server
lists is tried with every credential that ought not to open it. Fifty connections that begin and never end, one byte at
a time, and fifty that send frames and read no answers stand beside devices that behave; those are measured alone and
with them, by turns. Then devices come back from a lost server all at once, by the device's real code.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import math
import random
import select
import socket
import sys
import tempfile
import threading
import time
from bisect import bisect_left
from contextlib import AbstractContextManager, AsyncExitStack, ExitStack, contextmanager
from copy import copy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil

from benchmarks import claims
from benchmarks.devices import Device
from benchmarks.serving import BUNDLE, Bench, cpu_s
from headwater.device.link import Link
from headwater.device.link_options import LinkOptions
from headwater.protos import edge_pb2 as pb
from headwater.simulations.link import LinkProxy
from headwater.simulations.trace import LinkTrace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.claims import Claim
    from benchmarks.devices import Result

NAME = "overload"
SLOW, QUICK_SLOW = 50, 10
"""Of each kind."""
DEVICES, RATE = 8, 200
"""Those that behave, and their frames a second in all."""
PATIENT = ("--heartbeat-ms", "30000")
"""Of a server that is not to cut slow consumers, which it does after three heartbeats, before the last turn."""
BACK, QUICK_BACK = 200, 20
PER_S, QUICK_PER_S = 50, 10
"""Devices that are let in in a second; as many at once."""
STORMS = 3
BURST = 1000
WINDOW_BYTES = 300
TRICKLE_S = 0.1
SETTLE_S, IDLE_SHARE = 0.3, 0.1
LIMIT_S = 60.0
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS = bytes.fromhex("000000 04 00 00000000 003fff 01 00 00000001 00 7e")
"""Settings, then headers of 16 KiB that come byte by byte, first of all a name of 126 letters."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    own, rest = parser.parse_known_args(arguments)
    options = claims.options(__doc__, rest)
    bench = Bench(own.bundle, seconds=1.0, rounds=2 if options.quick else 6)
    found = [
        attacks(bench),
        excess(bench),
        *slow_peers(bench, QUICK_SLOW if options.quick else SLOW),
        left_over(bench, STORMS),
        *everybody_back(bench, *((QUICK_BACK, QUICK_PER_S) if options.quick else (BACK, PER_S))),
    ]
    return claims.report(f"Overload, {bench.bundle.manifest.name}", found, options)


# ---------------------------------------------------------------- who may not


def attacks(bench: Bench) -> Claim:
    """Every RPC with every credential that ought not to open it."""
    with tempfile.TemporaryDirectory() as folder, bench.server("--tls", "--state", folder, pin=False):
        let_in, tried = asyncio.run(_attack(f"{bench.host}:{bench.port}", Path(folder)))
    text = f"calls let in of {tried} with no, a wrong, an old or another's credential"
    return claims.at_most(NAME, text, let_in, unit="calls", target=0, peer="-")


async def _attack(address: str, state: Path) -> tuple[int, int]:
    """How many calls were let in, and how many were tried."""
    import grpc

    from headwater.server.access.authority import Authority
    from headwater.server.access.caller import read
    from headwater.server.access.register import Register
    from tests.security.rpcs import attempt, listed
    from tests.server.access import material

    authority = Authority.open(state)
    with Register.open(state) as register:
        old, revoked = material.enrolled(register, authority, "cam"), material.enrolled(register, authority, "lost")
        register.revoke("lost")
        new = material.member(authority, "cam")
        with register.change():
            register.add(new.issued)
        for member in (old, new):
            register.admit(read(member.pair.certificate))
    shown = [
        ("cam", None),
        ("cam", authority.make_server()),
        ("cam", material.member(material.stranger(state))),
        ("cam", material.member(authority, now=datetime.now(UTC) - timedelta(days=40))),
        ("cam", material.member(authority, "nobody")),
        ("cam", old),
        ("lost", revoked),
        ("another", new),
    ]
    refused = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAVAILABLE}
    async with material.channel(address, authority, new) as channel:
        rpcs = await listed(channel)
        assert len(rpcs) >= 8, "the server lists what it has"
        codes = [(await attempt(channel, rpc, "cam")).code for rpc in rpcs]
        assert not refused & set(codes), "a device of the fleet is let in"
    let_in = tried = 0
    for name, credential in shown:
        async with material.channel(address, authority, credential) as channel:
            for rpc in rpcs:
                if name != "another" or rpc.names_a_device:
                    ended = await attempt(channel, rpc, name)
                    if ended.code not in refused:
                        print(f"let in: {rpc.path} with {ended}")
                        let_in += 1
                    tried += 1
    return let_in, tried


def excess(bench: Bench) -> Claim:
    """One device that sends many more frames than it may, at once."""
    with bench.server("--max-device-requests-per-s", "100", "--queue", "5000", "--max-in-flight", "5000", pin=False):
        device = Device(bench.host, bench.port, "flood", bench.bundle.id)
        began = time.monotonic()
        device.send(*(_frame(bench, number) for number in range(1, BURST + 1)))
        statuses: list[int] = []
        while len(statuses) < BURST:
            assert time.monotonic() < began + LIMIT_S, f"{len(statuses)} of {BURST} frames were answered or refused"
            select.select([device.socket], [], [], 1.0)
            device.receive()
            statuses += [pb.ServerMessage.FromString(message).answer.status for message in device.messages]
            device.messages = []
        allowed = 100 + 100 * (time.monotonic() - began)
        device.socket.close()
    answered = statuses.count(pb.STATUS_OK)
    assert answered >= 100, "what a device may send is answered"
    assert answered + statuses.count(pb.STATUS_BUSY) == BURST, "every other frame is refused"
    text = f"frames answered beyond one device's rate, of {BURST} sent at once"
    return claims.at_most(NAME, text, max(0, answered - int(allowed)), unit="frames", target=0, peer="-")


def _frame(bench: Bench, number: int, **fields: int) -> bytes:
    frame = pb.FeatureFrame(sequence=number, data=bench.frames[number % len(bench.frames)], **fields)  # type: ignore[arg-type]
    return pb.DeviceMessage(frame=frame).SerializeToString()


# ---------------------------------------------------------------- slow peers


def slow_peers(bench: Bench, each: int) -> list[Claim]:
    """The others' p99 beside slow peers, over that without them.

    Turns of a second are taken at two servers that are alike but for the slow peers of the one, which do nothing while
    it is the other's turn. Of either's turns the calmest two thirds count: a host that takes the machine away for a
    tenth of a second makes late more than one frame in a hundred of all turns together, in either's turn. What slow
    peers bring about every other second stays in.
    """
    alone, beside = copy(bench), bench
    turns: dict[str, list[Result]] = {"alone": [], "beside": []}
    with alone.server(*PATIENT, pin=False), beside.server(*PATIENT, pin=False), slowly(beside, each) as meanwhile:
        for _ in range(bench.rounds):
            turns["alone"].append(alone.load(DEVICES, bench.seconds, rate=RATE))
            with meanwhile():
                turns["beside"].append(beside.load(DEVICES, bench.seconds, rate=RATE))
                still = [one for one in beside.process.net_connections("tcp") if one.status == psutil.CONN_ESTABLISHED]
                assert len(still) >= 2 * each, f"{len(still)} slow peers are connected"
    for name, results in turns.items():
        print(f"p99 of each turn {name}, ms:", *(f"{p99_ms([one]):.1f}" for one in results))
    before, during = (p99_ms(calmest(results)) for results in turns.values())
    lost = sum(one.sent - one.answers.get("ok", 0) for one in turns["beside"])
    who = f"{each} slow-loris and {each} slow consumers"
    peer = f"without them: {before:.1f} ms; of all turns {p99_ms(turns['beside']) / p99_ms(turns['alone']):.2g} x"
    return [
        claims.at_most(NAME, f"others' p99 beside {who}", during / before, unit="x", target=2.0, peer=peer),
        claims.at_most(NAME, f"others' frames not answered beside {who}", lost, unit="frames", target=0, peer="-"),
    ]


def calmest(turns: Sequence[Result]) -> list[Result]:
    """Two thirds of them, and one at least."""
    return sorted(turns, key=lambda one: p99_ms([one]))[: math.ceil(2 * len(turns) / 3)]


def p99_ms(turns: Sequence[Result]) -> float:
    """Of the answered frames of all of them together."""
    return float(np.percentile([ms for one in turns for ms in one.ok_ms], 99))


@contextmanager
def slowly(bench: Bench, each: int) -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Keep slow consumers connected, who have sent and read nothing, as many as the server takes from them.

    What it gives has them and as many slow-loris, who begin and never end, do a little again and again for as long as
    it is entered. These come anew each time, since their handshakes end after 20 seconds.
    """
    with ExitStack() as stack:
        deaf = [Device(bench.host, bench.port, f"slow-{n}", bench.bundle.id, WINDOW_BYTES) for n in range(each)]
        for device in deaf:
            stack.callback(device.socket.close)
            device.send(*(_frame(bench, number) for number in range(1, 129)))
        _settled(bench)
        yield lambda: _trickling(bench, deaf)


@contextmanager
def _trickling(bench: Bench, deaf: list[Device]) -> Iterator[None]:
    stop = threading.Event()
    with ExitStack() as stack:
        begun = [stack.enter_context(socket.create_connection((bench.host, bench.port))) for _ in deaf]
        for one in begun[::2]:
            one.sendall(PREFACE + HEADERS)
        trickle = threading.Thread(target=_trickle, args=(stop, begun, deaf))
        trickle.start()
        stack.callback(trickle.join)
        stack.callback(stop.set)
        yield


def _settled(bench: Bench) -> None:
    """Wait until the server has run what the deaf have sent and stands before them."""
    end_s = time.monotonic() + LIMIT_S
    spent_s, before_s = cpu_s(bench.process), -1.0
    while spent_s - before_s > IDLE_SHARE * SETTLE_S:
        assert time.monotonic() < end_s, "the server never comes to rest beside slow peers"
        time.sleep(SETTLE_S)
        before_s, spent_s = spent_s, cpu_s(bench.process)


def _trickle(stop: threading.Event, begun: list[socket.socket], deaf: list[Device]) -> None:
    """Have every slow peer do a little, again and again, until it is cut."""
    beat = pb.DeviceMessage(heartbeat=pb.Heartbeat(sent_unix_ms=1)).SerializeToString()
    sent = 0
    while not stop.wait(TRICKLE_S):
        for number, one in enumerate(begun):
            data = b"a" if number % 2 == 0 else PREFACE[sent : sent + 1]
            _unless_cut(one.sendall, data)
        for device in deaf:
            _unless_cut(device.send, beat)
        sent += 1


def _unless_cut(send: object, data: bytes) -> None:
    try:
        send(data)  # type: ignore[operator]
    except OSError:
        return  # the server has had enough of it, or its buffer is full


# ---------------------------------------------------------------- afterwards


def left_over(bench: Bench, storms: int) -> Claim:
    """Descriptors that a server still has open when slow peers have come and gone."""
    with bench.server("--max-greetings-per-s", "0", pin=False):
        _storm(bench)
        before, resident = bench.process.num_fds(), bench.process.memory_info().rss
        for _ in range(storms):
            _storm(bench)
        end_s = time.monotonic() + LIMIT_S
        while (left := max(0, bench.process.num_fds() - before)) and time.monotonic() < end_s:
            time.sleep(0.05)
        grown = bench.process.memory_info().rss - resident
    print(f"{storms} storms of {2 * QUICK_SLOW} slow peers: {left} descriptors and {grown / 1024:.0f} KiB more")
    text = f"descriptors left after {storms * 2 * QUICK_SLOW} slow peers came and went"
    return claims.at_most(NAME, text, left, unit="descriptors", target=0, peer="-")


def _storm(bench: Bench) -> None:
    with slowly(bench, QUICK_SLOW) as meanwhile, meanwhile():
        time.sleep(TRICKLE_S)


# ---------------------------------------------------------------- all at once


def everybody_back(bench: Bench, devices: int, per_s: int) -> list[Claim]:
    """Devices that lose the server in one moment, and find it again in one moment."""
    logging.getLogger("headwater.device.link").setLevel(logging.ERROR)  # each of them says that it lost the server
    with bench.server("--max-greetings-per-s", str(per_s), pin=False):
        came = asyncio.run(_come_back(bench, devices))
    densest = max(bisect_left(came, at_s + 1.0) - first for first, at_s in enumerate(came))
    print(f"{devices} devices: the last was back after {came[-1]:.1f} s")
    return [
        claims.at_most(
            *(NAME, f"devices let in within a second, of {devices} that come back at once"),
            densest,
            unit="devices",
            # The clocks of two processes and a message on its way: a tenth more.
            target=round(1.1 * 2 * per_s),
            peer=f"--max-greetings-per-s {per_s}, and as many at once",
        ),
        claims.at_most(
            *(NAME, f"until the last of {devices} devices is back"),
            came[-1] / (devices / per_s),
            unit="x",
            target=1.5,
            peer=f"{devices / per_s:g} s, at the rate that is allowed",
        ),
    ]


async def _come_back(bench: Bench, devices: int) -> list[float]:
    """Seconds after the connections broke at which each device was connected again."""
    came: list[float] = []
    broke_s = time.monotonic()

    async def wait_for(link: Link) -> None:
        while link.connections < 2:
            await link.connected.wait()
            await asyncio.sleep(0.005)
        came.append(time.monotonic() - broke_s)

    async with AsyncExitStack() as stack:
        lan = LinkTrace.constant("LAN", 1_000_000_000)
        proxy = await stack.enter_async_context(LinkProxy(f"{bench.host}:{bench.port}", lan))
        links = [
            Link(proxy.address, LinkOptions(f"cam-{number}", bench.bundle.id), rng=random.Random(number))
            for number in range(devices)
        ]
        for link in links:
            await stack.enter_async_context(link)
        await asyncio.gather(*(link.wait_connected(LIMIT_S) for link in links))
        await asyncio.sleep(1.0)  # as many as are let in at once may come again
        broke_s = time.monotonic()
        proxy.cut()
        async with asyncio.timeout(LIMIT_S):
            await asyncio.gather(*map(wait_for, links))
        data = bench.frames[1]
        replies = await asyncio.gather(*(link.send(data) for link in links))
        assert {reply.answer.status for reply in replies} <= {pb.STATUS_OK, pb.STATUS_BUSY}, "all of them are served"
    return sorted(came)


if __name__ == "__main__":
    sys.exit(main())
