"""The installation says in short what it does, without addresses, and shows all where it fails."""

import sys

import install

WROTE = """\
WARNING: The repository located at packages.example.org is not a trusted host
Looking in indexes: https://packages.example.org/simple, https://user:word@other.example.org/simple
Obtaining file:///home/somebody/gradlab
  Installing build dependencies: started
Collecting torch>=2.13 (from gradlab-rl)
  Downloading https://packages.example.org/torch-2.13.0-cp311-none-manylinux_x86_64.whl (821.4 MB)
Processing /srv/wheels/scipy-1.17.0-cp311-cp311-linux_x86_64.whl (from gradlab-rl)
  Using cached https://packages.example.org/mujoco_core-4.0.0-py3-none-any.whl (9.6 MB)
  Downloading tyro-1.0.0-py3-none-any.whl (180 kB)
Requirement already satisfied: numpy>=2.1
Installing collected packages: torch, tyro, gradlab-rl
Successfully installed gradlab-rl-0.1.0 torch-2.13.0 tyro-1.0.0
"""


def test_of_what_pip_writes_names_and_sizes_are_shown():
    shown = [text for line in WROTE.splitlines(keepends=True) if (text := install.short(line))]
    assert shown == [
        "reading what gradlab needs",
        "downloading torch (821.4 MB)",
        "from a folder: scipy",
        "from the cache: mujoco-core (9.6 MB)",
        "unpacking 3 packages",
    ]


def test_a_failure_shows_everything_and_passes_the_code_on(capfd):
    script = "print('Collecting torch'); print('ERROR: no torch for this machine'); exit(3)"
    assert install.followed([sys.executable, "-c", script]) == 3
    out, err = capfd.readouterr()
    assert out == "" and err == "Collecting torch\nERROR: no torch for this machine\n"


def test_silent_work_is_seen_to_go_on(capfd):
    script = "import time; time.sleep(1.0)"
    assert install.followed([sys.executable, "-c", script], quiet=0.2) == 0
    assert "s so far" in capfd.readouterr().out


def test_an_old_python_is_refused_in_one_line(monkeypatch, capfd):
    monkeypatch.setattr(install, "NEEDED", (99, 0))
    assert install.main("unused") == 2
    assert "needs Python 99.0 or later" in capfd.readouterr().out
