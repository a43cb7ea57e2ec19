"""What several test files need: the program as a subprocess, the golden cases, models to compare."""

import atexit
import json
import os
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
PROGRAM = os.path.join(ROOT, "jepa.py")
_demo = []


def run(*arguments, **options):
    """Run `python jepa.py arguments` with this interpreter; its CompletedProcess, with text."""
    return subprocess.run(
        [sys.executable, PROGRAM, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
        timeout=300,
        **options,
    )


def start_demo():
    """Start `python jepa.py`, the one full run that the tests share, beside the other tests."""
    if not _demo:
        output = tempfile.TemporaryFile()
        _demo[:] = [
            subprocess.Popen([sys.executable, PROGRAM], stdout=output, stderr=subprocess.STDOUT),
            output,
        ]
        atexit.register(_demo[0].kill)


def demo_output():
    """What `python jepa.py` prints, as text."""
    start_demo()
    process, output = _demo
    assert process.wait(300) == 0
    output.seek(0)
    return output.read().decode("ascii").replace("\r\n", "\n")


def golden_cases():
    """The cases of golden.json, each with its model and its minibatch as loss_and_gradients takes them."""
    import jepa

    with open(os.path.join(HERE, "golden.json"), encoding="ascii") as file:
        cases = json.load(file)["cases"]
    for case in cases:
        case["model"] = {name: case[name] for name in ("context_encoder", "target_encoder", "predictor")}
        case["batch"] = list(
            zip(
                [jepa.extract_patches(img, case["patch_size"]) for img in case["images"]],
                case["context_masks"],
                case["target_masks"],
            )
        )
    return cases


def flat(x):
    """All numbers of nested dicts and lists, in a fixed order."""
    if isinstance(x, dict):
        return [v for key in sorted(x) for v in flat(x[key])]
    if isinstance(x, (list, tuple)):
        return [v for item in x for v in flat(item)]
    return [x]


def recorded(name):
    """What study.py printed into tests/recorded/name: {method: {figure: [mean, worst, sd, seed 0]}}."""
    methods = {}
    with open(os.path.join(HERE, "recorded", name), encoding="ascii") as file:
        for line in file.read().splitlines()[1:]:
            if line and not line.startswith(" "):
                row = methods.setdefault(line[:40].strip(), {})
            elif line.startswith("    diverged: "):
                row["diverged"] = line.split(": ")[1]
            elif line.startswith("    loss lower"):
                row["falling"] = line.split(": ")[1]
            elif line.strip() and re.match(r".{30} +[-\d]", line[4:]):
                row[line[4:34].strip()] = [float(cell) for cell in line[34:].split()]
            elif line.strip():
                row["verdicts"] = line.strip()
    return methods
