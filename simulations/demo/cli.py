"""``headwater demo``: everything at work on this machine, with a report at the end."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def demo(
    bundle: Annotated[
        Path | None, typer.Option(metavar="PATH", help="A model bundle; the shipped solar model if not given.")
    ] = None,
    source: Annotated[
        str, typer.Option(metavar="DATA", help="Whose test pictures are sent: solar, digits or a folder of classes.")
    ] = "solar",
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where report.html, records and logs go.")] = Path(
        "out/demo"
    ),
    seconds: Annotated[float, typer.Option(min=0.1, max=3600, help="How long the devices take pictures.")] = 28.0,
    codec_pictures: Annotated[int, typer.Option(min=1, help="Pictures that JPEG and WebP are scored on.")] = 120,
    learning: Annotated[
        bool, typer.Option("--learning/--no-learning", help="The last act: a federated round, and a live swap.")
    ] = True,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the server; 0 takes a free one.")] = 0,
    seed: Annotated[int, typer.Option(help="Of the pictures' order.")] = 0,
) -> None:
    """Run a server and four devices on this machine, over links from LoRa's speed to Wi-Fi's.

    Each is a process of its own, with a rate-limiting proxy between device and server. Then two more devices learn from
    labelled pictures of their own in one federated round, and what comes of it replaces the model while they go on
    sending. At the end the same pictures are coded as JPEG and WebP, and a report is written that opens in any browser.
    Ctrl-C ends all of it.
    """
    import asyncio
    import signal

    from rich.console import Console

    from headwater.simulations.codecs import score
    from headwater.simulations.demo import report
    from headwater.simulations.demo import run as running
    from headwater.simulations.demo.watch import Watch, ending, line, shown
    from headwater.simulations.shipped import shipped_bundle

    console = Console()
    options = running.DemoOptions(
        bundle=shipped_bundle() if bundle is None else bundle,
        source=source,
        out=out,
        seconds=seconds,
        codec_pictures=codec_pictures,
        port=port,
        seed=seed,
        learning=learning,
    )
    run = running.prepare(options)
    try:
        with Watch(console) as watch:
            asyncio.run(running.measure(run, watch.show))
    except asyncio.CancelledError:
        raise typer.Exit(128 + signal.SIGTERM) from None
    if console.is_terminal:
        console.print(shown(run))
    said = [line(tally) for tally in run.tallies if not console.is_terminal or tally.note]
    for text in (*said, *(ending(run) if run.act is None or not console.is_terminal else ())):
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    chosen = run.samples[:codec_pictures]
    labels = run.bundle.manifest.tasks[0].labels
    with watch.counting("JPEG and WebP on the same pictures", len(chosen)) as progress:
        scored = score(
            run.bundle,
            [sample.load() for sample in chosen],
            [labels.index(sample.label) for sample in chosen],
            progress=progress,
        )
    path = report.write(run, scored, out / "report.html")
    console.print(f"report: {path}", markup=False, highlight=False, soft_wrap=True)
