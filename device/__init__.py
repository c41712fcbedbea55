"""The agent on the device: frame sources, head, controller, link.

    from headwater.device import Agent

    async with Agent("bundles/solar", "edge.local:50051") as agent:
        answer = await agent.infer("cell.png")
        print(answer["defect"].label, answer.bytes, "bytes", answer.latency_ms, "ms")

Names are imported when they are first used, so that ``import headwater.device`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headwater.device.agent import Agent
    from headwater.device.control.controller import (
        Controller,
        Decision,
        FixedController,
        Observation,
        Situation,
    )
    from headwater.device.control.deadline import DeadlineController
    from headwater.device.control.policy import Policy
    from headwater.device.feed import Feed, Picture
    from headwater.device.record import FrameRecord, read_records
    from headwater.device.settings import DeviceSettings
    from headwater.device.sources import Source, open_source

_MODULES = {
    "Agent": "agent",
    "Controller": "control.controller",
    "DeadlineController": "control.deadline",
    "Decision": "control.controller",
    "DeviceSettings": "settings",
    "Feed": "feed",
    "FixedController": "control.controller",
    "FrameRecord": "record",
    "Observation": "control.controller",
    "Picture": "feed",
    "Policy": "control.policy",
    "Situation": "control.controller",
    "Source": "sources",
    "open_source": "sources",
    "read_records": "record",
}

__all__ = [
    "Agent",
    "Controller",
    "DeadlineController",
    "Decision",
    "DeviceSettings",
    "Feed",
    "FixedController",
    "FrameRecord",
    "Observation",
    "Picture",
    "Policy",
    "Situation",
    "Source",
    "open_source",
    "read_records",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any of the names above
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
