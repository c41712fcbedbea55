"""Who does the work: actors of Flower's simulation engine, one for each core of the cluster, or this process itself.

Ray, its start, and the pool of actors are those of Flower's engine (its ``RayBackend``); what stands in for its loop
over messages is :mod:`.grid`. There are three differences to Flower's own actors:

- a call carries a batch of devices, so that what a call costs is shared;
- what is sent to many goes into Ray's object store once, and from there to each machine once;
- actors load the app once, not with each message.
"""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from headwater.simulations.learning.answering import Answering, Outcome, Work

Load = Callable[[str], bytes]
"""Bytes by their SHA-256, on the driver."""
_BUNDLE = "bundle"
_KEPT = 16
"""What is in the object store at most, beside what a call that is out needs."""


class Crew(Protocol):
    """Works out replies."""

    def room(self) -> int:
        """Batches that may be begun now."""

    def size(self) -> int:
        """Batches that are worked on at a time."""

    def begin(self, works: Sequence[Work], load: Load) -> None:
        """Work on a batch."""

    def finished(self) -> list[Outcome]:
        """Batches that are done; if some are out and none is done, it waits for one."""

    def close(self) -> None:
        """End it."""


class Alone:
    """All in this process: for tests, and where there is no Ray."""

    def __init__(self, bundle: bytes) -> None:
        """Load the app."""
        from headwater.simulations.learning.answering import Answering  # noqa: PLC0415 - it takes seconds

        self._answering = Answering(bundle)
        self._done: list[Outcome] = []

    def room(self) -> int:
        """One, unless its outcome was not taken yet."""
        return 1 - len(self._done)

    def size(self) -> int:
        """One."""
        return 1

    def begin(self, works: Sequence[Work], load: Load) -> None:
        """Do it now."""
        self._done.append(self._answering.answer(works, load))

    def finished(self) -> list[Outcome]:
        """What was done."""
        done, self._done = self._done, []
        return done

    def close(self) -> None:
        """Remove what was written beside the simulation's folder."""
        self._answering.close()


class Actors:
    """On a Ray cluster.

    Args:
        bundle: the zip of the devices' bundle.
        address: of a running cluster, such as ``auto`` or ``ray://head:10001``; empty for one of this machine alone.
    """

    def __init__(self, bundle: bytes, address: str = "") -> None:
        import ray  # noqa: PLC0415 - an extra

        self._ray: Any = ray
        self._backend = _backend(address)
        self._known: OrderedDict[str, Any] = OrderedDict()
        self._out: set[Any] = set()
        self._bundle = ray.put(bundle)
        self._backend.build(lambda: None)

    def room(self) -> int:
        """Actors that are idle."""
        return len(self._backend.pool.pool)

    def size(self) -> int:
        """Actors."""
        return int(self._backend.pool.num_actors)

    def machines(self) -> int:
        """Of the cluster, those that have processors."""
        return sum(bool(node["Alive"] and node["Resources"].get("CPU")) for node in self._ray.nodes())

    def begin(self, works: Sequence[Work], load: Load) -> None:
        """Give a batch to an idle actor."""
        names = {name for work in works for name in (work.content, work.shared) if name}
        refs = {name: self._put(name, load) for name in sorted(names)} | {_BUNDLE: self._bundle}
        job = (None, (list(works), refs), "", None)
        self._out.add(self._backend.pool.submit(_answer, job))
        while len(self._known) > _KEPT:
            self._known.popitem(last=False)  # a call that is out holds its own

    def _put(self, name: str, load: Load) -> Any:  # noqa: ANN401 - a reference of Ray's
        if name not in self._known:
            self._known[name] = self._ray.put(load(name))
        self._known.move_to_end(name)
        return self._known[name]

    def finished(self) -> list[Outcome]:
        """Of every actor that is ready, once one is."""
        if not self._out:
            return []
        out = list(self._out)
        self._ray.wait(out, num_returns=1)
        ready, _ = self._ray.wait(out, num_returns=len(out), timeout=0)
        return [self._take(future) for future in ready]

    def _take(self, future: Any) -> Outcome:  # noqa: ANN401 - a reference of Ray's
        self._out.discard(future)
        self._backend.pool.add_actor_back_to_pool(future)
        outcome: Outcome = self._ray.get(future)
        return outcome

    def close(self) -> None:
        """Let the actors go; a cluster that was there before goes on."""
        self._backend.terminate()


def _answer(actor: Any, _app: Any, what: Sequence[Any], _cid: str, _state: Any) -> Any:  # noqa: ANN401 - Flower's signature
    """Call an actor; if it dies, the one that is started in its place."""
    return actor.answer.options(max_task_retries=3).remote(*what)


def _backend(address: str) -> Any:  # noqa: ANN401 - Flower's class, whose base is only there with Ray
    """Flower's backend, with actors of ours."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what Ray will do in any case, and warns of
    import ray  # noqa: PLC0415 - an extra
    from flwr.server.superlink.fleet.vce.backend.raybackend import RayBackend  # noqa: PLC0415 - the same
    from flwr.simulation.ray_transport.ray_actor import BasicActorPool, VirtualClientEngineActor  # noqa: PLC0415

    class Actor(VirtualClientEngineActor):
        """Answers for virtual devices."""

        def __init__(self) -> None:
            self._answering: Answering | None = None

        def answer(self, works: Sequence[Work], refs: Mapping[str, Any]) -> Outcome:
            def fetch(name: str) -> bytes:
                data: bytes = ray.get(refs[name])
                return data

            if self._answering is None:
                from headwater.simulations.learning.answering import Answering  # noqa: PLC0415 - takes seconds

                self._answering = Answering(fetch(_BUNDLE))
            return self._answering.answer(works, fetch)

    class Backend(RayBackend):
        """Flower's, but for what an actor does."""

        def build(self, app_fn: Callable[[], Any]) -> None:
            del app_fn  # an actor of ours loads it by itself
            actor: Any = ray.remote(Actor)
            self.pool = BasicActorPool(actor, self.client_resources, self.actor_kwargs)
            self.pool.add_actors_to_pool(self.pool.actors_capacity)

    init: Any = {"address": address or "local", "logging_level": logging.ERROR, "log_to_driver": False}
    # An actor that dies is started again and gets its batch again: it changes nothing but what it gives back.
    resources: Any = {"num_cpus": 1, "num_gpus": 0.0, "max_restarts": 3}
    return Backend({"init_args": init, "client_resources": resources})
