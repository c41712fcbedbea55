"""``headwater device --once``: one picture, one frame, one answer, without a connection that stays."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from headwater.compression.bundle import Bundle
from headwater.compression.datasets import read_image
from headwater.compression.errors import LinkError, SettingsError
from headwater.device.access.identity import Identities
from headwater.device.access.renewal import renew_what_is_due
from headwater.device.answers import images, results
from headwater.device.channel import describe, infer_once
from headwater.device.control.controller import FixedController
from headwater.device.exit import LocalExit
from headwater.device.head import FrameMaker
from headwater.device.images import ImageFolder
from headwater.device.route import ranked
from headwater.device.tasks import asked, check, known, lacking

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from headwater.device.record import Result, Source
    from headwater.device.settings import DeviceSettings

TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Once:
    """What became of the picture."""

    source: Source
    bytes: int
    """Of the frame that was made to be sent; 0 if none was."""
    head_ms: float
    results: Mapping[str, Result] = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)
    """File of each task that gives a picture."""
    detail: str = ""
    """Why the device answered in the server's place."""


async def ask_once(settings: DeviceSettings, image: Path) -> Once:
    """Answer one picture; what the bundle lacks is looked for at the server first.

    With a deadline the local exit answers where the server does not, if there is one for what is asked.

    Raises a :class:`HeadwaterError` of any kind that says what is wrong.
    """
    if settings.whole_model:
        raise SettingsError("--once asks the server for one answer; leave --whole-model out.")
    bundle = Bundle.load(settings.bundle_path)
    manifest = bundle.manifest
    mode = FixedController.of(bundle, settings.width, settings.gain).mode
    maker = FrameMaker(bundle, settings.threads, LocalExit.of(bundle, settings))
    timeout_s = settings.deadline_ms / 1e3 if settings.deadline_ms is not None else TIMEOUT_S
    unsure = lacking(manifest, settings.tasks)
    servers = ranked(settings.server, settings.device_name)
    identities = Identities.under(settings.state)
    specs = await describe(servers, bundle.id, timeout_s=timeout_s, channel=identities.channel) if unsure else ()
    check(settings, manifest, specs)
    folder = ImageFolder(settings.save_images) if settings.save_images is not None else None
    picture = read_image(image)
    taken = datetime.now(UTC).isoformat(timespec="milliseconds")
    seen = maker.look(picture, mode)
    judged = seen.judged
    if judged is not None and judged.sure:
        return Once("local", 0, seen.head_ms, judged.results)
    data = maker.self_contained(maker.code(seen, mode))
    try:
        # By name: a server with a later bundle has more, whose labels are not known here.
        answer = await infer_once(
            servers,
            data,
            tasks=asked(manifest, settings.tasks),
            timeout_s=timeout_s,
            channel=identities.channel,
        )
    except LinkError as error:
        if judged is None or settings.deadline_ms is None:
            raise
        return Once("local", len(data), seen.head_ms, judged.results, detail=str(error))
    await renew_what_is_due(identities, servers)
    tasks = known(manifest, specs)
    files = folder.write(image.name, taken, 1, images(answer, tasks)) if folder is not None else {}
    return Once("edge", len(data), seen.head_ms, results(answer, tasks), files)
