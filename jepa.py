#!/usr/bin/env python3
"""Micro JEPA: a Joint-Embedding Predictive Architecture, small enough to read in ten minutes.

A JEPA learns from images without labels. It hides some patches of an image and predicts them from the
visible ones, but it predicts their *embeddings* (short lists of numbers made by an encoder), not their
pixels. What the visible patches cannot tell, such as noise, cannot be predicted, so the embedding learns
to leave it out and to keep what the patches share: the pattern.

    visible patches --> context encoder --> mean --+
                             |                     +--> predictor --> prediction --+
                             |  position of hidden patch                           +--> mean squared error
                             v (moving average)                                    |
    hidden patch -----> target encoder ------------------------> target -----------+    + Var + Cov
                        (no gradient enters here)

Everything is here: the data, the networks, their hand-written backward pass, the training loop, and the
measurements that show what was learned. Only the standard library is used.

    python3 jepa.py                 train on 4x4 images and show what was learned, in seconds
    python3 jepa.py --collapse      take one part away at a time and watch what dies
    python3 jepa.py --help          all options
"""
import copy
import math
import random
import sys
from operator import add, mul

try:
    from math import sumprod as dot  # Python 3.12 and newer: a dot product in one call
except ImportError:
    def dot(a, b):
        return sum(map(mul, a, b))

# ---- 2. The settings of the demo ---------------------------------------------------------------------------
# All numbers that you may want to change stand here. Functions take them as default arguments, nothing else.

NUM_IMAGES = 200        # training images, a quarter of them of each pattern
PATCH_SIZE = 2          # pixels: a 4x4 image is cut into four 2x2 patches
NUM_PATCHES = 4         # patches an image
EMBED_DIM = 6           # D, numbers in an embedding
HIDDEN_DIM = 12         # H, hidden units of each network
EPOCHS = 500            # passes over the training images
BATCH_SIZE = 10         # images a gradient step
LEARNING_RATE = 0.02    # step size of gradient descent
MOMENTUM = 0.99         # share of itself that the target encoder keeps at each step
PRED_WEIGHT = 12.0      # weights of the three terms of the loss
VAR_WEIGHT = 30.0
COV_WEIGHT = 30.0
GAMMA = 0.4             # the standard deviation that Var asks of each embedding dimension
EPS = 1e-4              # keeps the square root in Var differentiable at zero variance

# ---- 3. Data: images, patches, masks -----------------------------------------------------------------------
# Four patterns, and two nuisances on top. A brightness drawn for each patch on its own cannot be predicted
# from the other patches; the pattern can. Whether an encoder can tell these two apart is the experiment.

PATTERNS = {
    "h_gradient": lambda row, column: column / 3,
    "v_gradient": lambda row, column: row / 3,
    "checker": lambda row, column: float((row + column) % 2 == 0),
    "uniform": lambda row, column: 0.5,
}


def clean_image(name):
    """The pattern itself: 4x4 pixels, [4][4], each between 0 and 1."""
    return [[PATTERNS[name](row, column) for column in range(4)] for row in range(4)]


def draw_image(name, rng):
    """A random image of a pattern: contrast 0.6-1.0, an offset to each 2x2 patch (sd 0.4), pixel noise (sd 0.05).

    Returns the image [4][4] (not clipped to 0-1) and the four offsets, in the order of extract_patches."""
    contrast = rng.uniform(0.6, 1.0)
    offsets = [rng.gauss(0.0, 0.4) for _ in range(4)]
    image = [[0.5 + contrast * (pixel - 0.5) + offsets[row // 2 * 2 + column // 2] + rng.gauss(0.0, 0.05)
              for column, pixel in enumerate(pixels)] for row, pixels in enumerate(clean_image(name))]
    return image, offsets


# Python's zip stops at the shorter list, and index -1 is the last item: both turn wrong input into wrong
# numbers. So each function that you may call checks its input at the door, with the next four helpers.

def _shown(value):
    """A value as an error message shows it: on one line, and not too long."""
    return " ".join(repr(value).split())[:60]


def _number(value, what, low=-math.inf, high=math.inf):
    """value as a float; TypeError if it is not a number, ValueError if it is not finite and in low...high."""
    try:
        finite = math.isfinite(value)
    except TypeError:
        raise TypeError(f"{what} must be a number, got {_shown(value)}") from None
    except OverflowError:  # an int too large for a float
        finite = False
    if not finite or not low <= value <= high:
        expected = "a finite number" if (low, high) == (-math.inf, math.inf) else f"between {low} and {high}"
        raise ValueError(f"{what} must be {expected}, got {_shown(value)}")
    return float(value)


def _whole(value, what, low, high=math.inf):
    """value as an int; TypeError if it is not a whole number, ValueError if it is not in low...high."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{what} must be a whole number, got {_shown(value)}")
    return int(_number(value, what, low, high))


def _list(values, what, length=None):
    """values as a list; TypeError if they are not in a row (list, tuple, array), ValueError if not `length` many."""
    if isinstance(values, (str, bytes, dict, set)) or not hasattr(values, "__len__"):
        raise TypeError(f"{what} must be a list, got {_shown(values)}")
    values = list(values)
    if len(values) != (length or len(values) or 1):
        raise ValueError(f"{what} must have {length or 'one or more'} items, got {len(values)}")
    return values


def extract_patches(img, patch_size=PATCH_SIZE):
    """Cut an image, H x W rows of numbers, into its K patches, in row-major order: [H][W] -> [K][patch_size^2].

    The image may be lists, tuples or a NumPy array. TypeError or ValueError if it is empty or ragged, has a
    pixel that is not a finite number, or does not divide into patches."""
    patch_size = _whole(patch_size, "patch_size", 1)
    rows = [_list(row, "a row of img") for row in _list(img, "img")]
    rows = [[_number(pixel, "a pixel of img") for pixel in _list(row, "img, ragged: a row", len(rows[0]))] for row in rows]
    height, width = len(rows), len(rows[0])
    if height % patch_size or width % patch_size:
        raise ValueError(f"img must divide into patches of {patch_size}x{patch_size}, got {height}x{width}")
    return [[pixel for row in rows[top:top + patch_size] for pixel in row[left:left + patch_size]]
            for top in range(0, height, patch_size) for left in range(0, width, patch_size)]


def random_masks(num_patches, rng):
    """Indices of the visible and of the hidden patches, about 75 % and 25 %, at least one of each, no overlap."""
    num_patches = _whole(num_patches, "num_patches (one to see and one to predict)", 2)
    order = list(range(num_patches))
    rng.shuffle(order)
    num_targets = max(1, round(0.25 * num_patches))
    return sorted(order[num_targets:]), sorted(order[:num_targets])


# ---- 4. A two-layer network and its backward pass ----------------------------------------------------------
# All three networks of a JEPA are of this kind here: y = W2 . relu(W1 . x + b1) + b2. A minibatch goes through as a
# list of rows, and both passes are made of dot products: of every row of one matrix with every row of another.

def matmul_t(a, b):
    """a . b^T: [n][k], [m][k] -> [n][m]."""
    return [[dot(row, other) for other in b] for row in a]


def linear(x, W, b):
    """x . W^T + b: [n][in], [out][in], [out] -> [n][out]."""
    layer = list(zip(W, b))
    if hasattr(math, "sumprod"):
        return [[dot(row, w) + bias for w, bias in layer] for row in x]
    return [[sum(map(mul, row, w), bias) for w, bias in layer] for row in x]


def transpose(a):
    """[n][k] -> [k][n]."""
    return list(zip(*a))


def init_mlp(num_in, num_hidden, num_out, rng):
    """A network {W1: [hidden][in], b1: [hidden], W2: [out][hidden], b2: [out]}.

    Weights uniform in +-sqrt(6 / (in + out)) (Xavier: Glorot and Bengio 2010, eq. 16), biases zero."""
    def xavier(rows, columns):
        limit = math.sqrt(6.0 / (rows + columns))
        return [[rng.uniform(-limit, limit) for _ in range(columns)] for _ in range(rows)]
    return {"W1": xavier(num_hidden, num_in), "b1": [0.0] * num_hidden,
            "W2": xavier(num_out, num_hidden), "b2": [0.0] * num_out}


def mlp_forward(net, x):
    """x [n][in] -> hidden activations [n][hidden], outputs [n][out]."""
    z1 = linear(x, net["W1"], net["b1"])                                   # [n][hidden]
    h = [[value if value > 0.0 else 0.0 for value in row] for row in z1]   # [n][hidden], relu
    return h, linear(h, net["W2"], net["b2"])                              # [n][hidden], [n][out]


def mlp_backward(net, x, h, dy):
    """The chain rule through mlp_forward, last operation first. dy [n][out] is dL/dy.

    Returns the gradient of each weight, in the shapes of `net`, and dz1 = dL/dz1 [n][hidden]."""
    dy_t, x_t, h_t = transpose(dy), transpose(x), transpose(h)             # [out][n], [in][n], [hidden][n]
    dW2 = matmul_t(dy_t, h_t)                                              # dL/dW2 = dy^T . h    [out][hidden]
    db2 = [sum(column) for column in dy_t]                                 # dL/db2 = sum of dy   [out]
    W2_t = transpose(net["W2"])                                            # [hidden][out]
    dz1 = [[dot(d, w) if value > 0.0 else 0.0 for value, w in zip(row, W2_t)]   # dL/dh = dy . W2, and relu
           for d, row in zip(dy, h)]                                       # lets it pass where h > 0  [n][hidden]
    dz1_t = transpose(dz1)                                                 # [hidden][n]
    dW1 = matmul_t(dz1_t, x_t)                                             # dL/dW1 = dz1^T . x   [hidden][in]
    db1 = [sum(column) for column in dz1_t]                                # dL/db1 = sum of dz1  [hidden]
    return {"W1": dW1, "b1": db1, "W2": dW2, "b2": db2}, dz1


def blend(a, net, b, other):
    """a * net + b * other, weight by weight, as a new network."""
    def rows(x, y):
        return [a * v + b * w for v, w in zip(x, y)]
    return {"W1": list(map(rows, net["W1"], other["W1"])), "b1": rows(net["b1"], other["b1"]),
            "W2": list(map(rows, net["W2"], other["W2"])), "b2": rows(net["b2"], other["b2"])}


# ---- 5. JEPA: predict the embedding of what is hidden from the embeddings of what is visible ----------------
# First one image, forward only, with the names of the diagram above. Then the loss and its gradient for a minibatch.

def init_model(patch_size=PATCH_SIZE, num_patches=NUM_PATCHES, embed_dim=EMBED_DIM, hidden_dim=HIDDEN_DIM, rng=None):
    """A fresh model: three networks in a dict, and nothing else. rng defaults to random.Random(0)."""
    rng = rng or random.Random(0)
    context_encoder = init_mlp(patch_size * patch_size, hidden_dim, embed_dim, rng)
    return {"context_encoder": context_encoder,
            "target_encoder": copy.deepcopy(context_encoder),  # starts equal, then follows as a moving average
            "predictor": init_mlp(embed_dim + num_patches, hidden_dim, embed_dim, rng)}


MODEL = init_model()  # the model that the functions below use, and train() trains, when none is given


def sizes(model):
    """(patch_size, num_patches, embed_dim) of a model, read off the shapes of its weights."""
    embed_dim = len(model["context_encoder"]["W2"])
    return math.isqrt(len(model["context_encoder"]["W1"][0])), len(model["predictor"]["W1"][0]) - embed_dim, embed_dim


def image_patches(img, model=MODEL):
    """The patches of an image, cut for this model: [H][W] -> [K][P]; ValueError if it has not K patches."""
    patch_size, num_patches, _ = sizes(model)
    patches = extract_patches(img, patch_size)
    if len(patches) != num_patches:
        raise ValueError(f"img must have {num_patches} patches of {patch_size}x{patch_size}, got {len(patches)}")
    return patches


def context_encode(patch, model=MODEL):
    """A visible patch [P] -> its embedding [D], by the encoder that gradient descent trains."""
    patch = [_number(pixel, "a pixel of patch") for pixel in _list(patch, "patch", sizes(model)[0] ** 2)]
    return mlp_forward(model["context_encoder"], [patch])[1][0]


def target_encode(patch, model=MODEL):
    """A hidden patch [P] -> the embedding [D] to be predicted, by the moving average of the context encoder."""
    patch = [_number(pixel, "a pixel of patch") for pixel in _list(patch, "patch", sizes(model)[0] ** 2)]
    return mlp_forward(model["target_encoder"], [patch])[1][0]


def predictor_input(avg_context, pos, num_patches):
    """What is seen, and where to look: [D] and a position -> [D + K], the position as a one-hot vector."""
    return avg_context + [1.0 if index == pos else 0.0 for index in range(num_patches)]


def predict(avg_context, pos, model=MODEL):
    """The mean context embedding [D] and the index of a hidden patch -> its predicted embedding [D]."""
    _, num_patches, embed_dim = sizes(model)
    avg_context = [_number(v, "avg_context") for v in _list(avg_context, "avg_context", embed_dim)]
    pos = _whole(pos, "pos", 0, num_patches - 1)
    return mlp_forward(model["predictor"], [predictor_input(avg_context, pos, num_patches)])[1][0]


def average(embeddings):
    """The mean of n embeddings, dimension by dimension: [n][D] -> [D]."""
    if len({len(embedding) for embedding in embeddings}) != 1:
        raise ValueError("embeddings must be one or more, of one length")
    return [sum(column) / len(column) for column in zip(*embeddings)]


def mse(predictions, targets):
    """The mean squared error over all numbers of both: [n][D], [n][D] -> a float."""
    if not predictions or [len(row) for row in predictions] != [len(row) for row in targets]:
        raise ValueError("predictions and targets must have one shape, [n][D]")
    squares = [(p - t) * (p - t) for p_row, t_row in zip(predictions, targets) for p, t in zip(p_row, t_row)]
    return sum(squares) / len(squares)


def jepa_forward(img, context_mask, target_mask, model=MODEL):
    """The prediction loss of one image, a float: context_mask lists its visible patches, target_mask the hidden."""
    patches = image_patches(img, model)
    context_mask = [_whole(i, "context_mask", 0, len(patches) - 1) for i in _list(context_mask, "context_mask")]
    target_mask = [_whole(i, "target_mask", 0, len(patches) - 1) for i in _list(target_mask, "target_mask")]
    if len(set(context_mask + target_mask)) < len(context_mask + target_mask):  # else the answer may leak
        raise ValueError(f"masks must not repeat or share a patch, got {context_mask} and {target_mask}")

    context_embs = [context_encode(patches[i], model) for i in context_mask]
    avg_context = average(context_embs)
    target_embs = [target_encode(patches[i], model) for i in target_mask]
    predictions = [predict(avg_context, pos, model) for pos in target_mask]
    return mse(predictions, target_embs)


# The prediction loss alone has a lazy solution: let every patch have the same embedding, and predict that. This
# is called collapse. Var and Cov (VICReg: Bardes, Ponce, LeCun 2022) forbid it. Var asks every dimension to vary,
# Cov asks that no two dimensions vary alike. Both are functions of the embeddings' covariance matrix.

def covariance(embeddings):
    """n embeddings [n][D] -> the same less their mean [n][D], and their covariance matrix [D][D] (VICReg eq. 3)."""
    columns = []                                                                                # [D][n]
    for column in transpose(embeddings):
        mean = sum(column) / len(column)
        columns.append([v - mean for v in column])
    degrees = max(1, len(embeddings) - 1)
    return transpose(columns), [[v / degrees for v in row] for row in matmul_t(columns, columns)]         # [D][D]


def variance_loss(C, gamma=GAMMA):
    """Var: how far the standard deviations fall short of gamma, mean over dimensions (VICReg eq. 1, 2)."""
    return sum(max(0.0, gamma - math.sqrt(C[d][d] + EPS)) for d in range(len(C))) / len(C)


def covariance_loss(C):
    """Cov: the sum of the squared off-diagonal covariances, over D (VICReg eq. 4)."""
    return sum(C[i][j] * C[i][j] for i in range(len(C)) for j in range(len(C)) if i != j) / len(C)


def variance_covariance_gradient(centered, C, var_weight, cov_weight, gamma=GAMMA):
    """dL/dz [n][D] of var_weight * Var + cov_weight * Cov, for n embeddings z."""
    D, degrees = len(C), max(1, len(centered) - 1)
    dC = [[cov_weight * 2.0 * v / D for v in row] for row in C]    # dCov/dC_ij = 2 C_ij / D
    for d in range(D):                                             # dVar/dC_dd = -1 / (2 D sd), if sd < gamma
        sd = math.sqrt(C[d][d] + EPS)
        dC[d][d] = -var_weight / (2.0 * D * sd) if sd < gamma else 0.0
    # C = z^T . z / (n-1) for centered z, and dC is symmetric, so dL/dz = z . dC * 2 / (n-1). Centering z first
    # changes nothing in this: the columns of the result sum to zero already.
    return matmul_t(centered, [[v * 2.0 / degrees for v in row] for row in dC])


def loss_and_gradients(batch, model=MODEL, pred_weight=PRED_WEIGHT, var_weight=VAR_WEIGHT, cov_weight=COV_WEIGHT,
                       gamma=GAMMA, stop_gradient=True):
    """The loss of a minibatch and its gradient: one forward and one backward pass.

    batch: a list of (patches [K][P], context_mask, target_mask), one an image.
    Returns the terms {"pred", "var", "cov"}, each before its weight, and the gradients of the weighted sum,
    {"context_encoder": ..., "predictor": ...}, each in the shape of its network."""
    encoder, target_encoder, predictor = model["context_encoder"], model["target_encoder"], model["predictor"]
    _, K, D = sizes(model)

    # Forward. n visible and m hidden patches of all images go through together, each in one list of rows.
    x = [patches[i] for patches, context_mask, _ in batch for i in context_mask]          # [n][P]
    x_target = [patches[i] for patches, _, target_mask in batch for i in target_mask]     # [m][P]
    h, z = mlp_forward(encoder, x)                                                        # [n][H], [n][D]
    h_target, targets = mlp_forward(target_encoder, x_target)                             # [m][H], [m][D]
    x_pred, rows = [], iter(z)
    for _, context_mask, target_mask in batch:
        avg_context = average([next(rows) for _ in context_mask])                         # [D]
        x_pred += [predictor_input(avg_context, pos, K) for pos in target_mask]           # [m][D + K]
    h_pred, predictions = mlp_forward(predictor, x_pred)                                  # [m][H], [m][D]
    centered, C = covariance(z)                                                           # [n][D], [D][D]
    terms = {"pred": mse(predictions, targets), "var": variance_loss(C, gamma), "cov": covariance_loss(C)}

    # Backward, last operation first. Pred is a mean over m * D squares, so d(p - t)^2 = 2 (p - t) is divided by it.
    scale = pred_weight * 2.0 / (len(targets) * D)
    d_pred = [[scale * (p - t) for p, t in zip(*pair)] for pair in zip(predictions, targets)]   # [m][D]
    d_predictor, dz1 = mlp_backward(predictor, x_pred, h_pred, d_pred)
    d_avg = matmul_t(dz1, transpose(predictor["W1"])[:D])      # dL/dx = dz1 . W1, its first D columns  [m][D]
    dz, rows = [], iter(d_avg)
    for _, context_mask, target_mask in batch:                 # each visible patch has 1/n of the mean
        d_mean = [sum(column) / len(context_mask) for column in zip(*[next(rows) for _ in target_mask])]
        dz += [d_mean] * len(context_mask)                     # [n][D]
    d_vicreg = variance_covariance_gradient(centered, C, var_weight, cov_weight, gamma)     # [n][D]
    dz = [list(map(add, *pair)) for pair in zip(dz, d_vicreg)]
    d_encoder, _ = mlp_backward(encoder, x, h, dz)

    # The stop-gradient. The targets depend on weights too, and Pred falls faster if they may move towards the
    # predictions: that way lies collapse. So no gradient enters the target encoder, unless one asks for it.
    if not stop_gradient:
        d_target = [[-d for d in row] for row in d_pred]       # dPred/dtarget = -dPred/dprediction  [m][D]
        d_target_encoder, _ = mlp_backward(target_encoder, x_target, h_target, d_target)
        d_encoder = blend(1.0, d_encoder, 1.0, d_target_encoder)
    return terms, {"context_encoder": d_encoder, "predictor": d_predictor}


def ema_update(momentum=MOMENTUM, model=MODEL):
    """target encoder <- momentum * target encoder + (1 - momentum) * context encoder, in place."""
    momentum = _number(momentum, "momentum", 0, 1)
    target_encoder = model["target_encoder"]
    target_encoder.update(blend(momentum, target_encoder, 1.0 - momentum, model["context_encoder"]))


# ---- 6. Training -------------------------------------------------------------------------------------------
# Nothing new in the loop: draw masks, take the gradient, step against it, let the target encoder follow.

def is_finite(net):
    """Whether all weights are finite numbers (the sum of a row is not, as soon as one of them is not)."""
    return all(math.isfinite(sum(row)) for row in net["W1"] + net["W2"] + [net["b1"], net["b2"]])


def train(images, epochs=EPOCHS, lr=LEARNING_RATE, momentum=MOMENTUM, batch_size=BATCH_SIZE,
          pred_weight=PRED_WEIGHT, var_weight=VAR_WEIGHT, cov_weight=COV_WEIGHT, gamma=GAMMA,
          stop_gradient=True, rng=None, on_epoch=None, model=MODEL):
    """Train the model in place on images without labels, by stochastic gradient descent.

    rng draws the order of the images and their masks, and defaults to random.Random(0). on_epoch(epoch, losses),
    if given, is called after each epoch. Returns the losses of each epoch, its minibatches' mean, as dicts:
    "pred", "var" and "cov" before their weights, "loss" their weighted sum. Raises ValueError or TypeError for
    an impossible setting, FloatingPointError when the loss or a weight is no longer finite; the model is then as
    it was before that step."""
    epochs, batch_size = _whole(epochs, "epochs", 0), _whole(batch_size, "batch_size", 1)
    lr, momentum = _number(lr, "lr", 0), _number(momentum, "momentum", 0, 1)
    weights = [_number(weight, "a loss weight", 0) for weight in (pred_weight, var_weight, cov_weight)]
    gamma = _number(gamma, "gamma", 0)
    if lr == 0:
        raise ValueError("lr must be above 0, got 0")
    data = [image_patches(img, model) for img in _list(images, "images")]
    rng = rng or random.Random(0)
    history = []
    for epoch in range(1, epochs + 1):
        rng.shuffle(data)
        losses = {"loss": 0.0, "pred": 0.0, "var": 0.0, "cov": 0.0}
        for start in range(0, len(data), batch_size):
            batch = [(patches, *random_masks(len(patches), rng)) for patches in data[start:start + batch_size]]
            terms, gradients = loss_and_gradients(batch, model, *weights, gamma, stop_gradient)
            loss = dot(weights, [terms["pred"], terms["var"], terms["cov"]])
            stepped = {name: blend(1.0, model[name], -lr, gradients[name]) for name in gradients}
            if not math.isfinite(loss) or not all(map(is_finite, stepped.values())):
                raise FloatingPointError(f"training diverged in epoch {epoch}, its loss is no longer finite: "
                                         f"try a smaller lr than {lr}, or smaller loss weights")
            for name in stepped:
                model[name].update(stepped[name])
            ema_update(momentum, model)
            for name, value in dict(terms, loss=loss).items():
                losses[name] += value * len(batch) / len(data)
        history.append(losses)
        if on_epoch:
            on_epoch(epoch, losses)
    return history


# ---- 7. What was learned -----------------------------------------------------------------------------------
# A low loss proves nothing, a collapsed model has the lowest. So look at the embeddings: do they tell patterns
# apart, do they use all dimensions, what do they keep and what do they drop? Labels are used from here on only.

def embed_patches(img, model=MODEL):
    """The embeddings of all patches of an image, by the target encoder (as I-JEPA is evaluated): -> [K][D]."""
    return mlp_forward(model["target_encoder"], image_patches(img, model))[1]


def embed(img, model=MODEL):
    """The embedding of an image, the mean of its patches' embeddings: [H][W] -> [D]."""
    return average(embed_patches(img, model))


def cosine_similarity(a, b):
    """The cosine of the angle between two vectors, -1 to 1. ValueError if they differ in length or one is zero."""
    norm = math.sqrt(dot(a, a) * dot(b, b))
    if len(a) != len(b) or norm == 0.0:
        raise ValueError(f"cosine needs two vectors of one length, not zero, got {_shown(a)} and {_shown(b)}")
    return dot(a, b) / norm


def effective_rank(embeddings):
    """How many dimensions n embeddings [n][D] really use, by the participation ratio (tr C)^2 / sum of C_ij^2:
    D if all vary equally and independently, 1 if all lie on a line, 0 if all are the same."""
    _, C = covariance(embeddings)
    squares = sum(dot(row, row) for row in C)
    return sum(C[d][d] for d in range(len(C))) ** 2 / squares if squares > 0.0 else 0.0


def spread(embeddings):
    """The standard deviation of n embeddings [n][D], root mean square over dimensions."""
    _, C = covariance(embeddings)
    return math.sqrt(sum(C[d][d] for d in range(len(C))) / len(C))


def explained_share(embeddings, groups):
    """Which share of the variance of n embeddings is explained by the group each is in, 0 to 1: the variance of
    the groups' means over the variance of all (eta squared)."""
    overall, total, between = average(embeddings), 0.0, 0.0
    for group in dict.fromkeys(groups):
        members = [embedding for embedding, g in zip(embeddings, groups) if g == group]
        between += len(members) * sum((m - o) * (m - o) for m, o in zip(average(members), overall))
        total += sum((v - o) * (v - o) for member in members for v, o in zip(member, overall))
    return between / total


def classifier_accuracy(W, b, classes, x, labels):
    """The share of x [n][D] to which the linear classifier W [classes][D], b [classes] gives its label."""
    scores = linear(x, W, b)                                                                  # [n][classes]
    return sum(classes[row.index(max(row))] == label for row, label in zip(scores, labels)) / len(labels)


def nearest_mean(train_x, train_labels, test_x, test_labels):
    """Accuracy, 0 to 1, of giving each test vector the class whose mean training vector is nearest."""
    classes = list(dict.fromkeys(train_labels))
    means = [average([x for x, label in zip(train_x, train_labels) if label == c]) for c in classes]
    # |x - m|^2 = |x|^2 - 2 (x . m - |m|^2 / 2): the nearest mean has the highest score in the brackets.
    return classifier_accuracy(means, [-0.5 * dot(m, m) for m in means], classes, test_x, test_labels)


def solve(A, B):
    """X with A . X = B, for a symmetric positive definite A, by Gauss-Jordan elimination: [n][n], [n][m] -> [n][m]."""
    rows = [list(a) + list(b) for a, b in zip(A, B)]
    for i in range(len(rows)):
        rows[i] = [v / rows[i][i] for v in rows[i]]
        rows = [row if j == i else [v - row[i] * p for v, p in zip(row, rows[i])] for j, row in enumerate(rows)]
    return [row[len(rows):] for row in rows]


def linear_probe(train_x, train_labels, test_x, test_labels):
    """Accuracy, 0 to 1, of a linear classifier on frozen vectors, fitted to one-hot labels by ridge regression."""
    classes = list(dict.fromkeys(train_labels))
    mean_x, centered = average(train_x), covariance(train_x)[0]                               # [D], [n][D]
    x_t = transpose(centered)
    y_t = [[float(label == c) - 1 / len(classes) for label in train_labels] for c in classes]  # [classes][n]
    A = matmul_t(x_t, x_t)
    ridge = 1e-3 * sum(A[d][d] for d in range(len(A))) / len(A) or 1.0
    for d in range(len(A)):
        A[d][d] += ridge
    W = transpose(solve(A, matmul_t(x_t, y_t)))                                               # [classes][D]
    return classifier_accuracy(W, [-dot(w, mean_x) for w in W], classes, test_x, test_labels)


def few_label_accuracy(classifier, x, labels, per_class, rng, draws=20):
    """The accuracy of a classifier trained on `per_class` random vectors of each class and tested on all others,
    mean over `draws` random choices."""
    total = 0.0
    for _ in range(draws):
        order = list(range(len(x)))
        rng.shuffle(order)
        chosen = [i for c in dict.fromkeys(labels) for i in [i for i in order if labels[i] == c][:per_class]]
        rest = sorted(set(order) - set(chosen))
        total += classifier([x[i] for i in chosen], [labels[i] for i in chosen],
                            [x[i] for i in rest], [labels[i] for i in rest])
    return total / draws


# ---- 8. The demo -------------------------------------------------------------------------------------------
# The same network with the same initial weights, before and after training, on images that it has never seen.

def draw_images(per_class, rng):
    """per_class images of each pattern: images, their labels, and their patch offsets, three lists."""
    labels = [name for name in PATTERNS for _ in range(per_class)]
    images, offsets = zip(*[draw_image(name, rng) for name in labels])
    return list(images), labels, list(offsets)


def round_weights(model):
    """Round the trained weights to six decimals, in place.

    Training is chaotic: a difference in the last bit of one sum grows until it shows, after some 100 epochs, and
    Python versions differ there. Rounded once an epoch, they stay together, and print the same to the last byte."""
    for name in ("context_encoder", "predictor"):
        for weights in model[name].values():
            for i, row in enumerate(weights):
                weights[i] = [round(v, 6) for v in row] if isinstance(row, list) else round(row, 6)


def print_images(titles, images):
    """Images side by side, two characters a pixel, light where the pixel is high; ?? where it is None."""
    print("  ".join(f"{title:12}" for title in titles).rstrip())
    for rows in zip(*images):
        print("  ".join(f"{''.join('??' if p is None else 2 * ' .:-=+*#%@'[min(9, max(0, int(10 * p)))] for p in row):12}"
                        for row in rows).rstrip())


def vector_text(vector):
    return "[" + ", ".join(f"{v:6.3f}" for v in vector) + "]"


def print_embeddings(model):
    """The embeddings of the four clean patterns, and the cosine of each pair."""
    embeddings = {name: embed(clean_image(name), model) for name in PATTERNS}
    print("Embeddings for different patterns:")
    for name, embedding in embeddings.items():
        print(f"{name:12}: {vector_text(embedding)}")
    print("\nCosine similarities between patterns:")
    print(" " * 10 + "".join(f"{name:>12}" for name in PATTERNS))
    for name, embedding in embeddings.items():
        print(f"{name:10}" + "".join(f"{cosine_similarity(embedding, other):12.3f}" for other in embeddings.values()))


def accuracies(x, labels, seed):
    """Held-out accuracy with 1 and 5 labels a class (nearest mean), then with 5 and 50 (linear probe)."""
    return [few_label_accuracy(classifier, x, labels, per_class, random.Random(seed)) for classifier, per_class in
            ((nearest_mean, 1), (nearest_mean, 5), (linear_probe, 5), (linear_probe, 50))]


def shares(model, images, labels, offsets):
    """The share of variance that the pattern explains of image embeddings, and brightness of patch embeddings."""
    patches = [embedding for img in images for embedding in embed_patches(img, model)]
    flat = [offset for four in offsets for offset in four]
    tenth = {i: 10 * rank // len(flat) for rank, i in enumerate(sorted(range(len(flat)), key=flat.__getitem__))}
    return (explained_share([embed(img, model) for img in images], labels),
            explained_share(patches, [tenth[i] for i in range(len(flat))]))


def noise_cosines(model, rng, draws=20):
    """Mean cosine of a clean pattern and the same with pixel noise of sd 0.05, 0.1, 0.2; last, of two patterns."""
    clean = [clean_image(name) for name in PATTERNS]
    row = []
    for sd in (0.05, 0.1, 0.2):
        row.append(average([[cosine_similarity(embed(img, model), embed(
            [[pixel + rng.gauss(0.0, sd) for pixel in pixels] for pixels in img], model))]
            for img in clean for _ in range(draws)])[0])
    return row + average([[cosine_similarity(embed(a, model), embed(b, model))] for a in clean for b in clean if a != b])


def demo(seed, epochs):
    """Everything that `python3 jepa.py` prints."""
    print("VibeML Micro JEPA - Learning Representations via Prediction\n" + "=" * 60)
    untrained, model, rng = init_model(rng=random.Random(seed)), init_model(rng=random.Random(seed)), random.Random(seed)
    images, _, _ = draw_images(NUM_IMAGES // len(PATTERNS), rng)
    held_out, labels, offsets = draw_images(100, rng)
    patches = [patch for img in images for patch in extract_patches(img)]
    print(f"\nGenerated {NUM_IMAGES} training images (4x4)\nArchitecture: 2x2 patches -> {EMBED_DIM}-dim embeddings")

    print("\nThe four patterns, and under each a training image of it. Each patch has a brightness of its own:")
    print("it cannot be predicted from the other patches, the pattern can.")
    print_images(PATTERNS, [clean_image(name) for name in PATTERNS])
    examples = images[::NUM_IMAGES // len(PATTERNS)]
    print_images([""] * 4, examples)
    print("\nOne image as training sees it: predict the embedding of the patch ?? from the other three.")
    print_images([""], [[[None if r > 1 and c > 1 else p for c, p in enumerate(row)] for r, row in enumerate(examples[2])]])

    print("\nBefore Training: one blur, every pattern has nearly the same direction\n" + "=" * 60)
    print_embeddings(untrained)

    print(f"\nTraining for {epochs} epochs...\nLearning rate: {LEARNING_RATE}, EMA momentum: {MOMENTUM}")
    print(f"Loss = {PRED_WEIGHT:g} x prediction error + {VAR_WEIGHT:g} x variance term + {COV_WEIGHT:g} x covariance term")
    print("-" * 60, flush=True)

    def report(epoch, losses):
        round_weights(model)
        if epoch % 50 == 0 or epoch == epochs:
            rank = effective_rank(mlp_forward(model["context_encoder"], patches)[1])
            print(f"Epoch {epoch:4d} | Loss: {losses['loss']:.4f} | Pred: {PRED_WEIGHT * losses['pred']:.4f} | "
                  f"Var: {VAR_WEIGHT * losses['var']:.4f} | Cov: {COV_WEIGHT * losses['cov']:.4f} | Rank: {rank:.2f}",
                  flush=True)
    train(images, epochs, rng=rng, on_epoch=report, model=model)
    print(f"Rank: how many of the {EMBED_DIM} dimensions are in use. Pred may rise with it, as there is more to predict.")

    print("\nRepresentation Quality Test\n" + "=" * 60)
    print_embeddings(model)

    print("\nPredicted and target embedding of each patch of a held-out image, from the other three:")
    for pos in range(NUM_PATCHES):
        seen = [patch for i, patch in enumerate(extract_patches(held_out[0])) if i != pos]
        prediction = predict(average([context_encode(patch, model) for patch in seen]), pos, model)
        print(f"patch {pos}, predicted: {vector_text(prediction)}")
        print(f"            target: {vector_text(embed_patches(held_out[0], model)[pos])}")

    rows = [(f"{name:18}", accuracies(x, labels, seed)) for name, x in (
        ("pixels (16)", [[pixel for row in img for pixel in row] for img in held_out]),
        ("untrained encoder", [embed(img, untrained) for img in held_out]),
        ("JEPA", [embed(img, model) for img in held_out]))]
    print(f"\nLinear Probe Test: {100 * rows[-1][1][-1]:.4g}% accuracy on downstream classification!")
    print("That is easy with 50 labels a class, even from pixels. Few labels are the test: they suffice only if")
    print("an embedding already keeps images of a pattern together and the patterns apart.")
    print(f"Accuracy on held-out images (chance 25 %), mean of 20 draws of the labelled ones:")
    print(f"{'labels a class':18}  1 (nearest mean)  5 (nearest mean)  5 (linear probe)  50 (linear probe)")
    for name, row in rows:
        print(name + "".join(f"{100 * value:16.1f} %" for value in row))

    print("\nWhat it keeps and what it drops: the share of the variance of held-out embeddings explained by the")
    print("pattern (image embeddings) and by the unpredictable brightness (patch embeddings). A share is the")
    print("variance of the means of groups, of one pattern or of one tenth of the brightnesses, over that of all.")
    print(f"{'':18}{'pattern':>18}{'brightness':>18}")
    for name, net in (("untrained encoder", untrained), ("JEPA", model)):
        print(f"{name:18}" + "".join(f"{share:18.2f}" for share in shares(net, held_out, labels, offsets)))

    print("\nCosine of a clean pattern's embedding and that of the same pattern with pixel noise; in the last column,")
    print("of two different patterns. Near 1 in both is no invariance: such an encoder sees no difference at all.")
    print(f"{'':18}{'sd 0.05':>12}{'sd 0.1':>12}{'sd 0.2':>12}{'other pattern':>18}")
    for name, net in (("untrained encoder", untrained), ("JEPA", model)):
        row = noise_cosines(net, random.Random(seed))
        print(f"{name:18}" + "".join(f"{v:12.2f}" for v in row[:-1]) + f"{row[-1]:18.2f}")


def main(arguments=None):
    import argparse  # only the command line needs it
    parser = argparse.ArgumentParser(prog="jepa.py", allow_abbrev=False, description="Train a micro JEPA.")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--epochs", type=int, metavar="N")
    options = parser.parse_args(arguments)
    demo(options.seed, EPOCHS if options.epochs is None else options.epochs)


if __name__ == "__main__":
    main()
