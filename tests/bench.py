#!/usr/bin/env python3
"""How fast is a training step of jepa.py, beside the same step written in other ways?

    python3 tests/bench.py    the tables, in two minutes; --help lists what else there is

First all contestants take the same steps on the same minibatches from the same weights, and must
end with the loss and the weights of jepa.py; exit code 1 if one does not. The settings are those
of jepa.py, as they are now.
"""
import argparse, copy, gc, importlib, itertools, math, os, platform
import random, statistics, subprocess, sys, sysconfig, time
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
import jepa

NETWORKS = ("context_encoder", "target_encoder", "predictor")
TOLERANCE, GOAL = 1e-6, 0.95  # of loss and weights after the same steps; accuracy to be reached
SLOW = 15.0             # seconds: a training that takes longer is estimated from some of its steps
clock = time.perf_counter if os.name == "nt" else time.process_time  # seconds of the processor
np = torch = engine = None  # contestants() puts NumPy, PyTorch and micrograd.engine here

# ---- The contestants: each a step(model, batch) that changes the model and returns the loss ------
def jepa_step(model, batch):
    """What jepa.train does with each minibatch. (Of all of them, only this checks its input.)"""
    terms, gradients = jepa.loss_and_gradients(batch, model)
    for name in gradients:
        model[name] = jepa.blend(1.0, model[name], -jepa.LEARNING_RATE, gradients[name])
    jepa.ema_update(jepa.MOMENTUM, model)
    return terms["loss"]

def total(pred, var, cov):
    return jepa.PRED_WEIGHT * pred + jepa.VAR_WEIGHT * var + jepa.COV_WEIGHT * cov

# ---- Nested index loops: the same arithmetic, one patch and one image at a time ------------------
def loop_matvec(W, x):
    y = []
    for i in range(len(W)):
        s = 0.0
        for j in range(len(x)): s += W[i][j] * x[j]
        y.append(s)
    return y

def loop_forward(net, x):
    """One input x [in] -> x [in+1] and h [hidden+1], each with its 1 appended, and y [out]."""
    x, h = x + [1.0], loop_matvec(net["W1"], x + [1.0]) + [1.0]
    for j in range(len(h)): h[j] = h[j] if h[j] > 0.0 else 0.0
    return x, h, loop_matvec(net["W2"], h)

def loop_backward(net, grad, x, h, dy):
    """Add the gradient of one input to grad, which has the shapes of net. Returns dz [hidden]."""
    W2, dW1, dW2, dz = net["W2"], grad["W1"], grad["W2"], [0.0] * (len(h) - 1)
    for i in range(len(dy)):
        for j in range(len(h)): dW2[i][j] += dy[i] * h[j]
    for j in range(len(dz)):
        if h[j] > 0.0:
            for i in range(len(dy)): dz[j] += W2[i][j] * dy[i]
        for k in range(len(x)): dW1[j][k] += dz[j] * x[k]
    return dz

zeros = lambda W: [[0.0] * len(row) for row in W]
def loop_blend(a, net, b, other):
    for W, V in zip(net.values(), other.values()):
        for i in range(len(W)):
            for j in range(len(W[i])): W[i][j] = a * W[i][j] + b * V[i][j]

def loop_step(model, batch):
    encoder, target_encoder, predictor = [model[name] for name in NETWORKS]
    D, K, seen, pred, var, cov = len(encoder["W2"]), len(batch[0][0]), [], 0.0, 0.0, 0.0
    d_encoder, d_predictor = convert(encoder, zeros), convert(predictor, zeros)
    num_errors = D * len(batch) * len(batch[0][2])
    for patches, context_mask, target_mask in batch:  # Pred, forward, and back to the embeddings
        avg, d_avg = [0.0] * D, [0.0] * D
        for i in context_mask:
            x, h, y = loop_forward(encoder, patches[i])
            seen.append((x, h, y, d_avg))
            for d in range(D): avg[d] += y[d] / len(context_mask)
        for i in target_mask:
            _, _, target = loop_forward(target_encoder, patches[i])
            x = avg + [0.0] * K
            x[D + i] = 1.0
            x, h, y = loop_forward(predictor, x)
            for d in range(D):
                pred += (y[d] - target[d]) ** 2 / num_errors
                y[d] = jepa.PRED_WEIGHT * 2.0 * (y[d] - target[d]) / num_errors
            dz = loop_backward(predictor, d_predictor, x, h, y)
            for j in range(len(dz)):
                for d in range(D): d_avg[d] += dz[j] * predictor["W1"][j][d] / len(context_mask)
    n, dC, mean = len(seen), [], [0.0] * D  # Var and Cov
    for _, _, y, _ in seen:
        for d in range(D): mean[d] += y[d] / n
    centered = [[y[d] - mean[d] for d in range(D)] for _, _, y, _ in seen]
    for i in range(D):
        dC.append([0.0] * D)
        for j in range(D):
            C = 0.0
            for k in range(n): C += centered[k][i] * centered[k][j] / (n - 1)
            if i != j:
                cov += C * C / D
                dC[i][j] = jepa.COV_WEIGHT * 2.0 * C / D
            elif math.sqrt(C + jepa.EPS) < jepa.GAMMA:
                var += (jepa.GAMMA - math.sqrt(C + jepa.EPS)) / D
                dC[i][i] = -jepa.VAR_WEIGHT / (2.0 * math.sqrt(C + jepa.EPS)) / D
    for (x, h, _, d_avg), row in zip(seen, centered):  # back through the encoder, then the updates
        dy = loop_matvec(dC, row)
        for d in range(D): dy[d] = d_avg[d] + dy[d] * 2.0 / (n - 1)
        loop_backward(encoder, d_encoder, x, h, dy)
    loop_blend(1.0, encoder, -jepa.LEARNING_RATE, d_encoder)
    loop_blend(1.0, predictor, -jepa.LEARNING_RATE, d_predictor)
    loop_blend(jepa.MOMENTUM, target_encoder, 1.0 - jepa.MOMENTUM, encoder)
    return total(pred, var, cov)

# ---- NumPy: batched, float64, backward pass by hand ----------------------------------------------
def numpy_forward(net, x):
    """Inputs x [n][in] -> x [n][in+1] and h [n][hidden+1], with their 1 appended; y [n][out]."""
    ones = np.ones((len(x), 1))
    x = np.concatenate([x, ones], 1)
    h = np.concatenate([np.maximum(x @ net["W1"].T, 0.0), ones], 1)
    return x, h, h @ net["W2"].T

def numpy_backward(net, x, h, dy):
    """The gradients of the weights, and dz [n][hidden]."""
    dz = (dy @ net["W2"][:, :-1]) * (h[:, :-1] > 0.0)
    return {"W1": dz.T @ x, "W2": dy.T @ h}, dz

def numpy_step(model, batch):
    patches, context, target = batch  # [B][K][P], [B][c], [B][t]
    encoder, target_encoder, predictor = [model[name] for name in NETWORKS]
    (B, c), t, D = context.shape, target.shape[1], len(encoder["W2"])
    image = np.arange(B)[:, None]
    x, h, z = numpy_forward(encoder, patches[image, context].reshape(B * c, -1))
    _, _, targets = numpy_forward(target_encoder, patches[image, target].reshape(B * t, -1))
    x_pred = np.zeros((B * t, D + patches.shape[1]))
    x_pred[:, :D] = z.reshape(B, c, D).mean(1).repeat(t, 0)
    x_pred[np.arange(B * t), D + target.ravel()] = 1.0
    x_pred, h_pred, predictions = numpy_forward(predictor, x_pred)
    error, centered = predictions - targets, z - z.mean(0)
    C = centered.T @ centered / (B * c - 1)
    sd = np.sqrt(C.diagonal() + jepa.EPS)
    np.fill_diagonal(C, 0.0)
    loss = total((error * error).mean(), np.maximum(jepa.GAMMA - sd, 0.0).mean(), (C * C).sum() / D)
    d_predictions = error * (2.0 * jepa.PRED_WEIGHT / error.size)
    d_predictor, dz = numpy_backward(predictor, x_pred, h_pred, d_predictions)
    d_avg = (dz @ predictor["W1"][:, :D]).reshape(B, t, D).sum(1) / c
    dC = C * (2.0 * jepa.COV_WEIGHT / D)
    np.fill_diagonal(dC, np.where(sd < jepa.GAMMA, -jepa.VAR_WEIGHT / (2.0 * D * sd), 0.0))
    d_embs = d_avg.repeat(c, 0) + centered @ dC * (2.0 / (B * c - 1))
    d_encoder, _ = numpy_backward(encoder, x, h, d_embs)
    for key in encoder:
        encoder[key] -= jepa.LEARNING_RATE * d_encoder[key]
        predictor[key] -= jepa.LEARNING_RATE * d_predictor[key]
        target_encoder[key] += (1.0 - jepa.MOMENTUM) * (encoder[key] - target_encoder[key])
    return float(loss)

# ---- PyTorch: eager, float64, autograd -----------------------------------------------------------
def torch_forward(net, x):
    W1, W2, linear = net["W1"], net["W2"], torch.nn.functional.linear
    return linear(torch.relu(linear(x, W1[:, :-1], W1[:, -1])), W2[:, :-1], W2[:, -1])

def torch_step(model, batch):
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
    C = torch.cov(z.T)
    diagonal = C.diagonal()
    loss = total(torch.nn.functional.mse_loss(predictions, targets),
                 torch.relu(jepa.GAMMA - torch.sqrt(diagonal + jepa.EPS)).mean(),
                 ((C * C).sum() - (diagonal * diagonal).sum()) / D)
    weights = [*encoder.values(), *predictor.values()]
    gradients = torch.autograd.grad(loss, weights)
    with torch.no_grad():
        for w, gradient in zip(weights, gradients): w.sub_(gradient, alpha=jepa.LEARNING_RATE)
        for key, w in target_encoder.items():
            w.mul_(jepa.MOMENTUM).add_(encoder[key], alpha=1.0 - jepa.MOMENTUM)
    return loss.item()

# ---- micrograd: autograd number by number --------------------------------------------------------
micrograd_data = lambda rows: [[v.data for v in row] for row in rows]
def micrograd_forward(net, x):
    """One input x [in] of floats or Values -> output [out] of Values."""
    h = [sum((w * v for w, v in zip(row, x)), row[-1]).relu() for row in net["W1"]]
    return [sum((w * v for w, v in zip(row, h)), row[-1]) for row in net["W2"]]

def micrograd_step(model, batch):
    """The targets, which need no gradient, are floats, by jepa."""
    encoder, target_encoder, predictor = [model[name] for name in NETWORKS]
    D, K, embeddings, squares = len(encoder["W2"]), len(batch[0][0]), [], []
    target_floats = convert(target_encoder, micrograd_data)
    for patches, context_mask, target_mask in batch:
        seen = [micrograd_forward(encoder, patches[i]) for i in context_mask]
        avg = [sum(column) * (1.0 / len(seen)) for column in zip(*seen)]
        targets, _ = jepa.mlp_forward(target_floats, [patches[i] for i in target_mask])
        for i, target in zip(target_mask, targets):
            prediction = micrograd_forward(predictor, avg + [float(k == i) for k in range(K)])
            squares += [(p - v) ** 2 for p, v in zip(prediction, target)]
        embeddings += seen
    n, dims = len(embeddings), range(D)
    columns = [[v - m for v in column] for column in zip(*embeddings)
               for m in [sum(column) * (1.0 / n)]]
    C = [[sum(v * w for v, w in zip(a, b)) * (1.0 / (n - 1)) for b in columns] for a in columns]
    var = sum((jepa.GAMMA - (C[d][d] + jepa.EPS) ** 0.5).relu() for d in dims)
    cov = sum(C[i][j] ** 2 for i in dims for j in dims if i != j)
    loss = total(sum(squares) * (1.0 / len(squares)), var * (1.0 / D), cov * (1.0 / D))
    weights, slow, others = [flat(model[name]) for name in NETWORKS]
    for w in weights + others: w.grad = 0.0
    loss.backward()
    for w in weights + others: w.data -= jepa.LEARNING_RATE * w.grad
    for w, v in zip(weights, slow):
        v.data = jepa.MOMENTUM * v.data + (1.0 - jepa.MOMENTUM) * w.data
    return loss.data

# ---- That they do the same -----------------------------------------------------------------------
def contestants():
    """name -> (weights from lists, minibatch from jepa's, step, weights to lists)."""
    global np, torch, engine
    modules = {"NumPy": "numpy", "PyTorch": "torch", "micrograd": "micrograd.engine"}
    for name, module in modules.items():
        try: modules[name] = importlib.import_module(module)
        except ImportError: modules[name] = None
    np, torch, engine = modules.values()
    if torch: torch.set_num_threads(1), torch.set_default_dtype(torch.float64)
    tensors = lambda rows: torch.tensor(rows, requires_grad=True)
    values = lambda rows: [[engine.Value(v) for v in row] for row in rows]
    stack, to_list = lambda batch, make: list(map(make, zip(*batch))), lambda w: w.tolist()
    table = {"jepa.py": (copy.deepcopy, list, jepa_step, copy.deepcopy),
             "nested index loops": (copy.deepcopy, list, loop_step, copy.deepcopy),
             "NumPy": (np and np.array, lambda b: stack(b, np.array), numpy_step, to_list),
             "PyTorch": (tensors, lambda b: stack(b, torch.tensor), torch_step, to_list),
             "micrograd": (values, list, micrograd_step, micrograd_data)}
    return {name: functions for name, functions in table.items() if modules.get(name, True)}

def convert(model, function):
    """A new model or network: function of each matrix."""
    return {name: convert(part, function) if isinstance(part, dict) else function(part)
            for name, part in model.items()}

flat = lambda net: [w for W in net.values() for row in W for w in row]  # all its weights
def start(rng, hidden_dim=jepa.HIDDEN_DIM, embed_dim=jepa.EMBED_DIM, num_patches=4):
    return jepa.init_model(2, num_patches, embed_dim, hidden_dim, rng)

def minibatches(images, epochs, rng, batch_size=jepa.BATCH_SIZE):
    """The minibatches of so many epochs, one after another, as jepa.train draws them."""
    data = [jepa.extract_patches(img) for img in images]
    for _ in range(epochs):
        rng.shuffle(data)
        for first in range(0, len(data), batch_size):
            yield [(patches, *jepa.random_masks(len(patches), rng))
                   for patches in data[first:first + batch_size]]

def difference(name, losses, models):
    """How far loss and weights are from those of jepa.py; the bench ends here if too far."""
    pairs = [losses] + [pair for n in NETWORKS for pair in zip(*[flat(m[n]) for m in models])]
    differences = [abs(v - w) for v, w in pairs]
    if not all(d <= TOLERANCE for d in differences):  # so that a NaN fails
        sys.exit(f"bench.py: {name} does not do the same work as jepa.py: loss or weights differ "
                 f"by {max(differences):.1e} (at most {TOLERANCE:g} is allowed)")
    return max(differences)

def compare(table, images, steps=3):
    """An epoch of jepa_step against jepa.train, and steps of all the others against jepa_step."""
    model, trained, stepped = [start(random.Random(0)) for _ in range(3)]
    batches = list(minibatches(images, 1, random.Random(0)))
    loss = jepa.train(images, 1, rng=random.Random(0), model=trained)[0]["loss"]
    losses = statistics.mean(jepa_step(stepped, batch) for batch in batches), loss
    difference("jepa_step", losses, (stepped, trained))
    print("\nSame loss and weights as jepa.py? Largest difference")
    for name, (load, pack, step, unload) in list(table.items())[1:]:
        expected, own, worst = copy.deepcopy(model), convert(model, load), 0.0
        for batch in batches[:steps]:
            losses = step(own, pack(batch)), jepa_step(expected, batch)
            worst = max(worst, difference(name, losses, (convert(own, unload), expected)))
        print(f"{name:20}{worst:8.0e} after {steps} steps", flush=True)

# ---- How long they take --------------------------------------------------------------------------
def time_steps(model, load, pack, step, batches):
    """Seconds a step, over one step on each minibatch, after one that is not timed."""
    own, batches = convert(model, load), list(map(pack, batches))
    gc.collect()  # so that none pays for what another leaves behind
    step(own, batches[0])
    begin = clock()
    for batch in batches: step(own, batch)
    return (clock() - begin) / len(batches)

def medians(runs, quick):
    """name -> arguments of time_steps; returns name -> (seconds a step, its ratio to the first),
    both medians over rounds. A round times all in turn, so that whatever else the machine does hits
    all alike; micrograd, a hundred times as slow, is in every twentieth round only."""
    seconds, ratios = [{name: [] for name in runs} for _ in range(2)]
    for i in range(3 if quick else 100):
        for name, arguments in runs.items():
            if name == "micrograd" and i % 20: continue
            seconds[name].append(time_steps(*arguments))
            ratios[name].append(seconds[name][-1] / seconds[next(iter(runs))][-1])
    return {name: [statistics.median(v[name]) for v in (seconds, ratios)] for name in runs}

def time_contestants(table, images, quick):
    """Print the first table; returns what medians() does."""
    batches = list(itertools.islice(minibatches(images, 1, random.Random(0)), 5))
    times = medians({name: (start(random.Random(0)), *functions[:3], batches) for name, functions
                     in table.items() if name != "micrograd" or not quick}, quick)
    print(f"\n{'One training step':20}{'us per image':>14}{'x jepa.py':>12}")
    for name, (seconds, ratio) in times.items():
        print(f"{name:20}{1e6 * seconds / jepa.BATCH_SIZE:14.1f}{ratio:12.2f}", flush=True)
    return times

def accuracy(model, data):
    _, held_out, _, labels = data
    x = [jepa.embed(img, model) for img in held_out]
    return jepa.few_label_accuracy(jepa.nearest_mean, x, labels, 1, random.Random(0))

def time_goal(table, times, data, epochs):
    """Print how long each takes for the steps after which jepa.py first reaches the goal."""
    rng, accuracies = random.Random(0), {}
    def look(epoch, _, model):
        if epoch % 5 == 0: accuracies[epoch] = accuracy(model, data)
    jepa.train(data[0], epochs, rng=rng, on_epoch=look, model=start(rng))
    epochs = next((epoch for epoch in accuracies if accuracies[epoch] >= GOAL), epochs)
    steps = epochs * math.ceil(len(data[0]) / jepa.BATCH_SIZE)
    print(f"\nUntil {GOAL:.0%} of held-out images are named right with one label a class: {epochs} "
          f"epochs, {steps} steps{' (NOT REACHED)' * (max(accuracies.values()) < GOAL)}\n"
          f"{'Training until then':20}{'seconds':>14}{'x jepa.py':>12}   accuracy then", flush=True)
    for name, (seconds, _) in times.items():
        load, pack, step, unload = table[name]
        part = 20 if seconds * steps > SLOW else steps
        rng = random.Random(0)
        own, batches, begin = convert(start(rng), load), minibatches(data[0], epochs, rng), clock()
        for i, batch in enumerate(itertools.islice(batches, part), 1):
            step(own, pack(batch))
            if i * epochs % steps == 0:  # after each epoch weights are rounded, as in jepa.train
                own = convert(own, lambda W: load([[round(w, 6) for w in r] for r in unload(W)]))
        seconds = (clock() - begin) * steps / part
        base = seconds if name == "jepa.py" else base
        print(f"{name:20}{seconds:14.2f}{seconds / base:12.2f}   " + (
            f"{accuracy(convert(own, unload), data):.1%}" if part == steps else
            f"not run to the end, estimated from {part} steps"), flush=True)

def time_first(data):
    """Print what the settings of the first edition reach on the data of the second."""
    model, begin = start(random.Random(0), 12, 6), clock()
    jepa.train(data[0], 500, 0.02, 0.99, 10, 15.0, 45.0, 45.0, 0.35, model=model)
    print("First edition's settings (hidden 12, minibatch 10, 15/45/45, gamma 0.35): "
          f"{accuracy(model, data):.1%} after 500 epochs, {clock() - begin:.1f} s")

def multiply_adds(H, D, K, B, P=4):
    """Those of a step, from sizes alone, as if all hidden units were active."""
    m = B * max(1, round(K / 4))                              # target patches; n context patches
    n, encoder, predictor = B * K - m, H * (P + 1) + D * (H + 1), H * (D + K + 1) + D * (H + 1)
    return (n * encoder + m * encoder + m * predictor         # forward: a row uses each weight once
            + n * (encoder + D * H) + m * (predictor + 2 * D * H)  # backward: dW, dz; dx
            + 2 * n * D * D                                   # covariance, and its derivative
            + 2 * (encoder + predictor) + 2 * encoder)        # gradient step; moving average

def time_growth(images, quick):
    """Print how the time of a step of jepa.py grows with each size."""
    base, runs = {"H": jepa.HIDDEN_DIM, "D": jepa.EMBED_DIM, "K": 4, "B": jepa.BATCH_SIZE}, {}
    rows = {"base": base}
    for key, name in zip(base, ("hidden width", "embedding", "patches", "minibatch")):
        rows[f"{name} {2 * base[key]}"] = {**base, key: 2 * base[key]}
    wide = [[a + b for a, b in zip(*pair)] for pair in zip(images, images[::-1])]  # 8 patches
    for name, size in rows.items():
        batches = minibatches(images if size["K"] == 4 else wide, 1, random.Random(0), size["B"])
        runs[name] = (start(random.Random(0), size["H"], size["D"], size["K"]), copy.deepcopy, list,
                      jepa_step, list(itertools.islice(batches, 5)))
    print(f"\n{'A step of jepa.py':20}{'us':>8}{'x base':>8}{'multiply-adds':>15}{'x base':>8}")
    for name, (seconds, ratio) in medians(runs, quick).items():
        count, one = multiply_adds(**rows[name]), multiply_adds(**base)
        print(f"{name:20}{1e6 * seconds:8.0f}{ratio:8.2f}{count:15d}{count / one:8.2f}")

def profile(images, rounds):
    """Print where the time of a step of jepa.py goes, by timers around its functions."""
    model, inner, seconds, kept = start(random.Random(0)), [], {}, dict(vars(jepa))
    def timed(function, label):
        def wrapper(*args, **kwargs):
            inner.append(0.0)  # what is timed within this call
            begin = clock()
            result = function(*args, **kwargs)
            passed = clock() - begin
            name = label.format(*[n for n in NETWORKS if args and model[n] is args[0]])
            seconds[name] = seconds.get(name, 0.0) + passed - inner.pop()
            if inner: inner[-1] += passed
            return result
        return wrapper
    for name, label in (("random_masks", "masks"), ("mlp_forward", "{} forward"),
                        ("mlp_backward", "{} backward"), ("ema_update", "moving average"),
                        ("variance_covariance", "Var + Cov and their derivative"),
                        ("loss_and_gradients", "rest: checks, rows, means, errors")):
        setattr(jepa, name, timed(kept[name], label))
    step = timed(jepa_step, "gradient step")
    for i in range(rounds):
        if i < 2: seconds.clear()  # the first epoch warms up
        for batch in minibatches(images, 1, random.Random(i)): step(model, batch)
    vars(jepa).update(kept)
    print(f"\n{'Where a step of jepa.py goes':36}{'us an image':>12}{'share':>8}")
    for name, s in sorted(seconds.items(), key=lambda item: -item[1]):
        us = 1e6 * s / (rounds - 1) / len(images)
        print(f"{name:36}{us:12.1f}{s / sum(seconds.values()):8.1%}")

# ---- Import, memory, demo ------------------------------------------------------------------------
def measure_import(repeats):
    """Print what `import jepa` takes, once compiled, and the peak memory of a short training."""
    code = ("import time; begin = time.process_time(); import jepa\n"
            "print(time.process_time() - begin); jepa.train(jepa.draw_data(0)[0], 2)\n"
            "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)")
    # The shell between: on Linux a process inherits the peak of the one that starts it.
    command = ["sh", "-c", '"$0" -c "$1"; exit $?', sys.executable, code]
    runs = [subprocess.check_output(command, cwd=ROOT).split() for _ in range(1 + repeats)]
    seconds, peak = statistics.median(float(run[0]) for run in runs[1:]), int(runs[-1][1])
    peak /= 2 ** (20 if sys.platform == "darwin" else 10)  # MB of bytes, or of kB
    print(f"\nimport jepa: {1000 * seconds:.1f} ms; peak memory of a training: {peak:.1f} MB")

def build():
    """Whether this interpreter was built with profile-guided optimisation: 1.4 times as fast."""
    record = sysconfig.get_config_vars()
    flags = f"{record.get('CONFIG_ARGS')} {record.get('CFLAGS')}"
    debian = record.get("PGO_PROF_GEN_FLAG") and record.get("PGO_PROF_USE_FLAG") == ""
    optimised = "--enable-optimizations" in flags or "-fprofile-use" in flags or debian
    return ("optimised" if optimised else "plain") if record.get("CONFIG_ARGS") else "unknown"

def main():
    parser = argparse.ArgumentParser(description="Time jepa.py's training step and its equals.")
    parser.add_argument("--quick", action="store_true", help="little, to see that it works")
    parser.add_argument("--demo", action="store_true", help="time the demo and --collapse as well")
    parser.add_argument("--profile", action="store_true", help="show where a step's time goes")
    options, data = parser.parse_args(), jepa.draw_data(0)
    images, quick, table = data[0], options.quick, contestants()
    missing = ", ".join(sorted({"NumPy", "PyTorch", "micrograd"} - {*table})) or "none"
    print(platform.python_implementation(), platform.python_version(), f"({build()} build),",
          platform.platform() + "\nNot installed:", missing)
    if hasattr(gc, "freeze"): gc.freeze()  # else each gc.collect looks through PyTorch
    compare(table, images)
    times = time_contestants(table, images, quick)
    time_goal(table, times, data, 5 if quick else jepa.EPOCHS)
    if not quick: time_first(data)
    time_growth(images, quick)
    if options.profile: profile(images, 3 if quick else 30)
    if os.name != "nt": measure_import(1 if quick else 10)
    for arguments in ([], ["--collapse"]) if options.demo else ():
        begin, before = time.perf_counter(), os.times()
        subprocess.check_output([sys.executable, os.path.join(ROOT, "jepa.py"), *arguments])
        print(" ".join(["jepa.py", *arguments]) + f": {time.perf_counter() - begin:.1f} s, "
              f"of the processor {os.times().children_user - before.children_user:.1f} s")

if __name__ == "__main__": main()
