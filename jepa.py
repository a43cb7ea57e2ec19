#!/usr/bin/env python3
"""Micro JEPA: a Joint-Embedding Predictive Architecture, small enough to read in one sitting.

A JEPA learns from images without labels. It hides some patches of an image (the targets) and predicts them
from the visible ones (the context); not their pixels, but their *embeddings*, short lists of numbers that an
encoder makes of patches. What is a patch's own, such as its noise, neither can be predicted nor helps to
predict the others; so the encoder has no reason to keep it, unlike what patches share: the pattern.

                                    target position --+
                                                      +---> predictor ---> prediction ---+
    context patches ---> context encoder ---> mean ---+                                  |
                                :                                                        +---> squared error
                                : slowly copied (moving average)                         |
    target patch ------> target encoder ----------------------------> target ------------+

The loss is this error and two terms more, Var and Cov, that keep the embeddings from becoming all the same.
Its gradient trains the predictor and the context encoder. None enters the target encoder, which only follows.

    python3 jepa.py               train on 4x4 images and show what was learned
    python3 jepa.py --collapse    take parts away and watch what dies
    python3 jepa.py --help        all options

In reading order: 1 this text, 2 settings, 3 data, 4 a network and its backward pass, 5 JEPA, 6 training,
7 what was learned, 8 the demo. It needs nothing but Python.
"""
import copy
import math
import os
import random
import sys
from operator import mul

try:
    from math import sumprod as dot  # Python 3.12 and newer
except ImportError:
    def dot(a, b):
        """The dot product of two vectors of one length: [k], [k] -> a float."""
        return sum(map(mul, a, b))

# ---- 2. The settings of the demo ---------------------------------------------------------------------------
# Change one and run the demo again. They are also the default arguments of the functions below.

NUM_IMAGES = 200        # training images, a quarter of them of each pattern; 4 or more
PATCH_SIZE = 2          # a patch has 2x2 pixels, P = 4 numbers (the demo needs 2)
NUM_PATCHES = 4         # K: patches in an image (the demo's 4x4 images have 4)
EMBED_DIM = 6           # D: numbers in an embedding
HIDDEN_DIM = 12         # H: hidden units of each network
EPOCHS = 500            # passes over the training images
BATCH_SIZE = 10         # images in a minibatch; each minibatch makes one gradient step
LEARNING_RATE = 0.02    # a step is this times the gradient
MOMENTUM = 0.99         # what the target encoder keeps of itself at each step
PRED_WEIGHT = 15.0      # weights of the three terms of the loss, see section 5: Pred,
VAR_WEIGHT = 45.0       # Var
COV_WEIGHT = 45.0       # and Cov
GAMMA = 0.35            # the standard deviation that Var asks of each dimension of the embeddings
EPS = 1e-4              # keeps the square root in Var differentiable at 0
COLLAPSE_EPOCHS = 75    # epochs of each row of --collapse

# ---- 3. Data: images, patches, masks -----------------------------------------------------------------------
# Four patterns, and nuisances on top. Each patch has a brightness drawn for it alone: the others do not tell
# it, but they do tell the pattern. Whether an encoder learns to separate these two is the experiment.

PATTERNS = {  # the brightness of a pixel, 0 to 1, by its row and column, 0 to 3
    "h_gradient": lambda row, column: column / 3,
    "v_gradient": lambda row, column: row / 3,
    "checker": lambda row, column: float((row + column) % 2 == 0),
    "uniform": lambda row, column: 0.5,
}


def clean_image(name):
    """The pattern of this name alone: [4][4], pixels 0 to 1."""
    return [[PATTERNS[name](row, column) for column in range(4)] for row in range(4)]


def draw_image(name, rng):
    """A random image of a pattern, [4][4], and the brightness offsets of its four patches, [4].

    Drawn are a contrast from 0.6-1.0, an offset for each patch (standard deviation, sd, 0.4), and noise for
    each pixel (sd 0.04)."""
    contrast = rng.uniform(0.6, 1.0)
    offsets = [rng.gauss(0.0, 0.4) for _ in range(4)]
    image = clean_image(name)
    for row in range(4):
        for column in range(4):
            patch = row // 2 * 2 + column // 2
            image[row][column] = (0.5 + contrast * (image[row][column] - 0.5) + offsets[patch]
                                  + rng.gauss(0.0, 0.04))
    return image, offsets


# Python's zip stops at the shorter list, and index -1 is the last item: both turn wrong input into wrong
# numbers. So the functions that you may call check what you pass in, with these five. At a first reading,
# skip to extract_patches.

def _shown(value):
    """A value as an error message shows it: on one line, and not too long."""
    try:
        return " ".join(repr(value).split())[:60]
    except ValueError:  # an int of more digits than Python prints
        return f"a {type(value).__name__} too long to show"


def _number(value, what, low=-math.inf, high=math.inf):
    """value as a float; TypeError if it is no number, ValueError if it is not finite or not in low...high."""
    try:
        if isinstance(value, complex):  # NumPy's have a float(), which drops a part
            raise TypeError
        finite = math.isfinite(value)
    except TypeError:
        raise TypeError(f"{what} must be a number, got {_shown(value)}") from None
    except OverflowError:  # an int too large for a float
        finite = False
    if not finite or not low <= value <= high:
        upper = f" to {high}" if high < math.inf else " or more"
        bounds = "finite" if low == -math.inf else f"{low}{upper}"
        raise ValueError(f"{what} must be a number, {bounds}, got {_shown(value)}")
    return float(value)


def _whole(value, what, low, high=math.inf):
    """value as an int; TypeError if it is no whole number, ValueError if it is not in low...high."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{what} must be a whole number, got {_shown(value)}")
    return int(_number(value, what, low, high))


def _list(values, what, length=None):
    """values as a list; TypeError if no list, tuple or array, ValueError if empty or not `length` many."""
    unordered_or_text = isinstance(values, (str, bytes, dict, set, frozenset))
    if unordered_or_text or not hasattr(values, "__len__") or getattr(values, "shape", None) == ():
        raise TypeError(f"{what} must be a list, got {_shown(values)}")
    if len(values) == 0 or length not in (None, len(values)):
        raise ValueError(f"{what} must have {length or 'one or more'} items, got {len(values)}")
    return list(values)


def _rows(values, what):
    """values as a list of rows; TypeError or ValueError unless they are one or more lists, none empty."""
    rows = _list(values, what)
    if not {type(row) for row in rows} <= {list, tuple} or not all(rows):  # quick, as training asks often
        rows = [_list(row, "each of " + what) for row in rows]
    return rows


def extract_patches(img, patch_size=PATCH_SIZE):
    """Cut an image into K patches, row by row, each a flat list of P = patch_size^2 floats:
    [height][width] -> [K][P].

    The image may be lists, tuples or a NumPy array. TypeError or ValueError if it is empty or ragged, if a
    pixel is not a finite number, or if patch_size does not divide both sides."""
    patch_size = _whole(patch_size, "patch_size", 1)
    rows = [_list(row, "a row of img") for row in _list(img, "img")]
    height, width = len(rows), len(rows[0])
    rows = [[_number(pixel, "a pixel of img") for pixel in _list(row, "a row of img", width)] for row in rows]
    if height % patch_size or width % patch_size:
        raise ValueError(f"img must divide into patches of {patch_size}x{patch_size}, got {height}x{width}")
    return [[pixel for row in rows[top:top + patch_size] for pixel in row[left:left + patch_size]]
            for top in range(0, height, patch_size) for left in range(0, width, patch_size)]


def random_masks(num_patches, rng):
    """A context mask and a target mask: the indices of about 75 % and 25 % of the patches, one at least."""
    order = list(range(_whole(num_patches, "num_patches (some to see, some to predict)", 2)))
    rng.shuffle(order)
    num_targets = max(1, round(0.25 * num_patches))
    return sorted(order[num_targets:]), sorted(order[:num_targets])


def check_masks(context_mask, target_mask, num_patches):
    """TypeError or ValueError unless both list different patches, 0 to num_patches-1, and share none (or the
    answer would leak into the question)."""
    both = [*context_mask, *target_mask]
    if not all(hasattr(i, "__index__") and not isinstance(i, bool) for i in both):
        raise TypeError(f"masks must hold whole numbers, got {_shown([context_mask, target_mask])}")
    empty, repeats = 0 in (len(context_mask), len(target_mask)), len(set(both)) < len(both)
    if empty or repeats or not set(both) <= set(range(num_patches)):
        raise ValueError(f"masks must each list different patches from 0 to {num_patches - 1}, none in both, "
                         f"got {_shown([context_mask, target_mask])}")


# ---- 4. A two-layer network and its backward pass ----------------------------------------------------------
# All three networks here are of one kind: y = W2 . relu(W1 . x + b1) + b2, where relu makes negatives 0.
# A minibatch goes through as a list of rows, and both passes are made of dot products: each row of one matrix
# with each row of another.

def linear(x, W, b):
    """x . W^T + b: [n][in], [out][in], [out] -> [n][out]."""
    layer = list(zip(W, b))
    if sys.version_info >= (3, 12):
        return [[dot(row, w) + bias for w, bias in layer] for row in x]
    return [[sum(map(mul, row, w), bias) for w, bias in layer] for row in x]  # faster before 3.12


def matmul_t(a, b):
    """a . b^T: [n][k], [m][k] -> [n][m]."""
    return [[dot(row, other) for other in b] for row in a]


def transpose(a):
    """a^T: [n][k] -> [k][n]."""
    return list(zip(*a))


def init_mlp(num_in, num_hidden, num_out, rng):
    """A network, as a dict: W1 [hidden][in], b1 [hidden], W2 [out][hidden], b2 [out].

    Weights are uniform in +-sqrt(6 / (in + out)) (Xavier: Glorot and Bengio 2010, eq. 16), biases zero."""
    def xavier(rows, columns):
        """Random weights [rows][columns]."""
        limit = math.sqrt(6.0 / (rows + columns))
        return [[rng.uniform(-limit, limit) for _ in range(columns)] for _ in range(rows)]
    return {"W1": xavier(num_hidden, num_in), "b1": [0.0] * num_hidden,
            "W2": xavier(num_out, num_hidden), "b2": [0.0] * num_out}


def mlp_forward(net, x):
    """Inputs x [n][in] -> hidden activations h [n][hidden] and outputs y [n][out]."""
    z1 = linear(x, net["W1"], net["b1"])                                   # [n][hidden]
    h = [[v if v > 0.0 else 0.0 for v in row] for row in z1]               # [n][hidden]   relu
    y = linear(h, net["W2"], net["b2"])                                    # [n][out]
    return h, y


def mlp_backward(net, x, h, dy):
    """The chain rule through mlp_forward, last operation first. dW1 is short for dL/dW1, and so on; dy
    [n][out] is given.

    Returns the gradients of the weights, in the shapes of `net`, and dz1 [n][hidden]. Who needs the gradient
    of the inputs too gets it from that: dx = dz1 . W1 [n][in]."""
    dW2 = matmul_t(transpose(dy), transpose(h))                            # [out][hidden]  dW2 = dy^T . h
    db2 = [sum(column) for column in transpose(dy)]                        # [out]          db2 = sum of dy
    W2_t = transpose(net["W2"])                                            # [hidden][out]
    dz1 = [[dot(dy_row, w) if v > 0.0 else 0.0 for v, w in zip(h_row, W2_t)]
           for h_row, dy_row in zip(h, dy)]                                # [n][hidden]    dy . W2 if h > 0
    dW1 = matmul_t(transpose(dz1), transpose(x))                           # [hidden][in]   dW1 = dz1^T . x
    db1 = [sum(column) for column in transpose(dz1)]                       # [hidden]       db1 = sum of dz1
    return {"W1": dW1, "b1": db1, "W2": dW2, "b2": db2}, dz1


def blend(a, net, b, other):
    """a * net + b * other, weight by weight, as a new network: a gradient step or a moving average."""
    def rows(x, y):
        """a * x + b * y, for two rows [k]."""
        return [a * v + b * w for v, w in zip(x, y)]
    return {"W1": list(map(rows, net["W1"], other["W1"])), "b1": rows(net["b1"], other["b1"]),
            "W2": list(map(rows, net["W2"], other["W2"])), "b2": rows(net["b2"], other["b2"])}


def is_finite(net):
    """Whether all weights are finite. (The sum of a row is not, if one of its numbers is not.)"""
    return all(math.isfinite(sum(row)) for row in net["W1"] + net["W2"] + [net["b1"], net["b2"]])


# ---- 5. JEPA -----------------------------------------------------------------------------------------------
# First one image and forward only, in the words of the diagram, for you to read and to call. Training does
# the same for a minibatch at once, in loss_and_gradients further down.

def init_model(patch_size=PATCH_SIZE, num_patches=NUM_PATCHES, embed_dim=EMBED_DIM, hidden_dim=HIDDEN_DIM,
               rng=None):
    """A new model: a dict of three networks, and nothing else. rng is random.Random(0) if not given."""
    for what, size in (("patch_size", patch_size), ("num_patches", num_patches), ("embed_dim", embed_dim),
                       ("hidden_dim", hidden_dim)):
        _whole(size, what, 1)
    rng = rng or random.Random(0)
    context_encoder = init_mlp(patch_size * patch_size, hidden_dim, embed_dim, rng)
    return {"context_encoder": context_encoder,
            "target_encoder": copy.deepcopy(context_encoder),  # they start equal
            "predictor": init_mlp(embed_dim + num_patches, hidden_dim, embed_dim, rng)}


MODEL = init_model()  # what functions use, and train() trains, if given no model


def sizes(model):
    """(patch_size, K, D) of a model, read off the shapes of its weights."""
    embed_dim = len(model["context_encoder"]["W2"])
    patch_size = math.isqrt(len(model["context_encoder"]["W1"][0]))
    return patch_size, len(model["predictor"]["W1"][0]) - embed_dim, embed_dim


def image_patches(img, model=MODEL):
    """The patches of an image, as this model takes them: [height][width] -> [K][P]. ValueError if not K."""
    patch_size, num_patches, _ = sizes(model)
    return _list(extract_patches(img, patch_size), f"img in {patch_size}x{patch_size} patches", num_patches)


def _patch(patch, model):
    return [_number(pixel, "a pixel of patch") for pixel in _list(patch, "patch", sizes(model)[0] ** 2)]


def context_encode(patch, model=MODEL):
    """A context patch [P] -> its embedding [D], by the encoder that gradient descent trains."""
    _, embeddings = mlp_forward(model["context_encoder"], [_patch(patch, model)])    # [1][H], [1][D]
    return embeddings[0]


def target_encode(patch, model=MODEL):
    """A target patch [P] -> the embedding [D] to predict, by the moving average of the context encoder."""
    _, embeddings = mlp_forward(model["target_encoder"], [_patch(patch, model)])     # [1][H], [1][D]
    return embeddings[0]


def predictor_input(avg_context, pos, num_patches):
    """What is seen and where to look: [D] and an index -> [D + K], the index as K numbers, a 1 among 0s."""
    return avg_context + [1.0 if i == pos else 0.0 for i in range(num_patches)]


def predict(avg_context, pos, model=MODEL):
    """The mean context embedding [D] and the index of the target patch -> its predicted embedding [D]."""
    _, num_patches, embed_dim = sizes(model)
    avg_context = [_number(v, "avg_context") for v in _list(avg_context, "avg_context", embed_dim)]
    pos = _whole(pos, "pos", 0, num_patches - 1)
    _, predictions = mlp_forward(model["predictor"], [predictor_input(avg_context, pos, num_patches)])
    return predictions[0]


def average(embeddings):
    """The mean of n embeddings: [n][D] -> [D]. ValueError if there are none, or of different lengths."""
    embeddings = _rows(embeddings, "embeddings")
    if len({len(embedding) for embedding in embeddings}) != 1:
        raise ValueError(f"embeddings must be one or more, all of one length, got {_shown(embeddings)}")
    return [sum(column) / len(column) for column in zip(*embeddings)]


def mse(predictions, targets):
    """The mean squared error over all numbers: [n][D], [n][D] -> a float. ValueError if the shapes differ."""
    predictions, targets = _rows(predictions, "predictions"), _rows(targets, "targets")
    if [len(row) for row in predictions] != [len(row) for row in targets]:
        raise ValueError("predictions and targets must have the same shape [n][D], got "
                         f"{_shown(predictions)} and {_shown(targets)}")
    squares = [(p - t) * (p - t) for p_row, t_row in zip(predictions, targets) for p, t in zip(p_row, t_row)]
    return sum(squares) / len(squares)


def jepa_forward(img, context_mask, target_mask, model=MODEL):
    """Pred, the prediction loss, of one image: a float. The masks list its context and its target patches."""
    patches = image_patches(img, model)
    context_mask, target_mask = _list(context_mask, "context_mask"), _list(target_mask, "target_mask")
    check_masks(context_mask, target_mask, len(patches))

    context_embs = [context_encode(patches[i], model) for i in context_mask]      # [context][D]
    avg_context = average(context_embs)                                           # [D]
    target_embs = [target_encode(patches[i], model) for i in target_mask]         # [targets][D]
    predictions = [predict(avg_context, pos, model) for pos in target_mask]       # [targets][D]
    return mse(predictions, target_embs)


# Pred alone can be cheated: give every patch the same embedding, and it is predicted perfectly. That is total
# collapse. Against it stand the stop-gradient (end of this section), and two further terms (VICReg: Bardes,
# Ponce, LeCun 2022, there for both branches, here for the context embeddings). Over all context patches of a
# minibatch, Var asks each dimension of the embeddings to vary. Cov asks no two of them to be correlated, or
# all might vary along one line: dimensional collapse. Both are made of the covariance matrix C of the
# embeddings: C[d][d] is the variance of dimension d, and C[i][j] tells how i and j move together.

def covariance(embeddings):
    """n embeddings z [n][D] -> z less its mean [n][D], and the covariance matrix C [D][D] (VICReg eq. 3)."""
    mean = average(embeddings)                                                          # [D]
    centered = [[v - m for v, m in zip(row, mean)] for row in embeddings]               # [n][D]
    columns = transpose(centered)                                                       # [D][n]
    degrees = max(1, len(centered) - 1)  # n - 1; the covariance of a single embedding is 0
    return centered, [[v / degrees for v in row] for row in matmul_t(columns, columns)]


def variance_loss(C, gamma=GAMMA, eps=EPS):
    """Var: by how much the sd of a dimension falls short of gamma, mean over dimensions (VICReg eq. 1, 2)."""
    return sum(max(0.0, gamma - math.sqrt(C[d][d] + eps)) for d in range(len(C))) / len(C)


def covariance_loss(C):
    """Cov: the sum of the squares of all covariances of two different dimensions, over D (VICReg eq. 4)."""
    return sum(C[i][j] * C[i][j] for i in range(len(C)) for j in range(len(C)) if i != j) / len(C)


def variance_covariance_gradient(centered, C, var_weight, cov_weight, gamma=GAMMA, eps=EPS):
    """The gradient of var_weight * Var + cov_weight * Cov by n embeddings: [n][D], [D][D] -> [n][D]."""
    D, degrees = len(C), max(1, len(centered) - 1)
    # Off the diagonal only Cov counts: dCov/dC_ij = 2 C_ij / D. On it only Var: dVar/dC_dd = -1 / (2 D sd) if
    # sd < gamma, else 0.
    dC = [[cov_weight * 2.0 * v / D for v in row] for row in C]                         # [D][D]
    for d in range(D):
        sd = math.sqrt(C[d][d] + eps)
        dC[d][d] = -var_weight / (2.0 * D * sd) if sd < gamma else 0.0
    # C = z^T . z / (n-1), where z are the centered embeddings; so, as dC is symmetric, dz = 2 z . dC / (n-1).
    # The way back through the centering would subtract the mean of dz, which is 0, as the mean of z is.
    return matmul_t(centered, [[2.0 * v / degrees for v in row] for row in dC])


# Now all of it for a minibatch, forward and backward. This function is the heart of the file.

def loss_and_gradients(batch, model=MODEL, pred_weight=PRED_WEIGHT, var_weight=VAR_WEIGHT,
                       cov_weight=COV_WEIGHT, gamma=GAMMA, stop_gradient=True):
    """The loss of a minibatch, pred_weight * Pred + var_weight * Var + cov_weight * Cov, and its gradient.

    batch holds (patches [K][P], context_mask, target_mask) for each image. Returns the three terms before
    weighting, {"pred", "var", "cov"}, and the gradient of the weighted sum, {"context_encoder", "predictor"},
    in the shapes of the networks. ValueError for wrong masks, or for Var or Cov of a single embedding."""
    encoder, target_encoder, predictor = model["context_encoder"], model["target_encoder"], model["predictor"]
    _, K, D = sizes(model)
    for _, context_mask, target_mask in batch:
        check_masks(context_mask, target_mask, K)

    # Forward. All n context patches of the minibatch go through in one list of rows, and all m targets.
    x = [patches[i] for patches, context_mask, _ in batch for i in context_mask]           # [n][P]
    x_target = [patches[i] for patches, _, target_mask in batch for i in target_mask]      # [m][P]
    if len(x) < 2 and (var_weight or cov_weight):
        raise ValueError(f"Var and Cov need 2 or more context patches in each minibatch, got {len(x)}")
    h, embs = mlp_forward(encoder, x)                                                      # [n][H], [n][D]
    h_target, targets = mlp_forward(target_encoder, x_target)                              # [m][H], [m][D]
    x_pred, emb_rows = [], iter(embs)
    for _, context_mask, target_mask in batch:
        avg_context = average([next(emb_rows) for _ in context_mask])  # of embs, the next rows are its own
        x_pred += [predictor_input(avg_context, pos, K) for pos in target_mask]            # all: [m][D + K]
    h_pred, predictions = mlp_forward(predictor, x_pred)                                   # [m][H], [m][D]
    centered, C = covariance(embs)                                                         # [n][D], [D][D]
    terms = {"pred": mse(predictions, targets), "var": variance_loss(C, gamma), "cov": covariance_loss(C)}

    # Backward, last operation first. Pred is a mean of m * D squares (p - t)^2: d_pred = 2 (p - t) / (m * D).
    scale = pred_weight * 2.0 / (len(targets) * D)
    d_predictions = [[scale * (p - t) for p, t in zip(p_row, t_row)]
                     for p_row, t_row in zip(predictions, targets)]                        # [m][D]
    d_predictor, dz1_pred = mlp_backward(predictor, x_pred, h_pred, d_predictions)
    d_avg = matmul_t(dz1_pred, transpose(predictor["W1"])[:D])   # [m][D]  dx = dz1 . W1, its first D columns
    d_vicreg = variance_covariance_gradient(centered, C, var_weight, cov_weight, gamma)    # [n][D]
    d_embs, avg_rows, vicreg_rows = [], iter(d_avg), iter(d_vicreg)
    for _, context_mask, target_mask in batch:
        # Add up the gradients from the targets of the image (one, in the demo), as all were predicted from
        # the same mean; each of the k patches in that mean gets 1/k of it.
        d_image = [next(avg_rows) for _ in target_mask]                                    # [targets][D]
        d_each = [sum(column) / len(context_mask) for column in zip(*d_image)]             # [D]
        d_embs += [[a + b for a, b in zip(d_each, next(vicreg_rows))] for _ in context_mask]  # all: [n][D]
    d_encoder, _ = mlp_backward(encoder, x, h, d_embs)

    # The stop-gradient. Pred depends on the targets too, and falls faster if they may move towards their
    # predictions; but without Var and Cov that ends in total collapse (see --collapse). So the backward pass
    # ends here: no gradient for the targets. Without the stop it goes on through the target encoder, and what
    # it finds there is added to the context encoder's, as if they shared weights (with momentum 0 they do).
    if not stop_gradient:
        d_target = [[-d for d in row] for row in d_predictions]   # [m][D]  dPred/dtarget = -dPred/dprediction
        d_target_encoder, _ = mlp_backward(target_encoder, x_target, h_target, d_target)
        d_encoder = blend(1.0, d_encoder, 1.0, d_target_encoder)
    return terms, {"context_encoder": d_encoder, "predictor": d_predictor}


def ema_update(momentum=MOMENTUM, model=MODEL):
    """target encoder <- momentum * target encoder + (1 - momentum) * context encoder, in place.

    This exponential moving average is the only way in which the target encoder ever changes."""
    momentum = _number(momentum, "momentum", 0, 1)
    target_encoder = model["target_encoder"]
    target_encoder.update(blend(momentum, target_encoder, 1.0 - momentum, model["context_encoder"]))


# ---- 6. Training -------------------------------------------------------------------------------------------
# Nothing new in the loop: draw masks, take the gradient, step against it, let the target encoder follow.

def train(images, epochs=EPOCHS, lr=LEARNING_RATE, momentum=MOMENTUM, batch_size=BATCH_SIZE,
          pred_weight=PRED_WEIGHT, var_weight=VAR_WEIGHT, cov_weight=COV_WEIGHT, gamma=GAMMA,
          stop_gradient=True, rng=None, on_epoch=None, model=MODEL):
    """Train the model in place by stochastic gradient descent, on images without labels.

    rng draws the order of the images and the masks; random.Random(0) if not given. on_epoch(epoch, losses) is
    called after each epoch. Returns the losses of each epoch, means over its minibatches, as dicts: "pred",
    "var" and "cov" before weighting, "loss" their weighted sum. TypeError or ValueError for wrong settings or
    images, FloatingPointError when the loss or a weight is not finite; the model is as before that step."""
    epochs, batch_size = _whole(epochs, "epochs", 0), _whole(batch_size, "batch_size", 1)
    lr, momentum = _number(lr, "lr", 0), _number(momentum, "momentum", 0, 1)
    gamma = _number(gamma, "gamma", 0)
    weights = [_number(weight, "a loss weight", 0) for weight in (pred_weight, var_weight, cov_weight)]
    if lr == 0:
        raise ValueError("lr must be a number above 0, got 0")
    data = [image_patches(img, model) for img in _list(images, "images")]
    last_batch = (len(data) - 1) % batch_size + 1
    if last_batch == 1 and len(data[0]) == 2 and any(weights[1:]):  # one image of two patches, one to see
        raise ValueError("Var and Cov need 2 or more context patches in each minibatch, got 1")
    rng = rng or random.Random(0)
    history = []
    for epoch in range(1, epochs + 1):
        rng.shuffle(data)
        losses = {"loss": 0.0, "pred": 0.0, "var": 0.0, "cov": 0.0}
        for start in range(0, len(data), batch_size):
            part = data[start:start + batch_size]
            batch = [(patches, *random_masks(len(patches), rng)) for patches in part]
            terms, gradients = loss_and_gradients(batch, model, *weights, gamma, stop_gradient)
            terms["loss"] = dot(weights, [terms["pred"], terms["var"], terms["cov"]])
            stepped = {name: blend(1.0, model[name], -lr, gradients[name]) for name in gradients}
            if not math.isfinite(terms["loss"]) or not all(map(is_finite, stepped.values())):
                raise FloatingPointError(f"training diverged in epoch {epoch}, its loss is no longer finite: "
                                         f"try a smaller lr than {lr:g}, or smaller loss weights")
            for name in stepped:
                model[name].update(stepped[name])
            ema_update(momentum, model)
            for name in losses:
                losses[name] += terms[name] * len(batch) / len(data)
        history.append(losses)
        if on_epoch:
            on_epoch(epoch, losses)
    return history


# ---- 7. What was learned -----------------------------------------------------------------------------------
# A low loss proves nothing: a collapsed model has the lowest. So look at the embeddings of images held out
# from training. Do they tell the patterns apart, do they use all dimensions, what do they keep and what do
# they drop? Labels are used from here on, and only to measure.

def embed_patches(img, model=MODEL):
    """The embeddings of all patches of an image: [height][width] -> [K][D]. They are the target encoder's, as
    it is the steadier of the two, and as in I-JEPA (Assran et al. 2023)."""
    return mlp_forward(model["target_encoder"], image_patches(img, model))[1]


def embed(img, model=MODEL):
    """The embedding of an image, the mean of those of its patches: [height][width] -> [D]."""
    return average(embed_patches(img, model))


def predict_patches(img, model=MODEL):
    """The predicted embedding of each patch of an image from all others: [height][width] -> [K][D]."""
    embs = [context_encode(patch, model) for patch in image_patches(img, model)]
    return [predict(average(embs[:pos] + embs[pos + 1:]), pos, model) for pos in range(len(embs))]


def cosine_similarity(a, b):
    """The cosine of the angle between two vectors, -1 to 1. ValueError if lengths differ or one is zero."""
    a, b = [[_number(v, "a number of " + what) for v in _list(x, what)] for x, what in ((a, "a"), (b, "b"))]
    norm = math.sqrt(dot(a, a)) * math.sqrt(dot(b, b))
    if len(a) != len(b) or not 0.0 < norm < math.inf:
        raise ValueError(f"a and b must be vectors of one length, not zero, got {_shown(a)} and {_shown(b)}")
    return dot(a, b) / norm


def spread(embeddings):
    """The standard deviation of n embeddings [n][D], root mean square over dimensions."""
    C = covariance(embeddings)[1]
    return math.sqrt(sum(C[d][d] for d in range(len(C))) / len(C))


def effective_rank(embeddings):
    """How many dimensions n embeddings [n][D] use, the participation ratio: (sum of C_dd)^2 / sum of C_ij^2.

    It is D if all dimensions vary equally and uncorrelated, 1 if all embeddings lie on a line, 0 if all are
    the same."""
    C = covariance(embeddings)[1]
    trace = sum(C[d][d] for d in range(len(C)))
    if trace <= 1e-24 * sum(dot(row, row) for row in embeddings):  # all the same, up to rounding
        return 0.0
    return 1.0 / sum(v / trace * (v / trace) for row in C for v in row)


def explained_share(embeddings, groups):
    """The share of the variance of embeddings [n][D] that their groups [n] explain, 0 to 1: the variance of
    the means of the groups over the variance of all."""
    mean, groups = average(embeddings), _list(groups, "groups", len(embeddings))
    total = between = 0.0
    for group in dict.fromkeys(groups):
        members = [row for row, g in zip(embeddings, groups) if g == group]
        between += len(members) * sum((v - m) * (v - m) for v, m in zip(average(members), mean))
        total += sum((v - m) * (v - m) for row in members for v, m in zip(row, mean))
    if total <= 1e-24 * sum(dot(row, row) for row in embeddings):  # all the same, up to rounding
        return 0.0
    return between / total


def nearest_mean(train_x, train_labels, x):
    """The label of the nearest class mean of train_x [n][D], for each row of x [m][D]: -> [m]."""
    classes = list(dict.fromkeys(_list(train_labels, "train_labels", len(train_x))))
    means = [average([row for row, label in zip(train_x, train_labels) if label == c]) for c in classes]
    x = [_list(row, "a row of x", len(means[0])) for row in x]
    # |x - m|^2 = |x|^2 - 2 (x . m - |m|^2 / 2): the nearest mean has the highest score in the brackets.
    scores = linear(x, means, [-0.5 * dot(m, m) for m in means])                        # [m][classes]
    return [classes[row.index(max(row))] for row in scores]


def linear_probe(train_x, train_labels, x):
    """The label that a linear classifier fitted to train_x [n][D] gives each row of x [m][D]: -> [m].

    It is a least-squares fit of x . W^T + b to 1 for the right class and 0 for others, with a small penalty
    on W (ridge regression): (C + ridge) . W^T = covariance of x and labels."""
    classes = list(dict.fromkeys(_list(train_labels, "train_labels", len(train_x))))
    one_hot_t = [[float(label == c) for label in train_labels] for c in classes]                # [classes][n]
    centered, C = covariance(train_x)                                                   # [n][D], [D][D]
    ridge = 0.01 * sum(C[d][d] for d in range(len(C))) / len(C) or 1.0  # 1 % of the mean variance
    A = [[v + (ridge if i == j else 0.0) for j, v in enumerate(row)] for i, row in enumerate(C)]
    B = [[v / max(1, len(train_x) - 1) for v in row] for row in matmul_t(transpose(centered), one_hot_t)]
    rows = [a + b for a, b in zip(A, B)]      # A . W^T = B, solved by elimination (A is positive definite)
    for i in range(len(rows)):
        rows[i] = [v / rows[i][i] for v in rows[i]]
        rows = [row if row is rows[i] else [v - row[i] * p for v, p in zip(row, rows[i])] for row in rows]
    W = transpose(rows)[len(A):]                                                                # [classes][D]
    mean = average(train_x)
    x = [_list(row, "a row of x", len(mean)) for row in x]
    scores = linear(x, W, [sum(y) / len(y) - dot(w, mean) for w, y in zip(W, one_hot_t)])       # [m][classes]
    return [classes[row.index(max(row))] for row in scores]


def few_label_accuracy(classifier, x, labels, per_class, rng, draws=20):
    """Draw per_class rows of x [n][D] of each class, give a classifier their labels, and take its accuracy on
    all other rows: 0 to 1, mean over draws. ValueError if a class has no other rows."""
    average(x)  # refuses none, and ragged ones
    labels, draws, total = _list(labels, "labels", len(x)), _whole(draws, "draws", 1), 0.0
    per_class = _whole(per_class, "per_class", 1, min(labels.count(c) for c in set(labels)) - 1)
    for _ in range(draws):
        order = list(range(len(x)))
        rng.shuffle(order)
        known = []
        for c in dict.fromkeys(labels):
            known += [i for i in order if labels[i] == c][:per_class]
        rest = sorted(set(order) - set(known))
        answers = classifier([x[i] for i in known], [labels[i] for i in known], [x[i] for i in rest])
        total += sum(answer == labels[i] for answer, i in zip(answers, rest)) / len(rest)
    return total / draws


# ---- 8. The demo -------------------------------------------------------------------------------------------
# One network before and after training, on images that it has never seen; and what it needs, with --collapse.

def round_weights(model):
    """Round the trained weights to six decimals, in place.

    Python versions differ in the last bit of a sum, and training makes such a difference grow, until it shows
    after some fifty epochs. Rounding after each epoch removes it before it has grown (the target encoder's
    fades by itself). So all versions print the same."""
    for name in ("context_encoder", "predictor"):
        for key, weights in model[name].items():
            model[name][key] = ([[round(w, 6) for w in row] for row in weights] if key in ("W1", "W2")
                                else [round(w, 6) for w in weights])


def draw_data(seed):
    """The demo's training images; 100 held-out images of each pattern; their labels; all their offsets."""
    rng = random.Random(seed)
    images = [draw_image(name, rng)[0] for name in PATTERNS for _ in range(NUM_IMAGES // len(PATTERNS))]
    labels = [name for name in PATTERNS for _ in range(100)]
    held_out, offsets = zip(*[draw_image(name, rng) for name in labels])
    return images, held_out, labels, [offset for four in offsets for offset in four]


def accuracies(x, labels, seed):
    """Accuracy with 1 and 5 labels a class by nearest mean, with 5 and 50 by linear probe, for rows x."""
    columns = [(nearest_mean, 1), (nearest_mean, 5), (linear_probe, 5), (linear_probe, 50)]
    return [few_label_accuracy(classifier, x, labels, n, random.Random(seed)) for classifier, n in columns]


def kept_and_dropped(model, images, labels, offsets):
    """Shares of variance explained: of image embeddings by pattern, of patch embeddings by brightness."""
    tenths = [0] * len(offsets)  # to which tenth of all patches, from dark to bright, each belongs
    for rank, i in enumerate(sorted(range(len(offsets)), key=offsets.__getitem__)):
        tenths[i] = 10 * rank // len(offsets)
    patch_embs = [row for img in images for row in embed_patches(img, model)]
    return explained_share([embed(img, model) for img in images], labels), explained_share(patch_embs, tenths)


def prediction_error(model, images):
    """The mean squared error of predict_patches, as a share of that of always predicting the mean target."""
    targets = [row for img in images for row in embed_patches(img, model)]
    predictions = [row for img in images for row in predict_patches(img, model)]
    return mse(predictions, targets) / mse([average(targets)] * len(targets), targets)


def noise_cosines(model, seed):
    """Mean cosine of a clean and a noisy pattern, noise of sd 0.05, 0.1, 0.2; and of two clean patterns."""
    clean, rng = [clean_image(name) for name in PATTERNS], random.Random(seed)
    columns = [[(img, [[pixel + rng.gauss(0.0, sd) for pixel in row] for row in img])
                for img in clean for _ in range(20)] for sd in (0.05, 0.1, 0.2)]
    columns.append([(a, b) for a in clean for b in clean if a != b])
    return [sum(cosine_similarity(embed(a, model), embed(b, model)) for a, b in pairs) / len(pairs)
            for pairs in columns]


def print_images(images):
    """Images side by side, two characters a pixel: blank below 0.1, @@ from 0.9, ?? where it is None."""
    for rows in zip(*images):
        shades = ["".join("??" if pixel is None else 2 * " .:-=+*#%@"[max(0, min(9, int(10 * pixel)))]
                          for pixel in row) for row in rows]
        print("    ".join(shades).rstrip())
    print()


def print_row(name, cells, width=20):
    """A line of a table."""
    print(f"{name:{width}}" + "".join(f"{cell:>12}" for cell in cells))


def vector_text(vector):
    """A vector as text, its numbers in columns."""
    return "[" + ", ".join(f"{v:6.3f}" for v in vector) + "]"


def print_embeddings(model):
    """The embeddings of the four patterns, and the cosine of each pair."""
    embs = {name: embed(clean_image(name), model) for name in PATTERNS}
    print("Embeddings for different patterns:")
    for name in PATTERNS:
        print(f"{name:12}: {vector_text(embs[name])}")
    print("\nCosine similarities between patterns:")
    print_row("", PATTERNS, 10)
    for name in PATTERNS:
        print_row(name, [f"{cosine_similarity(embs[name], embs[other]):.3f}" for other in PATTERNS], 10)


def demo(seed, epochs):
    """What `python3 jepa.py` prints."""
    images, held_out, labels, offsets = draw_data(seed)
    untrained, model = [init_model(rng=random.Random(seed)) for _ in range(2)]
    print("VibeML Micro JEPA - Learning Representations via Prediction\n" + "=" * 60)
    print(f"\nGenerated {len(images)} training images (4x4)")
    print(f"Architecture: {PATCH_SIZE}x{PATCH_SIZE} patches -> {EMBED_DIM}-dim embeddings")

    examples = images[::NUM_IMAGES // len(PATTERNS)]
    print("\nThe patterns:   " + ", ".join(PATTERNS))
    print_images([clean_image(name) for name in PATTERNS])
    print("A training image of each: every patch has a brightness that the others do not tell")
    print_images(examples)
    print("One of them as training sees it: predict the embedding of ?? from the other patches")
    print_images([[[None if row > 1 and column > 1 else pixel for column, pixel in enumerate(pixels)]
                   for row, pixels in enumerate(examples[2])]])

    print("Before Training\n" + "=" * 60)
    print_embeddings(untrained)

    print(f"\nTraining for {epochs} epochs...\nLearning rate: {LEARNING_RATE}, EMA momentum: {MOMENTUM}")
    print(f"Loss: the sum of the terms after it, with their weights {PRED_WEIGHT:g}, {VAR_WEIGHT:g}, "
          f"{COV_WEIGHT:g}\nRank: how many of the {EMBED_DIM} dimensions are in use\n" + "-" * 60, flush=True)

    def report(epoch, losses):
        """After each epoch: round, and every 50 epochs print a line."""
        round_weights(model)
        if epoch % 50 == 0 or epoch == epochs:
            rank = effective_rank([row for img in images for row in embed_patches(img, model)])
            print(f"Epoch {epoch:4d} | Loss: {losses['loss']:.4f} | Pred: {PRED_WEIGHT * losses['pred']:.4f} "
                  f"| Var: {VAR_WEIGHT * losses['var']:.4f} | Cov: {COV_WEIGHT * losses['cov']:.4f} "
                  f"| Rank: {rank:.2f}", flush=True)
    train(images, epochs, rng=random.Random(seed), on_epoch=report, model=model)
    print("Pred may rise while Rank grows, as there is more to predict: that is no failure. Nor is a\n"
          "small Pred success: a collapsed encoder has the smallest (see --collapse).")

    print("\nRepresentation Quality Test\n" + "=" * 60)
    print_embeddings(model)

    print("\nEach patch of a held-out h_gradient, hidden in turn: its embedding as predicted, and the target")
    for pos, (prediction, target) in enumerate(zip(predict_patches(held_out[0], model),
                                                   embed_patches(held_out[0], model))):
        print(f"patch {pos}     : {vector_text(prediction)}\n     target : {vector_text(target)}")
    before, after = [100 * prediction_error(net, held_out) for net in (untrained, model)]
    print(f"Squared error on held-out images: {after:.0f}% of that of predicting the mean target "
          f"(untrained: {before:.0f}%).\nNot 0%: a target has a brightness of its own, too.")

    rows = [(name, accuracies(x, labels, seed)) for name, x in (
        ("pixels (16)", [[pixel for row in img for pixel in row] for img in held_out]),
        ("untrained encoder", [embed(img, untrained) for img in held_out]),
        ("JEPA", [embed(img, model) for img in held_out]))]
    print(f"\nLinear Probe Test: {100 * rows[-1][1][-1]:.4g}% accuracy on downstream classification!")
    print("\nBut with so many labels, a probe digs the pattern out of raw pixels too. Few are the test: one\n"
          "is enough only if images of a pattern lie closer together than the patterns do.\n"
          "Accuracy on held-out images, mean of 20 draws of the labelled ones (chance: 25%)")
    print(f"{'':20}{'nearest class mean':>24}{'linear probe':>24}")
    print_row("labels a class", [1, 5, 5, 50])
    for name, row in rows:
        print_row(name, [f"{100 * accuracy:.1f}%" for accuracy in row])

    print("\nWhat it keeps and what it drops: the share of the variance of embeddings that is explained by\n"
          "the pattern (of images), and by the brightness that no context can predict (of patches).\n"
          "A share is the variance of group means over that of all; groups: 4 patterns, 10 brightnesses.\n"
          "(How much of it is the work of Pred, how much of Var + Cov: see README, What was measured.)")
    print_row("", ["pattern", "brightness"])
    for name, net in (("untrained encoder", untrained), ("JEPA", model)):
        print_row(name, [f"{share:.2f}" for share in kept_and_dropped(net, held_out, labels, offsets)])

    print("\nCosine of a clean pattern and the same with pixel noise, beside that of different patterns.\n"
          "Only the gap between the two is invariance: 1.00 everywhere tells nothing from anything.")
    print_row("", ["sd 0.05", "sd 0.1", "sd 0.2", "different"])
    for name, net in (("untrained encoder", untrained), ("JEPA", model)):
        print_row(name, [f"{cosine:.2f}" for cosine in noise_cosines(net, seed)])


VARIANTS = [  # what --collapse takes away, as arguments of train()
    ("everything on", {}),
    ("no Var + Cov", {"var_weight": 0, "cov_weight": 0}),
    ("no EMA", {"momentum": 0}),
    ("no stop-gradient", {"stop_gradient": False}),
    ("no stop-gradient, no Cov", {"stop_gradient": False, "cov_weight": 0}),
    ("no guard but stop-grad.", {"momentum": 0, "var_weight": 0, "cov_weight": 0}),
    ("no guard but EMA", {"stop_gradient": False, "var_weight": 0, "cov_weight": 0}),
    ("none of the four", {"stop_gradient": False, "momentum": 0, "var_weight": 0, "cov_weight": 0}),
    ("no prediction", {"pred_weight": 0}),
]


def train_variant(seed, epochs, settings):
    """Train as the demo does, with these settings. Returns the last Pred loss; the spread of held-out patch
    embeddings, the same as a share of the untrained; their rank; accuracy with 1 label a class; a verdict."""
    images, held_out, labels, _ = draw_data(seed)
    model = init_model(rng=random.Random(seed))
    untrained = spread([row for img in held_out for row in embed_patches(img, model)])
    history = train(images, epochs, rng=random.Random(seed), model=model,
                    on_epoch=lambda epoch, losses: round_weights(model), **settings)
    embs = [embed_patches(img, model) for img in held_out]
    flat = [row for rows in embs for row in rows]
    sd, rank = spread(flat), effective_rank(flat)
    share = sd / untrained
    verdict = "TOTAL COLLAPSE" if share < 0.1 else "DIMENSIONAL COLLAPSE" if rank < 2.5 else "alive"
    means = [average(rows) for rows in embs]
    one_label = few_label_accuracy(nearest_mean, means, labels, 1, random.Random(seed))
    return history[-1]["pred"], sd, share, rank, one_label, verdict


def collapse(seed, epochs):
    """What `python3 jepa.py --collapse` prints."""
    print("Why does it not collapse, and how would you notice? Take parts away, and look\n" + "=" * 80)
    print("Total collapse: all embeddings become nearly the same, and are perfectly predicted.\n"
          "Dimensional collapse: they differ, but along a line. Their spread looks healthy, their rank not.\n"
          "Verdict: total if the spread is below 10% of the untrained, else dimensional if the rank is\n"
          f"below 2.5 of {EMBED_DIM}, else alive. Each row: {epochs} epochs, same data and initial weights.\n"
          "The four guards are Var, Cov, EMA and stop-gradient. Pred is shown without its weight; 1 label\n"
          "is the accuracy with one label a class (chance: 25%). So few epochs show what dies, not what\n"
          "learns best; for that, see README, What was measured.\n")
    print(f"{'':24}    Pred  spread  of untrained  rank  1 label  verdict", flush=True)
    for name, settings in VARIANTS:
        pred, sd, share, rank, one_label, verdict = train_variant(seed, epochs, settings)
        print(f"{name:24}{pred:8.4f}{sd:8.3f}{100 * share:13.0f}%{rank:6.2f}{100 * one_label:8.1f}%  "
              f"{verdict}", flush=True)
    print("\nPred by itself tells nothing. It falls when the predictor learns, and when embeddings die;\n"
          "it rises when training fails, and when dimensions come alive. Read it with spread and rank.\n"
          "Rank and accuracy ignore scale: in a total collapse they judge the crumbs.")


def main():
    """The command line. Exit code 0; 2 for wrong options, 130 for Ctrl-C, 141 for a closed pipe, else 1."""
    import argparse  # here, as nothing else needs it

    def natural(text):
        """The text of an option as an int, 0 or more."""
        if not (text.isascii() and text.isdigit()):
            raise argparse.ArgumentTypeError(f"must be a whole number, 0 or more, got {text!r}")
        return int(text)

    def refuse(message):
        """End with exit code 2 and one line, in place of argparse's three."""
        print("jepa.py: " + message.encode("unicode_escape").decode() + " (see --help)", file=sys.stderr)
        sys.exit(2)

    parser = argparse.ArgumentParser(prog="jepa.py", allow_abbrev=False,
                                     description="Train a micro JEPA on 4x4 images and show what it learned.")
    parser.error = refuse
    parser.add_argument("--seed", type=natural, default=0, metavar="N",
                        help="draw the data, the weights and the masks from this seed (default: 0)")
    parser.add_argument("--epochs", type=natural, metavar="N",
                        help=f"train for N epochs (default: {EPOCHS}; {COLLAPSE_EPOCHS} with --collapse)")
    parser.add_argument("--collapse", action="store_true",
                        help="take parts away and watch what dies")
    try:
        options = parser.parse_args()
        if options.collapse and options.epochs == 0:
            refuse("argument --epochs: must be 1 or more with --collapse")
        run, epochs = (collapse, COLLAPSE_EPOCHS) if options.collapse else (demo, EPOCHS)
        run(options.seed, epochs if options.epochs is None else options.epochs)
        print(end="", flush=True)  # now, so that a closed pipe is noticed here
    except KeyboardInterrupt:
        print("jepa.py: interrupted", file=sys.stderr)
        sys.exit(130)
    except FloatingPointError as error:
        print(f"jepa.py: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:  # a closed pipe (| head), a full disk
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python tries again as it exits
        if isinstance(error, BrokenPipeError):
            sys.exit(141)
        print(f"jepa.py: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
