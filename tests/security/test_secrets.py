"""Secrets in no log, on no command line, in no environment and in no file but their own: a fleet's life, then a search.

By real processes that log everything. Tokens, the authority's key, the device's key and the key that signs releases are
looked for as they are, in hex, in base64 of both alphabets and as lines of PEM.
"""

from __future__ import annotations

import asyncio
import base64
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from PIL import Image

from headwater.compression.enrolment import Token
from headwater.compression.signature import load_private
from headwater.device.access.identity import Identities
from tests import tiny
from tests.integration.processes import END_TIMEOUT_S, HEADWATER, AgentProcess, ServerProcess
from tests.versions import signed, version

LONG_S = 240


def forms(secret: bytes) -> set[str]:
    """How a secret might be written."""
    urlsafe, plain = base64.urlsafe_b64encode(secret).decode(), base64.b64encode(secret).decode()
    as_it_is = {secret.decode("latin-1"), repr(secret)[2:-1]}
    return as_it_is | {secret.hex(), secret.hex().upper(), urlsafe.rstrip("="), plain.rstrip("=")}


def forms_of_key(pem: bytes) -> set[str]:
    """The lines of a private key, and its number."""
    key = serialization.load_pem_private_key(pem, None)
    lines = [line for line in pem.decode().splitlines() if line and "-----" not in line]
    if isinstance(key, EllipticCurvePrivateKey):
        number = key.private_numbers().private_value
        return {*lines, str(number), *forms(number.to_bytes(32, "big"))}
    assert isinstance(key, Ed25519PrivateKey)
    return {*lines, *forms(key.private_bytes_raw())}


def leaks(texts: dict[str, str], secrets: dict[str, set[str]]) -> list[str]:
    """Which text shows which secret."""
    return [
        f"{where}: {name}"
        for where, text in texts.items()
        for name, ways in secrets.items()
        if any(way in text for way in ways)
    ]


@contextmanager
def watched() -> Iterator[dict[str, str]]:
    """Command line and environment of every process that this one starts, looked at again and again."""
    seen: dict[str, str] = {}
    end = threading.Event()

    def look() -> None:
        while not end.wait(0.01):
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    told = f"{process.cmdline()} {process.environ()}"
                    seen[f"process {process.pid} {len(told)}"] = told

    looker = threading.Thread(target=look)
    looker.start()
    try:
        yield seen
    finally:
        end.set()
        looker.join()


class Site:
    """A server with TLS, and all that anything said."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state, self.device = folder, folder / "server", folder / "device"
        self.said: dict[str, str] = {}
        self.secrets: dict[str, set[str]] = {}
        self.key = folder / "release.key"
        self.run("keygen", "bundle", "keygen", str(self.key))
        self.secrets["release key"] = forms_of_key(self.key.read_bytes())
        self.bundles = [
            signed(version(number), load_private(self.key)).save(folder / f"{number}.zip") for number in (0, 1)
        ]
        Image.fromarray(tiny.image(4)[0]).save(folder / "picture.png")

    def run(self, name: str, *words: str, typed: str = "", status: int = 0) -> str:
        """A command; what it prints is kept, and given back."""
        done = subprocess.run(
            [*HEADWATER, *words], input=typed, capture_output=True, text=True, timeout=LONG_S, check=False
        )
        assert done.returncode == status, done.stderr
        self.said[f"{name}, printed"], self.said[f"{name}, logged"] = done.stdout, done.stderr
        return done.stdout

    def token(self, name: str) -> str:
        """What is printed once, for whoever is to carry it."""
        text = self.run("token", "server", "devices", "token", "--state", str(self.state), "--name", name).strip()
        del self.said["token, printed"]
        self.secrets[f"token of {name}"] = {text, *forms(Token.read(text).secret)}
        return text

    def enrol(self, server: str, token: str, status: int = 0) -> None:
        words = ("device", "enroll", "--server", server, "--state", str(self.device))
        self.run(f"enrol {status} {len(self.said)}", *words, typed=token, status=status)

    def remember_keys(self, when: str) -> str:
        """The device's present key."""
        (identity,) = Identities.under(self.device).all()
        self.secrets[f"device's key {when}"] = forms_of_key(identity.key.encode())
        return identity.key

    def files(self) -> dict[str, str]:
        """All that was left on the disks, but what holds a key and is there for it."""
        own = {self.key, self.state / "access" / "ca.key", *Identities.under(self.device).folder.glob("*.json")}
        assert len(own) == 3
        every = {path for path in self.folder.rglob("*") if path.is_file()}
        assert own < every
        return {str(path): path.read_bytes().decode("latin-1") for path in every - own}


@pytest.mark.slow
async def test_a_fleet_s_life_shows_no_secret(tmp_path: Path) -> None:
    site = Site(tmp_path)
    more = ("--tls", "--state", str(site.state), "--enrol", "127.0.0.1:0", "--log-level", "debug")
    with (
        (tmp_path / "server.log").open("w", encoding="utf-8") as log,
        watched() as processes,
        ServerProcess(site.bundles[0], more=more, stderr=log) as server,
    ):
        site.secrets["authority's key"] = forms_of_key((site.state / "access" / "ca.key").read_bytes())
        token = site.token("pole-7")
        site.enrol(server.address, token)
        site.enrol(server.address, token, status=1)  # used
        site.enrol(server.address, site.token("pole-8")[:-3] + "AAA", status=1)  # mistyped
        site.remember_keys("at first")
        (identity,) = Identities.under(site.device).folder.glob("*.json")
        assert stat.S_IMODE(identity.stat().st_mode) == 0o600
        await _life(site, server)
        worse = ("--max-growth", "50", "--max-regression", "100")
        publish = ("server", "publish", str(site.bundles[1]), "--state", str(site.state), "--key", str(site.key))
        site.run("publish", *publish, *worse)
        site.run("revoke", "server", "devices", "revoke", "pole-7", "--state", str(site.state))
    site.said["server's log"] = (tmp_path / "server.log").read_text(encoding="utf-8")
    assert "pole-7" in site.said["server's log"]
    assert any("server" in told for told in processes.values())
    assert len(site.secrets) == 5
    assert leaks(site.said | site.files(), site.secrets) == []
    assert leaks(processes, site.secrets) == []


@pytest.mark.slow
async def test_rounds_and_kept_frames_show_no_secret(tmp_path: Path) -> None:
    """A device that keeps every frame trains for a round; spool, archive and what was learnt are searched as well."""
    pytest.importorskip("flwr", reason="federated learning needs the extra [federated]")
    from tests.rebuildable import photos, with_recipe

    site, pictures = Site(tmp_path), photos(tmp_path / "photos", 12)
    bundle = signed(with_recipe(), load_private(site.key)).save(tmp_path / "small.zip")
    more = ("--tls", "--state", str(site.state), "--enrol", "127.0.0.1:0", "--log-level", "debug")
    archive = ("--archive", str(tmp_path / "archive.db"))
    with (
        (tmp_path / "server.log").open("w", encoding="utf-8") as log,
        watched() as processes,
        ServerProcess(bundle, more=(*more, *archive), stderr=log) as server,
    ):
        site.secrets["authority's key"] = forms_of_key((site.state / "access" / "ca.key").read_bytes())
        site.enrol(server.address, site.token("pole-7"))
        site.remember_keys("at first")
        words = {"--bundle": bundle, "--server": server.address, "--source": "-", "--trusted-key": f"{site.key}.pub"}
        words |= {"--state": site.device, "--spool": tmp_path / "spool.db", "--keep": "all", "--train-nice": 0}
        words |= {"--records": tmp_path / "records.jsonl", "--train-data": pictures, "--log-level": "debug"}
        plain = [str(word) for pair in words.items() for word in pair]
        async with asyncio.timeout(3 * LONG_S), AgentProcess(*plain, "--json") as agent:
            assert agent.process.stdin is not None
            agent.process.stdin.write(next(pictures.rglob("*.png")).read_bytes())
            assert '"edge"' in await agent.line()
            rounds = ("server", "federate", "--bundle", str(bundle), "--state", str(site.state), "--rounds", "1")
            await asyncio.to_thread(site.run, "federate", *rounds, "--least", "1", "--data", str(pictures))
            status, site.said["agent, printed"], site.said["agent, logged"] = await agent.finish(b"")
    assert status == 0, site.said["agent, logged"]
    assert "has ended after round 1" in site.said["federate, printed"]
    files = site.files()
    assert {"archive.db", "spool.db", "records.jsonl", "server.log"} <= {Path(name).name for name in files}
    assert len(site.secrets) == 4
    assert leaks(site.said | files, site.secrets) == []
    assert leaks(processes, site.secrets) == []


async def _life(site: Site, server: ServerProcess) -> None:
    """Frames, answered by the server, over mutual TLS."""
    words = ["--bundle", str(site.bundles[0]), "--server", server.address, "--state", str(site.device)]
    words += ["--source", str(site.folder / "picture.png"), "--log-level", "debug", "--json", "--trusted-key"]
    async with asyncio.timeout(LONG_S), AgentProcess(*words, f"{site.key}.pub") as agent:
        status, out, err = await agent.finish()
    assert status == 0, err
    assert '"edge"' in out
    site.said["agent, printed"], site.said["agent, logged"] = out, err


def test_a_token_on_the_command_line_is_taken_off_it(tmp_path: Path) -> None:
    """The process that got it hangs in its enrolment, at somebody who listens and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        token = Token(silent.getsockname()[1], bytes(32), bytes(range(16)))
        secrets = {"token": {token.text(), *forms(token.secret)}}
        words = ("device", "enroll", "--server", "127.0.0.1", "--state", str(tmp_path), "--token", token.text())
        with subprocess.Popen([*HEADWATER, *words], stderr=subprocess.DEVNULL) as process:
            silent.settimeout(END_TIMEOUT_S)
            silent.accept()[0].close()
            told = {"process": str(psutil.Process(process.pid).cmdline())}
            process.kill()
    assert "--token" in told["process"]
    assert leaks(told, secrets) == []


def test_the_search_finds_what_is_there() -> None:
    """A planted leak of each kind."""
    secret = bytes(range(200, 216))
    for way in forms(secret):
        assert leaks({"log": f"and so x={way}, y"}, {"token": forms(secret)}) == ["log: token"]
    with watched() as processes:
        command = [sys.executable, "-c", "import sys; sys.stdin.read()", secret.hex()]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
            while not leaks(processes, {"token": forms(secret)}):
                assert process.poll() is None
            assert process.stdin is not None
            process.stdin.close()
