"""Devices in the field and a server with a later bundle: the new tasks are theirs without an update."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headwater.compression.bundle import Bundle
from headwater.device import Agent
from headwater.device.settings import DeviceSettings
from tests import tiny
from tests.integration.processes import AgentProcess, ServerProcess

COUNT = 20


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle on the device."""
    return tiny.bundle().save(tmp_path_factory.mktemp("device") / "tiny.zip")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that has the later bundle only."""
    with ServerProcess(tiny.later().save(tmp_path_factory.mktemp("server") / "later.zip")) as server:
        yield server


async def test_old_and_new_tasks_are_answered_over_one_stream(server: ServerProcess, old: Path, tmp_path: Path) -> None:
    settings = DeviceSettings(width=0.5, gain=2, save_images=tmp_path)
    async with Agent(old, server.address, settings) as agent:
        for seed in range(COUNT):
            record = await agent.infer(tiny.image(seed)[0], name=f"{seed}.png")
            assert record.images == {}, "a picture has to be asked for by name"
            wanted = tiny.answer(tiny.later(), seed, record.mode)
            assert set(record.results) == set(wanted) == {"shape", "bright", "column"}
            for task, scores in wanted.items():
                np.testing.assert_allclose(list(record[task].scores.values()), scores, atol=1e-4)
            assert list(record["column"].scores) == list(tiny.LATER.labels)


async def test_the_command_asks_for_a_task_that_its_bundle_lacks_and_saves_pictures(
    server: ServerProcess, old: Path, tmp_path: Path
) -> None:
    for seed in range(COUNT):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(tiny.image(seed)[0]).save(tmp_path / "photos" / f"{seed:03}.png")
    words = ("--bundle", str(old), "--server", server.address, "--source", str(tmp_path / "photos"), "--json")
    more = ("--tasks", "column,reconstruct", "--save-images", str(tmp_path / "out"))
    async with AgentProcess(*words, *more) as agent:
        status, out, err = await agent.finish()
    assert (status, err) == (0, "")
    records = [json.loads(line) for line in out.splitlines()]
    assert sorted(record["name"] for record in records) == [f"{seed:03}.png" for seed in range(COUNT)]
    for record in records:
        assert list(record["results"]) == ["column"]
        seed = int(record["name"][:3])
        wanted = tiny.answer(tiny.later(), seed, record["mode"])["column"]
        np.testing.assert_allclose(list(record["results"]["column"]["scores"].values()), wanted, atol=2e-4)
        with Image.open(record["images"]["reconstruct"]) as picture:
            np.testing.assert_array_equal(np.asarray(picture), tiny.picture(tiny.later(), seed, record["mode"])[0])
    assert len(list((tmp_path / "out").iterdir())) == COUNT


async def test_once_with_a_picture_and_with_a_task_of_the_server_s(
    server: ServerProcess, old: Path, tmp_path: Path
) -> None:
    Image.fromarray(tiny.image(4)[0]).save(tmp_path / "x.png")
    words = ("--bundle", str(old), "--server", server.address, "--once", str(tmp_path / "x.png"), "--width", "1")
    more = ("--tasks", "reconstruct,column", "--save-images", str(tmp_path / "out"))
    async with AgentProcess(*words) as plain, AgentProcess(*words, *more) as agent:
        _, plain_out, plain_err = await plain.finish()
        status, out, err = await agent.finish()
    assert (status, err, plain_err) == (0, "", "")
    assert [line.partition(":")[0] for line in plain_out.splitlines()[:-1]] == ["shape", "bright"]
    (file,) = (tmp_path / "out").iterdir()
    column, picture, _ = out.splitlines()
    best = int(tiny.answer(tiny.later(), 4, 12)["column"].argmax())
    assert column.startswith(f"column: column{best} ")
    assert picture == f"reconstruct: {file}"
    with Image.open(file) as image:
        assert image.size == (tiny.SIDE, tiny.SIDE)


@pytest.mark.parametrize("once", [True, False])
async def test_a_task_that_neither_has_is_named_with_those_there_are(
    server: ServerProcess, old: Path, tmp_path: Path, *, once: bool
) -> None:
    Image.fromarray(tiny.image(4)[0]).save(tmp_path / "x.png")
    what = ("--once", str(tmp_path / "x.png")) if once else ("--source", str(tmp_path))
    async with AgentProcess("--bundle", str(old), "--server", server.address, *what, "--tasks", "defect") as agent:
        status, _, err = await agent.finish()
    assert status == 2, "a setting is wrong"
    text = " ".join(err.split())
    assert "no task 'defect': the bundle tiny has shape, bright;" in text
    assert "has shape, bright, column, reconstruct; ask for some of these with --tasks" in text
    assert "Traceback" not in err


async def test_a_device_with_the_later_bundle_is_served_beside_one_with_the_old(
    server: ServerProcess, old: Path
) -> None:
    async with Agent(old, server.address) as field, Agent(tiny.later(), server.address) as fresh:
        for seed in range(4):
            earlier, later = await field.infer(tiny.image(seed)[0]), await fresh.infer(tiny.image(seed)[0])
            assert set(earlier.results) == set(later.results) == {"shape", "bright", "column"}
    assert Bundle.load(old).id != tiny.later().id
