"""Looks every pinned package up in PyPI's database of known vulnerabilities, and says how many could be: `make audit`.

    python -m tests.supply.audit PIP_AUDIT constraints.txt out/audit.json

pip-audit calls a package that it cannot look up "skipped", and ends well with all of them skipped: behind a mirror that
has the packages and not the advisories, that is no audit. So it has to find a vulnerability that is there, first.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

KNOWN = "jinja2==2.10"
"""It has several, CVE-2019-10906 among them."""


class Audit(NamedTuple):
    """What was found."""

    asked: int
    skipped: list[str]
    """Packages that could not be looked up."""
    vulnerable: list[str]
    """Packages with known vulnerabilities, and their numbers."""


def main(pip_audit: str, requirements: Path, out: Path) -> int:
    """Audit and say so: 0 all is well, 1 something is vulnerable, 2 not everything could be looked up."""
    with tempfile.TemporaryDirectory() as folder:
        control = Path(folder) / "known.txt"
        control.write_text(f"{KNOWN}\n", encoding="utf-8")
        trusted = bool(read(_report(pip_audit, control, Path(folder) / "known.json")).vulnerable)
    out.parent.mkdir(parents=True, exist_ok=True)
    found = read(_report(pip_audit, requirements, out))
    print(words(found, trusted=trusted))
    if not trusted or found.skipped:
        return 2
    return 1 if found.vulnerable else 0


def read(report: str) -> Audit:
    """pip-audit's JSON; empty where it wrote none."""
    rows = json.loads(report)["dependencies"] if report else []
    vulnerable = [f"{row['name']} {row['version']}: {_ids(row)}" for row in rows if row.get("vulns")]
    return Audit(len(rows), [row["name"] for row in rows if "skip_reason" in row], vulnerable)


def words(found: Audit, *, trusted: bool) -> str:
    """For people."""
    if not trusted:
        return (
            f"NOTHING WAS AUDITED: the advisories cannot be reached from here, not even those of {KNOWN}, which has "
            "some. Run make audit where pypi.org itself answers."
        )
    lines = [
        f"{found.asked - len(found.skipped)} of {found.asked} packages looked up, {len(found.vulnerable)} vulnerable"
    ]
    if found.skipped:
        lines.append(f"NOT AUDITED: {', '.join(found.skipped)}")
    return "\n".join(lines + found.vulnerable)


def _ids(row: dict[str, list[dict[str, str]]]) -> str:
    return ", ".join(each["id"] for each in row["vulns"])


def _report(pip_audit: str, requirements: Path, out: Path) -> str:
    out.unlink(missing_ok=True)
    options = ("--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json", "--output", str(out))
    done = subprocess.run([pip_audit, "--requirement", str(requirements), *options], capture_output=True, check=False)
    if not out.exists():
        print(done.stderr.decode(errors="replace").strip()[-1000:], file=sys.stderr)
        return ""
    return out.read_text(encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
