"""Puts Synapse into a virtual environment, once.

Usage: python3 install.py TARGET_DIRECTORY

Two runs at once wait for each other: the lock is the kernel's, so a killed run leaves none behind. The environment
counts as installed when it holds a copy of the requirements it was made from.
"""

import fcntl
import shutil
import subprocess
import sys
import venv
from pathlib import Path

REQUIREMENTS = Path(__file__).parent / "requirements.txt"


def install(target: Path) -> None:
    installed = target / "installed-requirements.txt"
    wanted = REQUIREMENTS.read_text()
    if installed.exists() and installed.read_text() == wanted:
        return
    shutil.rmtree(target, ignore_errors=True)
    venv.create(target, with_pip=True)
    pip = [str(target / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # The environment comes of an index of wheels alone: nothing is compiled on the way.
    subprocess.run([*pip, "--only-binary", ":all:", "-r", str(REQUIREMENTS)], check=True)
    installed.write_text(wanted)


def main() -> None:
    target = Path(sys.argv[1]).absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        install(target)


main()
