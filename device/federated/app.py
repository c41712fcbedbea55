"""headwater's own ClientApp: what a device answers when the server asks it to learn.

    train       the images here, from the round's base: an update of the sub-network that fits
    evaluate    a version on the images here that are held out
    query       what this device is: its version, images, memory, and the widest it could train

The records are those of docs/federated.md. The same app runs under headwater's agent, a SuperNode and the simulation
engine; what it needs to know it finds in the node's config (:mod:`headwater.device.federated.budget`), or in the run's,
where Flower starts it. What it has to remember is in the context's state: see :mod:`.holding`.

It runs in the process that trains: nothing else of the device imports it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from headwater.compression.errors import LearningError
from headwater.compression.learning.arrays import load
from headwater.compression.learning.fitting import fitting
from headwater.compression.learning.layout import cut_masks, layout_of, part_of
from headwater.compression.learning.local_data import LocalData, local_data
from headwater.compression.learning.optimizers import name_of
from headwater.compression.learning.plan import Plan, Trained
from headwater.compression.learning.sparse import SparsePlan, sparsity_of
from headwater.compression.learning.terms import Terms
from headwater.compression.learning.train import evaluate, train
from headwater.compression.updates import Scheme, encode
from headwater.device.federated.holding import Holding, Start, start_of
from headwater.protos.flower import to_record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headwater.compression.learning.masks import Masks
    from headwater.compression.learning.network import SplitNetwork
    from headwater.compression.updates import Layout

T = TypeVar("T", int, float, str)
MEMORY_BYTES = 1 << 62
"""Where nothing is said of memory, all of it may be used."""

STATE_OUTLIVES_RUNS = True
"""Our agent keeps what :mod:`.holding` says from run to run, since rounds of a later run go on from what was learnt."""

app = ClientApp()


@dataclass(frozen=True)
class Device:
    """This device, as a message finds it."""

    config: Mapping[str, Any]
    start: Start
    holding: Holding
    context: Context

    @classmethod
    def of(cls, context: Context) -> Device:
        """Read bundle and state; raises :class:`LearningError` where the config names no bundle."""
        config: dict[str, Any] = {**context.run_config, **context.node_config}
        if "bundle" not in config:
            raise LearningError('no bundle to learn from: give the node config bundle="PATH"')
        torch.set_num_threads(1)  # the head's cores are not ours, and one thread gives the same bits each time
        start = start_of(str(config["bundle"]))
        return cls(config, start, Holding.of(context.state, start), context)

    def network(self) -> SplitNetwork:
        """With the arrays that this device holds."""
        network = self.start.network()
        load(network, self.holding.arrays)
        return network

    def data(self) -> LocalData:
        """The images here."""
        return local_data(self.start.bundle.manifest, self.config)

    def fitting(self, plan: Plan) -> Plan:
        """The plan as far as memory goes."""
        memory = int(self.config.get("memory-bytes", MEMORY_BYTES))
        shape = Plan(width=plan.width, part=plan.part, batch=plan.batch, optimizer=plan.optimizer)
        fits = _fitting(self.start, shape, memory)
        return replace(plan, width=fits.width, part=fits.part, at_once=fits.at_once)


@lru_cache(maxsize=8)
def _fitting(start: Start, plan: Plan, memory_bytes: int) -> Plan:
    """Tried out once for all rounds that ask for the same: what fits depends on shapes alone."""
    return fitting(start.network(), start.bundle.manifest.input, plan, memory_bytes)


@app.train()
def train_message(message: Message, context: Context) -> Message:
    """Train from the round's base and answer with the update."""
    round_, device = _record(message, "round"), Device.of(context)
    base = _field(round_, "base", str)
    with device.holding.out_of(context.state):
        device.holding.bring_to(base, _record(message, "down"))
        device.holding.follow(_field(round_, "line", str))
        text = _field(round_, "sparse", str)
        sparse = SparsePlan.from_json(text) if text else None
        masks = None if sparse is None else device.holding.known_masks(sparse)
        plan, trained, layout = _trained(device, round_, sparse, masks)
        coded = None if sparse is None or masks is None else sparse.coded(device.holding.arrays, masks)
        update = _encoded(device, layout, plan, trained, Scheme.from_json(_field(round_, "scheme", str)), coded)
        device.holding.count(trained.metrics)
    nonce = _nonce(message, context)
    up = ConfigRecord({"base": base, "width": plan.width, "part": plan.part, "update": update, "nonce": nonce})
    content = RecordDict({"up": up, "metrics": _metrics(trained.metrics)})
    if trained.gathered:
        content["gathered"] = to_record(trained.gathered)
    return Message(content, reply_to=message)


def _trained(
    device: Device, round_: ConfigRecord, sparse: SparsePlan | None, masks: Masks | None
) -> tuple[Plan, Trained, Layout]:
    """What was trained, what came of it, and the arrays that it is of; the network itself is gone by then."""
    network = device.network()
    plan = device.fitting(_plan(round_, network, device.config))
    sparsity = None if sparse is None or masks is None else sparsity_of(network, sparse, masks)
    terms = Terms.of(device.start.bundle.manifest)
    trained = train(network, device.data().train, plan, terms, sparsity, came=device.holding.arrays)
    return plan, trained, layout_of(network, plan.part)


def _plan(round_: ConfigRecord, network: SplitNetwork, config: Mapping[str, Any]) -> Plan:
    """What is asked; the widest width there is that is not above the one that is asked for."""
    wanted = _field(round_, "width", float)
    allowed = [width for width in network.widths if width <= wanted]
    return Plan(
        width=max(allowed, default=network.widths[0]),
        part=part_of(_field(round_, "part", str)),
        epochs=_field(round_, "epochs", float),
        batch=_field(round_, "batch", int),
        optimizer=name_of(_field(round_, "optimizer", str)),
        rate=_field(round_, "rate", float),
        seed=_field(round_, "seed", int),
        distil=_field(round_, "distil", float),
        logit_adjustment=_field(round_, "logit-adjustment", float),
        gather=_field(round_, "gather", str),
        seconds=float(config.get("seconds", 0.0)),
    )


def _encoded(
    device: Device, layout: Layout, plan: Plan, trained: Trained, scheme: Scheme, masks: Masks | None
) -> bytes:
    """The update's bytes; what they leave out within the masks stays here for the next one (error feedback)."""
    delta = trained.delta
    device.holding.pay(delta, layout, plan.width)
    cut = None if masks is None else cut_masks(layout, masks, plan.width)
    coded = encode(delta, layout.at(plan.width), scheme, base=bytes.fromhex(device.holding.version), mask=cut)
    for name, change in delta.items():
        np.subtract(change, coded.decoded[name], out=change)
        if cut is not None and name in cut:
            change[~cut[name]] = 0
    device.holding.owe(delta, layout, plan.width)
    return coded.data


def _nonce(message: Message, context: Context) -> str:
    """The same for a message that is answered again after a kill, another for every other."""
    known = message.metadata
    text = f"{known.run_id}/{known.group_id}/{context.node_id}/{known.message_id}/{known.created_at}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@app.evaluate()
def evaluate_message(message: Message, context: Context) -> Message:
    """Measure the round's base on the images that are held out here, or on all if there are none."""
    round_, device = _record(message, "round"), Device.of(context)
    with device.holding.out_of(context.state):
        device.holding.bring_to(_field(round_, "base", str), _record(message, "down"))
    network, data = device.network(), device.data()
    samples = data.test if len(data.test) else data.train
    width = _plan(round_, network, device.config).width
    fine, coarse = (evaluate(network, samples, width, gain) for gain in (-1, 0))
    found = {**fine, "accuracy-coarse": coarse["accuracy"], "num-examples": len(samples)}
    return Message(RecordDict({"metrics": _metrics(found)}), reply_to=message)


@app.query()
def query_message(message: Message, context: Context) -> Message:
    """Say what this device is."""
    device = Device.of(context)
    network = device.start.network()
    plan = device.fitting(Plan(width=network.widths[-1]))
    said = ConfigRecord(
        {
            "version": device.holding.version,
            "examples": len(device.data().train),
            "memory-bytes": int(device.config.get("memory-bytes", 0)),
            "widest": plan.width,
            "part": plan.part,
            "seconds-per-step": device.holding.seconds_per_step(),
        }
    )
    return Message(RecordDict({"device": said}), reply_to=message)


# ---------------------------------------------------------------- records


def _record(message: Message, name: str) -> ConfigRecord:
    records = message.content.config_records
    if name not in records:
        raise LearningError(f"the message has no record {name!r}; it has {', '.join(message.content) or 'none'}")
    return records[name]


def _field(record: ConfigRecord, name: str, kind: type[T]) -> T:
    value = record.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):
        raise LearningError(f"of the message's record 'round', {name} is {value!r:.60}; want {kind.__name__}")
    return kind(value)


def _metrics(found: Mapping[str, float]) -> MetricRecord:
    return MetricRecord({name: value if isinstance(value, int) else float(value) for name, value in found.items()})
