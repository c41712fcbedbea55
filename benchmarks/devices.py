"""Many devices in one light process: `headwater.v1.Edge/Stream` over plain sockets, for loading a server.

Each device is a TCP connection of its own that speaks just enough HTTP/2 to hold one gRPC stream: gRPC's own Python
client costs ten times as much a frame, which on a shared machine would be taken from the server that is measured.
Frames come pre-encoded. As a process it reads a plan from stdin and prints what happened, as JSON:

    python -m benchmarks.devices < plan.json

In a *closed* plan each device keeps `window` frames unanswered; in an *open* one frames leave at `rate` a second in
all, whatever the server does.
"""

from __future__ import annotations

import json
import math
import secrets
import select
import selectors
import socket
import struct
import sys
import time
from base64 import b64decode
from dataclasses import dataclass, field

from headwater.protos import edge_pb2 as pb

_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_ACK, _END_STREAM, _END_HEADERS = 1, 1, 4
_INITIAL_WINDOW = 4  # the setting's number
_DEFAULT_WINDOW = 65535
_MAX_WINDOW = (1 << 31) - 1
_MAX_DATA = 16384
LAST_S = 60.0
"""That the last answers may take before a frame counts as lost."""


def _http2(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _grpc(message: bytes) -> bytes:
    return struct.pack(">BI", 0, len(message)) + message


def _headers(authority: str) -> bytes:
    """Request headers as HPACK literals that no table remembers."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/headwater.v1.Edge/Stream",
        ":authority": authority,
        "te": "trailers",
        "content-type": "application/grpc",
    }
    return b"".join(
        b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in fields.items()
    )


class Device:
    """One connection with one stream; `messages` are answers, serialised, in the order of arrival until they are taken.

    ``window``: bytes that the server may send unasked; with a small one it has a slow consumer before it.
    """

    def __init__(self, host: str, port: int, name: str, bundle_id: bytes, window: int = _MAX_WINDOW) -> None:
        self.socket = socket.create_connection((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.messages: list[bytes] = []
        self.closed = False
        self._received = bytearray()
        self._stream = bytearray()
        self._outgoing = bytearray()  # gRPC bytes that flow control holds back
        self._windows = [_DEFAULT_WINDOW, _DEFAULT_WINDOW]  # of the connection, of the stream
        self._initial = _DEFAULT_WINDOW
        settings = struct.pack(">HI", _INITIAL_WINDOW, window)
        self.socket.sendall(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + _http2(_SETTINGS, 0, 0, settings)
            + _http2(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _MAX_WINDOW - _DEFAULT_WINDOW))
            + _http2(_HEADERS, _END_HEADERS, 1, _headers(f"{host}:{port}"))
        )
        # A session of its own: the server would answer an earlier one's frames from memory.
        hello = pb.Hello(device=name, bundle_id=bundle_id, session=secrets.randbits(64))
        self.send(pb.DeviceMessage(hello=hello).SerializeToString())
        while not self.messages:
            self.receive()
        welcome = pb.ServerMessage.FromString(self.messages.pop())
        assert welcome.WhichOneof("kind") == "welcome", "the server answers a hello with a welcome"
        self.socket.settimeout(0)

    def send(self, *messages: bytes) -> None:
        """Send serialised messages, as far as flow control allows; the rest follows when it does."""
        for message in messages:
            self._outgoing += _grpc(message)
        self._flush()

    def ask(self, message: bytes) -> bytes:
        """Send a serialised message and wait for the one that answers it."""
        self.send(message)
        while not self.messages:
            assert not self.closed, "the server ended the stream"
            select.select([self.socket], [], [])
            self.receive()
        return self.messages.pop()

    def receive(self) -> None:
        """Take in what has arrived."""
        try:
            data = self.socket.recv(1 << 18)
        except BlockingIOError:
            return
        if not data:
            self.closed = True
        self._received += data
        start = 0
        while len(self._received) - start >= 9:
            size = int.from_bytes(self._received[start : start + 3], "big")
            if len(self._received) - start < 9 + size:
                break
            kind, flags = self._received[start + 3], self._received[start + 4]
            stream = int.from_bytes(self._received[start + 5 : start + 9], "big")
            self._frame(kind, flags, stream, bytes(self._received[start + 9 : start + 9 + size]))
            start += 9 + size
        del self._received[:start]

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _DATA:
            self._stream += payload
            self._parse()
        elif kind == _WINDOW_UPDATE:
            self._windows[1 if stream else 0] += struct.unpack(">I", payload)[0]
            self._flush()
        elif kind == _SETTINGS and not flags & _ACK:
            self._settings(payload)
        elif kind == _PING and not flags & _ACK:
            self.socket.sendall(_http2(_PING, _ACK, 0, payload))
        if kind in {_RESET, _GOAWAY} or (kind in {_DATA, _HEADERS} and flags & _END_STREAM):
            self.closed = True

    def _settings(self, payload: bytes) -> None:
        for offset in range(0, len(payload), 6):
            number, value = struct.unpack_from(">HI", payload, offset)
            if number == _INITIAL_WINDOW:
                self._windows[1] += value - self._initial
                self._initial = value
        self.socket.sendall(_http2(_SETTINGS, _ACK, 0))
        self._flush()

    def _parse(self) -> None:
        start = 0
        while len(self._stream) - start >= 5:
            size = int.from_bytes(self._stream[start + 1 : start + 5], "big")
            if len(self._stream) - start < 5 + size:
                break
            self.messages.append(bytes(self._stream[start + 5 : start + 5 + size]))
            start += 5 + size
        del self._stream[:start]

    def _flush(self) -> None:
        while self._outgoing and (size := min(len(self._outgoing), _MAX_DATA, *self._windows)) > 0:
            self.socket.sendall(_http2(_DATA, 0, 1, bytes(self._outgoing[:size])))
            del self._outgoing[:size]
            self._windows = [window - size for window in self._windows]


@dataclass
class Plan:
    """What to send; as JSON on stdin of the process."""

    host: str
    port: int
    bundle_id: str
    """Hex."""
    frames: list[str]
    """Frames in the stream form, base64; frame number s of a device is ``frames[s % len(frames)]``."""
    devices: int
    seconds: float
    window: int = 0
    """Closed: unanswered frames a device."""
    rate: float = 0.0
    """Open: frames a second in all."""
    deadline_ms: int = 0
    warm_s: float = 0.0
    """Time before the measuring begins."""


@dataclass
class Result:
    """What happened to the frames that were sent after the warm-up; printed as JSON."""

    seconds: float = 0.0
    cpu_s: float = 0.0
    sent: int = 0
    answers: dict[str, int] = field(default_factory=dict)
    """By status."""
    batches: dict[str, int] = field(default_factory=dict)
    """Answered frames by the size of their batch."""
    ok_ms: list[float] = field(default_factory=list)
    """Latency of each frame that was answered with scores."""
    refused_ms: list[float] = field(default_factory=list)
    """Latency of each refusal."""
    samples: list[tuple[int, list[list[float]]]] = field(default_factory=list)
    """For each of the first answers: index of the frame, scores a task."""


class Load:
    """Runs a plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.result = Result()
        self._frames = [b64decode(frame) for frame in plan.frames]
        self._selector = selectors.DefaultSelector()
        self._devices: list[Device] = []
        self._next: list[int] = [1] * plan.devices
        self._sent_at: list[dict[int, float]] = [{} for _ in range(plan.devices)]
        self._began = math.inf

    def run(self) -> Result:
        """Connect, send, wait for the last answers; fails if a frame gets none, not even a refusal."""
        try:
            return self._run()
        finally:
            self._selector.close()
            for device in self._devices:
                device.socket.close()

    def _run(self) -> Result:
        plan = self.plan
        for index in range(plan.devices):
            device = Device(plan.host, plan.port, f"load-{index}", bytes.fromhex(plan.bundle_id))
            self._devices.append(device)
            self._selector.register(device.socket, selectors.EVENT_READ, index)
        print("connected", flush=True)
        if plan.warm_s:
            self._drive(plan.warm_s)
        print("measuring", flush=True)
        self._began, cpu = time.monotonic(), time.process_time()
        self._drive(plan.seconds)
        self.result.seconds, self.result.cpu_s = time.monotonic() - self._began, time.process_time() - cpu
        print("measured", flush=True)
        end = time.monotonic() + LAST_S
        while any(self._sent_at) and time.monotonic() < end:
            self._receive(0.01, refill=False)
        lost = sum(map(len, self._sent_at))
        assert not lost, f"{lost} frames had no answer within {LAST_S:g} s after the last one was sent"
        return self.result

    def _drive(self, seconds: float) -> None:
        began = time.monotonic()
        if self.plan.rate:
            self._open(began, seconds)
        else:
            for index in range(len(self._devices)):
                self._send(index, self.plan.window - len(self._sent_at[index]))
            while time.monotonic() - began < seconds:
                self._receive(0.05, refill=True)

    def _open(self, began: float, seconds: float) -> None:
        sent = 0
        while (elapsed := time.monotonic() - began) < seconds:
            due = int(elapsed * self.plan.rate)
            for number in range(sent, due):
                self._send(number % len(self._devices), 1)
            sent = max(sent, due)
            self._receive(max(0.0, began + (sent + 1) / self.plan.rate - time.monotonic()), refill=False)

    def _send(self, index: int, count: int) -> None:
        messages = []
        now = time.monotonic()
        for _ in range(count):
            sequence = self._next[index]
            self._next[index] += 1
            data = self._frames[sequence % len(self._frames)]
            frame = pb.FeatureFrame(sequence=sequence, data=data, deadline_ms=self.plan.deadline_ms)
            messages.append(pb.DeviceMessage(frame=frame).SerializeToString())
            self._sent_at[index][sequence] = now
        if now >= self._began:
            self.result.sent += count
        self._devices[index].send(*messages)

    def _receive(self, timeout: float, *, refill: bool) -> None:
        for key, _ in self._selector.select(timeout):
            index = key.data
            device = self._devices[index]
            device.receive()
            assert not device.closed, "the server ended a stream"
            messages, device.messages = device.messages, []
            answered = sum(self._note(index, pb.ServerMessage.FromString(message)) for message in messages)
            if refill and answered:
                self._send(index, answered)

    def _note(self, index: int, message: pb.ServerMessage) -> int:
        if message.WhichOneof("kind") != "answer":
            return 0
        answer = message.answer
        sent_at = self._sent_at[index].pop(answer.sequence)
        if sent_at < self._began:
            return 1
        result, ms = self.result, (time.monotonic() - sent_at) * 1e3
        status = pb.Status.Name(answer.status).removeprefix("STATUS_").lower()
        result.answers[status] = result.answers.get(status, 0) + 1
        if answer.status == pb.STATUS_OK:
            result.ok_ms.append(ms)
            size = str(answer.timing.batch)
            result.batches[size] = result.batches.get(size, 0) + 1
            if len(result.samples) < 200:
                scores = [list(task.scores) for task in answer.results]
                result.samples.append((answer.sequence % len(self._frames), scores))
        else:
            result.refused_ms.append(ms)
        return 1


if __name__ == "__main__":
    print(json.dumps(vars(Load(Plan(**json.loads(sys.stdin.read()))).run())))
