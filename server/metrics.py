"""What the server counts, in a registry of its own, so that several servers can live in one process.

A frame adds one to an integer; everything that costs more is observed once a batch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from headwater.protos import edge_pb2 as pb
from headwater.server.access.denials import REASONS, Reason
from headwater.server.engine import BatchReport
from headwater.server.spread import Spread, family

_CALLS = ("infer", "stream")
_OUTCOMES = {
    status: name.removeprefix("STATUS_").lower()
    for name, status in pb.Status.items()
    if status != pb.STATUS_UNSPECIFIED
}
_STAGE_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_BYTES_BUCKETS = (16, 32, 64, 128, 256, 512, 1024, 4096, 16384, 65536)


class _Requests(Collector):
    """Frames by outcome, from plain integers: counting one costs a tenth of what a Counter takes."""

    def __init__(self, counts: Mapping[tuple[str, int], int]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        """One family with a sample for each call and outcome."""
        family = CounterMetricFamily(
            "headwater_requests", "Frames by how they were answered.", labels=("call", "outcome")
        )
        for (call, status), count in self._counts.items():
            family.add_metric((call, _OUTCOMES[pb.Status.ValueType(status)]), count)
        yield family


class _Batches(Collector):
    """What batches took, from plain integers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._frames = Spread(_BATCH_BUCKETS)
        self._wait, self._decode, self._run = (Spread(_STAGE_BUCKETS) for _ in range(3))
        self._mean = Spread(_BYTES_BUCKETS)
        self._payload_bytes = 0

    def observe(self, batch: BatchReport) -> None:
        """Take in what a batch took."""
        with self._lock:
            self._frames.observe(batch.frames)
            self._wait.observe(batch.wait_s)
            self._decode.observe(batch.decode_s)
            self._run.observe(batch.run_s)
            self._mean.observe(batch.payload_bytes / batch.frames)
            self._payload_bytes += batch.payload_bytes

    def collect(self) -> list[Metric]:
        """Four families."""
        stages = "Time of a stage: a frame's wait (the oldest of its batch), a batch's entropy decoding, its network."
        payload = "Payload bytes of frames that ran."
        with self._lock:
            by_stage = {"queue": self._wait, "decode": self._decode, "run": self._run}
            return [
                family("headwater_batch_frames", "Frames of a batch.", {"": self._frames}),
                family("headwater_stage_seconds", stages, by_stage, "stage"),
                family("headwater_batch_mean_payload_bytes", "Mean payload of a batch's frames.", {"": self._mean}),
                CounterMetricFamily("headwater_payload_bytes", payload, self._payload_bytes),
            ]


class Metrics:
    """The server's metrics. :meth:`count` is for the event loop's thread, everything else for any."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self._requests = {(call, status): 0 for call in _CALLS for status in _OUTCOMES}
        self.registry.register(_Requests(self._requests))
        self._queue_depth = Gauge("headwater_queue_depth", "Frames that wait for a batch.", registry=self.registry)
        self._devices = Gauge("headwater_connected_devices", "Open device streams.", registry=self.registry)
        self._batches = _Batches()
        self.registry.register(self._batches)
        self._resent = Counter(
            "headwater_answers_resent",
            "Frames that came again after they had been run: answered from memory.",
            registry=self.registry,
        )
        collected = Counter(
            "headwater_frames_in_parts", "Frames that came in parts and were queued.", ["cut"], registry=self.registry
        )
        self._whole, self._cut = (collected.labels(cut) for cut in ("no", "yes"))
        self._late_parts = Counter(
            "headwater_late_parts",
            "Parts whose frame had been answered, refused or withdrawn; they are ignored.",
            registry=self.registry,
        )
        self._kept = Counter(
            "headwater_kept_frames",
            "Kept frames that devices delivered: stored, stored before already, or refused.",
            ["outcome"],
            registry=self.registry,
        )
        self._kept_answers = Counter(
            "headwater_kept_answers",
            "Frames of the archive that were run, by outcome.",
            ["outcome"],
            registry=self.registry,
        )
        self._offers = Counter(
            "headwater_offers",
            "Offers of bundles and federated messages to devices: made, refused by the device, or replied to.",
            ["outcome"],
            registry=self.registry,
        )
        self._transfers = Counter(
            "headwater_transfers",
            "Transfers of contents down and replies up: ended in order, or broken off.",
            ["way", "outcome"],
            registry=self.registry,
        )
        self._transferred = Counter(
            "headwater_transferred_bytes", "Bytes of contents and replies.", ["way"], registry=self.registry
        )
        self._federated = Gauge(
            "headwater_federated_devices", "Connected devices that take part in rounds.", registry=self.registry
        )
        self._denied = Counter(
            "headwater_denied",
            "Calls and frames that were refused before they cost anything.",
            ["reason"],
            registry=self.registry,
        )
        for reason in REASONS:
            self._denied.labels(reason)
        for outcome in ("made", "refused", "replied"):
            self._offers.labels(outcome)
        for outcome in ("stored", "repeated", "refused"):
            self._kept.labels(outcome)
        self._failed = Counter("headwater_batches_failed", "Batches that raised an error.", registry=self.registry)

    def count(self, call: str, status: pb.Status) -> None:
        """Count a frame's answer; `call` is infer or stream."""
        self._requests[call, status] += 1

    def count_denied(self, reason: Reason, count: int = 1) -> None:
        """Count calls or frames that were refused for what their sender is, or has taken already."""
        self._denied.labels(reason).inc(count)

    def count_resent(self) -> None:
        """Count an answer that was given from memory."""
        self._resent.inc()

    def count_collected(self, *, cut: bool) -> None:
        """Count a frame in parts that goes to the queue, cut short or whole."""
        (self._cut if cut else self._whole).inc()

    def count_late_part(self) -> None:
        """Count a part that came too late."""
        self._late_parts.inc()

    def count_kept(self, outcome: Literal["stored", "repeated", "refused"], frames: int) -> None:
        """Count kept frames that were delivered."""
        self._kept.labels(outcome).inc(frames)

    def count_kept_answer(self, status: pb.Status) -> None:
        """Count a frame of the archive that has its answer."""
        self._kept_answers.labels(_OUTCOMES[status]).inc()

    def count_offer(self, outcome: Literal["made", "refused", "replied"]) -> None:
        """Count an offer to a device."""
        self._offers.labels(outcome).inc()

    def count_transfer(self, way: Literal["down", "up"], outcome: Literal["ok", "broken"]) -> None:
        """Count the end of a transfer."""
        self._transfers.labels(way, outcome).inc()

    def count_transferred(self, way: Literal["down", "up"], size: int) -> None:
        """Count bytes of a transfer."""
        self._transferred.labels(way).inc(size)

    def count_failure(self) -> None:
        """Count a batch that raised."""
        self._failed.inc()

    def observe(self, batch: BatchReport) -> None:
        """Take in what a batch took."""
        self._batches.observe(batch)

    def watch(self, queue_depth: Callable[[], int], devices: Callable[[], int]) -> None:
        """Read two gauges from where the numbers are, when they are asked for."""
        self._queue_depth.set_function(queue_depth)
        self._devices.set_function(devices)

    def watch_federation(self, devices: Callable[[], int]) -> None:
        """Read how many devices take part in rounds from where the number is."""
        self._federated.set_function(devices)

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)
