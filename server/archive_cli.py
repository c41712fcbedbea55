"""``headwater server archive``: read what devices have delivered, while the server runs or not."""

import base64
import json
from pathlib import Path
from typing import Annotated, Literal

import typer

archive_app = typer.Typer(help="Read the frames that devices kept and delivered.", no_args_is_help=True)

ArchiveArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The server's --archive.")]
DeviceOption = Annotated[str | None, typer.Option(help="Only frames of this device.")]
StatusOption = Annotated[
    Literal["waiting", "ok", "unknown_bundle", "invalid_frame", "internal"] | None,
    typer.Option(help="Only frames that this became of."),
]
AfterOption = Annotated[int, typer.Option(metavar="NUMBER", help="Only frames that came after this one; 0 for all.")]


@archive_app.command("list")
def list_frames(
    archive: ArchiveArgument,
    device: DeviceOption = None,
    status: StatusOption = None,
    after: AfterOption = 0,
    frames: Annotated[bool, typer.Option("--frames", help="With the frames' bytes, in base64.")] = False,
) -> None:
    """Print a JSON line for each frame, in the order of arrival."""
    from headwater.server.archive import Chosen, read

    for facts, frame in read(archive, Chosen(device, status, after)):
        more = {"frame": base64.b64encode(frame).decode()} if frames else {}
        typer.echo(json.dumps({**facts, **more}, ensure_ascii=False))


@archive_app.command()
def export(
    archive: ArchiveArgument,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the files go; made if it is not there.")],
    device: DeviceOption = None,
    status: StatusOption = None,
    after: AfterOption = 0,
) -> None:
    """Write each frame to a file DIR/ID.frame, self-contained, and a JSON line for each to DIR/frames.jsonl."""
    from headwater.server.archive import Chosen, read

    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    with (folder / "frames.jsonl").open("w", encoding="utf-8") as lines:
        for facts, frame in read(archive, Chosen(device, status, after)):
            file = folder / f"{facts['id']}.frame"
            file.write_bytes(frame)
            lines.write(json.dumps({**facts, "file": file.name}, ensure_ascii=False) + "\n")
            count += 1
    typer.echo(f"{count} frames in {folder}")
