"""What gRPC's core itself keeps out, before a call reaches Python."""

from __future__ import annotations

import logging
import resource
from typing import TYPE_CHECKING

from headwater.compression.transfer import MOST_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headwater.server.settings import ServerSettings

AROUND_BYTES = 1 << 16
"""What a frame, a chunk or a picture has around it in its message."""
MOST_SENT_BYTES = (1 << 21) + AROUND_BYTES
"""The largest answer: a picture."""
CALLS_A_CONNECTION = 100
"""The least that RFC 9113 (6.5.2) recommends to allow; an agent has three open."""
HANDSHAKE_S = 20
"""From a connection's opening to the end of TLS' and HTTP/2's greetings; at 5 kbit/s they take six."""
IDLE_S = 120
"""How long a connection may stay open on which there is no call."""
BESIDE = 64
"""Connections beyond two for each device: of tools, and of those that are about to be refused."""
OTHER_FILES = 256
"""Descriptors for everything but connections: graphs, databases, what Python has open."""
ONLY_PLAIN = 1
"""The set of compressions that are read, bit 0 being none: frames are coded already, and what unpacks to a thousand
times its size is sent by nobody else."""

_log = logging.getLogger("headwater.server.access")


def most_connections(settings: ServerSettings) -> int:
    """Connections that are accepted; one more is closed at once."""
    return 2 * settings.max_streams + BESIDE


def make_room(settings: ServerSettings) -> None:
    """Let this process open as many descriptors as its connections may take; log where the system does not let it."""
    wanted = most_connections(settings) + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY != soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))
        if allowed < wanted:
            extra = {"descriptors": allowed, "wanted": wanted, "remedy": "raise LimitNOFILE, or lower --max-streams"}
            _log.warning("the system lets this process have fewer connections than are set", extra=extra)


def most_bytes(settings: ServerSettings) -> Mapping[str, int]:
    """By method, the largest message that is read; others have small ones.

    A frame that is larger than `max_frame_bytes` is answered, as long as it is no larger than a chunk.
    """
    most = max(settings.max_frame_bytes, MOST_BYTES) + AROUND_BYTES
    return {f"/headwater.v1.Edge/{method}": most for method in ("Infer", "Stream", "Exchange")}


def server_options(settings: ServerSettings) -> tuple[tuple[str, int], ...]:
    """Channel arguments of the server."""
    return (
        ("grpc.so_reuseport", 0),  # a second server on the port is an error, not a partner
        ("grpc.max_receive_message_length", max(most_bytes(settings).values())),
        ("grpc.max_send_message_length", MOST_SENT_BYTES),
        # A device behind a NAT may ping an idle connection this often to keep it open.
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.bdp_probe", 0),  # its pings cost a LoRa-like link more than the windows that it tunes are worth
        ("grpc.max_concurrent_streams", CALLS_A_CONNECTION),
        ("grpc.max_allowed_incoming_connections", most_connections(settings)),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_S * 1000),
        ("grpc.max_connection_idle_ms", IDLE_S * 1000),
        ("grpc.compression_enabled_algorithms_bitset", ONLY_PLAIN),
    )
