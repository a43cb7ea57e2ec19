"""What several test files need: the program as a subprocess, golden numbers, gradients."""

import atexit, contextlib, functools, io, json, os, random, subprocess, sys
from dataclasses import replace

import jepa

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROGRAM = os.path.join(ROOT, "jepa.py")

def run(*arguments, command=(sys.executable, PROGRAM)):
    """Run `python jepa.py arguments`; return its CompletedProcess, with text."""
    return subprocess.run([*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          universal_newlines=True, timeout=300)

@functools.lru_cache()
def start_demo():
    """Start `python jepa.py`, the one full run that the tests share, beside the other tests."""
    process = subprocess.Popen([sys.executable, PROGRAM], stdout=subprocess.PIPE, encoding="ascii")
    atexit.register(process.kill)
    return process

@functools.lru_cache()
def demo_output():
    """Return what `python jepa.py` prints."""
    output, _ = start_demo().communicate(timeout=300)
    assert start_demo().returncode == 0, "the demo failed"
    return output

def read(*path):
    """Return the text of a file of the repository."""
    with open(os.path.join(ROOT, *path), encoding="utf-8") as file:
        return file.read()

def printed(function, *args):
    """Return what a call prints."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        function(*args)
    return output.getvalue()

def few_images(seed=0, per_pattern=2):
    return jepa.draw_dataset(per_pattern, random.Random(seed))[0]

def flat(x):
    """Return all numbers in nested dicts, lists and tuples, in a fixed order."""
    if isinstance(x, dict):
        return [v for key in sorted(x) for v in flat(x[key])]
    return [v for item in x for v in flat(item)] if isinstance(x, (list, tuple)) else [x]

def numeric_gradient(loss, weights, step=1e-6):
    """Return the gradient of loss() for nested dicts and lists, by central differences."""
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
    """Return a model, a batch of random masks, and a Config of random sizes."""
    K, size = rng.randint(2, 6), rng.randint(1, 3)
    cfg = jepa.Config(patch_size=size, num_patches=K, embed_dim=rng.randint(2, 4), encoder_hidden=rng.randint(3, 6),
                      predictor_hidden=rng.randint(3, 6), gamma=rng.choice([0.1, 0.5, 2.0]))
    model = jepa.init_model(cfg, rng)
    model["target_encoder"] = jepa.init_model(cfg, rng)["context_encoder"]
    for weights in [weights for net in model.values() for weights in net.values()]:
        weights[-1] = [rng.uniform(-0.5, 0.5) for _ in weights[-1]]
    batch = []
    for _ in range(rng.randint(3, 4)):
        patches = [[rng.uniform(-1, 1) for _ in range(size**2)] for _ in range(K)]
        order, cut = rng.sample(range(K), K), rng.randint(1, K - 1)
        batch.append((patches, order[:cut], order[cut:]))
    return model, batch, cfg

def transposed(x):
    """Turn W1, b1, W2, b2 of a network into two matrices whose last rows are the biases."""
    if isinstance(x, dict) and "b1" in x:
        return {W: [*map(list, zip(*x[W])), x[b]] for W, b in (("W1", "b1"), ("W2", "b2"))}
    return {key: transposed(value) for key, value in x.items()} if isinstance(x, dict) else x

def golden_case():
    """Return the case of golden.json with its model, batch and Config, in jepa.py's layout."""
    case = transposed(json.loads(read("tests", "golden.json")))
    names = ("patch_size", "num_patches", "embed_dim", "gamma")
    case["cfg"] = jepa.Config(**{name: case[name] for name in names})
    case["model"] = {name: case[name] for name in ("context_encoder", "target_encoder", "predictor")}
    patches = [jepa.extract_patches(img, case["patch_size"]) for img in case["images"]]
    case["batch"] = list(zip(patches, case["context_masks"], case["target_masks"]))
    return case

def weighted(cfg, pred=0.0, var=0.0, cov=0.0):
    """Return the settings with other weights of the loss."""
    return replace(cfg, pred_weight=pred, var_weight=var, cov_weight=cov)
