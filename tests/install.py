"""Installs a requirements file into the running interpreter, as far as it can be had.

    python tests/install.py tests/requirements.txt

All of it in one go where that works; otherwise (free-threaded builds, new Python versions) one
requirement at a time, from wheels only, because building half of them takes compilers and minutes.
What could not be installed is named at the end and is no error: its tests skip.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def main(requirements: Path) -> None:
    if pip_install("-r", str(requirements)):
        return
    lines = map(str.strip, requirements.read_text().splitlines())
    wanted = [line for line in lines if line and not line.startswith("#")]
    missing = [each for each in wanted if not pip_install(each)]
    if missing:
        print("not available for this interpreter:", ", ".join(missing), flush=True)


def pip_install(*arguments: str) -> bool:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    result = subprocess.run(
        [*command, "--only-binary", ":all:", *arguments], capture_output=True, text=True
    )
    return result.returncode == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]))
