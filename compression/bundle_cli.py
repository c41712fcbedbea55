"""``headwater bundle``: look at a model bundle, check it, sign it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from headwater.compression.bundle import Bundle
    from headwater.compression.manifest import Manifest

app = typer.Typer(no_args_is_help=True, help="Look at a model bundle, check it, sign it.")

BundleArgument = Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle: a directory or a zip.")]


@app.command()
def show(
    path: BundleArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON instead.")] = False,
) -> None:
    """Print what a bundle is, and its modes with their bytes, accuracy, multiply-adds and parameters."""
    from headwater.compression.bundle import Bundle

    bundle = Bundle.load(path)
    if as_json:
        typer.echo(json.dumps({"id": bundle.id.hex(), **json.loads(bundle.manifest_bytes)}, indent=2))
    else:
        Console().print(Group(_facts(bundle), _modes(bundle.manifest)))


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
        "tasks": "\n".join(f"{task.name}: {', '.join(task.labels)}" for task in manifest.tasks),
        "files": f"{len(manifest.files)}, {size:,} bytes",
        **{f"data {key}": _plain(value) for key, value in manifest.data.items()},
        **{f"measured {key}": _plain(value) for key, value in manifest.measured.items()},
    }
    table = Table.grid("", "", padding=(0, 2))
    for name, value in facts.items():
        table.add_row(Text(name, "bold"), Text(value))
    return table


def _modes(manifest: "Manifest") -> Table:
    """Lay out the modes, a row a mode, one accuracy column group a task."""
    table = Table(title="Modes, measured on held-out images", title_justify="left")
    names = ["mode", "width", "gain", "channels", "bytes", "p95", "MMACs", "k params"]
    for task in manifest.tasks:
        names += [f"{task.name}\naccuracy %", "balanced %", "AUROC"]
    for name in names:
        table.add_column(name, justify="right")
    for mode in manifest.modes:
        cells = [f"{mode.index}", f"{mode.width:g}", f"{mode.gain}", f"{mode.channels}"]
        cells += [f"{mode.mean_bytes:.1f}", f"{mode.p95_bytes:.0f}"]
        cells += [f"{mode.head_macs / 1e6:.1f}", f"{mode.head_parameters / 1e3:.1f}"]
        for task in manifest.tasks:
            shares = (mode.accuracy.get(task.name), mode.balanced_accuracy.get(task.name))
            cells += ["-" if share is None else f"{100 * share:.1f}" for share in shares]
            auroc = mode.auroc.get(task.name)
            cells.append("-" if auroc is None else f"{auroc:.3f}")
        table.add_row(*cells, end_section=mode is [m for m in manifest.modes if m.width == mode.width][-1])
    return table


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _signer(bundle: "Bundle") -> str:
    from headwater.compression import signature

    if bundle.signature is None:
        return "not signed"
    return f"claims key {signature.signer_id(bundle.signature).hex()}"
