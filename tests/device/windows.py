"""Frames for a window by hand, and the server's answers to them."""

from __future__ import annotations

from headwater.compression.parts import Part
from headwater.device.window import Outgoing, Window
from headwater.protos import edge_pb2 as pb

PARTS = (Part(1, b"1234567"), Part(2, b"12345"), Part(4, b"123"))


def submit(window: Window, now_s: float = 0.0, give_up_s: float | None = None) -> Outgoing:
    return window.submit(pb.FeatureFrame(data=b"12345"), now_s, give_up_s)


def submit_parts(window: Window, now_s: float = 0.0, give_up_s: float | None = None) -> Outgoing:
    return window.submit(pb.FeatureFrame(tasks=["a"], priority=3), now_s, give_up_s, PARTS)


def write_all(window: Window, now_s: float = 0.0) -> list[int]:
    written = []
    while (outgoing := window.next(now_s)) is not None:
        written.append(outgoing.sequence)
    return written


def parts_left(window: Window) -> list[pb.FeatureFrame]:
    written = []
    while (part := window.next_part()) is not None:
        written.append(part)
    return written


def answer(sequence: int, status: pb.Status = pb.STATUS_OK, retry_after_ms: int = 0) -> pb.Answer:
    return pb.Answer(sequence=sequence, status=status, timing=pb.ServerTiming(retry_after_ms=retry_after_ms))
