"""Messages as a server sends them, and what comes back, for tests of the device's end."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from headwater.compression.transfer import BlobStore
from headwater.device.federated.jobs import Answer, Failed, Job
from headwater.device.federated.trainer import HopelessError, Trainer
from headwater.device.federated.worker import Worker, load
from headwater.protos import edge_pb2 as pb
from headwater.protos.flower import Parcel, acting_as, node_id, pack, unpack

APP = "tests.device.federated.counting_app:app"
ROOM = 256 << 20
LIMIT = 1 << 30


class InlineTrainer(Trainer):
    """Answers in this process, without the second that it takes to start one."""

    def __init__(self) -> None:
        super().__init__(APP, Path(os.devnull))
        self.jobs: list[Job] = []

    async def answer(self, job: Job) -> Answer:
        self.jobs.append(job)
        word = await asyncio.to_thread(Worker(load(APP), 1 << 50).answer, job)
        if isinstance(word, Failed):
            raise HopelessError(word.reason)
        return word


def question(what: str = "", *, run: int = 5, number: int = 1, path: str = "", kind: str = "train") -> Parcel:
    """A message that asks the counting app to train (and how to misbehave)."""
    told = ConfigRecord({"what": what, "path": path, "number": number})
    records = RecordDict({"arrays": ArrayRecord([np.arange(6.0, dtype=np.float32)]), "do": told})
    with acting_as(run):
        message = Message(records, node_id("cam-1"), kind, group_id=str(number))
    message.metadata.__dict__["_message_id"] = f"message-{number}"
    return pack(message)


def job(folder: Path, parcel: Parcel, contexts: dict[str, str] | None = None, room: int = ROOM) -> Job:
    """What the agent would hand to its training process."""
    content = BlobStore(folder, LIMIT).put(parcel.content).hex()
    config = {"device": "cam-1", "memory-bytes": room}
    return Job(base64.b64encode(parcel.envelope).decode(), content, contexts or {}, config, room, str(folder), LIMIT)


def reply(folder: Path, envelope: str, content: str) -> Message:
    """The message that an answer's reply is."""
    return unpack(Parcel(base64.b64decode(envelope), (folder / content).read_bytes()))


def offer(parcel: Parcel, number: int = 1, valid_s: float = 3600.0) -> pb.Offer:
    """The offer of a message."""
    return pb.Offer(
        offer=number,
        kind=pb.OFFER_KIND_FEDERATED_MESSAGE,
        content_sha256=hashlib.sha256(parcel.content).digest(),
        content_bytes=len(parcel.content),
        valid_for_ms=int(valid_s * 1e3),
        envelope=parcel.envelope,
    )
