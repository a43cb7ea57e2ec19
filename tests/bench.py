#!/usr/bin/env python3
"""How fast is a training step of jepa.py, beside the same step written in other ways?

    python3 tests/bench.py            the tables (a minute with NumPy, PyTorch and micrograd)
    python3 tests/bench.py --quick    few repeats, to see that it works; its times are rough
    python3 tests/bench.py --demo     also the time of the demo and of --collapse
    python3 tests/bench.py --profile  also where the time of a step goes
    python3 tests/bench.py --first    also what the first edition's settings reach on this data

Before anything is timed, all contestants take the same steps on the same minibatches from the same
weights, and must end with the loss and the weights of jepa.py; exit code 1 if one does not.
All settings are those of jepa.py, as they are now.
"""
import argparse, copy, gc, importlib, itertools, math, os, platform, random
import statistics, subprocess, sys, sysconfig, tempfile, time
from unittest import mock

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
import jepa

NETWORKS = ("context_encoder", "target_encoder", "predictor")
TOLERANCE = 1e-6
GOAL, SLOW = 0.95, 15.0  # accuracy to be reached; a training above so many seconds is extrapolated
np = torch = engine = None  # import_frameworks() puts NumPy, PyTorch and micrograd.engine here

# ---- The contestants: jepa.py --------------------------------------------------------------------
# Each is a function step(model, batch) that changes the model in place and returns the loss. Only
# jepa.py checks its masks.

def jepa_step(model, batch):
    """What jepa.train does with each minibatch."""
    terms, gradients = jepa.loss_and_gradients(batch, model)
    for name in gradients:
        model[name] = jepa.blend(1.0, model[name], -jepa.LEARNING_RATE, gradients[name])
    jepa.ema_update(jepa.MOMENTUM, model)
    return terms["loss"]

# ---- Nested index loops: a first implementation, one patch and one image at a time ---------------

def loop_forward(net, x):
    """One input x [in] -> x [in+1] and h [hidden+1], each with its 1 appended, and y [out]."""
    W1, W2, x, h, y = net["W1"], net["W2"], x + [1.0], [], []
    for i in range(len(W1)):
        s = 0.0
        for j in range(len(x)):
            s += W1[i][j] * x[j]
        h.append(s if s > 0.0 else 0.0)
    h.append(1.0)
    for i in range(len(W2)):
        s = 0.0
        for j in range(len(h)):
            s += W2[i][j] * h[j]
        y.append(s)
    return x, h, y

def loop_backward(net, grad, x, h, dy):
    """Add the gradient of one input to grad, which has the shapes of net. Returns dz [hidden]."""
    W2, dW1, dW2, dz = net["W2"], grad["W1"], grad["W2"], [0.0] * (len(h) - 1)
    for i in range(len(dy)):
        for j in range(len(h)):
            dW2[i][j] += dy[i] * h[j]
    for j in range(len(dz)):
        if h[j] > 0.0:
            for i in range(len(dy)):
                dz[j] += W2[i][j] * dy[i]
        for k in range(len(x)):
            dW1[j][k] += dz[j] * x[k]
    return dz

def loop_zeros(rows, columns):
    return [[0.0] * columns for _ in range(rows)]

def loop_blend(a, net, b, other):
    """net <- a * net + b * other, in place."""
    for key in net:
        W, V = net[key], other[key]
        for i in range(len(W)):
            for j in range(len(W[i])):
                W[i][j] = a * W[i][j] + b * V[i][j]

def loop_step(model, batch):
    """The training step in plain index loops."""
    encoder, target_encoder, predictor = [model[name] for name in NETWORKS]
    D = len(encoder["W2"])
    K = len(predictor["W1"][0]) - 1 - D
    d_encoder, d_predictor = [{key: loop_zeros(len(W), len(W[0])) for key, W in net.items()}
                              for net in (encoder, predictor)]
    num_errors = 0
    for _, _, target_mask in batch:
        num_errors += len(target_mask) * D

    # Pred: image by image, forward, and back to the embeddings of the visible patches.
    seen, pred = [], 0.0  # of each visible patch: x, h, its embedding, the derivative of that
    for patches, context_mask, target_mask in batch:
        avg, d_avg, first = [0.0] * D, [0.0] * D, len(seen)
        for i in context_mask:
            seen.append((*loop_forward(encoder, patches[i]), d_avg))
            for d in range(D):
                avg[d] += seen[-1][2][d] / len(context_mask)
        for i in target_mask:
            _, _, target = loop_forward(target_encoder, patches[i])
            x = avg + [0.0] * K
            x[D + i] = 1.0
            x, h, y = loop_forward(predictor, x)
            dy = [0.0] * D
            for d in range(D):
                error = y[d] - target[d]
                pred += error * error / num_errors
                dy[d] = jepa.PRED_WEIGHT * 2.0 * error / num_errors
            dz = loop_backward(predictor, d_predictor, x, h, dy)
            for j in range(len(dz)):
                for d in range(D):
                    d_avg[d] += dz[j] * predictor["W1"][j][d] / (len(seen) - first)

    # Var and Cov, from the covariance matrix of all of them.
    n, mean, C, dC = len(seen), [0.0] * D, loop_zeros(D, D), loop_zeros(D, D)
    centered = loop_zeros(n, D)
    for d in range(D):
        for k in range(n):
            mean[d] += seen[k][2][d] / n
        for k in range(n):
            centered[k][d] = seen[k][2][d] - mean[d]
    var = cov = 0.0
    for i in range(D):
        for j in range(D):
            for k in range(n):
                C[i][j] += centered[k][i] * centered[k][j] / (n - 1)
            if i != j:
                cov += C[i][j] * C[i][j] / D
                dC[i][j] = 2.0 * jepa.COV_WEIGHT * C[i][j] / D
        sd = math.sqrt(C[i][i] + jepa.EPS)
        if sd < jepa.GAMMA:
            var += (jepa.GAMMA - sd) / D
            dC[i][i] = -jepa.VAR_WEIGHT / (2.0 * D * sd)

    # Back through the encoder, then the updates.
    for k in range(n):
        x, h, _, d_avg = seen[k]
        dy = [0.0] * D
        for i in range(D):
            s = 0.0
            for j in range(D):
                s += dC[i][j] * centered[k][j]
            dy[i] = d_avg[i] + 2.0 * s / (n - 1)
        loop_backward(encoder, d_encoder, x, h, dy)
    loop_blend(1.0, encoder, -jepa.LEARNING_RATE, d_encoder)
    loop_blend(1.0, predictor, -jepa.LEARNING_RATE, d_predictor)
    loop_blend(jepa.MOMENTUM, target_encoder, 1.0 - jepa.MOMENTUM, encoder)
    return jepa.PRED_WEIGHT * pred + jepa.VAR_WEIGHT * var + jepa.COV_WEIGHT * cov

# ---- NumPy: batched, float64, backward pass by hand ----------------------------------------------

def numpy_batch(batch):
    """A minibatch as arrays: patches [B][K][P], context masks [B][c], target masks [B][t]."""
    return [np.array(column) for column in zip(*batch)]

def numpy_forward(net, x):
    """Inputs x [n][in] -> h [n][hidden], y [n][out]."""
    h = np.maximum(x @ net["W1"][:, :-1].T + net["W1"][:, -1], 0.0)
    return h, h @ net["W2"][:, :-1].T + net["W2"][:, -1]

def numpy_backward(net, x, h, dy):
    """The gradients of the weights, and dz [n][hidden]."""
    dz = (dy @ net["W2"][:, :-1]) * (h > 0.0)
    return {"W1": np.column_stack([dz.T @ x, dz.sum(0)]),
            "W2": np.column_stack([dy.T @ h, dy.sum(0)])}, dz

def numpy_step(model, batch):
    """The training step in NumPy."""
    patches, context, target = batch
    encoder, target_encoder, predictor = [model[name] for name in NETWORKS]
    (B, c), t, D = context.shape, target.shape[1], len(encoder["W2"])
    image = np.arange(B)[:, None]

    x = patches[image, context].reshape(B * c, -1)
    h, z = numpy_forward(encoder, x)
    _, targets = numpy_forward(target_encoder, patches[image, target].reshape(B * t, -1))
    x_pred = np.zeros((B * t, predictor["W1"].shape[1] - 1))
    x_pred[:, :D] = z.reshape(B, c, D).mean(1).repeat(t, 0)
    x_pred[np.arange(B * t), D + target.ravel()] = 1.0
    h_pred, predictions = numpy_forward(predictor, x_pred)
    error = predictions - targets
    centered = z - z.mean(0)
    C = centered.T @ centered / (B * c - 1)
    sd = np.sqrt(C.diagonal() + jepa.EPS)
    np.fill_diagonal(C, 0.0)
    loss = (jepa.PRED_WEIGHT * (error * error).mean()
            + jepa.VAR_WEIGHT * np.maximum(jepa.GAMMA - sd, 0.0).mean()
            + jepa.COV_WEIGHT * (C * C).sum() / D)

    d_predictions = error * (2.0 * jepa.PRED_WEIGHT / error.size)
    d_predictor, dz = numpy_backward(predictor, x_pred, h_pred, d_predictions)
    d_avg = (dz @ predictor["W1"][:, :D]).reshape(B, t, D).sum(1) / c
    dC = C * (2.0 * jepa.COV_WEIGHT / D)
    np.fill_diagonal(dC, np.where(sd < jepa.GAMMA, -jepa.VAR_WEIGHT / (2.0 * D * sd), 0.0))
    d_embeddings = d_avg.repeat(c, 0) + centered @ dC * (2.0 / (B * c - 1))
    d_encoder, _ = numpy_backward(encoder, x, h, d_embeddings)

    for net, grad in ((encoder, d_encoder), (predictor, d_predictor)):
        for key in net:
            net[key] -= jepa.LEARNING_RATE * grad[key]
    for key, weights in target_encoder.items():
        weights *= jepa.MOMENTUM
        weights += (1.0 - jepa.MOMENTUM) * encoder[key]
    return float(loss)

# ---- PyTorch: eager, float64, autograd -----------------------------------------------------------

def torch_weights(rows):
    return torch.tensor(rows, dtype=torch.float64, requires_grad=True)

def torch_batch(batch):
    """A minibatch as tensors, in the shapes of numpy_batch."""
    patches, context, target = zip(*batch)
    return torch.tensor(patches, dtype=torch.float64), torch.tensor(context), torch.tensor(target)

def torch_forward(net, x):
    """Inputs x [n][in] -> outputs [n][out]."""
    for activation, W in ((torch.relu, net["W1"]), (lambda v: v, net["W2"])):
        x = activation(torch.nn.functional.linear(x, W[:, :-1], W[:, -1]))
    return x

def torch_step(model, batch):
    """The training step in PyTorch."""
    patches, context, target = batch
    encoder, target_encoder, predictor = [model[name] for name in NETWORKS]
    (B, c), t, D = context.shape, target.shape[1], len(encoder["W2"])
    image = torch.arange(B)[:, None]

    z = torch_forward(encoder, patches[image, context].reshape(B * c, -1))
    with torch.no_grad():
        targets = torch_forward(target_encoder, patches[image, target].reshape(B * t, -1))
    avg = z.reshape(B, c, D).mean(1).repeat_interleave(t, 0)
    positions = torch.nn.functional.one_hot(target.reshape(-1), patches.shape[1])
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

# ---- micrograd: autograd number by number --------------------------------------------------------

def micrograd_weights(rows):
    return [[engine.Value(v) for v in row] for row in rows]

def micrograd_data(rows):
    return [[v.data for v in row] for row in rows]

def micrograd_forward(net, x):
    """One input x [in] of floats or Values -> output [out] of Values."""
    h = [sum((w * v for w, v in zip(row, x)), row[-1]).relu() for row in net["W1"]]
    return [sum((w * v for w, v in zip(row, h)), row[-1]) for row in net["W2"]]

def micrograd_step(model, batch):
    """The training step in micrograd. The targets, which need no gradient, are floats, by jepa."""
    encoder, target_encoder, predictor = [model[name] for name in NETWORKS]
    D, K = len(encoder["W2"]), len(batch[0][0])
    target_floats = {key: micrograd_data(rows) for key, rows in target_encoder.items()}
    embeddings, squares = [], []
    for patches, context_mask, target_mask in batch:
        seen = [micrograd_forward(encoder, patches[i]) for i in context_mask]
        avg = [sum(column) * (1.0 / len(seen)) for column in zip(*seen)]
        targets, _ = jepa.mlp_forward(target_floats, [patches[i] for i in target_mask])
        for i, target in zip(target_mask, targets):
            prediction = micrograd_forward(predictor, avg + [float(k == i) for k in range(K)])
            squares += [(p - v) ** 2 for p, v in zip(prediction, target)]
        embeddings += seen
    n, dims = len(embeddings), range(D)
    mean = [sum(column) * (1.0 / n) for column in zip(*embeddings)]
    columns = [[v - m for v in column] for column, m in zip(zip(*embeddings), mean)]
    C = [[sum(v * w for v, w in zip(a, b)) * (1.0 / (n - 1)) for b in columns] for a in columns]
    var = sum((jepa.GAMMA - (C[d][d] + jepa.EPS) ** 0.5).relu() for d in dims)
    cov = sum(C[i][j] ** 2 for i in dims for j in dims if i != j)
    loss = (sum(squares) * (jepa.PRED_WEIGHT / len(squares)) + var * (jepa.VAR_WEIGHT / D)
            + cov * (jepa.COV_WEIGHT / D))

    weights, moving, others = [flat(model[name]) for name in NETWORKS]
    for w in weights + others:
        w.grad = 0.0
    loss.backward()
    for w in weights + others:
        w.data -= jepa.LEARNING_RATE * w.grad
    for w, slow in zip(weights, moving):
        slow.data = jepa.MOMENTUM * slow.data + (1.0 - jepa.MOMENTUM) * w.data
    return loss.data

# ---- That they do the same -----------------------------------------------------------------------

def import_frameworks():
    """Import those that are installed; returns the names of those that are not."""
    global np, torch, engine
    missing, modules = [], []
    for name, module in (("NumPy", "numpy"), ("PyTorch", "torch"),
                         ("micrograd", "micrograd.engine")):
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
    """name -> (weights from lists, minibatch from jepa's, step, weights to lists)."""
    table = {"jepa.py": (copy.deepcopy, list, jepa_step, copy.deepcopy),
             "nested index loops": (copy.deepcopy, list, loop_step, copy.deepcopy)}
    if np: table["NumPy"] = (np.array, numpy_batch, numpy_step, lambda w: w.tolist())
    if torch: table["PyTorch"] = (torch_weights, torch_batch, torch_step, lambda w: w.tolist())
    if engine: table["micrograd"] = (micrograd_weights, list, micrograd_step, micrograd_data)
    return table

def convert(model, function):
    """A new model: function of each matrix."""
    return {name: {key: function(rows) for key, rows in model[name].items()} for name in NETWORKS}

def flat(net):
    """All weights of a network in one list."""
    return [w for W in net.values() for row in W for w in row]

def start_model(rng, embed_dim=jepa.EMBED_DIM, hidden_dim=jepa.HIDDEN_DIM, num_patches=4):
    return jepa.init_model(2, num_patches, embed_dim, hidden_dim, rng)

def minibatches(images, epochs, rng, batch_size=jepa.BATCH_SIZE):
    """The minibatches of so many epochs, one after another, as jepa.train draws them."""
    data = [jepa.extract_patches(img) for img in images]
    for _ in range(epochs):
        rng.shuffle(data)
        for start in range(0, len(data), batch_size):
            yield [(patches, *jepa.random_masks(len(patches), rng))
                   for patches in data[start:start + batch_size]]

def agree(name, what, values, expected):
    """How far a contestant is from jepa.py, if that is little enough; else the bench ends here."""
    worst = max(abs(v - w) for v, w in zip(values, expected))
    if not worst <= TOLERANCE or len(values) != len(expected):
        sys.exit(f"bench.py: {name} does not do the same work as jepa.py: {what} differs by "
                 f"{worst:.1e} (at most {TOLERANCE:g} is allowed)")
    return worst

def compare(table, images, steps=3):
    """Compare an epoch of jepa_step with jepa.train, and steps of all the others with jepa_step."""
    model, batches = start_model(random.Random(0)), list(minibatches(images, 1, random.Random(0)))
    trained, stepped = copy.deepcopy(model), copy.deepcopy(model)
    losses = jepa.train(images, 1, rng=random.Random(0), model=trained)[0]
    mean = statistics.mean(jepa_step(stepped, batch) for batch in batches)
    agree("jepa_step", "the loss of an epoch of train()", [mean], [losses["loss"]])
    for name in NETWORKS:
        agree("jepa_step", f"{name} after an epoch", flat(stepped[name]), flat(trained[name]))
    for contestant, (load, pack, step, unload) in list(table.items())[1:]:
        expected, own, worst = copy.deepcopy(model), convert(model, load), 0.0
        for i, batch in enumerate(batches[:steps], 1):
            losses = [step(own, pack(batch))], [jepa_step(expected, batch)]
            worst = max(worst, agree(contestant, f"the loss of step {i}", *losses))
            for name, net in convert(own, unload).items():
                what = f"{name} after step {i}"
                worst = max(worst, agree(contestant, what, flat(net), flat(expected[name])))
        print(f"{contestant:20}{worst:8.0e} after {steps} steps", flush=True)

# ---- How long they take --------------------------------------------------------------------------

def time_steps(model, load, step, batches):
    """Seconds a step, over one step on each minibatch, after one that is not timed."""
    own = convert(model, load)
    gc.collect()  # so that none pays for what another leaves behind
    step(own, batches[0])
    start = time.perf_counter()
    for batch in batches:
        step(own, batch)
    return (time.perf_counter() - start) / len(batches)

def medians(runs, quick):
    """name -> arguments of time_steps; returns name -> (seconds a step, ratio to the first).

    Both are medians of rounds. A round times all in turn, so that whatever else the machine does
    hits all alike. micrograd, a hundred times as slow, is in every twentieth round only."""
    rounds, first = [], next(iter(runs))
    for i in range(4 if quick else 100):
        rounds.append({name: time_steps(*arguments) for name, arguments in runs.items()
                       if name != "micrograd" or i % 20 == 0})
    return {name: [statistics.median(r[name] / divisor(r) for r in rounds if name in r)
                   for divisor in (lambda r: 1.0, lambda r: r[first])] for name in runs}

def time_contestants(table, images, quick):
    """Print the first table; returns seconds a step of each."""
    batches = list(itertools.islice(minibatches(images, 1, random.Random(0)), 5))
    times = medians({name: (start_model(random.Random(0)), load, step, [*map(pack, batches)])
                     for name, (load, pack, step, _) in table.items()
                     if name != "micrograd" or not quick}, quick)
    print(f"{'One training step':20}{'us per image':>14}{'x jepa.py':>12}")
    for name, (seconds, ratio) in times.items():
        print(f"{name:20}{1e6 * seconds / jepa.BATCH_SIZE:14.1f}{ratio:12.2f}")
    return {name: seconds for name, (seconds, _) in times.items()}
