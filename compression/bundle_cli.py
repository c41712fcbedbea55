"""``headwater bundle``: look at a model bundle, check it, sign it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from headwater.compression.bundle import Bundle
    from headwater.compression.manifest import Manifest, Mode, Task

app = typer.Typer(no_args_is_help=True, help="Look at a model bundle, check it, sign it.")

BundleArgument = Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle: a directory or a zip.")]


@app.command()
def show(
    path: BundleArgument,
    cuts: Annotated[bool, typer.Option("--cuts", help="Also print what is left of frames that are cut.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON instead.")] = False,
) -> None:
    """Print what a bundle is, and its modes with their bytes, accuracy, multiply-adds and parameters."""
    from headwater.compression.bundle import Bundle

    bundle = Bundle.load(path)
    if as_json:
        typer.echo(json.dumps({"id": bundle.id.hex(), **json.loads(bundle.manifest_bytes)}, indent=2))
    else:
        more = [_cuts(bundle.manifest)] if cuts else []
        Console().print(Group(_facts(bundle), _modes(bundle.manifest), _unbalanced(bundle.manifest), *more))


@app.command()
def verify(
    path: BundleArgument,
    key: Annotated[Path | None, typer.Option(metavar="FILE.pub", help="Also demand a signature by this key.")] = None,
) -> None:
    """Check every file of a bundle against the manifest's hashes and, with --key, the signature."""
    from headwater.compression import signature
    from headwater.compression.bundle import Bundle

    bundle = Bundle.load(path)
    if key is not None:
        signature.verify(bundle.manifest_bytes, bundle.signature, signature.load_public(key))
    size = sum(entry.size for entry in bundle.manifest.files.values())
    signed = f"signed by {key}" if key else f"{_signer(bundle)}, signature not checked: give --key to check it"
    typer.echo(f"{_title(bundle)}: {len(bundle.manifest.files)} files, {size:,} bytes, all whole; {signed}")


@app.command()
def keygen(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", help="Where the private key goes; FILE.pub is the public one.")
    ],
) -> None:
    """Make a key pair for signing bundles; never replaces a file."""
    from headwater.compression import signature

    public = signature.generate(path)
    key_id = signature.key_id(signature.load_public(public)).hex()
    typer.echo(f"key {key_id}: private {path} (keep it), public {public} (give it to those who verify)")


@app.command()
def sign(
    path: BundleArgument,
    key: Annotated[Path, typer.Option(metavar="FILE", help="The private key, as `headwater bundle keygen` wrote it.")],
) -> None:
    """Sign a bundle: put manifest.sig beside its manifest. Its id stays the same."""
    from headwater.compression import signature
    from headwater.compression.bundle import Bundle

    bundle = Bundle.load(path)
    private = signature.load_private(key)
    bundle.signed(signature.sign(bundle.manifest_bytes, private)).save(path)
    typer.echo(
        f"{bundle.manifest.name} {bundle.short_id}: signed by key {signature.key_id(private.public_key()).hex()}"
    )


@app.command()
def rotate(
    keys: Annotated[Path, typer.Argument(metavar="KEYS", help="The lists of keys so far; made by the first rotation.")],
    key: Annotated[
        Path, typer.Option(metavar="FILE", help="A private root key of the list before; at first, the devices' anchor.")
    ],
    release: Annotated[
        list[Path], typer.Option(metavar="FILE.pub", help="Who signs releases from now on; more than one may be given.")
    ],
    root: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Private keys that sign the lists to come; default: --key's own."),
    ] = None,
    valid_days: Annotated[float, typer.Option(metavar="DAYS", help="How long releases are believed by it.")] = 730.0,
) -> None:
    """Say by whose releases devices are to go from now on; `headwater server refresh --key-lists KEYS` tells them."""
    from headwater.compression import keyfiles, signature, trust

    before = signature.load_private(key)
    roots = [signature.load_private(path) for path in root or [key]]
    chain = keyfiles.read_public(keys) if keys.exists() else b""
    public = tuple(signature.load_public(path) for path in release)
    new = trust.next_list(chain, tuple(each.public_key() for each in roots), public, valid_days)
    signers = {signature.key_id(each.public_key()): each for each in (before, *roots)}
    chain += new.signed(*signers.values())
    trust.describe(chain)
    keyfiles.write(keys, chain, keyfiles.PUBLIC_MODE)
    _show_keys(chain)


@app.command("keys")
def show_keys(
    keys: Annotated[Path, typer.Argument(metavar="KEYS", help="As `headwater bundle rotate` wrote it.")],
) -> None:
    """Print whose releases devices go by after these lists of keys."""
    from headwater.compression import keyfiles

    _show_keys(keyfiles.read_public(keys))


def _show_keys(chain: bytes) -> None:
    from datetime import UTC, datetime

    from headwater.compression import signature, trust

    for one in trust.describe(chain):
        root, release = (", ".join(signature.key_id(key).hex() for key in keys) for keys in (one.root, one.release))
        until = datetime.fromtimestamp(one.expires, UTC)
        typer.echo(
            f"list {one.number}, until {until:%Y-%m-%d}: releases by {', '.join(release)}; root {', '.join(root)}"
        )


def _title(bundle: "Bundle") -> str:
    return f"{bundle.manifest.name} {bundle.short_id}"


def _facts(bundle: "Bundle") -> Table:
    """Lay out what is said once a bundle, a row a fact."""
    manifest = bundle.manifest
    image, latent = manifest.input, manifest.latent
    size = sum(entry.size for entry in manifest.files.values())
    facts = {
        "name": manifest.name,
        "id": bundle.id.hex(),
        "created": manifest.created,
        "parent": manifest.parent or "none",
        "signature": _signer(bundle),
        "input": f"{image.width}x{image.height} {image.mode}",
        "latent": f"{latent.channels} channels of {latent.width}x{latent.height}",
        "local exit": _exit(bundle),
        "answers for": ", ".join(each[:10] for each in manifest.answers_for) or "itself only",
        "tasks": "\n".join(f"{task.name}: {', '.join(task.labels) or 'an image'}" for task in manifest.tasks),
        "files": f"{len(manifest.files)}, {size:,} bytes",
        **{f"data {key}": _plain(value) for key, value in manifest.data.items()},
        **{f"measured {key}": _plain(value) for key, value in manifest.measured.items() if key != "local_exit"},
    }
    table = Table.grid("", "", padding=(0, 2))
    for name, value in facts.items():
        table.add_row(Text(name, "bold"), Text(value))
    return table


def _exit(bundle: "Bundle") -> str:
    from headwater.compression.exits import SCORES

    local_exit = bundle.manifest.exit
    if local_exit is None:
        return "none"
    modes = range(len(bundle.manifest.modes))
    shares = [bundle.exits.share_within(mode, 1.0, score) for score in SCORES for mode in modes]
    return (
        f"{local_exit.task}, {local_exit.macs / 1e6:.2f} MMACs; within 1 point it answers "
        f"{min(shares):.0%} to {max(shares):.0%} of the frames, by mode and score"
    )


def _modes(manifest: "Manifest") -> Table:
    """Lay out what each mode costs and how often it is right, a row a mode."""
    accuracy = [f"{task.name}\n{'right %' if task.labels else 'PSNR dB'}" for task in manifest.tasks]
    table = _table(
        "Modes", "mode", "width", "gain", "chan-\nnels", "mean\nbytes", "p95", "MMACs", "k par-\nams", *accuracy
    )
    for mode in manifest.modes:
        table.add_row(
            *(f"{mode.index}", f"{mode.width:g}", f"{mode.gain}", f"{mode.channels}"),
            *(f"{mode.mean_bytes:.1f}", f"{mode.p95_bytes:.0f}"),
            *(f"{mode.head_macs / 1e6:.2f}", f"{mode.head_parameters / 1e3:.1f}"),
            *(
                _percent(mode.accuracy.get(task.name)) if task.labels else _decibels(mode, task)
                for task in manifest.tasks
            ),
            end_section=mode is [each for each in manifest.modes if each.width == mode.width][-1],
        )
    return table


def _unbalanced(manifest: "Manifest") -> Table:
    """Lay out the figures that mean more than accuracy where classes differ in size, two columns a task."""
    tasks = [task for task in manifest.tasks if task.labels]
    names = [f"{task.name}\n{figure}" for task in tasks for figure in ("balanced %", "AUROC")]
    table = _table("Classes weighed alike", "mode", "width", "gain", *names)
    for mode in manifest.modes:
        cells = [f"{mode.index}", f"{mode.width:g}", f"{mode.gain}"]
        for task in tasks:
            auroc = mode.auroc.get(task.name)
            cells += [_percent(mode.balanced_accuracy.get(task.name)), "-" if auroc is None else f"{auroc:.3f}"]
        table.add_row(*cells, end_section=mode is [each for each in manifest.modes if each.width == mode.width][-1])
    return table


def _cuts(manifest: "Manifest") -> "Table | Text":
    """Lay out what each mode yields when only its first channel groups arrive, a row a cut."""
    if not any(mode.cuts for mode in manifest.modes):
        return Text("Cut frames: this bundle does not say what they yield; build it again with `headwater train`.")
    tasks = [task for task in manifest.tasks if task.labels]
    names = [f"{task.name}\nright %" for task in tasks]
    table = _table("Cut frames", "mode", "width", "gain", "groups", "mean\nbytes", *names)
    for mode in manifest.modes:
        whole = ("all", mode.mean_bytes, mode.accuracy)
        rows = [*((f"{cut.groups}", cut.mean_bytes, cut.accuracy) for cut in mode.cuts), whole]
        for groups, mean_bytes, accuracy in rows:
            first = groups == rows[0][0]
            named = (f"{mode.index}", f"{mode.width:g}", f"{mode.gain}") if first else ("", "", "")
            right = (_percent(accuracy.get(task.name)) for task in tasks)
            table.add_row(*named, groups, f"{mean_bytes:.1f}", *right, end_section=groups == "all")
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, collapse_padding=True)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def _decibels(mode: "Mode", task: "Task") -> str:
    psnr_db = mode.psnr_db.get(task.name)
    return "-" if psnr_db is None else f"{psnr_db:.1f}"


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _signer(bundle: "Bundle") -> str:
    from headwater.compression import signature

    if bundle.signature is None:
        return "not signed"
    return f"claims key {signature.signer_id(bundle.signature).hex()}"
