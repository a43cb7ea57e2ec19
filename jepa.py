#!/usr/bin/env python3
"""Micro JEPA: a Joint-Embedding Predictive Architecture, small enough to read in one sitting.

A JEPA learns from images without labels. It hides some patches of an image (the targets) and
predicts them from the visible ones (the context): not their pixels, but their *embeddings*, short
lists of numbers that an encoder makes of patches. What is in one patch alone only blurs the
prediction of others: so the encoder learns to play it down, and to keep what patches share.

                                  target position --+
                                                    +--> predictor --> prediction --+
    context patches --> context encoder --> mean ---+                               |
                              :                                                     +--> error
                              : slowly copied (moving average)                      |
    target patch -----> target encoder --------------------------> target ----------+

The loss is the squared error (Pred), plus two terms (Var, Cov) that keep embeddings spread out. Its
gradient trains the predictor and the context encoder; the target encoder only follows.

`python3 jepa.py` trains and shows what was learned; `python3 jepa.py --collapse` takes parts away.
No function uses a later one: to take one into a notebook, paste this file from its top down to it.
"""
import argparse, math, random, signal, sys
from operator import mul
if sys.version_info < (3, 8): sys.exit("jepa.py needs Python 3.8 or newer")

# ---- Settings: change one and run the demo again -------------------------------------------------
NUM_IMAGES = 200        # training images, the patterns in turn
EMBED_DIM, HIDDEN_DIM = 6, 40  # D: numbers in an embedding; hidden units of each network
EPOCHS, BATCH_SIZE = 90, 5     # passes over the images; images in a minibatch, which is one step
LEARNING_RATE = 0.02    # a step is this times the gradient
MOMENTUM = 0.99         # what the target encoder keeps of itself at each step: it moves slowly
PRED_WEIGHT, VAR_WEIGHT, COV_WEIGHT = 75.0, 10.0, 40.0  # of the three terms of the loss
GAMMA, EPS = 0.4, 1e-4  # Var asks each dimension for at least this sd; EPS: lest sd be 0
COLLAPSE_EPOCHS, CONTROL_EPOCHS = 40, 20  # fewer, to save time: --collapse; the table's Var+Cov row

# ---- Data: images and patches --------------------------------------------------------------------
# Four patterns. In an image each of its four patches is, by a coin of its own, left as it is or
# turned into its negative. A coin tells nothing of other patches: in a context it is noise. What
# all four share is the pattern. Will the encoder play down the coin and keep the pattern?
PATTERNS = {  # the pixel at a row and column, 0 to 3: -1 is black, 0 grey, 1 white
    "h_gradient": lambda row, column: 2.0 * column / 3.0 - 1.0,
    "v_gradient": lambda row, column: 2.0 * row / 3.0 - 1.0,
    "checker": lambda row, column: 1.0 if (row + column) % 2 == 0 else -1.0,
    "uniform": lambda row, column: 0.0}

def draw_image(name, rng):
    """A random image of a pattern, [4][4], and its patches' coins, [4]: 1, or -1 for a negative."""
    contrast, coins = rng.uniform(0.8, 1.0), [rng.choice([-1, 1]) for _ in range(4)]
    image = [[contrast * coins[row // 2 * 2 + column // 2] * PATTERNS[name](row, column)
              + rng.gauss(0.0, 0.1) for column in range(4)] for row in range(4)]  # noise of sd 0.1
    return [[round(pixel, 6) for pixel in row] for row in image], coins  # alike on every machine

def check(ok, message):
    """ValueError unless ok: for input that Python would get wrong, or refuse in obscure words."""
    if not ok: raise ValueError(message)

def matrix(rows, what):
    """Rows [n][d] as lists of Python floats. ValueError unless of one length and finite."""
    rows = [list(map(float, row)) for row in rows]  # floats: NumPy's small integers wrap around
    check(len(set(map(len, rows))) == 1 and rows[0], f"{what} must be rows of one length")
    check(math.isfinite(sum(map(sum, rows))), f"{what} must be finite numbers")
    return rows

def extract_patches(img, patch_size=2, what="an image"):
    """Cut an image, [height][width], into K flat patches, row by row: [K][P]."""
    img, size = matrix(img, what), patch_size
    check(size > 0 and len(img) % size == 0 == len(img[0]) % size,
          f"{what} must divide into patches of {size}x{size}, got {len(img)}x{len(img[0])}")
    return [[pixel for row in img[top:top + size] for pixel in row[left:left + size]]
            for top in range(0, len(img), size) for left in range(0, len(img[0]), size)]

# ---- A two-layer network and its backward pass ---------------------------------------------------
# All three networks are of this kind. A bias is the weight of an input that is always 1: so a 1 is
# appended to the input and to the hidden layer, and a network is two matrices.
dot = getattr(math, "sumprod", lambda a, b: sum(map(mul, a, b), 0.0))  # [k], [k] -> a number
matmul_t = lambda a, b: [[dot(v, w) for w in b] for v in a]  # a . b^T: [n][k], [m][k] -> [n][m]
transpose = lambda a: list(zip(*a))                          # a^T: [n][k] -> [k][n]

def init_mlp(num_in, num_hidden, num_out, rng):
    """A network: W1 [hidden][in+1], W2 [out][hidden+1]. The last column is the biases, zero."""
    check(isinstance(rng, random.Random), f"rng must be a generator, as random.Random({rng!r}) is")
    def xavier(rows, columns):  # Glorot and Bengio 2010, eq. 16
        limit = math.sqrt(6.0 / (rows + columns))
        return [[rng.uniform(-limit, limit) for _ in range(columns)] + [0.0] for _ in range(rows)]
    return {"W1": xavier(num_hidden, num_in), "W2": xavier(num_out, num_hidden)}

def mlp_forward(net, x):
    """Inputs x [n][in] -> outputs y [n][out], and (x, h), which the backward pass needs."""
    check({len(row) + 1 for row in x} == {len(net["W1"][0])}, "x does not fit the network's W1")
    x = [[*map(float, row), 1.0] for row in x]                          # [n][in+1]
    z = matmul_t(x, net["W1"])                                          # [n][hidden]     x . W1^T
    h = [[0.0 if v <= 0.0 else v for v in row] + [1.0] for row in z]    # [n][hidden+1]   relu(z)
    return matmul_t(h, net["W2"]), (x, h)                               # [n][out]        h . W2^T

def mlp_backward(net, saved, dy, num_dx=0):
    """The chain rule, last line first. dy: dL/dy [n][out]. dx: dL/d(first num_dx inputs of x)."""
    x, h = saved
    dW2 = matmul_t(transpose(dy), transpose(h))                         # [out][hidden+1] dy^T . h
    W2_t = transpose(net["W2"])[:-1]                                    # [hidden][out]   no biases
    dz = [[0.0 if v <= 0.0 else dot(dy_row, w) for v, w in zip(h_row, W2_t)]  # zip drops h's 1
          for h_row, dy_row in zip(h, dy)]                              # [n][hidden]  dy . W2, relu
    dW1 = matmul_t(transpose(dz), transpose(x))                         # [hidden][in+1]  dz^T . x
    dx = matmul_t(dz, transpose(net["W1"])[:num_dx])                    # [n][num_dx]     dz . W1
    return {"W1": dW1, "W2": dW2}, dx

def blend(a, net, b, other):
    """a * net + b * other, weight by weight: a gradient step, or a moving average."""
    return {name: [[a * v + b * w for v, w in zip(*rows)] for rows in zip(net[name], other[name])]
            for name in net}

# ---- JEPA ----------------------------------------------------------------------------------------
def init_model(patch_size=2, num_patches=4, embed_dim=EMBED_DIM, hidden_dim=HIDDEN_DIM, rng=None):
    """A new model, a dict of three networks. The two encoders start equal (blend makes a copy)."""
    rng = random.Random(0) if rng is None else rng
    encoder = init_mlp(patch_size * patch_size, hidden_dim, embed_dim, rng)
    return {"context_encoder": encoder, "target_encoder": blend(1.0, encoder, 0.0, encoder),
            "predictor": init_mlp(embed_dim + num_patches, hidden_dim, embed_dim, rng)}

def sizes(model):
    """(patch_size, K, D) of a model: its predictor has D + K inputs and a bias, and D outputs."""
    check(isinstance(model, dict), f"a model is init_model()'s dict, got {type(model).__name__}")
    P, (W1, W2) = len(model["context_encoder"]["W1"][0]) - 1, model["predictor"].values()
    return math.isqrt(P), len(W1[0]) - 1 - len(W2), len(W2)

def grouped(rows, groups):
    """{group: its rows}; row i is of the group groups[i]. ValueError unless each row has one."""
    rows, groups = list(rows), list(groups)
    check(len(rows) == len(groups), f"{len(rows)} rows need as many labels, got {len(groups)}")
    return {g: [row for row, h in zip(rows, groups) if h == g] for g in dict.fromkeys(groups)}

def average(embeddings):
    """The mean of n embeddings: [n][D] -> [D]."""
    return [sum(map(float, column)) / len(column) for column in zip(*embeddings)]

# Prediction alone can be cheated: give all patches one embedding, which is easily predicted. That
# is total collapse. Three guards are in use: the stop-gradient, below, and the two of VICReg
# (Bardes, Ponce, LeCun 2022). Over a minibatch's context patches, Var asks each dimension to vary;
# Cov asks no two to be correlated, or all might lie on one line: dimensional collapse.
def covariance(embeddings):
    """n embeddings [n][D] -> z [n][D], less their mean, and C [D][D], their covariances (eq. 3)."""
    mean = average(embeddings)
    z = [[float(v) - m for v, m in zip(row, mean)] for row in embeddings]
    columns, degrees = transpose(z), max(1, len(z) - 1)
    return z, [[v / degrees for v in row] for row in matmul_t(columns, columns)]

def variance_covariance(embeddings, var_weight, cov_weight, gamma):
    """Var, Cov (VICReg eq. 1, 2, 4), and their part of dL/dembeddings [n][D], by dC (dL/dC)."""
    z, C = covariance(embeddings)                                                 # [n][D], [D][D]
    D, dims, sds = len(C), range(len(C)), [math.sqrt(row[d] + EPS) for d, row in enumerate(C)]
    var = sum(max(gamma - sd, 0.0) for sd in sds) / D
    d_diagonal = [-var_weight / (2.0 * sd) / D if sd < gamma else 0.0 for sd in sds]
    cov = sum(C[i][j] * C[i][j] for i in dims for j in dims if i != j) / D
    dC = [[cov_weight * 2.0 * C[i][j] / D if i != j else d_diagonal[i] for j in dims] for i in dims]
    # C = z^T . z / (n-1): dz = 2 z . dC / (n-1). Columns of z sum to 0, so dz's do: d_embs is dz.
    return var, cov, matmul_t(z, [[v * 2.0 / max(1, len(z) - 1) for v in row] for row in dC])

# ---- The heart: a minibatch forward, and in the mirror backward ----------------------------------
def loss_and_gradients(batch, model, pred_weight=PRED_WEIGHT, var_weight=VAR_WEIGHT,
                       cov_weight=COV_WEIGHT, gamma=GAMMA, stop_gradient=True):
    """Of a batch of (patches [K][P], context_mask, target_mask): {"loss", "pred", "var", "cov"},
    the terms unweighted; and the gradients of the loss by {"context_encoder", "predictor"}."""
    (_, K, D), context, targets = sizes(model), [], []
    for b, (patches, context_mask, target_mask) in enumerate(batch):
        both = [*context_mask, *target_mask]  # neither empty, none twice, all 0 to K - 1
        check(len(patches) == K and len({*both} & {*range(K)}) == len(both) > len(context_mask) > 0,
              f"masks must list different ones of {K} patches: got {context_mask}, {target_mask}")
        context += [(b, patches[i]) for i in context_mask]                        # n rows
        targets += [(b, i, patches[i]) for i in target_mask]                      # m rows
    (x_owner, x), (t_owner, _, x_target) = zip(*context), zip(*targets)           # owner: the image
    # Forward: the two encoders, the mean of each image's context, the predictor.
    embs, saved = mlp_forward(model["context_encoder"], x)                        # [n][D]
    target_embs, target_saved = mlp_forward(model["target_encoder"], x_target)    # [m][D]
    avg_context = [average(rows) for rows in grouped(embs, x_owner).values()]     # [images][D]
    x_pred = [[*avg_context[b], *(float(i == pos) for i in range(K))] for b, pos, _ in targets]
    predictions, pred_saved = mlp_forward(model["predictor"], x_pred)             # [m][D]
    # The loss, and under each term its derivative.
    errors = [[p - t for p, t in zip(*rows)] for rows in zip(predictions, target_embs)]
    pred = sum(dot(row, row) for row in errors) / (len(errors) * D)
    d_predictions = [[pred_weight * 2.0 * e / (len(errors) * D) for e in row] for row in errors]
    var, cov, d_embs = variance_covariance(embs, var_weight, cov_weight, gamma)   # d_embs: [n][D]
    loss = pred_weight * pred + var_weight * var + cov_weight * cov
    # Backward: predictor; mean (sum dx over an image's targets, / its context patches); encoder.
    d_predictor, dx = mlp_backward(model["predictor"], pred_saved, d_predictions, num_dx=D)
    d_avg = [[sum(column) / x_owner.count(b) for column in zip(*rows)]
             for b, rows in grouped(dx, t_owner).items()]                         # [images][D]
    d_embs = [[d + a for d, a in zip(row, d_avg[b])] for b, row in zip(x_owner, d_embs)]    # [n][D]
    d_encoder, _ = mlp_backward(model["context_encoder"], saved, d_embs)
    # No backward pass for the target encoder: its output is taken as given, like a label. That is
    # the stop-gradient. Without it the targets move to the predictions too: a way to collapse.
    if not stop_gradient:  # for --collapse: added to d_encoder, exact if the two are one (no EMA)
        d_target_encoder, _ = mlp_backward(model["target_encoder"], target_saved, d_predictions)
        d_encoder = blend(1.0, d_encoder, -1.0, d_target_encoder)   # dPred/dt = -dPred/dp
    return ({"loss": loss, "pred": pred, "var": var, "cov": cov},
            {"context_encoder": d_encoder, "predictor": d_predictor})

# ---- Training: draw masks, take the gradient, step against it, let the target encoder follow -----
MODEL = init_model()  # what is trained, and used, where no model is given

def ema_update(momentum=MOMENTUM, model=None):
    """Moving average: target encoder <- momentum * it + (1 - momentum) * context encoder."""
    m = model or MODEL
    m["target_encoder"] = blend(momentum, m["target_encoder"], 1.0 - momentum, m["context_encoder"])

def random_masks(num_patches, rng):
    """A context mask and a target mask: the indices of about 75 % and 25 % of the patches."""
    order, num_targets = list(range(num_patches)), max(1, round(num_patches / 4))
    rng.shuffle(order)
    return sorted(order[num_targets:]), sorted(order[:num_targets])

def train(images, epochs=EPOCHS, lr=LEARNING_RATE, momentum=MOMENTUM, batch_size=BATCH_SIZE,
          pred_weight=PRED_WEIGHT, var_weight=VAR_WEIGHT, cov_weight=COV_WEIGHT, gamma=GAMMA,
          stop_gradient=True, rng=None, on_epoch=None, model=None):
    """Train the model in place by stochastic gradient descent. Returns the losses of each epoch and
    calls on_epoch(epoch, losses, model) after it. FloatingPointError when training diverges."""
    rng, model = random.Random(0) if rng is None else rng, model or MODEL
    (patch_size, K, _), weights = sizes(model), (pred_weight, var_weight, cov_weight, gamma)
    check(isinstance(rng, random.Random), f"rng must be a generator, as random.Random({rng!r}) is")
    check(min(epochs, batch_size) > 0 < lr and 0 <= momentum <= 1 and all(w >= 0 for w in weights),
          "need epochs, batch_size, lr > 0; momentum 0 to 1; weights and gamma >= 0")
    data = [extract_patches(img, patch_size, f"image {i}") for i, img in enumerate(images)]
    odd, history = [i for i, patches in enumerate(data) if len(patches) != K], []
    check(data and not odd, f"image {odd[0]} has not {K} patches" if odd else "there are no images")
    for epoch in range(1, epochs + 1):
        rng.shuffle(data)
        steps = []
        for start in range(0, len(data), batch_size):
            batch = [(p, *random_masks(K, rng)) for p in data[start:start + batch_size]]
            terms, gradients = loss_and_gradients(batch, model, *weights, stop_gradient)
            for name in gradients: model[name] = blend(1.0, model[name], -lr, gradients[name])
            ema_update(momentum, model)
            steps.append(terms)
        for name, net in model.items():  # round: last bits differ between Pythons, and would grow
            model[name] = {W: [[round(w, 6) for w in row] for row in net[W]] for W in net}
        history.append({term: sum(t[term] for t in steps) / len(steps) for term in steps[0]})
        total = sum(sum(row) for net in model.values() for W in net.values() for row in W)
        if not math.isfinite(total + history[-1]["loss"]):
            pixels = sum(sum(data, []), [])
            raise FloatingPointError(f"training diverged in epoch {epoch}: pixels {min(pixels):g}"
                f" to {max(pixels):g}, expected -1 to 1 or so; if so, try a smaller lr than {lr:g}")
        if on_epoch: on_epoch(epoch, history[-1], model)
    return history

# ---- One image at a time: the same forward pass, for what follows and for notebooks --------------
def context_encode(patch, model=None):
    """A context patch [P] -> its embedding [D], by the encoder that gradient descent trains."""
    return mlp_forward((model or MODEL)["context_encoder"], [patch])[0][0]

def target_encode(patch, model=None):
    """A target patch [P] -> the embedding [D] to predict, by the context encoder's slow copy."""
    return mlp_forward((model or MODEL)["target_encoder"], [patch])[0][0]

def predict(avg_context, pos, model=None):
    """The mean context embedding [D] and the target's index -> its predicted embedding [D]."""
    one_hot = [float(i == pos) for i in range(sizes(model or MODEL)[1])]
    check(1.0 in one_hot, f"pos must be 0 to {len(one_hot) - 1}, got {pos}")
    return mlp_forward((model or MODEL)["predictor"], [[*avg_context, *one_hot]])[0][0]

def mse(predictions, targets):
    """The mean squared error over all numbers: [n][D], [n][D] -> a float."""
    check(len(predictions) == len(targets), "predictions and targets must be as many")
    return sum(math.dist(p, t) ** 2 / len(t) for p, t in zip(predictions, targets)) / len(targets)

def jepa_forward(img, context_mask, target_mask, model=None):
    """Pred, the prediction loss, of one image. The masks list its context and target patches."""
    batch = [(extract_patches(img, sizes(model or MODEL)[0]), context_mask, target_mask)]
    return loss_and_gradients(batch, model or MODEL)[0]["pred"]

# ---- What was learned ----------------------------------------------------------------------------
# A low Pred proves nothing: a collapsed model has the lowest. So look at the embeddings of images
# held out from training. Labels are used from here on, and only to measure.
def embed_patches(img, model):
    """An image's patches by the target encoder, as I-JEPA is used: [height][width] -> [K][D]."""
    return [target_encode(patch, model) for patch in extract_patches(img, sizes(model)[0])]

def embed(img, model):
    """The embedding of an image, the mean of those of its patches: [height][width] -> [D]."""
    return average(embed_patches(img, model))

def guess_patches(img, embs, model):
    """Each patch in turn is hidden, and predicted from the others: K lists of (distance from its
    prediction, candidate), nearest first. The candidates come as embs, {patch: embedding}."""
    seen = [context_encode(patch, model) for patch in extract_patches(img, sizes(model)[0])]
    predictions = [predict(average(seen[:k] + seen[k + 1:]), k, model) for k in range(len(seen))]
    return [sorted((math.dist(p, emb), patch) for patch, emb in embs.items()) for p in predictions]

def spread(embeddings):
    """The standard deviation of n embeddings [n][D], root mean square over dimensions."""
    C = covariance(embeddings)[1]
    return math.sqrt(sum(C[d][d] for d in range(len(C))) / len(C))

def effective_rank(embeddings):
    """How many dimensions they use, (sum of C_ii)^2 / sum of C_ij^2: D at most, 1 on a line."""
    C = covariance(embeddings)[1]
    trace = sum(C[d][d] for d in range(len(C)))
    return trace and 1.0 / sum(v / trace * (v / trace) for row in C for v in row)

def explained_share(embeddings, groups):
    """The share of the variance of embeddings [n][D] that their groups [n] explain, 0 to 1."""
    means = {g: average(rows) for g, rows in grouped(embeddings, groups).items()}
    return (spread([means[g] for g in groups]) / (spread(embeddings) or math.nan)) ** 2

def nearest_mean(train_x, train_labels, x):
    """The label of the nearest class mean of train_x [n][D], for each row of x [m][D]: -> [m]."""
    n, rows = len(train_x), matrix([*train_x, *x], "train_x and x")
    means = {c: average(members) for c, members in grouped(rows[:n], train_labels).items()}
    return [min(means, key=lambda c: math.dist(means[c], row)) for row in rows[n:]]

def linear_probe(train_x, train_labels, x):
    """The label by ridge regression on train_x [n][D], for each row of x [m][D]: -> [m]."""
    n, rows = len(train_x), matrix([[*row, 1.0] for row in [*train_x, *x]], "train_x and x")
    classes, X_t = list(grouped(rows[:n], train_labels)), transpose(rows[:n])
    one_hot_t = [[float(label == c) for label in train_labels] for c in classes]
    A = [a + b for a, b in zip(matmul_t(X_t, X_t), matmul_t(X_t, one_hot_t))]
    for i in range(len(A)): A[i][i] = 1.01 * A[i][i] + 1e-9  # a ridge of 1 % of the sum of squares
    for i in range(len(A)):  # (X^T . X + ridge) . W^T = X^T . one_hot, solved by elimination
        A[i] = [v / A[i][i] for v in A[i]]
        A = [row if row is A[i] else [v - row[i] * p for v, p in zip(row, A[i])] for row in A]
    scores = matmul_t(rows[n:], transpose(A)[len(A):])                            # [m][classes]
    return [classes[row.index(max(row))] for row in scores]

def few_label_accuracy(classifier, x, labels, per_class, rng, draws=20):
    """Accuracy on rows x [n][D], 0 to 1, given per_class labels a class: mean over random draws."""
    members, total = grouped(range(len(x)), labels), 0.0
    x, labels = list(x), list(labels)  # by position, which the index of a pandas.Series is not
    for c, m in members.items(): check(0 < per_class < len(m), f"class {c!r} has only {len(m)}")
    check(isinstance(rng, random.Random), f"rng must be a generator, as random.Random({rng!r}) is")
    for _ in range(draws):
        known = [i for rows in members.values() for i in rng.sample(rows, per_class)]
        rest = sorted({*range(len(x))} - {*known})
        found = classifier([x[i] for i in known], [labels[i] for i in known], [x[i] for i in rest])
        total += sum(label == labels[i] for label, i in zip(found, rest)) / len(rest)
    return total / draws

# ---- The demo, and --collapse --------------------------------------------------------------------
def draw_data(seed):
    """Training images; 100 held-out images of each pattern, their coins [n][4] and labels [n]."""
    rng, labels = random.Random(seed), [name for name in PATTERNS for _ in range(100)]
    images = [draw_image(list(PATTERNS)[i % len(PATTERNS)], rng)[0] for i in range(NUM_IMAGES)]
    return (images, *transpose(draw_image(name, rng) for name in labels), labels)

def fit(seed, images, epochs, report=None, pred=1, var=1, cov=1, ema=1, stop=1):
    """A model trained with the settings above, its losses. 0: without that (ema: momentum 0)."""
    rng, weights = random.Random(seed), (pred * PRED_WEIGHT, var * VAR_WEIGHT, cov * COV_WEIGHT)
    model = init_model(2, 4, EMBED_DIM, HIDDEN_DIM, rng)
    return model, train(images, epochs, LEARNING_RATE, ema * MOMENTUM, BATCH_SIZE, *weights, GAMMA,
                        stop, rng, report, model)

def clean_image(name):
    """A pattern at its mean contrast, with neither coins nor noise: [4][4]."""
    return [[0.9 * PATTERNS[name](row, column) for column in range(4)] for row in range(4)]

def clean_pairs(name):
    """Each patch of a pattern's clean image, with its negative unless they are one: [4] sets."""
    return [{tuple(p), tuple(-v for v in p)} for p in extract_patches(clean_image(name))]

def measure(model, data, seed):
    """A row of the demo's table (None: pixels). +coin: what coins explain beyond pattern, place."""
    _, held_out, coins, labels = data
    patches = [embed_patches(img, model) if model else extract_patches(img) for img in held_out]
    x, rows = [average(four) if model else sum(four, []) for four in patches], sum(patches, [])
    facts = [(name, k, c) for name, four in zip(labels, coins) for k, c in enumerate(four)]
    shares = [explained_share(rows, [f[:n] for f in facts]) for n in (1, 2, 3)]
    accuracy = [few_label_accuracy(classifier, x, labels, n, random.Random(seed))
                for classifier, n in ((nearest_mean, 1), (nearest_mean, 5), (linear_probe, 50))]
    pairs = [pair for name in labels for pair in clean_pairs(name)]  # of every held-out patch
    embs = {p: target_encode(p, model) for p in set().union(*pairs) if model}  # pixels: no guess
    guesses = [g for img in held_out if model for g in guess_patches(img, embs, model)]
    named = [{patch for _, patch in g[:len(pair)]} == pair for g, pair in zip(guesses, pairs)]
    return (*accuracy, shares[0], shares[2] - shares[1], sum(named) / (len(named) or math.nan))

def show(images):
    """Images side by side, two characters a pixel, from black (blank) to white (@); ?? for None."""
    shade = lambda v: "??" if v is None else 2 * " .:-=+*#%@"[int(min(9, max(0, 5 * v + 5)))]
    for rows in zip(*images): print("    ".join("".join(map(shade, row)) for row in rows).rstrip())

def demo(seed, epochs):
    """What `python3 jepa.py` prints."""
    data = images, held_out, _, _ = draw_data(seed)
    clean, weights = {p: clean_image(p) for p in PATTERNS}, (PRED_WEIGHT, VAR_WEIGHT, COV_WEIGHT)
    print("VibeML Micro JEPA - Learning Representations via Prediction\n" + "=" * 60)
    print(f"\nGenerated {len(images)} training images (4x4)\nArchitecture: 2x2 patches -> "
          f"{EMBED_DIM}-dim embeddings\n\nThe patterns:", ", ".join(clean))
    show(clean.values())
    print("\nA training image of each: some patches are negatives; ?? is hidden, to be predicted")
    show([img[:2] + [row[:2] + [None, None] for row in img[2:]] for img in images[:len(clean)]])
    print(f"\nTraining for {epochs} epochs...\nLearning rate: {LEARNING_RATE}, EMA momentum: "
          f"{MOMENTUM}\nLoss: {PRED_WEIGHT:g} Pred + {VAR_WEIGHT:g} Var + {COV_WEIGHT:g} Cov, "
          "weighted below; may rise with spread. Rank: dimensions used\n" + "-" * 60, flush=True)
    def report(epoch, losses, model):
        if epoch % 10 and epoch not in (1, epochs): return
        pred, var, cov = [w * losses[term] for w, term in zip(weights, ("pred", "var", "cov"))]
        rank = effective_rank([row for img in images for row in embed_patches(img, model)])
        print(f"Epoch {epoch:4} | Loss: {losses['loss']:.4f} | Pred: {pred:.4f} | Var: {var:.4f}",
              f"| Cov: {cov:.4f} | Rank: {rank:.2f}", flush=True)
    model, _ = fit(seed, images, epochs, report)
    print("\nRepresentation Quality Test\n" + "=" * 60 + "\nEmbeddings for different patterns:")
    embs = {name: embed(img, model) for name, img in clean.items()}
    for name, a in embs.items(): print(f"{name:12}: [" + ", ".join(f"{v:6.3f}" for v in a) + "]")
    print("\nCosine similarities between patterns:\n" + " " * 10, *[f"{name:>11}" for name in embs])
    for name, a in embs.items():
        cosines = [dot(a, b) / (math.hypot(*a) * math.hypot(*b) or math.nan) for b in embs.values()]
        print(f"{name:10}", *[f"{cosine:11.3f}" for cosine in cosines])
    print("\nA hidden patch, and the clean patches nearest to its prediction, with distances:\n"
          "The first two should be the patch and its negative: which one, no context can tell.")
    embs = {p: target_encode(p, model) for n in PATTERNS for pair in clean_pairs(n) for p in pair}
    for img in held_out[:300:100]:
        nearest = guess_patches(img, embs, model)[3][:3]
        print("hidden  " + "".join(f"{distance:8.2f}" for distance, _ in nearest))
        show([[p[:2], p[2:]] for p in (extract_patches(img)[3], *(patch for _, patch in nearest))])
    print(f"\n{'':18}   images named (chance {1 / len(clean):.0%})   patch variance    hidden\n"
          f"{'':18}  1/class  5/class probe@50  pattern    +coin    named")
    start = init_model(2, 4, EMBED_DIM, HIDDEN_DIM, random.Random(seed))
    rows = "pixels", "untrained", f"Var+Cov, {CONTROL_EPOCHS} epochs", "JEPA"  # no Pred: a control
    for row, net in zip(rows, (None, start, fit(seed, images, CONTROL_EPOCHS, pred=0)[0], model)):
        figures = measure(net, data, seed)  # those of the last row, JEPA, are used below
        print(f"{row:18}" + "".join(f"{v:9.1%}" for v in figures).replace("nan%", "   -"))
    print(f"\nLinear Probe Test: {100 * figures[2]:.4g}% accuracy on downstream classification!")

VARIANTS = {"everything on": {}, "no prediction": {"pred": 0}, "no stop-gradient": {"stop": 0},
            "no EMA": {"ema": 0}, "no Cov": {"cov": 0}, "no Var + Cov": {"var": 0, "cov": 0},
            "prediction alone": {"stop": 0, "ema": 0, "var": 0, "cov": 0}}

def verdict(share, rank):
    """Alive, or which collapse, by spread (a share of the untrained) and rank; NaN is not alive."""
    if share >= 0.1 and rank >= EMBED_DIM / 2: return "alive"
    return "TOTAL COLLAPSE" if share < 0.1 else "DIMENSIONAL COLLAPSE"

def collapse(seed, epochs):
    """What `python3 jepa.py --collapse` prints."""
    images, held_out, _, labels = draw_data(seed)
    print("Why does it not collapse, and how would you notice? Take parts away, look\n" + "=" * 60)
    print("Total collapse: spread below 10% of the untrained. Dimensional: few directions, rank\n"
          f"below {EMBED_DIM / 2:g} of {EMBED_DIM} (untrained often is). Pred unweighted. 1 label: "
          f"accuracy, chance {1 / len(PATTERNS):.0%}. {epochs} epochs.\n")
    print(f"{'':22}Pred  spread  rank  1 label  verdict")
    embs = lambda model: [row for img in held_out for row in embed_patches(img, model)]
    before = spread(embs(init_model(2, 4, EMBED_DIM, HIDDEN_DIM, random.Random(seed))))
    for name, off in VARIANTS.items():
        try: model, losses = fit(seed, images, epochs, **off)
        except FloatingPointError: print(f"{name:18}diverged", flush=True); continue
        share, rank = spread(embs(model)) / before, effective_rank(embs(model))
        one = few_label_accuracy(nearest_mean, [embed(img, model) for img in held_out], labels, 1,
                                 random.Random(seed))
        print(f"{name:18}{losses[-1]['pred']:8.4f}{share:8.2f}{rank:6.2f}{one:9.1%}"
              f"  {verdict(share, rank)}", flush=True)

def main():
    """The command line. Ctrl-C and | head end it quietly. Not run if pasted: see the last line."""
    parser = argparse.ArgumentParser(description="Train a micro JEPA on 4x4 images.")
    parser.add_argument("--seed", type=int, default=0, help="of data, weights and masks")
    parser.add_argument("--epochs", type=int, help="passes over the training images, 1 or more")
    parser.add_argument("--collapse", action="store_true", help="take parts away, watch what dies")
    options = parser.parse_args()
    for s in {"SIGINT", "SIGPIPE"} & {*vars(signal)}: signal.signal(vars(signal)[s], signal.SIG_DFL)
    run, epochs = (collapse, COLLAPSE_EPOCHS) if options.collapse else (demo, EPOCHS)
    if options.epochs is not None: epochs = options.epochs
    try: run(options.seed, epochs) if epochs > 0 else parser.error("--epochs must be 1 or more")
    except FloatingPointError as error: sys.exit(f"{error}")

if __name__ == "__main__" and ("__file__" in globals() or not hasattr(sys, "ps1")): main()
