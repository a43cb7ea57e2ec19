"""What several test files need: the program as a subprocess, the golden cases, flat lists."""

import atexit
import concurrent.futures
import contextlib
import io
import json
import math
import os
import random
import re
import struct
import subprocess
import sys
import tempfile
from unittest import mock

import jepa
from tests.interpreters import find_interpreters

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
PROGRAM = os.path.join(ROOT, "jepa.py")
# In place of the measurements, where a test has no use for them, and of most held-out images.
_draw_data = jepa.draw_data
STUBS = {"measure": lambda *_: (0.5,) * 6, "few_label_accuracy": lambda *_: 0.5, "draw_data":
         lambda seed: (_draw_data(seed)[0], *[part[::20] for part in _draw_data(seed)[1:]])}
# Runs the program that its argument names; ends it where it would write a file.
WATCH = """import runpy, sys
def hook(event, arguments):
    if event.startswith("socket") or event in ("os.mkdir", "os.remove", "os.rename"):
        sys.exit("forbidden: " + event)
    mode, flags = arguments[1:] if event == "open" else ("r", 0)
    if set(mode) & set("wxa+") if mode else flags & 3:
        sys.exit("forbidden: writing %s" % arguments[0])
program = sys.argv.pop(1)
if hasattr(sys, "addaudithook"): sys.addaudithook(hook)
runpy.run_path(program, run_name="__main__")"""
_demo, _surroundings = [], []


def run(*arguments, command=(sys.executable, PROGRAM), **options):
    """Run `python jepa.py arguments` with this interpreter; its CompletedProcess, with text."""
    return subprocess.run([*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          universal_newlines=True, timeout=300, **options)


def start_demo():
    """Start `python jepa.py`, the one full run that the tests share, beside the other tests."""
    if not _demo:
        output = tempfile.TemporaryFile()
        _demo[:] = [subprocess.Popen([sys.executable, PROGRAM], stdout=output,
                                     stderr=subprocess.STDOUT), output]
        atexit.register(_demo[0].kill)


def demo_output():
    """What `python jepa.py` prints, as text."""
    start_demo()
    process, output = _demo
    assert process.wait(300) == 0
    output.seek(0)
    return output.read().decode("ascii").replace("\r\n", "\n")


def source():
    """The text of jepa.py."""
    with open(PROGRAM, encoding="utf-8") as file:
        return file.read()


def small_program():
    """jepa.py with one line more, before it starts: few images, a short control. A second a run."""
    start = '\nif __name__ == "__main__"'
    assert source().count(start) == 1
    return source().replace(start, "\nNUM_IMAGES, CONTROL_EPOCHS, EPOCHS = 20, 1, 2" + start)


def start_surroundings():
    """Start runs of the small program here, isolated and on other interpreters, all on one seed."""
    if _surroundings:
        return
    folder, arguments = tempfile.TemporaryDirectory(), ("--seed", "1", "--epochs", "12")
    atexit.register(folder.cleanup)
    path = os.path.join(folder.name, "jepa.py")
    with open(path, "w", encoding="utf-8") as file:
        file.write(small_program())

    def runs():
        isolated = (sys.executable, "-I", "-S", "-OO", "-W", "error", "-")
        empty = {name: value for name, value in os.environ.items() if name == "SYSTEMROOT"}
        version = lambda found: re.sub(r"\d+", lambda n: f"{int(n.group()):04}", found[1])
        others = sorted(find_interpreters()[1:], key=version)[-2:]  # the newest CPython, and PyPy
        return {"plain": run(*arguments, command=(sys.executable, "-B", "-c", WATCH, path)),
                "isolated": run(*arguments, command=isolated, input=small_program(), env=empty),
                **{name: run(*arguments, command=(python, path)) for python, name in others},
                }, os.listdir(folder.name)

    _surroundings.append(concurrent.futures.ThreadPoolExecutor(1).submit(runs))


def surroundings():
    """The runs that start_surroundings() started, by name, and the files in their folder."""
    start_surroundings()
    return _surroundings[0].result()


def printed(function, *args):
    """What a call prints."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        function(*args)
    return output.getvalue()


@contextlib.contextmanager
def spy(name):
    """A list that gets (arguments, result) of each call of this function of jepa.py."""
    calls, original = [], getattr(jepa, name)

    def note(*args):
        calls.append((args, original(*args)))
        return calls[-1][1]

    with mock.patch.object(jepa, name, note):
        yield calls


def few_images(seed=0, per_pattern=2):
    """Some images of each pattern."""
    rng = random.Random(seed)
    return [jepa.draw_image(name, rng)[0] for name in jepa.PATTERNS for _ in range(per_pattern)]


def numeric_gradient(loss, weights, step=1e-6):
    """The gradient of loss() by nested lists: central differences, one number at a time."""
    if isinstance(weights, dict):
        return {name: numeric_gradient(loss, weights[name], step) for name in weights}
    if isinstance(weights[0], list):
        return [numeric_gradient(loss, row, step) for row in weights]
    gradient = []
    for i, weight in enumerate(weights):
        weights[i] = weight + step
        above = loss()
        weights[i] = weight - step
        gradient.append((above - loss()) / (2 * step))
        weights[i] = weight
    return gradient


def random_case(rng):
    """A model and a minibatch of random sizes and masks, with every relu away from its kink."""
    while True:
        patch_size, rows, columns = rng.randint(1, 3), rng.randint(1, 3), rng.randint(2, 3)
        K, D, hidden, batch = rows * columns, rng.randint(2, 4), rng.randint(3, 6), []
        model = jepa.init_model(patch_size, K, D, hidden, rng)
        model["target_encoder"] = jepa.init_mlp(patch_size ** 2, hidden, D, rng)
        for row in [row for net in model.values() for W in net.values() for row in W]:
            row[-1] = rng.uniform(-0.5, 0.5)  # the bias
        for _ in range(rng.randint(1, 3)):
            patches = [[rng.uniform(-1, 1) for _ in range(patch_size ** 2)] for _ in range(K)]
            order, cut = rng.sample(range(K), K), rng.randint(1, K - 1)
            batch.append((patches, order[:cut], order[cut:][:rng.randint(1, K)]))
        with spy("mlp_forward") as calls:
            jepa.loss_and_gradients(batch, model)
        sums = flat([jepa.matmul_t([[*row, 1.0] for row in x], net["W1"]) for (net, x), _ in calls])
        if sum(len(mask) for _, mask, _ in batch) >= 3 and min(map(abs, sums)) > 1e-4:
            return model, batch


def narrow(kind, squash):
    """A kind of number as NumPy's small ones: what is calculated with it is squashed to fit."""
    class Narrow(kind):
        def __new__(cls, value):
            return kind.__new__(cls, squash(value))

    for operator in ("add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "pow"):
        def calculate(self, other, name=f"__{operator}__"):
            result = getattr(kind, name)(self, other)
            return result if result is NotImplemented else Narrow(result)

        setattr(Narrow, f"__{operator}__", calculate)
    return Narrow


def half(value):
    """A float with the eleven bits that are left of it in a float16."""
    return struct.unpack("e", struct.pack("e", value))[0] if abs(value) < 65504 else math.inf


Byte = narrow(int, lambda value: int(value) % 256)  # wraps around as uint8 does
Half = narrow(float, half)


def two_matrices(x):
    """golden.json's networks (and gradients), W1, b1, W2, b2, as jepa.py has them: two matrices."""
    if isinstance(x, dict) and "b1" in x:
        return {W: [[*row, bias] for row, bias in zip(x[W], x[b])]
                for W, b in (("W1", "b1"), ("W2", "b2"))}
    return {key: two_matrices(value) for key, value in x.items()} if isinstance(x, dict) else x


def golden_cases():
    """The cases of golden.json, with their model, and minibatch as loss_and_gradients takes it."""
    with open(os.path.join(HERE, "golden.json"), encoding="ascii") as file:
        cases = [two_matrices(case) for case in json.load(file)["cases"]]
    for case in cases:
        networks = ("context_encoder", "target_encoder", "predictor")
        case["model"] = {name: case[name] for name in networks}
        patches = [jepa.extract_patches(img, case["patch_size"]) for img in case["images"]]
        case["batch"] = list(zip(patches, case["context_masks"], case["target_masks"]))
    return cases


def flat(x):
    """All numbers of nested dicts and lists, in a fixed order."""
    if isinstance(x, dict):
        return [v for key in sorted(x) for v in flat(x[key])]
    return [v for item in x for v in flat(item)] if isinstance(x, (list, tuple)) else [x]
