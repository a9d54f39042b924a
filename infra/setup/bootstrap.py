"""Prepares a checkout: virtual environment, locked packages, jars. Standard library only; quick when nothing changed.

Run: `make setup` (every other target does it first), or `python3.11 infra/setup/bootstrap.py`.
Safe to cut off and to run again: each part has a stamp, written last, with the hash of the lock that it was made from.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOCKS = ROOT / "infra" / "locks"
STAMP = VENV / "headwater.stamp"
NEEDED = (3, 11)
DISK_NEEDED_GB = 6

_LAUNCHER = """#!/bin/sh
exec '{python}' -m infra.cli.app "$@"
"""


def say(text: str) -> None:
    print(f"setup: {text}", file=sys.stderr, flush=True)


def stop(text: str) -> None:
    say(text)
    sys.exit(2)


def lock_hash() -> str:
    """What the environment is made from: both Python locks."""
    names = ("bootstrap.lock", "requirements.lock")
    return hashlib.sha256(b"".join((LOCKS / name).read_bytes() for name in names)).hexdigest()


def check_machine() -> None:
    """Stops with words that say what to do when this machine can't hold the environment."""
    if sys.version_info[:2] != NEEDED:
        found = ".".join(map(str, sys.version_info[:3]))
        stop(
            f"Python 3.11 is needed, {sys.executable} is {found}. "
            "Install it (for example `apt install python3.11 python3.11-venv`, or pyenv) and run "
            "`make PYTHON=/path/to/python3.11`."
        )
    if not sys.platform.startswith("linux") and sys.platform != "darwin":
        stop(f"the local stack runs on Linux and macOS, this is {sys.platform}")
    free_gb = shutil.disk_usage(ROOT).free / 1e9
    if free_gb < DISK_NEEDED_GB:
        stop(f"{DISK_NEEDED_GB} GB of disk are needed in {ROOT}, {free_gb:.1f} GB are free")


def run(what: str, *command: str | Path) -> None:
    """Runs a command that shows its own progress on a terminal; without one, its output only when it fails."""
    quiet = not sys.stderr.isatty()
    try:
        subprocess.run(
            [str(part) for part in command],
            check=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": ""},
            stdout=subprocess.PIPE if quiet else sys.stderr,
            stderr=subprocess.STDOUT if quiet else None,
            text=True,
        )
    except subprocess.CalledProcessError as error:
        if error.stdout:
            print(error.stdout[-4000:], file=sys.stderr)
        stop(f"{what} failed (exit code {error.returncode}); run the same command again to go on from here")


def make_environment() -> None:
    """Creates .venv from the locks, or brings it up to date. Packages are installed with their hashes checked."""
    if not _can_make_venv():
        stop("Python's venv module is incomplete here: install it (Debian, Ubuntu: `apt install python3.11-venv`)")
    if not PYTHON.exists():
        say("creating .venv")
        run("creating .venv", sys.executable, "-m", "venv", "--clear", VENV)
    elif not (VENV / "bin" / "pip").exists():  # made by another tool, or cut off before pip came
        run("completing .venv", PYTHON, "-m", "ensurepip")
    say("installing Python packages from infra/locks (about a minute the first time)")
    pip = (PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes")
    run("installing uv", *pip, "--requirement", LOCKS / "bootstrap.lock")
    uv = (VENV / "bin" / "uv", "pip", "install", "--python", PYTHON, "--require-hashes")
    run("installing packages", *uv, "--requirement", LOCKS / "requirements.lock")
    packages = next((VENV / "lib").glob("python*")) / "site-packages"
    (packages / "headwater.pth").write_text(f"{ROOT}\n")
    launcher = VENV / "bin" / "headwater"
    launcher.write_text(_LAUNCHER.format(python=PYTHON))
    launcher.chmod(0o755)
    STAMP.write_text(lock_hash())


def _can_make_venv() -> bool:
    return subprocess.run([sys.executable, "-c", "import ensurepip, venv"], capture_output=True).returncode == 0


def main() -> int:
    began = time.monotonic()
    check_machine()
    worked = not STAMP.is_file() or STAMP.read_text() != lock_hash()
    if worked:
        make_environment()
    jars = subprocess.run([str(PYTHON), "-m", "infra.setup.jars"], cwd=ROOT)
    if jars.returncode:
        return jars.returncode
    if worked:
        say(f"ready after {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
