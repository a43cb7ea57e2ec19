#!/usr/bin/env python3
"""Time a training step of jepa.py beside the same step written in other ways: ratios in one run.

NumPy, PyTorch and git are used where they are there. --demo times the demo and --collapse, too.
"""

import argparse, copy, os, platform, random, statistics, subprocess, sys, time, types

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path.insert(0, ROOT)
import jepa  # noqa: E402

try:
    import numpy as np
except ImportError:
    np = None
try:
    import torch
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
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
    """Return context patches, target patches and target positions, as arrays."""
    context, target = np.array([m[0] for m in masks]), np.array([m[1] for m in masks])
    image = np.arange(len(patches))[:, None]
    return patches[image, context], patches[image, target], target

def numpy_step(model, batch):
    encoder, predictor, slow = (model[k] for k in ("context_encoder", "predictor", "target_encoder"))
    one = lambda x: np.concatenate([x, np.ones((len(x), 1))], 1)

    def forward(net, x):
        h = one(np.maximum(one(x) @ net["W1"], 0.0))
        return h @ net["W2"], one(x), h

    def backward(net, x, h, dy):
        dz = (dy @ net["W2"][:-1].T) * (h[:, :-1] > 0.0)
        return {"W1": x.T @ dz, "W2": h.T @ dy}, dz @ net["W1"][:-1].T

    context, target, position = gather(*batch)
    (B, c, P), t, D, n1 = context.shape, target.shape[1], CFG.embed_dim, context.shape[0] * context.shape[1] - 1
    z, x, h = forward(encoder, context.reshape(-1, P))
    targets, _, _ = forward(slow, target.reshape(-1, P))
    mean = z.reshape(B, c, D).mean(1).repeat(t, 0)
    predictions, px, ph = forward(predictor, np.concatenate([mean, np.eye(4)[position.ravel()]], 1))
    errors, centered = predictions - targets, z - z.mean(0)
    C = centered.T @ centered / n1
    std = np.sqrt(C.diagonal() + jepa.EPS)
    off = C - np.diag(C.diagonal())
    loss = CFG.pred_weight * (errors**2).mean() + CFG.cov_weight * (off**2).sum() / D
    loss += CFG.var_weight * np.maximum(CFG.gamma - std, 0.0).mean()
    d_predictor, dx = backward(predictor, px, ph, CFG.pred_weight * 2.0 * errors / errors.size)
    dz = (dx[:, :D].reshape(B, t, D).sum(1) / c).repeat(c, 0)
    dz += CFG.cov_weight * 4.0 / (D * n1) * centered @ off
    dz -= CFG.var_weight * np.where(std < CFG.gamma, 1.0 / (D * std * n1), 0.0) * centered
    d_encoder, _ = backward(encoder, x, h, dz)
    for W in encoder:
        encoder[W] = encoder[W] - CFG.lr * d_encoder[W]
        predictor[W] = predictor[W] - CFG.lr * d_predictor[W]
        slow[W] = CFG.ema_momentum * slow[W] + (1.0 - CFG.ema_momentum) * encoder[W]
    return float(loss)

def torch_step(model, batch):
    encoder, predictor, slow = (model[k] for k in ("context_encoder", "predictor", "target_encoder"))
    one = lambda x: torch.cat([x, torch.ones(len(x), 1)], 1)
    forward = lambda net, x: one(torch.relu(one(x) @ net["W1"])) @ net["W2"]
    context, target, position = (torch.as_tensor(a) for a in gather(*batch))
    (B, c, P), t, D = context.shape, target.shape[1], CFG.embed_dim
    z = forward(encoder, context.reshape(-1, P))
    targets = forward(slow, target.reshape(-1, P))
    inputs = z.reshape(B, c, D).mean(1).repeat_interleave(t, 0), torch.eye(4)[position.ravel()]
    predictions = forward(predictor, torch.cat(inputs, 1))
    C = torch.cov(z.T)
    std = torch.sqrt(C.diagonal() + jepa.EPS)
    loss = CFG.pred_weight * (predictions - targets).square().mean()
    loss = loss + CFG.var_weight * torch.relu(CFG.gamma - std).mean()
    loss = loss + CFG.cov_weight * (C.square().sum() - C.diagonal().square().sum()) / D
    trained = [*encoder.values(), *predictor.values()]
    with torch.no_grad():
        for weights, gradient in zip(trained, torch.autograd.grad(loss, trained)):
            weights -= CFG.lr * gradient
        for W, weights in slow.items():
            weights.mul_(CFG.ema_momentum).add_(encoder[W], alpha=1.0 - CFG.ema_momentum)
    return loss.item()

def load_earlier():
    """Return the earlier jepa.py as a module, or None where git does not have it."""
    module, command = types.ModuleType("earlier"), ["git", "show", f"{EARLIER}:jepa.py"]
    try:
        exec(subprocess.check_output(command, cwd=ROOT, stderr=subprocess.DEVNULL), vars(module))
    except (OSError, subprocess.CalledProcessError):
        return None
    return module

earlier = load_earlier()

def convert(model, function):
    return {name: {W: function(rows) for W, rows in net.items()} for name, net in model.items()}

def tensors(model):
    made = convert(model, lambda W: torch.tensor(W, requires_grad=True))
    return {**made, "target_encoder": {W: w.detach() for W, w in made["target_encoder"].items()}}

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40, help="timed rounds of five steps (default 40)")
    parser.add_argument("--demo", action="store_true", help="time the demo and --collapse as well")
    options = parser.parse_args()
    print(f"{platform.python_implementation()} {platform.python_version()}, {platform.system()} {platform.machine()}")
    flip = lambda model: convert(model, lambda W: [list(column) for column in zip(*W)])
    same = lambda model: model
    arrays = lambda batch: (np.array([b[0] for b in batch]), [b[1:] for b in batch])
    table = {  # name: (is it there, step, weights from lists, batch from lists, weights to lists)
        "jepa.py": (True, jepa_step, same, list, same),
        f"commit {EARLIER}": (earlier, earlier_step, flip, list, flip),
        "NumPy": (np, numpy_step, lambda model: convert(model, np.array), arrays, same),
        "PyTorch, eager": (np and torch, torch_step, tensors, arrays, lambda m: convert(m, lambda W: W.tolist())),
    }
    data, rng = jepa.cut_images(jepa.draw_dataset(7, random.Random(0))[0], CFG)[:25], random.Random(0)
    batches = [[(p, *jepa.random_masks(4, rng)) for p in data[i : i + 5]] for i in range(0, 25, 5)]
    start, runs, times, expected = jepa.init_model(CFG, rng), {}, {}, None
    for name, (there, step, load, pack, unload) in table.items():
        if not there:
            print(f"{name}: not installed")
            continue
        model, packed = load(copy.deepcopy(start)), [pack(batch) for batch in batches]
        ends = [step(model, batch) for batch in packed]
        end = unload(model)
        ends += [w for net in sorted(start) for W in ("W1", "W2") for row in end[net][W] for w in row]
        expected = expected or ends
        worst = max(abs(a - b) for a, b in zip(ends, expected))
        if not (worst < 1e-9 and len(ends) == len(expected)):
            sys.exit(f"{name} does not do the same as jepa.py: {worst}")
        runs[name], times[name] = (step, model, packed), []
    for _ in range(options.rounds):
        for name, (step, model, packed) in runs.items():
            begin = time.perf_counter()
            for batch in packed:
                step(model, batch)
            times[name].append((time.perf_counter() - begin) / len(packed))
    print(f"{'a training step':20}{'us':>8}{'x jepa.py':>11}   (the same weights after 5 steps)")
    for name in runs:
        ratio = statistics.median(a / b for a, b in zip(times[name], times["jepa.py"]))
        print(f"{name:20}{1e6 * statistics.median(times[name]):8.0f}{ratio:11.2f}")
    images, (test_images, _, labels) = jepa.draw_dataset(50, rng)[0], jepa.draw_dataset(25, rng)
    rng, model, seconds, accuracy, epochs = random.Random(0), None, 0.0, 0.0, 0
    while accuracy < 0.95 and epochs < 50:
        begin = time.perf_counter()
        model, _ = jepa.train(images, jepa.Config(epochs=1), rng, model)
        seconds, epochs = seconds + time.perf_counter() - begin, epochs + 1
        x = jepa.embed(test_images, model, CFG)
        accuracy = jepa.few_shot_accuracy(jepa.nearest_centroid, x, labels, 1, random.Random(0))
    print(f"95 % with one label per class after {epochs} epochs, {seconds:.2f} s of training")
    for arguments in ([], ["--collapse"]) if options.demo else ():
        begin = time.perf_counter()
        subprocess.check_output([sys.executable, os.path.join(ROOT, "jepa.py"), *arguments])
        print(f"{' '.join(['jepa.py', *arguments]):20}{time.perf_counter() - begin:8.1f} s")

if __name__ == "__main__":
    main()
