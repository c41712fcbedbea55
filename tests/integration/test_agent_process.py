"""A real agent process and a real server process, over sockets that are cut and servers that are killed."""

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from headwater.compression.bundle import Bundle
from headwater.compression.exits import score_of
from headwater.device import Agent, FrameRecord, read_records
from headwater.simulations.link import LinkProxy
from headwater.simulations.trace import LinkTrace
from tests import tiny
from tests.integration.processes import HEADWATER, AgentProcess, ServerProcess

COUNT = 120

BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "flwr", "onnx", "onnxscript", "sklearn", "matplotlib", "cv2"}:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)
sys.meta_path.insert(0, Blocked())
from headwater.compression.cli import main
main()
"""


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "tiny.zip"
    tiny_bundle.save(path)
    return path


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[ServerProcess]:
    """For the tests that do not kill it."""
    with ServerProcess(bundle) as server:
        yield server


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """COUNT pictures, named by their seed."""
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(COUNT):
        Image.fromarray(tiny.image(seed)[0]).save(folder / f"{seed:03}.png")
    return folder


def arguments(bundle: Path, server: str, source: Path | str, records: Path, *more: str) -> list[str]:
    names = {"--bundle": bundle, "--server": server, "--source": source, "--records": records, "--retry-s": "0.2"}
    return [str(word) for pair in names.items() for word in pair] + list(more)


def check(path: Path, bundle: Bundle, count: int = COUNT) -> list[FrameRecord]:
    """Every picture was answered, once, with the answer that its own frame has."""
    records = list(read_records(path))
    assert sorted(record.name for record in records) == [f"{seed:03}.png" for seed in range(count)]
    assert sorted(record.sequence for record in records) == list(range(1, count + 1))
    for record in records:
        assert record.status == "ok", record.detail
        wanted = tiny.answer(bundle, int(record.name[:3]), record.mode)
        for task, scores in wanted.items():
            np.testing.assert_allclose(list(record[task].scores.values()), scores, atol=2e-4)
    return records


async def test_every_picture_gets_its_own_answer(
    server: ServerProcess, bundle: Path, photos: Path, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    words = arguments(bundle, server.address, photos, tmp_path / "r.jsonl")
    async with AgentProcess(*words) as agent:
        status, out, err = await agent.finish()
    assert (status, err) == (0, "")
    records = check(tmp_path / "r.jsonl", tiny_bundle)
    assert {record.attempts for record in records} == {1}
    assert len({record.mode for record in records}) > 1, "the rule never left its first mode"
    lines = out.splitlines()
    assert len(lines) == COUNT + 1
    assert lines[-1].startswith(f"{COUNT} of {COUNT} frames answered")


async def test_frames_in_parts_get_their_own_answers(
    server: ServerProcess, bundle: Path, photos: Path, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    more = ("--progressive", "--progressive-bytes", "60", "--width", "1", "--gain", "3")
    async with AgentProcess(*arguments(bundle, server.address, photos, tmp_path / "r.jsonl", *more)) as agent:
        status, _, err = await agent.finish()
    assert (status, err) == (0, "")
    records = check(tmp_path / "r.jsonl", tiny_bundle)
    assert {record.groups_used for record in records} == {3}
    assert any(record.server.collect_us for record in records), "no frame came in parts"


async def test_confident_pictures_are_answered_on_the_device(
    server: ServerProcess, bundle: Path, photos: Path, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    more = ("--tasks", "shape", "--max-drop", "2", "--width", "0.5")
    async with AgentProcess(*arguments(bundle, server.address, photos, tmp_path / "r.jsonl", *more)) as agent:
        status, out, err = await agent.finish()
    assert (status, err) == (0, "")
    records = list(read_records(tmp_path / "r.jsonl"))
    assert sorted(record.sequence for record in records) == list(range(1, COUNT + 1))
    threshold = tiny_bundle.exits.threshold_for(7, 2.0, "softmax")
    local = [record for record in records if record.source == "local"]
    assert 0 < len(local) < COUNT
    for record in records:
        seed = int(record.name[:3])
        sure = score_of(tiny.exit_logits(tiny_bundle, seed, record.mode), "softmax") >= threshold
        assert (record.mode, record.source) == (7, "local" if sure else "edge")
        assert (record.bytes == 0) is bool(sure)
        assert record["shape"].label == tiny.TASKS[0].labels[seed % 3]
    assert f"{len(local)} of them on the device" in out.splitlines()[-1]


async def test_connections_cut_at_random_moments(
    server: ServerProcess, bundle: Path, photos: Path, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    rng = random.Random(0)
    slow = LinkTrace.constant("slow", 200_000, delay_s=0.005)
    async with LinkProxy(server.address, slow) as proxy:
        more = ("--fps", "60", "--log-level", "error")
        async with AgentProcess(*arguments(bundle, proxy.address, photos, tmp_path / "r.jsonl", *more)) as agent:
            finished = asyncio.create_task(agent.finish())
            while not (await asyncio.wait([finished], timeout=rng.uniform(0.02, 0.3)))[0]:
                proxy.cut()
            status, _, err = finished.result()
    assert (status, err) == (0, "")
    records = check(tmp_path / "r.jsonl", tiny_bundle)
    assert proxy.connections >= 4
    assert max(record.attempts for record in records) > 1, "no cut hit a frame"


async def test_black_outs_lose_nothing(
    server: ServerProcess, bundle: Path, photos: Path, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    slow = LinkTrace.constant("slow", 200_000, delay_s=0.005)
    async with LinkProxy(server.address, slow) as proxy:
        more = ("--fps", "60", "--log-level", "error")
        async with AgentProcess(*arguments(bundle, proxy.address, photos, tmp_path / "r.jsonl", *more)) as agent:
            for _ in range(3):
                for _ in range(10):
                    await agent.line()
                proxy.black_out()
                await asyncio.sleep(0.4)  # how long it lasts; nothing waits for it
                proxy.restore()
            status, _, err = await agent.finish()
    assert (status, err) == (0, "")
    check(tmp_path / "r.jsonl", tiny_bundle)


async def test_a_server_killed_and_started_again(
    bundle: Path, photos: Path, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    with ServerProcess(bundle) as server:
        more = ("--fps", "40", "--log-level", "error")
        async with AgentProcess(*arguments(bundle, server.address, photos, tmp_path / "r.jsonl", *more)) as agent:
            for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
                for _ in range(10):
                    await agent.line()
                await asyncio.to_thread(server.end, number)
                await asyncio.to_thread(server.start)
            status, _, err = await agent.finish()
    assert (status, err) == (0, "")
    check(tmp_path / "r.jsonl", tiny_bundle)


async def test_an_agent_that_starts_before_its_server(
    bundle: Path, photos: Path, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    with ServerProcess(bundle) as server:
        await asyncio.to_thread(server.end, signal.SIGTERM)
        async with AgentProcess(*arguments(bundle, server.address, photos, tmp_path / "r.jsonl")) as agent:
            assert agent.process.stderr is not None
            warning = (await agent.process.stderr.readline()).decode()
            assert "no server answers at" in warning
            await asyncio.to_thread(server.start)
            status, _, _ = await agent.finish()
    assert status == 0
    check(tmp_path / "r.jsonl", tiny_bundle)


async def test_a_bundle_that_the_server_has_not(server: ServerProcess, photos: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    tiny.bundle("other", seed=1).save(other)
    async with AgentProcess(*arguments(other, server.address, photos, tmp_path / "r.jsonl")) as agent:
        status, _, err = await agent.finish()
    async with AgentProcess(
        "--bundle", str(other), "--server", server.address, "--once", str(photos / "000.png")
    ) as once:
        once_status, _, once_err = await once.finish()
    served = tiny.bundle().short_id
    assert (status, once_status) == (1, 1)
    for text in (err, once_err):
        assert served in text
        assert "error: " in text
        assert "Traceback" not in text


async def test_once(server: ServerProcess, bundle: Path, photos: Path, tiny_bundle: Bundle) -> None:
    words = ("--bundle", str(bundle), "--server", server.address, "--once", str(photos / "004.png"))
    async with AgentProcess(*words) as agent:
        status, out, err = await agent.finish()
    async with AgentProcess(*words, "--json", "--width", "0.25", "--gain", "0") as agent:
        _, as_json, _ = await agent.finish()
    assert (status, err) == (0, "")
    assert out.splitlines()[0].startswith("shape: middle ")
    assert out.splitlines()[1].startswith("bright: light ")
    plain = json.loads(as_json)
    wanted = tiny.answer(tiny_bundle, 4, 0)["shape"]
    np.testing.assert_allclose(list(plain["results"]["shape"]["scores"].values()), wanted, atol=2e-4)


async def test_json_lines_on_standard_output(server: ServerProcess, bundle: Path, photos: Path, tmp_path: Path) -> None:
    more = ("--json", "--count", "5")
    async with AgentProcess(*arguments(bundle, server.address, photos, tmp_path / "r.jsonl", *more)) as agent:
        status, out, _ = await agent.finish()
    assert status == 0
    assert out == (tmp_path / "r.jsonl").read_text("utf-8")
    assert len(out.splitlines()) == 5


async def test_pictures_on_standard_input(server: ServerProcess, bundle: Path, photos: Path, tmp_path: Path) -> None:
    stream = b"".join((photos / f"{seed:03}.png").read_bytes() for seed in range(20))
    words = arguments(bundle, server.address, "-", tmp_path / "r.jsonl")
    async with AgentProcess(*words) as agent:
        status, _, err = await agent.finish(stream)
    assert (status, err) == (0, "")
    answers = {record.name: record["shape"].label for record in read_records(tmp_path / "r.jsonl")}
    labels = tiny.TASKS[0].labels
    assert answers == {f"picture{seed + 1:06d}": labels[tiny.labels(seed)[0]] for seed in range(20)}


async def test_works_and_stays_small_without_torch_flwr_and_onnx(
    server: ServerProcess, bundle: Path, photos: Path, tmp_path: Path
) -> None:
    command = (sys.executable, "-c", BLOCKED)
    words = arguments(bundle, server.address, photos, tmp_path / "r.jsonl", "--repeat")
    async with AgentProcess(*words, command=command) as agent:
        for _ in range(3 * COUNT):
            await agent.line()
        resident_mb = psutil.Process(agent.process.pid).memory_info().rss / 1e6
        agent.process.send_signal(signal.SIGTERM)
        status, out, err = await agent.finish()
    assert (status, err) == (0, "")
    assert "frames answered" in out.splitlines()[-1]
    assert resident_mb < 150


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_in_order(
    server: ServerProcess, bundle: Path, photos: Path, tmp_path: Path, number: signal.Signals
) -> None:
    words = arguments(bundle, server.address, photos, tmp_path / "r.jsonl", "--repeat", "--fps", "100")
    async with AgentProcess(*words) as agent:
        await agent.line()
        agent.process.send_signal(number)
        status, out, err = await agent.finish()
    assert (status, err) == (0, "")
    records = list(read_records(tmp_path / "r.jsonl"))
    assert f"{len(records)} of {len(records)} frames answered" in out.splitlines()[-1]


async def test_a_signal_ends_it_though_the_server_is_gone(bundle: Path, photos: Path, tmp_path: Path) -> None:
    words = arguments(bundle, "127.0.0.1:1", photos, tmp_path / "r.jsonl")
    async with AgentProcess(*words) as agent:
        assert agent.process.stderr is not None
        await agent.process.stderr.readline()  # the warning that nobody answers; pictures may have been taken or not
        agent.process.send_signal(signal.SIGTERM)
        status, out, _ = await agent.finish()
    records = list(read_records(tmp_path / "r.jsonl"))
    count, told = len(records), f"; {len(records)} cancelled" if records else ""
    assert (status, out.splitlines()[-1]) == (int(count > 0), f"0 of {count} frames answered{told}")
    assert {(record.status, record.detail) for record in records} <= {
        ("cancelled", "the agent was stopped before an answer came")
    }


async def test_killed_it_leaves_whole_records(
    server: ServerProcess, bundle: Path, photos: Path, tmp_path: Path
) -> None:
    words = arguments(bundle, server.address, photos, tmp_path / "r.jsonl", "--repeat")
    async with AgentProcess(*words) as agent:
        shown = [await agent.line() for _ in range(50)]
        agent.process.kill()
        await agent.process.communicate()
    assert len(list(read_records(tmp_path / "r.jsonl"))) >= len(shown)


async def test_settings_of_environment_and_file(
    server: ServerProcess, bundle: Path, photos: Path, tmp_path: Path
) -> None:
    config = tmp_path / "headwater.toml"
    config.write_text(f'[device]\nbundle = "{bundle}"\ncount = 3\nserver = "127.0.0.1:1"\n')
    env = {**os.environ, "HEADWATER_DEVICE_SERVER": server.address, "HEADWATER_CONFIG": str(config)}
    async with AgentProcess("--source", str(photos), env=env) as agent:
        status, out, _ = await agent.finish()
    assert (status, len(out.splitlines())) == (0, 4)


async def test_ten_lines_of_python(server: ServerProcess, bundle: Path, photos: Path) -> None:
    async with Agent(bundle, server.address) as agent:
        answers = await asyncio.gather(*(agent.infer(photos / f"{seed:03}.png") for seed in range(12)))
    labels = tiny.TASKS[1].labels
    assert [answer["bright"].label for answer in answers] == [labels[tiny.labels(seed)[1]] for seed in range(12)]


def test_the_command_line_says_what_is_missing() -> None:
    import subprocess

    result = subprocess.run([*HEADWATER, "device", "--source", "digits"], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "no bundle is set; give --bundle PATH" in result.stderr
