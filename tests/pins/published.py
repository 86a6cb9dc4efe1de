"""What the package index publishes of the pinned packages: their metadata, and single source files.

Nothing large is downloaded: pip reads metadata alone, and a source file is read out of its wheel by range requests.
Both are kept in ``~/.cache/onecard/pins``, so a second run needs no network.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname
from zipfile import ZipFile

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from remotezip import RemoteZip

from tests.conftest import ROOT

CACHE = Path.home() / ".cache" / "onecard" / "pins"
PYTHONS = {
    "requirements.txt": ("3.11", "3.12", "3.13"),
    "requirements-t4.txt": ("3.11", "3.12", "3.13"),
    "requirements-cuda12.txt": ("3.12", "3.13"),
    "requirements-cpu.txt": ("3.11", "3.12", "3.13"),
    "requirements-cpu-vllm.txt": ("3.11", "3.12", "3.13"),
    "requirements-dev.txt": ("3.11", "3.12", "3.13"),
}
_PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in range(39, 4, -1)]
_PLATFORMS += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64"]


def environment(python: str) -> dict[str, str]:
    """The markers' variables on Linux x86-64 with CPython ``python``."""
    return {
        "python_version": python, "python_full_version": f"{python}.5", "implementation_name": "cpython",
        "platform_python_implementation": "CPython", "implementation_version": f"{python}.5", "os_name": "posix",
        "sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64", "platform_release": "6.1",
        "platform_version": "1", "extra": "",
    }  # fmt: skip


def pins(lock: str, python: str) -> list[str]:
    """The lines of a lock that hold for ``python``, as NAME==VERSION."""
    lines = (line.strip() for line in (ROOT / lock).read_text(encoding="utf-8").splitlines())
    wanted = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return [
        f"{canonicalize_name(r.name)}{r.specifier}"
        for r in wanted
        if r.marker is None or r.marker.evaluate(environment(python))
    ]


def metadata(lock: str, python: str) -> list[dict[str, Any]]:
    """Name, version, requirements and address of every wheel of a lock; fails where one does not exist."""
    return metadata_of("\n".join(pins(lock, python)), python)


def metadata_of(wanted: str, python: str) -> list[dict[str, Any]]:
    """The same of packages as NAME==VERSION, a line each."""
    kept = CACHE / f"{python}-{hashlib.sha256(wanted.encode()).hexdigest()[:24]}.json"
    if not kept.exists():
        with tempfile.TemporaryDirectory() as scratch:
            (Path(scratch) / "lock.txt").write_text(wanted, encoding="utf-8")
            command = [
                sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps",
                "--use-feature=fast-deps", "--report", f"{scratch}/report.json", "--only-binary=:all:",
                "--target", scratch, "--python-version", python, "--implementation", "cp",
                *(part for platform in _PLATFORMS for part in ("--platform", platform)), "-r", f"{scratch}/lock.txt",
            ]  # fmt: skip
            subprocess.run(command, check=True, capture_output=True, text=True)
            report = json.loads((Path(scratch) / "report.json").read_text(encoding="utf-8"))["install"]
        rows = [
            {
                "name": canonicalize_name(row["metadata"]["name"]),
                "version": row["metadata"]["version"],
                "requires": row["metadata"].get("requires_dist", []),
                "python": row["metadata"].get("requires_python", ""),
                "url": row["download_info"]["url"],
            }
            for row in report
        ]
        CACHE.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(rows), encoding="utf-8")
    return json.loads(kept.read_text(encoding="utf-8"))


def source(lock: str, python: str, package: str, file: str) -> str:
    """The text of one file of a pinned package, read out of its wheel."""
    (row,) = [row for row in metadata(lock, python) if row["name"] == canonicalize_name(package)]
    return source_in(row, file)


def source_in(row: dict[str, Any], file: str) -> str:
    """The text of one file of the package that a row of ``metadata_of`` is of."""
    kept = CACHE / f"{row['name']}-{row['version']}" / file
    if not kept.exists():
        on_disk = row["url"].startswith("file:")  # an index may be a folder
        with ZipFile(url2pathname(urlparse(row["url"]).path)) if on_disk else RemoteZip(row["url"]) as wheel:
            text = wheel.read(file)
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(text)
    return kept.read_text(encoding="utf-8")
