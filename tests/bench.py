#!/usr/bin/env python3
"""How fast is one training step of jepa.py, beside the same step written in other ways?

    python3 tests/bench.py            the tables (some 30 s with NumPy, PyTorch and micrograd installed)
    python3 tests/bench.py --quick    a few repeats only: checks that it works, its times are rough
    python3 tests/bench.py --demo     the time of the whole demo as well

Before anything is timed, all contestants take the same steps on the same minibatches from the same weights,
and must end with the loss and the weights of jepa.py; exit code 1 if one does not.
"""
import argparse
import copy
import gc
import importlib
import math
import os
import platform
import random
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
import jepa

NETWORKS = ("context_encoder", "target_encoder", "predictor")
TOLERANCE = 1e-6
np = torch = engine = None  # import_frameworks() puts NumPy, PyTorch and micrograd.engine here


# ---- The contestants: jepa.py ------------------------------------------------------------------------------
# Each is a function step(model, batch) that changes the model in place and returns the loss. All have the
# settings of the demo. Only jepa.py checks its masks, and that loss and weights are finite.

def jepa_step(model, batch):
    """What jepa.train does with each minibatch."""
    terms, gradients = jepa.loss_and_gradients(batch, model)
    loss = jepa.dot([jepa.PRED_WEIGHT, jepa.VAR_WEIGHT, jepa.COV_WEIGHT],
                    [terms["pred"], terms["var"], terms["cov"]])
    lr = jepa.LEARNING_RATE
    stepped = {name: jepa.blend(1.0, model[name], -lr, gradients[name]) for name in gradients}
    if not math.isfinite(loss) or not all(map(jepa.is_finite, stepped.values())):
        raise FloatingPointError("training diverged")
    for name in stepped:
        model[name].update(stepped[name])
    jepa.ema_update(jepa.MOMENTUM, model)
    return loss


# ---- Nested index loops: a first implementation, one patch and one image at a time -------------------------
# The same arithmetic as in jepa.py. (To leave out the inactive hidden units in dW1 too, and not in dz1 alone,
# would save another tenth of the time or so.)

def loop_forward(net, x):
    """One input x [in] -> h [hidden], y [out]."""
    W1, b1, W2, b2 = net["W1"], net["b1"], net["W2"], net["b2"]
    h = []
    for i in range(len(W1)):
        s = b1[i]
        for j in range(len(x)):
            s += W1[i][j] * x[j]
        h.append(s if s > 0.0 else 0.0)
    y = []
    for i in range(len(W2)):
        s = b2[i]
        for j in range(len(h)):
            s += W2[i][j] * h[j]
        y.append(s)
    return h, y


def loop_backward(net, grad, x, h, dy):
    """Add the gradient of one input to grad, which has the shapes of net. Returns dz1 [hidden]."""
    W2, dW1, db1, dW2, db2 = net["W2"], grad["W1"], grad["b1"], grad["W2"], grad["b2"]
    for i in range(len(dy)):
        db2[i] += dy[i]
        for j in range(len(h)):
            dW2[i][j] += dy[i] * h[j]
    dz1 = [0.0] * len(h)
    for j in range(len(h)):
        if h[j] > 0.0:
            for i in range(len(dy)):
                dz1[j] += W2[i][j] * dy[i]
    for j in range(len(h)):
        db1[j] += dz1[j]
        for k in range(len(x)):
            dW1[j][k] += dz1[j] * x[k]
    return dz1


def loop_zeros(net):
    """A gradient of zeros in the shapes of net."""
    return {"W1": [[0.0] * len(row) for row in net["W1"]], "b1": [0.0] * len(net["b1"]),
            "W2": [[0.0] * len(row) for row in net["W2"]], "b2": [0.0] * len(net["b2"])}


def loop_blend(a, net, b, other):
    """net <- a * net + b * other, in place."""
    for key in ("W1", "W2"):
        W, V = net[key], other[key]
        for i in range(len(W)):
            for j in range(len(W[i])):
                W[i][j] = a * W[i][j] + b * V[i][j]
    for key in ("b1", "b2"):
        w, v = net[key], other[key]
        for i in range(len(w)):
            w[i] = a * w[i] + b * v[i]


def loop_step(model, batch):
    """The training step in plain index loops."""
    encoder, target_encoder, predictor = model["context_encoder"], model["target_encoder"], model["predictor"]
    D = len(encoder["W2"])
    K = len(predictor["W1"][0]) - D
    d_encoder, d_predictor = loop_zeros(encoder), loop_zeros(predictor)
    num_targets = 0
    for _, _, target_mask in batch:
        num_targets += len(target_mask)
    scale = 2.0 * jepa.PRED_WEIGHT / (num_targets * D)

    # Pred: image by image, forward, and back to the embeddings of the visible patches.
    seen = []  # x, h, z, dz of each visible patch
    pred = 0.0
    for patches, context_mask, target_mask in batch:
        avg = [0.0] * D
        image = []
        for i in context_mask:
            h, z = loop_forward(encoder, patches[i])
            image.append((patches[i], h, z))
            for d in range(D):
                avg[d] += z[d]
        for d in range(D):
            avg[d] /= len(context_mask)
        d_avg = [0.0] * D
        for i in target_mask:
            _, target = loop_forward(target_encoder, patches[i])
            x = avg + [0.0] * K
            x[D + i] = 1.0
            h, y = loop_forward(predictor, x)
            dy = [0.0] * D
            for d in range(D):
                error = y[d] - target[d]
                pred += error * error
                dy[d] = scale * error
            dz1 = loop_backward(predictor, d_predictor, x, h, dy)
            W1 = predictor["W1"]
            for j in range(len(dz1)):
                for d in range(D):
                    d_avg[d] += dz1[j] * W1[j][d]
        for d in range(D):
            d_avg[d] /= len(context_mask)
        for x, h, z in image:
            seen.append((x, h, z, d_avg[:]))

    # Var and Cov, from the covariance matrix of all of them.
    n = len(seen)
    mean = [0.0] * D
    for _, _, z, _ in seen:
        for d in range(D):
            mean[d] += z[d]
    for d in range(D):
        mean[d] /= n
    centered = []
    for _, _, z, _ in seen:
        row = [0.0] * D
        for d in range(D):
            row[d] = z[d] - mean[d]
        centered.append(row)
    C = [[0.0] * D for _ in range(D)]
    for i in range(D):
        for j in range(D):
            s = 0.0
            for k in range(n):
                s += centered[k][i] * centered[k][j]
            C[i][j] = s / (n - 1)
    var = cov = 0.0
    dC = [[0.0] * D for _ in range(D)]
    for i in range(D):
        for j in range(D):
            if i == j:
                sd = math.sqrt(C[i][i] + jepa.EPS)
                if sd < jepa.GAMMA:
                    var += jepa.GAMMA - sd
                    dC[i][i] = -jepa.VAR_WEIGHT / (2.0 * D * sd)
            else:
                cov += C[i][j] * C[i][j]
                dC[i][j] = 2.0 * jepa.COV_WEIGHT * C[i][j] / D

    # Back through the encoder, then the updates.
    for k in range(n):
        x, h, _, dz = seen[k]
        for i in range(D):
            s = 0.0
            for j in range(D):
                s += dC[i][j] * centered[k][j]
            dz[i] += 2.0 * s / (n - 1)
        loop_backward(encoder, d_encoder, x, h, dz)
    loop_blend(1.0, encoder, -jepa.LEARNING_RATE, d_encoder)
    loop_blend(1.0, predictor, -jepa.LEARNING_RATE, d_predictor)
    loop_blend(jepa.MOMENTUM, target_encoder, 1.0 - jepa.MOMENTUM, encoder)
    return jepa.PRED_WEIGHT * pred / (num_targets * D) + (jepa.VAR_WEIGHT * var + jepa.COV_WEIGHT * cov) / D


# ---- NumPy: batched, backward pass by hand -----------------------------------------------------------------

def numpy_batch(batch):
    """A minibatch as arrays: patches [B][K][P], context masks [B][c], target masks [B][t]."""
    return [np.array(column) for column in zip(*batch)]


def numpy_forward(net, x):
    """Inputs x [n][in] -> h [n][hidden], y [n][out]."""
    h = np.maximum(x @ net["W1"].T + net["b1"], 0.0)
    return h, h @ net["W2"].T + net["b2"]


def numpy_backward(net, x, h, dy):
    """The gradients of the weights, and dz1 [n][hidden]."""
    dz1 = (dy @ net["W2"]) * (h > 0.0)
    return {"W1": dz1.T @ x, "b1": dz1.sum(0), "W2": dy.T @ h, "b2": dy.sum(0)}, dz1


def numpy_step(model, batch):
    """The training step in NumPy, float64."""
    patches, context, target = batch
    encoder, target_encoder, predictor = model["context_encoder"], model["target_encoder"], model["predictor"]
    (B, c), t = context.shape, target.shape[1]
    D = len(encoder["W2"])
    K = predictor["W1"].shape[1] - D
    image = np.arange(B)[:, None]

    x = patches[image, context].reshape(B * c, -1)
    h, z = numpy_forward(encoder, x)
    _, targets = numpy_forward(target_encoder, patches[image, target].reshape(B * t, -1))
    x_pred = np.zeros((B * t, D + K))
    x_pred[:, :D] = z.reshape(B, c, D).mean(1).repeat(t, 0)
    x_pred[np.arange(B * t), D + target.ravel()] = 1.0
    h_pred, predictions = numpy_forward(predictor, x_pred)
    error = predictions - targets
    centered = z - z.mean(0)
    C = centered.T @ centered / (B * c - 1)
    sd = np.sqrt(C.diagonal() + jepa.EPS)
    off_diagonal = C.copy()
    np.fill_diagonal(off_diagonal, 0.0)
    loss = (jepa.PRED_WEIGHT * (error * error).mean()
            + jepa.VAR_WEIGHT * np.maximum(jepa.GAMMA - sd, 0.0).mean()
            + jepa.COV_WEIGHT * (off_diagonal * off_diagonal).sum() / D)

    d_pred = error * (2.0 * jepa.PRED_WEIGHT / error.size)
    d_predictor, dz1 = numpy_backward(predictor, x_pred, h_pred, d_pred)
    d_avg = (dz1 @ predictor["W1"][:, :D]).reshape(B, t, D).sum(1) / c
    dC = off_diagonal * (2.0 * jepa.COV_WEIGHT / D)
    np.fill_diagonal(dC, np.where(sd < jepa.GAMMA, -jepa.VAR_WEIGHT / (2.0 * D * sd), 0.0))
    dz = d_avg.repeat(c, 0) + centered @ dC * (2.0 / (B * c - 1))
    d_encoder, _ = numpy_backward(encoder, x, h, dz)

    for net, grad in ((encoder, d_encoder), (predictor, d_predictor)):
        for key in net:
            net[key] -= jepa.LEARNING_RATE * grad[key]
    for key, weights in target_encoder.items():
        weights *= jepa.MOMENTUM
        weights += (1.0 - jepa.MOMENTUM) * encoder[key]
    return float(loss)


# ---- PyTorch: eager autograd -------------------------------------------------------------------------------

def torch_weights(rows):
    return torch.tensor(rows, dtype=torch.float64, requires_grad=True)


def torch_batch(batch):
    """A minibatch as tensors: patches [B][K][P], context masks [B][c], target masks [B][t]."""
    patches, context, target = zip(*batch)
    return torch.tensor(patches, dtype=torch.float64), torch.tensor(context), torch.tensor(target)


def torch_forward(net, x):
    """Inputs x [n][in] -> outputs [n][out]."""
    linear = torch.nn.functional.linear
    return linear(torch.relu(linear(x, net["W1"], net["b1"])), net["W2"], net["b2"])


def torch_step(model, batch):
    """The training step in PyTorch, float64, its gradient by autograd."""
    patches, context, target = batch
    encoder, target_encoder, predictor = model["context_encoder"], model["target_encoder"], model["predictor"]
    (B, c), t = context.shape, target.shape[1]
    D = len(encoder["W2"])
    K = predictor["W1"].shape[1] - D
    image = torch.arange(B)[:, None]

    z = torch_forward(encoder, patches[image, context].reshape(B * c, -1))
    with torch.no_grad():
        targets = torch_forward(target_encoder, patches[image, target].reshape(B * t, -1))
    avg = z.reshape(B, c, D).mean(1).repeat_interleave(t, 0)
    positions = torch.nn.functional.one_hot(target.reshape(-1), K)
    predictions = torch_forward(predictor, torch.cat([avg, positions], 1))
    centered = z - z.mean(0)
    C = centered.T @ centered / (B * c - 1)
    diagonal = C.diagonal()
    loss = (jepa.PRED_WEIGHT * torch.nn.functional.mse_loss(predictions, targets)
            + jepa.VAR_WEIGHT * torch.relu(jepa.GAMMA - torch.sqrt(diagonal + jepa.EPS)).mean()
            + jepa.COV_WEIGHT * ((C * C).sum() - (diagonal * diagonal).sum()) / D)

    weights = [*encoder.values(), *predictor.values()]
    gradients = torch.autograd.grad(loss, weights)
    with torch.no_grad():
        for w, gradient in zip(weights, gradients):
            w.sub_(gradient, alpha=jepa.LEARNING_RATE)
        for key, w in target_encoder.items():
            w.mul_(jepa.MOMENTUM).add_(encoder[key], alpha=1.0 - jepa.MOMENTUM)
    return loss.item()


# ---- micrograd: autograd number by number ------------------------------------------------------------------

def micrograd_weights(rows):
    return [micrograd_weights(v) if isinstance(v, list) else engine.Value(v) for v in rows]


def micrograd_data(rows):
    return [micrograd_data(v) if isinstance(v, list) else v.data for v in rows]


def micrograd_forward(net, x):
    """One input x [in] of floats or Values -> output [out] of Values."""
    h = [sum((w * v for w, v in zip(row, x)), bias).relu() for row, bias in zip(net["W1"], net["b1"])]
    return [sum((w * v for w, v in zip(row, h)), bias) for row, bias in zip(net["W2"], net["b2"])]


def micrograd_step(model, batch):
    """The training step in micrograd. The targets, which need no gradient, are made of floats, by jepa."""
    encoder, target_encoder, predictor = model["context_encoder"], model["target_encoder"], model["predictor"]
    D = len(encoder["W2"])
    K = len(predictor["W1"][0]) - D
    target_floats = {key: micrograd_data(rows) for key, rows in target_encoder.items()}

    embeddings, squares = [], []
    for patches, context_mask, target_mask in batch:
        seen = [micrograd_forward(encoder, patches[i]) for i in context_mask]
        avg = [sum(column) * (1.0 / len(seen)) for column in zip(*seen)]
        _, targets = jepa.mlp_forward(target_floats, [patches[i] for i in target_mask])
        for i, target in zip(target_mask, targets):
            prediction = micrograd_forward(predictor, avg + [1.0 if k == i else 0.0 for k in range(K)])
            squares += [(p - v) ** 2 for p, v in zip(prediction, target)]
        embeddings += seen
    mean = [sum(column) * (1.0 / len(embeddings)) for column in zip(*embeddings)]
    columns = [[v - m for v in column] for column, m in zip(zip(*embeddings), mean)]
    C = [[sum(v * w for v, w in zip(a, b)) * (1.0 / (len(embeddings) - 1)) for b in columns] for a in columns]
    var = sum((jepa.GAMMA - (C[d][d] + jepa.EPS) ** 0.5).relu() for d in range(D))
    cov = sum(C[i][j] ** 2 for i in range(D) for j in range(D) if i != j)
    loss = (sum(squares) * (jepa.PRED_WEIGHT / len(squares)) + var * (jepa.VAR_WEIGHT / D)
            + cov * (jepa.COV_WEIGHT / D))

    weights = [flat(model[name]) for name in NETWORKS]
    for w in weights[0] + weights[2]:
        w.grad = 0.0
    loss.backward()
    for w in weights[0] + weights[2]:
        w.data -= jepa.LEARNING_RATE * w.grad
    for w, moving in zip(weights[0], weights[1]):
        moving.data = jepa.MOMENTUM * moving.data + (1.0 - jepa.MOMENTUM) * w.data
    return loss.data


# ---- That they do the same ---------------------------------------------------------------------------------

def import_frameworks():
    """Import those that are installed; returns the names of those that are not."""
    global np, torch, engine
    missing, modules = [], []
    for name, module in (("NumPy", "numpy"), ("PyTorch", "torch"), ("micrograd", "micrograd.engine")):
        try:
            modules.append(importlib.import_module(module))
        except ImportError:
            modules.append(None)
            missing.append(name)
    np, torch, engine = modules
    if torch:
        torch.set_num_threads(1)
    return missing


def contestants():
    """name -> (weights from lists, minibatch from jepa's, step, weights to lists), of those installed."""
    table = {"jepa.py": (copy.deepcopy, list, jepa_step, copy.deepcopy),
             "nested index loops": (copy.deepcopy, list, loop_step, copy.deepcopy)}
    if np:
        table["NumPy"] = (np.array, numpy_batch, numpy_step, lambda w: w.tolist())
    if torch:
        table["PyTorch"] = (torch_weights, torch_batch, torch_step, lambda w: w.tolist())
    if engine:
        table["micrograd"] = (micrograd_weights, list, micrograd_step, micrograd_data)
    return table


def convert(model, function):
    """A new model: function of each matrix and each list of biases."""
    return {name: {key: function(rows) for key, rows in model[name].items()} for name in NETWORKS}


def flat(net):
    """All weights of a network in one list."""
    return [w for row in net["W1"] + net["W2"] for w in row] + net["b1"] + net["b2"]


def draw_images(num_patches, rng):
    """As many images as the demo has, of each pattern alike; wider ones if they are to have more patches."""
    names = [name for name in jepa.PATTERNS for _ in range(jepa.NUM_IMAGES // len(jepa.PATTERNS))]
    width = num_patches * jepa.PATCH_SIZE ** 2 // 16  # in images of 4x4, side by side
    return [[sum(rows, []) for rows in zip(*[jepa.draw_image(name, rng)[0] for _ in range(width)])]
            for name in names]


def minibatches(images, model, batch_size, rng):
    """The minibatches of one epoch, as jepa.train draws them."""
    data = [jepa.image_patches(img, model) for img in images]
    rng.shuffle(data)
    return [[(patches, *jepa.random_masks(len(patches), rng)) for patches in data[start:start + batch_size]]
            for start in range(0, len(data), batch_size)]


def difference(a, b):
    """The largest difference of two lists of floats; inf if one is not finite, or their lengths differ."""
    differences = [abs(v - w) for v, w in zip(a, b)]
    return max(differences) if len(a) == len(b) and all(map(math.isfinite, differences)) else math.inf


def agree(name, what, values, expected):
    """The difference of a contestant from jepa.py, if it is small enough; else the bench ends here."""
    worst = difference(values, expected)
    if worst > TOLERANCE:
        sys.exit(f"bench.py: {name} does not do the same work as jepa.py: {what} differs by {worst:.1e} "
                 f"(at most {TOLERANCE:g} is allowed)")
    return worst


def check(table, images, model, batches):
    """Compare jepa_step with jepa.train, and all contestants with jepa_step: three steps, micrograd one."""
    trained, stepped = copy.deepcopy(model), copy.deepcopy(model)
    losses = jepa.train(images, 1, rng=random.Random(0), model=trained)[0]
    mean = sum(jepa_step(stepped, batch) * len(batch) for batch in batches) / len(images)
    agree("jepa_step", "the loss of an epoch of train()", [mean], [losses["loss"]])
    for name in NETWORKS:
        agree("jepa_step", f"{name} after an epoch of train()", flat(stepped[name]), flat(trained[name]))

    for contestant, (load, pack, step, unload) in table.items():
        expected, own, worst = copy.deepcopy(model), convert(model, load), 0.0
        steps = 1 if contestant == "micrograd" else 3
        for i in range(steps):
            expected_loss, loss = jepa_step(expected, batches[i]), step(own, pack(batches[i]))
            result = convert(own, unload)
            worst = max(worst, agree(contestant, f"the loss of step {i + 1}", [loss], [expected_loss]))
            for name in NETWORKS:
                worst = max(worst, agree(contestant, f"{name} after step {i + 1}",
                                         flat(result[name]), flat(expected[name])))
        if contestant != "jepa.py":
            print(f"{contestant:20}{worst:8.0e} after {steps} step{'s' * (steps > 1)}", flush=True)


# ---- How long they take ------------------------------------------------------------------------------------

def time_steps(model, load, step, batches):
    """Seconds a step, over one step on each minibatch, after one that is not timed."""
    own = convert(model, load)
    gc.collect()  # so that none pays for what another leaves behind
    step(own, batches[0])  # nor for bringing its code into the cache
    start = time.perf_counter()
    for batch in batches:
        step(own, batch)
    return (time.perf_counter() - start) / len(batches)


def best_times(runs, quick):
    """name -> arguments of time_steps; returns name -> seconds a step, the best of many rounds.

    Each round times all of them in turn, so that whatever else the machine does hits all alike. micrograd,
    which takes a hundred times as long, is in one round of forty."""
    warm_up, rounds = (0.05, 5) if quick else (0.7, 200)
    for arguments in runs.values():
        end = time.perf_counter() + warm_up
        while time.perf_counter() < end:
            time_steps(*arguments)
    best = dict.fromkeys(runs, math.inf)
    for i in range(rounds):
        for name, arguments in runs.items():
            if name != "micrograd" or i % 40 == 0:
                best[name] = min(best[name], time_steps(*arguments))
    return best


def time_contestants(table, model, batches, quick):
    """Print the first table."""
    runs = {}
    for name, (load, pack, step, _) in table.items():
        if name != "micrograd":  # five steps: some are done before anything else wants the processor
            runs[name] = (model, load, step, list(map(pack, batches[:5])))
        elif not quick:  # more steps: the garbage collector removes its graphs only some steps later
            runs[name] = (model, load, step, batches[:10])
    best = best_times(runs, quick)
    print(f"{'One training step':20}{'us per image':>14}{'x jepa.py':>12}")
    for name, seconds in best.items():
        print(f"{name:20}{1e6 * seconds / jepa.BATCH_SIZE:14.1f}{seconds / best['jepa.py']:12.2f}")


def multiply_adds(model, batch):
    """The multiplications (most are followed by an addition) of a step of jepa.py, from sizes alone.

    Counted as if all hidden units were active. (The backward pass leaves out the others in dz1.)"""
    H, P = len(model["context_encoder"]["W1"]), len(model["context_encoder"]["W1"][0])
    _, K, D = jepa.sizes(model)
    n = sum(len(context_mask) for _, context_mask, _ in batch)          # rows through the context encoder
    m = sum(len(target_mask) for _, _, target_mask in batch)            # rows through the two others
    encoder_forward, predictor_forward = H * P + D * H, H * (D + K) + D * H     # a row: W1 . x, W2 . h
    encoder_backward = predictor_backward = 2 * D * H                           # a row: dW2, dz1
    encoder_backward += H * P                                                   # a row: dW1
    predictor_backward += H * (D + K) + D * H                                   # a row: dW1, and d_avg
    encoder_weights, predictor_weights = H * P + H + D * H + D, H * (D + K) + H + D * H + D
    return (n * (encoder_forward + encoder_backward)
            + m * encoder_forward                                       # target encoder, forward only
            + m * (predictor_forward + predictor_backward)
            + n * D * D                                                 # covariance
            + n * D * D                                                 # its gradient
            + 2 * (encoder_weights + predictor_weights)                 # SGD:  1 * weight - lr * gradient
            + 2 * encoder_weights)                                      # EMA:  m * weight + (1 - m) * weight


def time_growth(quick):
    """Print the second table: how the time of a step of jepa.py grows with each size."""
    K, D, H, B = jepa.NUM_PATCHES, jepa.EMBED_DIM, jepa.HIDDEN_DIM, jepa.BATCH_SIZE
    rows = [("base", K, D, H, B), (f"hidden width {2 * H}", K, D, 2 * H, B),
            (f"embedding {2 * D}", K, 2 * D, H, B), (f"patches {2 * K}", 2 * K, D, H, B),
            (f"minibatch {2 * B}", K, D, H, 2 * B)]
    runs, counts = {}, {}
    for name, num_patches, embed_dim, hidden_dim, batch_size in rows:
        model = jepa.init_model(jepa.PATCH_SIZE, num_patches, embed_dim, hidden_dim)
        batches = minibatches(draw_images(num_patches, random.Random(0)), model, batch_size, random.Random(0))
        runs[name] = (model, copy.deepcopy, jepa_step, batches[:5])
        counts[name] = multiply_adds(model, batches[0])
    best = best_times(runs, quick)
    print(f"{'One step of jepa.py':20}{'us per step':>14}{'x base':>12}{'multiply-adds':>16}{'x base':>12}")
    for name in runs:
        print(f"{name:20}{1e6 * best[name]:14.0f}{best[name] / best['base']:12.2f}"
              f"{counts[name]:16d}{counts[name] / counts['base']:12.2f}")


# ---- Import, memory, demo ----------------------------------------------------------------------------------

def run_seconds(arguments, environment=None):
    """Seconds that this interpreter takes, from start to end, with these arguments."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], env=environment, check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    return time.perf_counter() - start


def import_seconds(pairs):
    """Seconds that `import jepa` takes once it is compiled: the median difference from a bare interpreter."""
    code = f"import sys; sys.path.insert(0, {ROOT!r}); import "
    with tempfile.TemporaryDirectory() as folder:  # for what is compiled, even if the user wants none of it
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder, "PYTHONDONTWRITEBYTECODE": ""}
        run_seconds(["-c", code + "jepa"], environment)
        return statistics.median(run_seconds(["-c", code + "jepa"], environment)
                                 - run_seconds(["-c", code + "sys"], environment) for _ in range(pairs))


def peak_memory(*arguments):
    """Peak memory in MB of this interpreter with these arguments; None where Python cannot tell (Windows).

    On Linux, a process inherits the peak of the one that starts it: of this bench, which may hold PyTorch. So
    a bare interpreter is put between."""
    try:
        import resource  # noqa: F401, only to see whether there is one
    except ImportError:
        return None
    code = ("import os, resource, sys; status = os.spawnv(os.P_WAIT, sys.executable, sys.argv[1:]);"
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr);"
            "sys.exit(status)")
    result = subprocess.run([sys.executable, "-c", code, sys.executable, *arguments], check=True,
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    return int(result.stderr) / (2 ** 20 if sys.platform == "darwin" else 2 ** 10)


def measure_processes(quick, demo):
    """Print what whole runs of Python take."""
    script = os.path.join(ROOT, "jepa.py")
    print(f"import jepa: {1000 * import_seconds(3 if quick else 15):.1f} ms")
    memory = peak_memory(script, "--epochs", "5")
    if memory is None:
        print("peak memory: not known here")
    else:
        print(f"peak memory: {memory:.1f} MB with jepa.py --epochs 5, "
              f"{peak_memory('-c', 'pass'):.1f} MB without any program")
    if demo:
        whole, evaluation = run_seconds([script]), run_seconds([script, "--epochs", "0"])
        print(f"the demo:    {whole:.1f} s, of which {evaluation:.1f} s are not training but evaluation "
              f"({100 * evaluation / whole:.0f}%, from jepa.py --epochs 0)")


def build():
    """Whether this interpreter was built with profile-guided optimisation: a factor of 1.45 in speed.

    Debian does it without the option; all that shows is that one of two flags in its record is empty."""
    variables = sysconfig.get_config_vars()
    if not variables.get("CONFIG_ARGS"):  # Windows, PyPy
        return "build options not recorded"
    flags = f"{variables['CONFIG_ARGS']} {variables.get('CFLAGS')}"
    debian = variables.get("PGO_PROF_GEN_FLAG") and variables.get("PGO_PROF_USE_FLAG") == ""
    optimised = "--enable-optimizations" in flags or "-fprofile-use" in flags or debian
    return "optimised build" if optimised else "plain build"


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description="Time a training step of jepa.py and of its equals.")
    parser.add_argument("--quick", action="store_true", help="a few repeats only, and none with micrograd")
    parser.add_argument("--demo", action="store_true", help="time the whole demo as well")
    options = parser.parse_args()

    print(f"{platform.python_implementation()} {platform.python_version()}, {build()}, {platform.platform()}")
    missing = import_frameworks()
    print("Not installed: " + (", ".join(missing) or "none"))
    if hasattr(gc, "freeze"):
        gc.freeze()  # what was imported: else each gc.collect looks through all of it

    model, table = jepa.init_model(), contestants()
    images = draw_images(jepa.NUM_PATCHES, random.Random(0))
    batches = minibatches(images, model, jepa.BATCH_SIZE, random.Random(0))
    print("\nSame loss and weights as jepa.py? Largest difference")
    check(table, images, model, batches)
    print()
    time_contestants(table, model, batches, options.quick)
    print(flush=True)
    time_growth(options.quick)
    print(flush=True)
    measure_processes(options.quick, options.demo)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("bench.py: interrupted", file=sys.stderr)
        sys.exit(130)
    except subprocess.CalledProcessError as error:
        sys.exit(f"bench.py: {error}\n{error.stderr.decode()}")
