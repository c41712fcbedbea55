"""What is done in the booted machine of test_boot.py: by root, with nothing but Python's own library."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

OUT = Path("/root/out")
HEADWATER = "/opt/headwater/bin/headwater"
CONFIG, STATE = Path("/etc/headwater/headwater.toml"), Path("/var/lib/headwater")
RECORDS = STATE / "records.jsonl"
WATCHED = ("/etc", "/usr/local", "/opt", "/var/lib", "/home")
OTHERS = ("/etc/.pwd.lock", "/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-", "/var/lib/systemd")
PATIENCE_S = 240.0


def run(*words: str, typed: str = "") -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False, input=typed)
    if done.returncode:
        raise RuntimeError(f"{words}: {done.stdout} {done.stderr}")
    return done.stdout


def show(*keys: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in run("systemctl", "show", "headwater", "-p", ",".join(keys)).splitlines())


def until(what: str, holds: Callable[[], Any]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > end_s:
            raise TimeoutError(what)
        time.sleep(0.1)


def sources() -> list[str]:
    """Who answered each frame so far."""
    lines = RECORDS.read_text().splitlines() if RECORDS.exists() else []
    return [json.loads(line)["source"] for line in lines if line.endswith("}")]


def listing() -> list[str]:
    found = [str(path) for folder in WATCHED for path in Path(folder).rglob("*")]
    return sorted(path for path in found if not path.startswith(OTHERS) and "__pycache__" not in path)


def status_of(pid: str) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, value in (line.split(":", 1) for line in lines)}


def play(facts: dict[str, Any]) -> None:
    before = listing()
    serve = (HEADWATER, "server", "--bundle", "/opt/tiny.zip", "--listen", "127.0.0.1:50051", "--http", "")
    run(
        "systemd-run",
        "--unit=edge",
        "-p",
        "Type=exec",
        *serve,
        "--tls",
        "--state",
        "/root/edge",
        "--enrol",
        "127.0.0.1:0",
    )
    until("the server takes work", lambda: "server ready" in run("journalctl", "-u", "edge"))
    install = (HEADWATER, "device", "install", "--program", HEADWATER)
    first = ("--bundle", "/opt/tiny.zip", "--server", "127.0.0.1:50051", "--source", "/opt/photos", "--no-start")
    facts["first"] = run(*install, *first, "--fps", "5", "--deadline-ms", "2000")
    with CONFIG.open("a") as file:
        file.write(f'repeat = true\nretry_s = 0.5\ntasks = ["shape"]\nrecords = "{RECORDS}"\n')
    drop_in = Path("/etc/systemd/system/headwater.service.d/override.conf")
    drop_in.parent.mkdir()
    drop_in.write_text("[Service]\nWatchdogSec=8\nRestartSec=1\n")
    token = run(HEADWATER, "server", "devices", "token", "--state", "/root/edge")
    enroll = (HEADWATER, "device", "enroll", "--config", str(CONFIG), "--name", "pole-7")
    facts["enrolled"] = run(*enroll, typed=token)  # by root, for the service
    facts["second"] = run(*install)

    facts["started"] = show("ActiveState", "User", "NRestarts", "WatchdogUSec", "MemoryMax")
    until("the server answers", lambda: sources().count("edge") >= 5)
    pid = show("MainPID")["MainPID"]
    facts["process"] = status_of(pid)
    facts["state"] = [oct(STATE.stat().st_mode), STATE.owner(), RECORDS.owner(), oct(RECORDS.stat().st_mode)]
    facts["keys"] = [(path.owner(), oct(path.stat().st_mode)) for path in STATE.glob("identity/*.json")]
    until("the status is told", lambda: show("StatusText")["StatusText"].startswith("connected; "))

    os.kill(int(pid), signal.SIGSTOP)  # it hangs
    until("the watchdog bites", lambda: show("NRestarts")["NRestarts"] == "1")
    seen = len(sources())
    until("it goes on", lambda: len(sources()) > seen + 5)
    facts["again"] = show("ActiveState", "NRestarts")

    run("systemctl", "stop", "edge")
    until("it answers itself", lambda: sources()[-5:].count("local") == 5)
    CONFIG.write_text(CONFIG.read_text().replace('"/opt/photos"', '"http://127.0.0.1:1/none"'))
    facts["third"] = run(*install)
    until("it waits for its camera", lambda: "it is opened again" in run("journalctl", "-u", "headwater"))
    facts["waiting"] = show("ActiveState", "NRestarts")
    facts["journal"] = run("journalctl", "-u", "headwater", "-o", "json", "--output-fields=PRIORITY,MESSAGE")

    facts["uninstall"] = run(HEADWATER, "device", "uninstall", "--yes")
    facts["left"] = sorted(set(listing()) - set(before))
    facts["missing"] = sorted(set(before) - set(listing()))
    facts["users"] = [
        line
        for file in ("passwd", "group")
        for line in Path("/etc", file).read_text().splitlines()
        if "headwater" in line
    ]
    facts["units"] = run("systemctl", "list-units", "--all", "--no-legend", "headwater*")


def main() -> None:
    facts: dict[str, Any] = {}
    try:
        play(facts)
    except BaseException:  # noqa: BLE001 - whatever it is, the test shows it
        facts["error"] = traceback.format_exc()
        for name, words in {"status": ("systemctl", "status", "headwater"), "log": ("journalctl", "-n", "200")}.items():
            facts[name] = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    (OUT / "facts.json").write_text(json.dumps(facts))


main()
