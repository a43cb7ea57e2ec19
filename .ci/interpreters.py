"""Find the supported Python interpreters of this machine: CPython 3.8 and newer, PyPy 3.9 and newer.

    python3 .ci/interpreters.py    lists them, a path a line
"""
import glob
import os
import shutil
import subprocess
import sys

NAMES = [f"python3.{minor}" for minor in range(8, 15)] + ["python3", "python", "pypy3"]
ASK = "import sys; print(sys.implementation.name, '%d.%d.%d' % sys.version_info[:3])"


def find_interpreters():
    """[(path, name and version)], one of each minor version, the current interpreter first."""
    candidates = [sys.executable] + [shutil.which(name) for name in NAMES]
    pyenv = os.path.join(os.path.expanduser("~"), ".pyenv", "versions")
    candidates += sorted(glob.glob(os.path.join(pyenv, "*", "bin", "python")))
    found = {}
    for path in filter(None, candidates):
        try:
            answer = subprocess.run([path, "-c", ASK], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                    stdin=subprocess.DEVNULL, universal_newlines=True, timeout=30)
        except (OSError, subprocess.TimeoutExpired):
            continue
        words = answer.stdout.split()
        if answer.returncode == 0 and len(words) == 2:
            name, version = words
            number = tuple(map(int, version.split(".")))
            if number >= ((3, 9) if name == "pypy" else (3, 8)):
                found.setdefault((name, number[:2]), (path, f"{name} {version}"))
    return list(found.values())


if __name__ == "__main__":
    for path, name in find_interpreters():
        print(f"{path}\t{name}")
