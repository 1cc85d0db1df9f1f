"""`make demo` and `make test`: make .venv and install gradlab in it, saying what is being done.

    python3 install.py FOLDER [EXTRA]        for example  python3 install.py .venv dev

pip is silent for a minute (--quiet) or prints hundreds of lines: here a line names what is
downloaded and what is built, and everything that pip wrote is shown only where it failed.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from pathlib import Path

NEEDED = (3, 11)
QUIET = 15.0  # seconds without a line after which one says that work goes on
LARGE = re.compile(r"([\d.]+) (MB|GB)\)")


def main(folder: str, extra: str = "") -> int:
    """0 once gradlab is installed there, else the exit code of what failed."""
    if sys.version_info < NEEDED:
        found = ".".join(map(str, sys.version_info[:3]))
        needed = ".".join(map(str, NEEDED))
        say(f"gradlab needs Python {needed} or later, this is {found}: make demo PYTHON=python3.x")
        return 2
    begun, python = time.monotonic(), Path(folder) / "bin" / "python"
    if not works(python):
        say(f"Creating {folder}")
        made = subprocess.run([sys.executable, "-m", "venv", "--clear", folder])
        if made.returncode:
            return made.returncode
    tools = {"": "", "dev": ", with the tools of the tests"}.get(extra, f", with {extra}")
    say(f"Installing torch and the rest{tools} (about 1.7 GB; one to three minutes)")
    target = f".[{extra}]" if extra else "."
    command = [str(python), "-m", "pip", "install", "--progress-bar", "off", "--no-input"]
    code = followed([*command, "--no-color", "-c", "constraints.txt", "-e", target])
    if code == 0:
        say(f"Installed in {time.monotonic() - begun:.0f} s")
    return code


def works(python: Path) -> bool:
    """Has a virtual environment a pip? One whose making was interrupted has none."""
    if not python.exists():
        return False
    return (
        subprocess.run([str(python), "-m", "pip", "--version"], capture_output=True).returncode == 0
    )


def followed(command: list[str], quiet: float = QUIET) -> int:
    """Run pip, and show what it does in short; all of it where it fails."""
    lines: list[str] = []
    ended, last = threading.Event(), [time.monotonic()]

    def tell(text: str) -> None:
        last[0] = time.monotonic()
        say(f"  {text}")

    def wait() -> None:
        begun = time.monotonic()
        while not ended.wait(min(quiet, 1.0)):
            if time.monotonic() - last[0] >= quiet:
                tell(f"{time.monotonic() - begun:.0f} s so far")

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, text=True, errors="replace", **pipes) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if text := short(line):
                tell(text)
    ended.set()
    thread.join()
    if process.returncode:
        sys.stderr.write("".join(lines))
    return process.returncode


def short(line: str) -> str:
    """What a line of pip says to who waits; "" for most of them.

    Only names, never addresses; a download counts from a megabyte on.
    """
    text = line.strip()
    size = LARGE.search(text)
    for begins, verb in (("Downloading ", "downloading"), ("Using cached ", "from the cache:")):
        if text.startswith(begins) and size:
            return f"{verb} {package(text[len(begins) :].split()[0])} ({size[1]} {size[2]})"
    if text.startswith("Processing ") and ".whl" in text:
        return f"from a folder: {package(text[len('Processing ') :].split()[0])}"
    if text.startswith("Installing collected packages: "):
        return f"unpacking {text.count(',') + 1} packages"
    return "reading what gradlab needs" if text.startswith("Obtaining ") else ""


def package(file: str) -> str:
    """The name in that of a wheel or an archive, or in an address of one."""
    return re.split(r"-\d", file.rsplit("/", 1)[-1])[0].replace("_", "-")


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except KeyboardInterrupt:
        say("Interrupted: the same command goes on")
        sys.exit(130)
