"""What the agent keeps of a bundle, made ready by its settings before the first picture."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from headwater.compression.bundle import Bundle
from headwater.compression.errors import SettingsError
from headwater.device.control.controller import Controller, FixedController
from headwater.device.control.deadline import DeadlineController
from headwater.device.control.offers import Offers
from headwater.device.exit import LocalExit
from headwater.device.head import FrameMaker
from headwater.device.tasks import asked, check, lacking
from headwater.device.whole import WholeModel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from headwater.compression.manifest import Manifest
    from headwater.device.settings import DeviceSettings


@dataclass(frozen=True)
class Loaded:
    """What is kept of a bundle: the server's graphs in it are freed with it."""

    maker: FrameMaker
    manifest: Manifest
    bundle_id: bytes
    controller: Controller
    """The caller's, where one was given; else made for this bundle."""
    whole: WholeModel | None = None
    """The whole model on the device, where the settings ask for it."""


def load(bundle: Bundle | Path | str, settings: DeviceSettings, controller: Controller | None = None) -> Loaded:
    """Load a bundle, or take one that is loaded; modes are picked by ``controller``, or by one made for it.

    Raises :class:`BundleError`, also for a mode that it lacks, and :class:`SettingsError` for a local exit or a whole
    model that cannot be, or pictures that have nowhere to go.
    """
    bundle = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
    if not lacking(bundle.manifest, settings.tasks):
        check(settings, bundle.manifest, ())
    parts_above = settings.progressive_bytes if settings.progressive else None
    maker = FrameMaker(bundle, settings.threads, LocalExit.of(bundle, settings), parts_above)
    whole = WholeModel.of(bundle, settings)
    chosen = controller or controller_for(bundle, settings, maker.local_exit, whole)
    return Loaded(maker, bundle.manifest, bundle.id, chosen, whole)


def controller_for(
    bundle: Bundle, settings: DeviceSettings, local_exit: LocalExit | None = None, whole: WholeModel | None = None
) -> Controller:
    """A fixed mode where the settings name width or gain, else the rule; raises what :func:`controller_maker` does."""
    exit_accuracy = local_exit.counts_as if local_exit is not None else None
    return controller_maker(bundle, settings, exit_accuracy, whole.accuracy if whole is not None else None)()


def controller_maker(
    bundle: Bundle,
    settings: DeviceSettings,
    exit_accuracy: Mapping[float, float] | None = None,
    whole_accuracy: float | None = None,
) -> Callable[[], Controller]:
    """What makes a controller that knows nothing yet, each time another; it can be pickled.

    Raises :class:`BundleError`, and :class:`SettingsError` for a preference among tasks that are not asked for.

    Args:
        bundle: whose modes it chooses from.
        settings: of the agent.
        exit_accuracy: what the local exit counts as, by width; None where there is none.
        whole_accuracy: of the whole model; None where the device does not have it.
    """
    if settings.width is not None or settings.gain is not None:
        return partial(FixedController, FixedController.of(bundle, settings.width, settings.gain).mode)
    tasks = asked(bundle.manifest, settings.tasks)
    for task in settings.policy.prefer:
        if task not in tasks:
            raise SettingsError(f"prefer names {task}, but asked for are {', '.join(tasks)}; name some of these.")
    own = {task.name for task in bundle.manifest.tasks}
    known = [task for task in tasks if task in own]  # of what only a server has no accuracy is known
    return partial(
        DeadlineController,
        bundle.manifest.modes,
        settings.policy,
        exit_accuracy=exit_accuracy,
        whole_accuracy=whole_accuracy,
        offers=Offers(bundle.manifest.modes, settings.policy, known),
    )
