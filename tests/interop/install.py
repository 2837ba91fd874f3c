"""Installs requirements.txt into the running interpreter, as far as each package can be had.

All of it in one go where that works; otherwise (free-threaded builds, new Python versions) one
requirement at a time, from wheels only, because building half of them takes compilers and minutes.
What could not be installed is named at the end and is no error: its tests skip.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def main() -> None:
    if pip_install("-r", str(REQUIREMENTS)):
        return
    lines = map(str.strip, REQUIREMENTS.read_text().splitlines())
    requirements = [line for line in lines if line and not line.startswith("#")]
    missing = [each for each in requirements if not pip_install(each)]
    print("not available for this interpreter:", ", ".join(missing) or "nothing", flush=True)


def pip_install(*arguments: str) -> bool:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    result = subprocess.run(
        [*command, "--only-binary", ":all:", *arguments], capture_output=True, text=True
    )
    if result.returncode != 0:
        print(result.stderr.strip().splitlines()[-1:], file=sys.stderr)
    return result.returncode == 0


if __name__ == "__main__":
    main()
