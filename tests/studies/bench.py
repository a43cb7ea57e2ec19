#!/usr/bin/env python3
"""Time a training step of jepa.py beside the same step written in other ways: ratios in one run.

python3 tests/studies/bench.py            a minute; NumPy, PyTorch and git are used where they are there
python3 tests/studies/bench.py --demo     the demo and --collapse, too

All contestants take the same steps from the same weights, and must end with the same weights.
"""

import argparse
import copy
import os
import platform
import random
import statistics
import subprocess
import sys
import time
import types
from dataclasses import replace

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path.insert(0, ROOT)
import jepa  # noqa: E402

try:
    import numpy as np
except ImportError:
    np = None
try:
    import torch
except ImportError:
    torch = None

CFG = jepa.Config()
EARLIER = "a12d46c"  # a commit whose jepa.py has the same step with other names


def jepa_step(model, batch):
    losses, gradients = jepa.loss_and_gradients(batch, model, CFG)
    for name, gradient in gradients.items():
        for layer in gradient:
            model[name][layer] = jepa.add(model[name][layer], gradient[layer], -CFG.lr)
    jepa.ema_update(CFG.ema_momentum, model)
    return losses["loss"]


def earlier_step(model, batch):
    weights = CFG.pred_weight, CFG.var_weight, CFG.cov_weight, CFG.gamma
    losses, gradients = earlier.loss_and_gradients(batch, model, *weights)
    for name in gradients:
        model[name] = earlier.blend(1.0, model[name], -CFG.lr, gradients[name])
    earlier.ema_update(CFG.ema_momentum, model)
    return losses["loss"]


def gather(patches, masks):
    """Return the index arrays of context and target patches; all masks have the same sizes."""
    context, target = np.array([m[0] for m in masks]), np.array([m[1] for m in masks])
    image = np.arange(len(patches))[:, None]
    return patches[image, context], patches[image, target], target


def numpy_step(model, batch):
    patches, masks = batch
    encoder, predictor = model["context_encoder"], model["predictor"]

    def forward(net, x):
        x = np.concatenate([x, np.ones((len(x), 1))], 1)
        h = np.concatenate([np.maximum(x @ net["W1"], 0.0), np.ones((len(x), 1))], 1)
        return h @ net["W2"], x, h

    def backward(net, x, h, dy):
        dz = (dy @ net["W2"][:-1].T) * (h[:, :-1] > 0.0)
        return {"W1": x.T @ dz, "W2": h.T @ dy}, dz @ net["W1"][:-1].T

    context, target, position = gather(patches, masks)
    (B, c, P), t, D = context.shape, target.shape[1], CFG.embed_dim
    z, x, h = forward(encoder, context.reshape(-1, P))
    targets, _, _ = forward(model["target_encoder"], target.reshape(-1, P))
    mean = z.reshape(B, c, D).mean(1).repeat(t, 0)
    predictions, px, ph = forward(predictor, np.concatenate([mean, np.eye(4)[position.ravel()]], 1))
    errors, centered = predictions - targets, z - z.mean(0)
    C = centered.T @ centered / (B * c - 1)
    std = np.sqrt(C.diagonal() + jepa.EPS)
    off = C - np.diag(C.diagonal())
    loss = CFG.pred_weight * (errors**2).mean() + CFG.cov_weight * (off**2).sum() / D
    loss += CFG.var_weight * np.maximum(CFG.gamma - std, 0.0).mean()
    d_predictor, dx = backward(predictor, px, ph, CFG.pred_weight * 2.0 * errors / errors.size)
    dz = (dx[:, :D].reshape(B, t, D).sum(1) / c).repeat(c, 0)
    dz += CFG.cov_weight * 4.0 / (D * (B * c - 1)) * centered @ off
    dz -= CFG.var_weight * np.where(std < CFG.gamma, 1.0 / (D * std * (B * c - 1)), 0.0) * centered
    d_encoder, _ = backward(encoder, x, h, dz)
    for net, gradient in ((encoder, d_encoder), (predictor, d_predictor)):
        for W in net:
            net[W] = net[W] - CFG.lr * gradient[W]
    slow = model["target_encoder"]
    for W in slow:
        slow[W] = CFG.ema_momentum * slow[W] + (1.0 - CFG.ema_momentum) * encoder[W]
    return float(loss)


def torch_step(model, batch):
    patches, masks = batch

    def forward(net, x):
        x = torch.cat([x, torch.ones(len(x), 1)], 1)
        h = torch.cat([torch.relu(x @ net["W1"]), torch.ones(len(x), 1)], 1)
        return h @ net["W2"]

    context, target, position = (torch.as_tensor(a) for a in gather(patches, masks))
    (B, c, P), t, D = context.shape, target.shape[1], CFG.embed_dim
    z = forward(model["context_encoder"], context.reshape(-1, P))
    with torch.no_grad():
        targets = forward(model["target_encoder"], target.reshape(-1, P))
    mean = z.reshape(B, c, D).mean(1).repeat_interleave(t, 0)
    predictions = forward(model["predictor"], torch.cat([mean, torch.eye(4)[position.ravel()]], 1))
    C = torch.cov(z.T)
    loss = CFG.pred_weight * (predictions - targets).square().mean()
    loss = loss + CFG.var_weight * torch.relu(CFG.gamma - torch.sqrt(C.diagonal() + jepa.EPS)).mean()
    loss = loss + CFG.cov_weight * (C.square().sum() - C.diagonal().square().sum()) / D
    trained = [model[name][W] for name in ("context_encoder", "predictor") for W in ("W1", "W2")]
    gradients = torch.autograd.grad(loss, trained)
    with torch.no_grad():
        for weights, gradient in zip(trained, gradients):
            weights -= CFG.lr * gradient
        for W, slow in model["target_encoder"].items():
            slow.mul_(CFG.ema_momentum).add_(model["context_encoder"][W], alpha=1.0 - CFG.ema_momentum)
    return float(loss)


def load_earlier():
    """Return the earlier jepa.py as a module, or None where git does not have it."""
    try:
        source = subprocess.check_output(["git", "show", f"{EARLIER}:jepa.py"], cwd=ROOT, stderr=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError):
        return None
    module = types.ModuleType("earlier")
    exec(compile(source, "earlier.py", "exec"), vars(module))
    return module


def convert(model, function):
    return {name: {W: function(rows) for W, rows in net.items()} for name, net in model.items()}


def main():
    global earlier
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40, help="timed rounds of five steps (default 40)")
    parser.add_argument("--demo", action="store_true", help="time the demo and --collapse as well")
    options = parser.parse_args()
    print(f"{platform.python_implementation()} {platform.python_version()}, {platform.system()} {platform.machine()}")
    earlier = load_earlier()
    rows = lambda W: [list(row) for row in W]
    flip = lambda W: rows(zip(*W))
    table = {"jepa.py": (jepa_step, rows, rows), f"commit {EARLIER}": (earlier_step, flip, flip)}
    table["NumPy"] = (numpy_step, np and np.array, rows)
    table["PyTorch, eager"] = (torch_step, torch and (lambda W: torch.tensor(W, requires_grad=True)), lambda W: W.tolist())
    there = {f"commit {EARLIER}": earlier, "NumPy": np, "PyTorch, eager": torch and np}
    for name in [name for name, module in there.items() if not module]:
        print(f"{name}: not installed")
        del table[name]
    if torch:
        torch.set_num_threads(1)
        torch.set_default_dtype(torch.float64)
    rng = random.Random(0)
    data = jepa.cut_images(jepa.draw_dataset(7, rng)[0], CFG)[:25]
    batches = [[(p, *jepa.random_masks(4, rng)) for p in data[i : i + 5]] for i in range(0, 25, 5)]
    start = jepa.init_model(CFG, rng)
    models, packed, times, ends = {}, {}, {name: [] for name in table}, {}
    for name, (step, load, unload) in table.items():
        models[name] = convert(copy.deepcopy(start), load)
        if name == "PyTorch, eager":
            for weights in models[name]["target_encoder"].values():
                weights.requires_grad_(False)
        arrays = name in ("NumPy", "PyTorch, eager")
        packed[name] = [(np.array([b[0] for b in batch]), [b[1:] for b in batch]) if arrays else batch for batch in batches]
        losses = [step(models[name], batch) for batch in packed[name]]
        weights = [w for net in convert(models[name], unload).values() for W in ("W1", "W2") for row in net[W] for w in row]
        ends[name] = losses + weights
        worst = max(abs(a - b) for a, b in zip(ends[name], ends["jepa.py"]))
        if not (worst < 1e-9 and len(ends[name]) == len(ends["jepa.py"])):
            sys.exit(f"{name} does not do the same as jepa.py: {worst}")
    for _ in range(options.rounds):
        for name, (step, _, _) in table.items():
            begin = time.perf_counter()
            for batch in packed[name]:
                step(models[name], batch)
            times[name].append((time.perf_counter() - begin) / len(batches))
    print(f"{'a training step':20}{'us':>8}{'x jepa.py':>11}   (the same weights after 5 steps)")
    for name in table:
        ratio = statistics.median(a / b for a, b in zip(times[name], times["jepa.py"]))
        print(f"{name:20}{1e6 * statistics.median(times[name]):8.0f}{ratio:11.2f}")
    reached = []

    def look(epoch, losses, model):
        x = jepa.embed(test_images, model, CFG)
        accuracy = jepa.few_shot_accuracy(jepa.nearest_centroid, x, labels, 1, random.Random(0))
        reached.extend([epoch] if accuracy >= 0.95 and not reached else [])

    images, _, _ = jepa.draw_dataset(50, rng)
    test_images, _, labels = jepa.draw_dataset(25, rng)
    begin = time.perf_counter()
    jepa.train(images, replace(CFG, epochs=3 if options.rounds < 40 else 20), random.Random(0), on_epoch=look)
    print(f"95 % with one label per class: epoch {reached or 'not yet'}; {time.perf_counter() - begin:.1f} s in all")
    for arguments in ([], ["--collapse"]) if options.demo else ():
        begin = time.perf_counter()
        subprocess.check_output([sys.executable, os.path.join(ROOT, "jepa.py"), *arguments])
        print(f"{' '.join(['jepa.py', *arguments]):20}{time.perf_counter() - begin:8.1f} s")


if __name__ == "__main__":
    main()
