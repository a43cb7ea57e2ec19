#!/usr/bin/env python3
"""Micro JEPA: a Joint-Embedding Predictive Architecture to read in one sitting.

A JEPA learns from images, without labels. It cuts an image into patches and hides some
of them. From the visible patches, the context, it predicts the hidden ones, the target
patches: not their pixels, but their embeddings. An embedding is a list of numbers that
a network, called an encoder, computes from a patch.

    context patches --> context encoder --> mean --+
                                                   +--> predictor --> prediction --+
                 position of the target patch -----+                               |
                                                                                 error
    target patch --> target encoder ------------------------------> target --------+

The predictor is given the mean of the context embeddings, and the position of the patch
that it has to predict. Gradient descent lowers the error, the mean squared difference
between prediction and target, by changing the predictor and the context encoder. No
gradient flows back through the target. This is called the stop-gradient. So the target
encoder is not trained. Instead, it follows the context encoder: after every step, each
of its weights becomes 95 % of itself plus 5 % of the same weight of the context
encoder. This is an exponential moving average (EMA), as in BYOL (Grill et al. 2020).
The design follows I-JEPA (Assran et al. 2023), but is far simpler.

Each of our images shows one of four patterns, and each patch is multiplied by a random
sign, 1 or -1. A JEPA learns to suppress the sign, because it cannot be predicted:

1. The sign of a visible patch says nothing about the hidden patch. A prediction that
   depends on it has a larger error on average. So over many steps, gradient descent
   makes the prediction depend less on it, by changing both of the networks that make
   the prediction: the context encoder and the predictor.
2. The target encoder follows the context encoder, so it depends less on the sign, too.
3. So the target changes less with the sign of the hidden patch, and the error falls.

The pattern is kept. All patches of an image share it, so the context tells the pattern
of the hidden patch, but not its sign. The best prediction is then the mean of two
embeddings, those of the patch and of its negative. With a linear encoder, they would be
bias + v and bias - v, so their mean would be the bias for every pattern. But our
encoder has a ReLU (section 3). If a patch gives it the number u, the negative gives -u,
and relu(u) + relu(-u) is |u|. So the mean differs from pattern to pattern, and knowing
the pattern lowers the error. The gradient makes the context encoder tell the patterns
apart, and the target encoder follows.

A low error alone proves nothing. If both encoders gave every patch the same embedding,
the error could be 0. This is called collapse to a point. If the gradient also flowed
through the targets, training could reach it by pulling the targets towards the
predictions. With the stop-gradient, the gradient can only pull the predictions towards
the targets. Why this is enough to prevent collapse to a point is only partly
understood (Tian, Chen and Ganguli 2021). The embeddings can also collapse to a line:
then they still differ from patch to patch, but in one direction only. The loss has two
more terms, from VICReg (Bardes, Ponce and LeCun 2022). The variance loss asks each
number of the embedding to vary from patch to patch. The covariance loss asks the
numbers to be uncorrelated. On a line, they cannot both be satisfied. Section 10 shows
how far this helps.

`python3 jepa.py` trains a JEPA and shows what it learned. `python3 jepa.py --collapse`
trains it several times, each time with other parts left out.

Shapes are given in brackets: [n][D] is a list of n rows, each with D numbers.

    N  images in a dataset    K  patches in an image    D  numbers in an embedding
    B  images in a batch      P  pixels in a patch      n, m, k  other counts
"""

import argparse
import sys
from copy import deepcopy
from dataclasses import dataclass, replace
from math import dist, hypot, isfinite, nan, sqrt
from operator import mul
from random import Random

# ---- 1. Settings ---------------------------------------------------------------------


@dataclass(frozen=True)
class Config:
    """Hold the settings of a model and its training. replace() makes a changed copy."""

    patch_size: int = 2  # height and width of a patch, in pixels
    num_patches: int = 4  # K, the patches in an image
    embed_dim: int = 6  # D, the numbers in an embedding
    encoder_hidden: int = 32  # hidden units of each encoder
    predictor_hidden: int = 64  # hidden units of the predictor
    epochs: int = 50  # passes over the training images
    batch_size: int = 5  # B, the images in a batch
    lr: float = 0.02  # learning rate
    ema_momentum: float = 0.95  # new target = 0.95 * old + 0.05 * context
    # The weights of the loss (section 6) were found by trial.
    pred_weight: float = 75.0  # weight of the prediction error
    var_weight: float = 10.0  # weight of the variance loss
    cov_weight: float = 100.0  # weight of the covariance loss
    gamma: float = 0.1  # the variance loss acts below this standard deviation (std)
    # If this is False, the context encoder also makes the targets, and the gradient
    # flows back through them.
    stop_gradient: bool = True

    def __post_init__(self):
        """Raise ValueError for a setting that is negative, infinite or nan."""
        for name, value in vars(self).items():
            if not isfinite(value) or value < 0:
                raise ValueError(f"{name} must be finite and 0 or more, got {value}")


# ---- 2. Data -------------------------------------------------------------------------
# An image has 4x4 pixels, from about -1 for black to 1 for white. It is a pattern times
# a random contrast. Then each of its four patches is multiplied by a random sign, and
# each pixel gets some noise.

PATTERNS = {  # functions of row and column that return a pixel
    "h_gradient": lambda row, column: 2.0 * column / 3.0 - 1.0,  # -1, -1/3, 1/3, 1
    "v_gradient": lambda row, column: 2.0 * row / 3.0 - 1.0,
    "checker": lambda row, column: (-1.0) ** (row + column),
    "uniform": lambda row, column: 0.0,
}


def clean_image(pattern, contrast=0.9):
    """Return an image [4][4] of a pattern, without signs and noise."""
    pixel = PATTERNS[pattern]
    return [[contrast * pixel(row, column) for column in range(4)] for row in range(4)]


def draw_image(pattern, rng):
    """Draw an image [4][4] of a pattern. Return it and the signs [4] of its patches."""
    image = clean_image(pattern, contrast=rng.uniform(0.8, 1.0))
    signs = [rng.choice([-1, 1]) for _ in range(4)]
    for row in range(4):
        for column in range(4):
            sign = signs[2 * (row // 2) + column // 2]  # patches 0, 1 are above 2, 3
            pixel = sign * image[row][column] + rng.gauss(0.0, 0.1)
            image[row][column] = round(pixel, 6)  # platforms differ in later digits
    return image, signs


def draw_dataset(per_pattern, rng):
    """Draw per_pattern images of each pattern. Return the images, signs and labels."""
    labels = list(PATTERNS) * per_pattern  # the patterns take turns
    images, signs = zip(*[draw_image(label, rng) for label in labels])
    return images, signs, labels


def to_list(values):
    """Return the items of a list, iterator, array or frame. Refuse a str or dict."""
    if isinstance(values, (str, dict)):
        raise TypeError(f"expected a list, got a {type(values).__name__}")
    if hasattr(values, "to_numpy"):  # pandas
        values = values.to_numpy()
    if hasattr(values, "tolist"):  # NumPy and PyTorch
        values = values.tolist()
    return list(values)


def to_rows(values, name="data"):
    """Return rows of floats [n][k]. Raise ValueError if ragged or not finite."""
    try:
        rows = [[float(value) for value in to_list(row)] for row in to_list(values)]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be rows of numbers: {error}") from None
    finite = all(isfinite(value) for row in rows for value in row)
    if not finite or len({len(row) for row in rows}) != 1:
        raise ValueError(f"{name} must be rows of finite numbers, all of one length")
    return rows


def shape(x):
    """Return the number of rows and the number of columns of a matrix."""
    return len(x), len(x[0])


def extract_patches(img, patch_size=2):
    """Cut an image [height][width] into whole patches [K][P], row by row."""
    img = to_rows(img, "an image (height x width, grey values of about -1 to 1)")
    height, width = shape(img)
    if patch_size < 1 or height % patch_size or width % patch_size:
        raise ValueError(f"cannot cut {height}x{width} into patches of {patch_size}")
    patches = []
    for top in range(0, height, patch_size):
        rows = img[top : top + patch_size]
        for left in range(0, width, patch_size):
            patches.append([v for row in rows for v in row[left : left + patch_size]])
    return patches


def cut_images(images, cfg):
    """Cut images [N][height][width] into patches [N][K][P], with K = num_patches."""
    data = [extract_patches(img, cfg.patch_size) for img in to_list(images)]
    counts = {len(patches) for patches in data}
    if counts != {cfg.num_patches}:  # counts is empty if there are no images
        raise ValueError(f"images need {cfg.num_patches} patches, got {sorted(counts)}")
    return data


# ---- 3. A network, forward and backward ----------------------------------------------
# All our networks have two linear layers, with a ReLU between them: relu(v) is the
# maximum of v and 0. A bias is the weight of an input that is always 1. So we append a
# 1 to the input of each layer, and a network is just two matrices, W1 and W2.

try:
    from math import sumprod as dot  # built into Python 3.12 and newer, and faster
except ImportError:

    def dot(a, b):
        """Return the dot product of two vectors of the same length."""
        return sum(map(mul, a, b), 0.0)


def transpose(x):
    """Turn rows into columns: [n][k] -> [k][n]."""
    return list(zip(*x))


def matmul(x, y):
    """Return the matrix product x @ y: [n][k], [k][m] -> [n][m]."""
    if len(x[0]) != len(y):
        raise ValueError(f"cannot multiply {shape(x)} by {shape(y)}")
    columns = transpose(y)
    return [[dot(row, column) for column in columns] for row in x]


def scale(factor, x):
    """Return the matrix factor * x."""
    return [[factor * v for v in row] for row in x]


def add(x, y, factor):
    """Return the matrix x + factor * y."""
    if shape(x) != shape(y):
        raise ValueError(f"cannot add {shape(x)} and {shape(y)}")
    return [[v + factor * w for v, w in zip(a, b)] for a, b in zip(x, y)]


def sum_of_squares(x):
    """Return the sum of the squares of all numbers of a matrix."""
    return sum(dot(row, row) for row in x)


def init_mlp(num_in, num_hidden, num_out, rng):
    """Return a new network: W1 [in+1][hidden] and W2 [hidden+1][out]."""
    net = {}
    for layer, ins, outs in [("W1", num_in, num_hidden), ("W2", num_hidden, num_out)]:
        limit = sqrt(6.0 / (ins + outs))  # Glorot and Bengio 2010, eq. 16
        rows = [[rng.uniform(-limit, limit) for _ in range(outs)] for _ in range(ins)]
        net[layer] = rows + [[0.0] * outs]  # the last row, the biases, starts at 0
    return net


def mlp_forward(net, x):
    """Return outputs [n][out] for inputs x [n][in], and a cache for mlp_backward."""
    x = [[*row, 1.0] for row in x]  # [n][in+1]
    z = matmul(x, net["W1"])  # [n][hidden]
    h = [[v if v > 0.0 else 0.0 for v in row] for row in z]  # [n][hidden]: ReLU
    h = [[*row, 1.0] for row in h]  # [n][hidden+1]
    return matmul(h, net["W2"]), (x, h)


# In the backward pass, dA is the gradient of the loss with respect to A. For a matrix
# product Y = X @ W, where Y[r][j] is the sum over i of X[r][i] * W[i][j], the chain
# rule gives, with .T for transpose,
#     dW[i][j] = sum over r of X[r][i] * dY[r][j],  which is  dW = X.T @ dY
#     dX[r][i] = sum over j of dY[r][j] * W[i][j],  which is  dX = dY @ W.T


def mlp_backward(net, cache, dy, need_dx=False):
    """Apply the chain rule to mlp_forward, from its last line to its first.

    dy has the shape [n][out]. Return {"W1": dW1, "W2": dW2}, and dx [n][in] if needed.
    """
    x, h = cache  # [n][in+1] and [n][hidden+1], with the 1s
    dW2 = matmul(transpose(h), dy)  # [hidden+1][out]
    # The 1s are constants and get no gradient. So we leave out the row of the biases.
    W2 = net["W2"][:-1]  # [hidden][out]
    # dh = dy @ W2.T, so dh[r][j] = dot(dy[r], W2[j]). Where h is 0, ReLU blocks it.
    dz = []  # [n][hidden]
    for h_row, dy_row in zip(h, dy):
        dz_row = []
        for h_j, W2_j in zip(h_row[:-1], W2):
            dz_row.append(dot(dy_row, W2_j) if h_j > 0.0 else 0.0)
        dz.append(dz_row)
    dW1 = matmul(transpose(x), dz)  # [in+1][hidden]
    dx = matmul(dz, transpose(net["W1"][:-1])) if need_dx else None  # [n][in]
    return {"W1": dW1, "W2": dW2}, dx


def init_model(cfg, rng):
    """Return a new model, a dict of three networks. The encoders start out equal."""
    D = cfg.embed_dim
    encoder = init_mlp(cfg.patch_size**2, cfg.encoder_hidden, D, rng)
    model = {"context_encoder": encoder, "target_encoder": deepcopy(encoder)}
    # The input of the predictor is a mean embedding [D] and a one-hot position [K].
    model["predictor"] = init_mlp(D + cfg.num_patches, cfg.predictor_hidden, D, rng)
    return model


# ---- 4. The losses, each with its gradient -------------------------------------------
# The variance and the covariance loss (VICReg, eq. 1 to 4) act on the n embeddings of
# the context patches of a batch. Each of the D numbers is called a dimension.

EPS = 1e-4  # added to each variance: at 0, the square root has no derivative


def mse_loss(predictions, targets):
    """Return the mean squared error of predictions [n][D], and its gradient [n][D]."""
    errors = add(predictions, targets, -1.0)  # predictions - targets, [n][D]
    count = len(errors) * len(errors[0])
    # loss = sum of errors^2 / count, so d loss / d predictions = 2 * errors / count
    return sum_of_squares(errors) / count, scale(2.0 / count, errors)


def centered_columns(embeddings):
    """Return the columns of embeddings [n][D] as a list [D][n], each minus its mean."""
    columns = []
    for column in transpose(embeddings):
        # If all numbers are equal, the result should be exactly 0. Rounding could
        # prevent this, so we subtract the first number before the mean.
        column = [v - column[0] for v in column]
        mean = sum(column) / len(column)
        columns.append([v - mean for v in column])
    return columns


def variance_loss(embeddings, gamma):
    """Return the mean of max(0, gamma - std) over the dimensions, and its gradient."""
    columns = centered_columns(embeddings)  # [D][n]
    D = len(columns)
    n_minus_1 = max(1, len(embeddings) - 1)  # not 0, because we divide by it
    loss = 0.0
    gradient = []  # [D][n]
    for column in columns:
        std = sqrt(dot(column, column) / n_minus_1 + EPS)
        loss += max(0.0, gamma - std) / D
        # Let c be the column. Below gamma, d loss / d std = -1 / D, and
        # d std / d c[r] = c[r] / (std * (n - 1)). Together, d loss / d c[r] is
        # g[r] = -c[r] / (D * std * (n - 1)). Before centering, the column was x, with
        # c[r] = x[r] - mean(x). So d loss / d x[r] = g[r] - mean(g). But mean(g) is 0,
        # because g is a multiple of c, and c sums to 0.
        factor = -1.0 / (D * std * n_minus_1) if std < gamma else 0.0
        gradient.append([factor * v for v in column])
    return loss, transpose(gradient)  # [n][D]


def covariance_loss(embeddings):
    """Return the sum of the squared covariances, divided by D, and its gradient."""
    columns = centered_columns(embeddings)  # [D][n]
    D = len(columns)
    n_minus_1 = max(1, len(embeddings) - 1)
    C = scale(1.0 / n_minus_1, matmul(columns, transpose(columns)))  # [D][D], eq. 3
    for d in range(D):
        C[d][d] = 0.0  # leave out the variances
    # Let c_i be column i. For i != j, C[i][j] = dot(c_i, c_j) / (n - 1), so
    # d loss / d C[i][j] = 2 C[i][j] / D, and d C[i][j] / d c_i = c_j / (n - 1).
    # C[i][j] and C[j][i] are both in the sum, which gives another factor of 2:
    # d loss / d c_i = 4 / (D * (n - 1)) * sum over j of C[i][j] * c_j.
    # As in variance_loss, centering does not change this, because each c_j sums to 0.
    gradient = scale(4.0 / (D * n_minus_1), matmul(C, columns))  # [D][n]
    return sum_of_squares(C) / D, transpose(gradient)  # [n][D]


# ---- 5. One image --------------------------------------------------------------------
# This is a JEPA in its simplest form: the forward pass of one image, and the update of
# the target encoder.

MODEL = init_model(Config(), Random(0))  # random weights, used if no model is given


def run_network(net, x):
    """Return the output [out] of a network for one input [in]."""
    [output], _ = mlp_forward(net, to_rows([x]))
    return output


def context_encode(patch, model=MODEL):
    """Return the embedding [D] of a context patch [P]."""
    return run_network(model["context_encoder"], patch)


def target_encode(patch, model=MODEL):
    """Return the embedding [D] of a target patch [P]."""
    return run_network(model["target_encoder"], patch)


def average(embeddings):
    """Return the mean [D] of n embeddings [n][D]."""
    rows = to_rows(embeddings)
    return [sum(column) / len(rows) for column in transpose(rows)]


def one_hot(position, length):
    """Return a list of zeros with a 1 at a position."""
    return [1.0 if i == position else 0.0 for i in range(length)]


def predict(avg_context, pos, model=MODEL, cfg=Config()):
    """Predict the embedding [D] of patch pos, 0 to K - 1, from the mean context [D]."""
    if pos not in range(cfg.num_patches):
        raise ValueError(f"pos must be from 0 to {cfg.num_patches - 1}, got {pos}")
    x = [*avg_context, *one_hot(pos, cfg.num_patches)]  # [D+K]
    return run_network(model["predictor"], x)


def mse(predictions, targets):
    """Return the mean squared error between predictions [n][D] and targets [n][D]."""
    return mse_loss(to_rows(predictions), to_rows(targets))[0]


def check_masks(context_mask, target_mask, num_patches):
    """Raise ValueError if a mask is empty or out of range, or if a patch occurs twice.

    A mask is a list of patch numbers, from 0 to num_patches - 1.
    """
    both = [*context_mask, *target_mask]
    bad = [pos for pos in both if pos not in range(num_patches) or both.count(pos) > 1]
    if bad or len(context_mask) == 0 or len(target_mask) == 0:
        numbers = f"0 to {num_patches - 1}, got {context_mask} and {target_mask}"
        raise ValueError(f"each mask needs patches, none of them twice, from {numbers}")


def jepa_forward(img, context_mask, target_mask, model=MODEL, cfg=Config()):
    """Return the prediction error of one image [height][width]."""
    patches = cut_images([img], cfg)[0]
    check_masks(context_mask, target_mask, cfg.num_patches)
    # Encode the context patches with the context encoder.
    context_embs = [context_encode(patches[i], model) for i in context_mask]
    avg_context = average(context_embs)
    # Encode the target patches with the target encoder.
    target_embs = [target_encode(patches[i], model) for i in target_mask]
    # Predict the target embeddings, and measure the error in embedding space.
    predictions = [predict(avg_context, pos, model, cfg) for pos in target_mask]
    return mse(predictions, target_embs)


def ema_update(momentum, model=MODEL):
    """Set target encoder = momentum * target + (1 - momentum) * context encoder."""
    target = model["target_encoder"]
    for layer, weights in model["context_encoder"].items():
        target[layer] = add(scale(momentum, target[layer]), weights, 1.0 - momentum)


# ---- 6. The heart: a batch, forward and backward -------------------------------------
# This is jepa_forward for a batch of images, with all three losses and their gradients.
def loss_and_gradients(batch, model, cfg):
    """Return the losses of a batch, and the gradients of the two trained networks.

    A batch is a list of B tuples (patches [K][P], context_mask, target_mask). Both
    results are dicts. The losses are the total, and its three terms before weighting.
    """
    # Gather the patches of all images: n context patches and m target patches.
    context_patches = []  # [n][P]
    context_image_index = []  # [n], the image that each patch comes from
    target_patches = []  # [m][P]
    target_image_index = []  # [m]
    positions = []  # [m][K], one-hot
    for index, (patches, context_mask, target_mask) in enumerate(batch):
        check_masks(context_mask, target_mask, cfg.num_patches)
        for pos in context_mask:
            context_patches.append(patches[pos])
            context_image_index.append(index)
        for pos in target_mask:
            target_patches.append(patches[pos])
            target_image_index.append(index)
            positions.append(one_hot(pos, cfg.num_patches))

    # For each target patch, the predictor needs the mean of the context embeddings of
    # the same image. We write the means as a product, mean_matrix @ context_embs, as we
    # know how to go backward through it. If an image has three context patches, the row
    # of its target patch has 1/3 at these three, and 0 elsewhere.
    mean_matrix = []  # [m][n]
    for index in target_image_index:
        share = 1.0 / context_image_index.count(index)
        mean_matrix.append([share if i == index else 0.0 for i in context_image_index])

    # Forward
    encoder = model["context_encoder"]
    predictor = model["predictor"]
    # Without the stop-gradient, the same encoder makes the targets (section 10).
    target_encoder = model["target_encoder"] if cfg.stop_gradient else encoder
    context_embs, context_cache = mlp_forward(encoder, context_patches)  # [n][D]
    target_embs, target_cache = mlp_forward(target_encoder, target_patches)  # [m][D]
    means = matmul(mean_matrix, context_embs)  # [m][D]
    inputs = [[*mean, *position] for mean, position in zip(means, positions)]
    predictions, pred_cache = mlp_forward(predictor, inputs)  # [m][D]

    # The three terms of the loss, each with its gradient before weighting
    pred_loss, pred_gradient = mse_loss(predictions, target_embs)
    var_loss, var_gradient = variance_loss(context_embs, cfg.gamma)
    cov_loss, cov_gradient = covariance_loss(context_embs)
    loss = cfg.pred_weight * pred_loss + cfg.var_weight * var_loss
    loss += cfg.cov_weight * cov_loss

    # Backward
    d_preds = scale(cfg.pred_weight, pred_gradient)  # [m][D]
    d_predictor, d_inputs = mlp_backward(predictor, pred_cache, d_preds, need_dx=True)
    d_means = [row[: cfg.embed_dim] for row in d_inputs]  # [m][D], without positions
    # In means = mean_matrix @ context_embs, the embeddings stand where W stands in
    # Y = X @ W (section 3). So dW = X.T @ dY becomes:
    d_context_embs = matmul(transpose(mean_matrix), d_means)  # [n][D]
    d_context_embs = add(d_context_embs, var_gradient, cfg.var_weight)
    d_context_embs = add(d_context_embs, cov_gradient, cfg.cov_weight)
    d_encoder, _ = mlp_backward(encoder, context_cache, d_context_embs)

    # One call is missing here on purpose: the backward pass of the target encoder. Its
    # output is taken as given, like a label. This is the stop-gradient.

    # Section 10 also trains without the stop-gradient. There, the context encoder has
    # made the targets, and we do go backward through them. The error depends only on
    # prediction - target, so the gradient with respect to the targets is -d_preds.
    if not cfg.stop_gradient:
        through_targets, _ = mlp_backward(encoder, target_cache, scale(-1.0, d_preds))
        for layer in d_encoder:
            d_encoder[layer] = add(d_encoder[layer], through_targets[layer], 1.0)

    losses = {"loss": loss, "pred": pred_loss, "var": var_loss, "cov": cov_loss}
    return losses, {"context_encoder": d_encoder, "predictor": d_predictor}


# ---- 7. Training ---------------------------------------------------------------------


def random_masks(num_patches, rng):
    """Draw a context mask and a target mask, of about 3/4 and 1/4 of the patches."""
    order = list(range(num_patches))
    rng.shuffle(order)
    num_targets = max(1, round(num_patches / 4))
    return order[num_targets:], order[:num_targets]


def round_weights(net):
    """Round the weights of a network to six decimals, in place.

    This is not part of the method. Versions of Python differ in the last bit of a sum,
    and training would amplify the difference.
    """
    for layer, weights in net.items():
        net[layer] = [[round(weight, 6) for weight in row] for row in weights]


def train(images, cfg, rng, model=None, masks=random_masks, on_epoch=None):
    """Train a copy of a model, or a new one. Return it, and the mean losses per epoch.

    images [N][height][width] have pixels of about -1 to 1. rng is a random.Random. To
    continue training, pass the model and the same rng again. masks is a function like
    random_masks. on_epoch is called with (epoch, losses, model) after each epoch.
    """
    data = cut_images(images, cfg)
    model = init_model(cfg, rng) if model is None else deepcopy(model)
    history = []
    for epoch in range(1, cfg.epochs + 1):
        rng.shuffle(data)
        losses = {"loss": 0.0, "pred": 0.0, "var": 0.0, "cov": 0.0}
        for start in range(0, len(data), cfg.batch_size):
            chosen = data[start : start + cfg.batch_size]
            batch = [(patches, *masks(cfg.num_patches, rng)) for patches in chosen]
            # Step 1: forward and backward
            batch_losses, gradients = loss_and_gradients(batch, model, cfg)
            # Step 2: gradient descent on the context encoder and the predictor
            for name, gradient in gradients.items():
                net = model[name]
                for layer in gradient:
                    net[layer] = add(net[layer], gradient[layer], -cfg.lr)
            # Step 3: the target encoder follows the context encoder
            ema_update(cfg.ema_momentum, model)
            for term in losses:  # mean over the images; the last batch can be smaller
                losses[term] += batch_losses[term] * len(batch) / len(data)
        if not losses["loss"] < 1e9:  # nan, or far above the losses of the demo
            advice = f"try a lower lr than {cfg.lr}, and pixels of about -1 to 1"
            raise FloatingPointError(f"training diverged in epoch {epoch}: {advice}")
        for net in model.values():
            round_weights(net)
        history.append(losses)
        if on_epoch:
            on_epoch(epoch, losses, model)
    return model, history


# ---- 8. Evaluation -------------------------------------------------------------------
# We measure the embeddings of the target encoder, as I-JEPA does. From here on, labels
# are used, but only to measure.


def embed_patches(images, model, cfg):
    """Return the embeddings [N*K][D] of all patches of N images."""
    data = cut_images(images, cfg)  # [N][K][P]
    return [target_encode(patch, model) for patches in data for patch in patches]


def embed(images, model, cfg):
    """Return the embeddings [N][D] of N images. Each is the mean over the patches."""
    return [average(embed_patches([img], model, cfg)) for img in to_list(images)]


def embedding_std(embeddings):
    """Return the root of the mean variance of the D dimensions of embeddings [n][D]."""
    columns = centered_columns(to_rows(embeddings))  # [D][n]
    D, n = shape(columns)
    return sqrt(sum_of_squares(columns) / (D * max(1, n - 1)))


def participation_ratio(embeddings):
    """Return the number of dimensions in use by embeddings [n][D].

    Here, a dimension can be any direction, and need not be one of the D numbers. With
    the covariances C, the result is (sum of all C[i][i])^2 / sum of all C[i][j]^2. If d
    of the D numbers have the same variance v, and all else in C is 0, this is
    (d * v)^2 / (d * v^2) = d. On a line, C[i][j]^2 is C[i][i] * C[j][j]. The sum of
    this over all i and j is (sum of all C[i][i])^2, so the ratio is 1.
    """
    columns = centered_columns(to_rows(embeddings))  # [D][n]
    products = matmul(columns, transpose(columns))  # [D][D], (n - 1) * C
    # The factor n - 1 does not change the ratio. The sum of the diagonal is the sum of
    # the squares of columns. If it is 0, so is the result.
    return sum_of_squares(columns) ** 2 / max(sum_of_squares(products), 1e-300)


def group_rows(rows, labels):
    """Return {label: list of its rows}. Raise ValueError if labels are missing."""
    labels = to_list(labels)
    if len(labels) != len(rows):
        raise ValueError(f"expected {len(rows)} labels, got {len(labels)}")
    groups = {}
    for row, label in zip(rows, labels):
        groups.setdefault(label, []).append(row)
    return groups


def explained_variance(embeddings, labels):
    """Return the share of the variance of embeddings [n][D] that labels [n] explain.

    Each row is replaced by the mean of the rows with its label. The share is the
    variance of these means, divided by the variance of the rows.
    """
    rows = to_rows(embeddings)
    means = []  # [n][D], in another order, but this does not change the variance
    for members in group_rows(rows, labels).values():
        means += [average(members)] * len(members)
    std = embedding_std(rows)
    return (embedding_std(means) / std) ** 2 if std > 0.0 else 0.0


def nearest_centroid(train_x, train_labels, x):
    """Return, for each row of x [m][D], the label of the nearest class mean [D]."""
    classes = group_rows(to_rows(train_x), train_labels)
    means = {label: average(rows) for label, rows in classes.items()}
    return [min(means, key=lambda label: dist(means[label], row)) for row in to_rows(x)]


def linear_probe(train_x, train_labels, x):
    """Return a label for each row of x [m][D], by ridge regression on train_x [n][D].

    Each class gets a linear function that should be 1 on its rows and 0 on the others.
    A row gets the label whose function is largest.
    """
    train_x = to_rows(train_x)
    labels = to_list(train_labels)
    classes = list(group_rows(train_x, labels))
    wanted = [one_hot(classes.index(label), len(classes)) for label in labels]
    # Let X be train_x with centered columns. Gradient descent lowers the sum of the
    # squares of X @ weights - wanted, plus a penalty times the sum of the squared
    # weights. Half the gradient is X.T @ (X @ weights - wanted) + penalty * weights.
    columns = centered_columns(train_x)  # [D][n], this is X.T
    XtX = matmul(columns, transpose(columns))  # X.T @ X, [D][D]
    XtY = matmul(columns, wanted)  # X.T @ wanted, [D][classes]
    # Gradient descent converges if the step is below 2 / (largest eigenvalue of XtX).
    # The sum of the squares of X is the sum of all eigenvalues, so the step is smaller.
    step = 0.9 / max(sum_of_squares(columns), 1e-300)  # never divide by 0
    # We choose 0.01 / step as the penalty. Then it shrinks the weights by 1 % a step.
    # 200 steps come close to the solution, except where X has very little variance.
    weights = scale(0.0, XtY)  # [D][classes], zeros to start from
    for _ in range(200):
        half_gradient = add(matmul(XtX, weights), XtY, -1.0)  # without the penalty
        weights = add(scale(0.99, weights), half_gradient, -step)
    # Append a row of biases. The columns of X sum to 0, so with the best biases, the
    # mean of train_x gives the mean of wanted.
    weights += add([average(wanted)], matmul([average(train_x)], weights), -1.0)
    values = matmul([[*row, 1.0] for row in to_rows(x)], weights)  # [m][classes]
    return [classes[row.index(max(row))] for row in values]


def few_shot_accuracy(classifier, x, labels, shots, rng, trials=20):
    """Return the mean accuracy of a classifier, given `shots` random rows per class."""
    classes = group_rows(to_rows(x), labels)
    for label, rows in classes.items():
        if not 0 < shots < len(rows):
            raise ValueError(f"class {label!r} has {len(rows)} rows, got {shots} shots")
    correct = []
    for _ in range(trials):
        known = []  # pairs of a row and its label
        asked = []
        for label, rows in classes.items():
            pairs = [(row, label) for row in rng.sample(rows, len(rows))]
            known += pairs[:shots]
            asked += pairs[shots:]
        train_x, train_labels = zip(*known)
        test_x, test_labels = zip(*asked)
        predicted = classifier(train_x, train_labels, test_x)
        correct += [predicted[i] == label for i, label in enumerate(test_labels)]
    return sum(correct) / len(correct)


def r_squared(pred_loss, images, model, cfg):
    """Return the share of the variance of the targets that the predictor explains.

    It is below 0 if always predicting the mean target would be better. It is an
    estimate, because pred_loss is the mean over an epoch, in which the weights changed.
    """
    std = embedding_std(embed_patches(images, model, cfg))
    return 1.0 - pred_loss / std**2 if std > 0.0 else nan


def evaluate(image_x, patch_x, signs, labels, seed):
    """Return four measures of what embeddings or pixels reveal.

    image_x has a row for each image, and patch_x one for each patch. The measures are
    the accuracy of nearest_centroid with 1 label per class, that of linear_probe with
    50, the share of the variance of patch_x that the pattern explains, and the share
    that the sign explains beyond pattern and position.
    """
    rng = Random(seed)
    one_shot = few_shot_accuracy(nearest_centroid, image_x, labels, 1, rng)
    probe = few_shot_accuracy(linear_probe, image_x, labels, 50, rng)
    triples = []  # pattern, position and sign of each patch
    for pattern, image_signs in zip(labels, signs):
        triples += [(pattern, pos, sign) for pos, sign in enumerate(image_signs)]
    by_pattern = explained_variance(patch_x, [triple[0] for triple in triples])
    # What a sign does depends on pattern and position: in h_gradient, -1 makes left
    # patches lighter and right ones darker.
    without_sign = explained_variance(patch_x, [triple[:2] for triple in triples])
    with_sign = explained_variance(patch_x, triples)
    return one_shot, probe, by_pattern, with_sign - without_sign


# ---- 9. The demo ---------------------------------------------------------------------


def shade(pixel):
    """Return two characters for a pixel, from blank for black to @@ for white."""
    if pixel is None:  # hidden
        return "??"
    level = min(9, max(0, int(5 * pixel + 5)))  # from -1 to 1 -> from 0 to 9
    return 2 * " .:-=+*#%@"[level]


def show(images, titles):
    """Print images [4][4] side by side, under their titles."""
    print("".join(f"{title:18}" for title in titles))
    for rows in zip(*images):  # the first row of each image, then the second, ...
        print("          ".join("".join(map(shade, row)) for row in rows))


def demo(cfg, seed):
    """Train a JEPA, and print what it learned."""
    rng = Random(seed)
    images, signs, _ = draw_dataset(50, rng)
    test_images, test_signs, test_labels = draw_dataset(100, rng)
    clean_images = [clean_image(pattern) for pattern in PATTERNS]
    print("VibeML Micro JEPA - Learning Representations via Prediction")
    print("=" * 60 + f"\n\nGenerated {len(images)} training images (4x4)")
    print(f"Architecture: 2x2 patches -> {cfg.embed_dim}-dim embeddings\n")
    print("The patterns:")
    show(clean_images, PATTERNS)
    print("\nTraining images with the signs of their patches. One patch is hidden: ??")
    examples = []
    for image in images[:4]:  # hide the bottom right patch; training hides a random one
        examples.append(image[:2] + [[*row[:2], None, None] for row in image[2:]])
    show(examples, map(str, signs[:4]))
    print(f"""
Training for {cfg.epochs} epochs...
Learning rate: {cfg.lr}, EMA momentum: {cfg.ema_momentum}
Loss: {cfg.pred_weight:g} Pred + {cfg.var_weight:g} Var + {cfg.cov_weight:g} Cov
R2: 1 for perfect prediction, 0 for always predicting the mean target
------------------------------------------------------------""")

    def report(epoch, losses, model):
        """Print the losses of some epochs."""
        if epoch in (1, 2, 5) or epoch % 10 == 0:
            r2 = r_squared(losses["pred"], images, model, cfg)
            terms = " | ".join(f"{k.title()}: {v:.4f}" for k, v in losses.items())
            print(f"Epoch {epoch:4} | {terms} | R2: {r2:.2f}")

    # Each model gets a new Random(seed), so all models start from the same weights.
    jepa, _ = train(images, cfg, Random(seed), on_epoch=report)
    print("\nRepresentation Quality Test\n" + "=" * 60)
    print("Embeddings for different patterns:")
    embeddings = embed(clean_images, jepa, cfg)
    for pattern, row in zip(PATTERNS, embeddings):
        print(f"{pattern:12}: [" + ", ".join(f"{v:6.3f}" for v in row) + "]")
    print("\nCosine similarities between patterns:")
    print(" " * 10 + "".join(f"{pattern:>12}" for pattern in PATTERNS))
    units = [[v / hypot(*row) for v in row] for row in embeddings]  # of length 1
    for pattern, cosines in zip(PATTERNS, matmul(units, transpose(units))):
        print(f"{pattern:10}" + "".join(f"{v:12.3f}" for v in cosines))
    print("\n               accuracy on new images      share of patch variance")
    print("                1-shot   linear probe         pattern    sign")
    image_pixels = [[v for row in image for v in row] for image in test_images]
    data = cut_images(test_images, cfg)
    rows = [("pixels", image_pixels, [patch for patches in data for patch in patches])]
    untrained = init_model(cfg, Random(seed))
    no_pred, _ = train(images, replace(cfg, pred_weight=0.0), Random(seed))
    models = [("untrained", untrained), ("no prediction", no_pred), ("JEPA", jepa)]
    for name, model in models:
        patch_x = embed_patches(test_images, model, cfg)
        rows.append((name, embed(test_images, model, cfg), patch_x))
    probes = {}
    for name, image_x, patch_x in rows:
        figures = evaluate(image_x, patch_x, test_signs, test_labels, seed)
        print("{:14}{:8.1%}{:15.1%}{:16.1%}{:8.1%}".format(name, *figures))
        probes[name] = figures[1]
    print(f"""
'1-shot' has 1 label per pattern, 'linear probe' 50. Chance is {1 / len(PATTERNS):.0%}.
'sign' is what the sign explains beyond pattern and position. 'no prediction' is trained
on Var and Cov alone. On nearly every seed, JEPA has a lower 'sign' than 'untrained' and
'no prediction', and values at least as high in the other columns.

Linear Probe Test: {probes['JEPA']:.1%} accuracy on downstream classification! \
(untrained encoder: {probes['untrained']:.1%})""")


# ---- 10. Ablation: which part prevents collapse? -------------------------------------
# An ablation leaves out parts of a method. Each row of ABLATION changes some settings.

# After every step, the target encoder becomes a copy of the context encoder.
NO_EMA = {"ema_momentum": 0.0}
# Without the stop-gradient, the context encoder makes the targets. But the evaluation
# reads the target encoder, so it has to be a copy.
ONE_ENCODER = {"stop_gradient": False, **NO_EMA}
NO_VAR_NO_COV = {"var_weight": 0.0, "cov_weight": 0.0}
# The last row has a stronger variance loss instead of the stop-gradient, as in VICReg.
# This makes the gradients larger, so the learning rate is lower.
STRONG_VAR = {"var_weight": 40.0, "gamma": 0.4, "lr": 0.012}

# The comments give means over 20 seeds after 50 epochs (tests/studies/RESULTS.md).
# Seeds that diverged are left out. std is the embedding_std, divided by its value
# before training. dims is the participation_ratio. The percentage is the accuracy with
# one label per class. `--collapse` trains one seed, for 35 epochs, so it prints other
# numbers.
ABLATION = {
    "untrained": {"epochs": 1, "lr": 0.0},  # std 1.00, dims 2.5, 68.2 %
    "everything": {},  # std 0.67, dims 4.9, 99.9 %
    "no prediction": {"pred_weight": 0.0},  # std 0.56, dims 5.6, 77.7 %
    "no stop-gradient": ONE_ENCODER,  # std 0.47, dims 1.3, 80.1 %
    "no EMA": NO_EMA,  # std 0.65, dims 5.3, 99.8 %
    "no Var": {"var_weight": 0.0},  # std 0.74, dims 2.3, 97.9 %
    "no Cov": {"cov_weight": 0.0},  # std 1.87, dims 2.3, 87.4 %; 6 diverged
    "no Var, no Cov": NO_VAR_NO_COV,  # std 1.74, dims 2.5, 96.8 %; 7 diverged
    "no EMA, Var or Cov": {**NO_EMA, **NO_VAR_NO_COV},  # std 1.71, dims 2.6, 97.8 %
    "prediction alone": {**ONE_ENCODER, **NO_VAR_NO_COV},  # std 0.02, dims 4.3, 43.8 %
    "strong Var": {**ONE_ENCODER, **STRONG_VAR},  # std 1.62, dims 4.7, 100.0 %
}
# Without Var and Cov, it is the stop-gradient that prevents collapse to a point. It is
# the only difference between "prediction alone" and "no EMA, Var or Cov": in both, the
# target encoder equals the context encoder, and only the gradient differs. Without the
# stop-gradient, std falls to 0.02. (dims is still 4.3, because dims and accuracy do not
# depend on scale. They describe the small differences that remain.)
#
# The stop-gradient is also the only difference between "no EMA" and "no stop-gradient".
# Without it, Var and Cov still prevent collapse to a point, but dims falls from 5.3 to
# 1.3, close to a line. A line costs little. Var is 0 if each number of the embedding
# has the standard deviation gamma = 0.1. On such a line, each of the 6 * 5 covariances
# is 0.1^2 or -0.1^2, and Cov is 30 * 0.1^4 / 6 = 0.0005. With its weight of 100, it
# adds only 0.05 to the loss. At the end of training, the whole loss is 0.19 in "no
# stop-gradient" and 0.69 in "no EMA". With a gamma of 0.4, as in "strong Var", a line
# would cost 4^4 = 256 times as much. There, dims is 4.7.
#
# With the stop-gradient, dims is 4.9 in "everything". If Var or Cov or both are
# missing, it stays about where it was before training, between 2.3 and 2.6. So they
# raise it only together. Without Cov, std is higher, and some runs diverge: of 100
# seeds (tests/studies/recorded/no_cov_100.txt), 44 in "no Cov", 35 in "no Var, no Cov",
# and 6 in "no EMA, Var or Cov". Cov limits the scale of the embeddings, because it
# grows with the fourth power of the scale.
#
# Prediction raises the accuracy from 77.7 % to 99.9 %. EMA is not needed here.


def collapse(cfg, seed):
    """Train with parts left out, and print how far the embeddings have collapsed."""
    rng = Random(seed)
    images, _, _ = draw_dataset(50, rng)
    test_images, test_signs, test_labels = draw_dataset(100, rng)
    print(f"Ablation, {cfg.epochs} epochs: which part prevents collapse?\n" + "=" * 60)
    print(f"""Pred        prediction error in the last epoch
R2          1 for perfect prediction, 0 for always predicting the mean target
std         standard deviation of the embeddings, divided by its value before training
dimensions  number of dimensions in use, at most {cfg.embed_dim}
sign        share of the variance that the sign explains beyond pattern and position
1-shot      accuracy with one label per class

                        Pred     R2    std  dimensions    sign  1-shot""")
    untrained = init_model(cfg, Random(seed))
    untrained_std = embedding_std(embed_patches(test_images, untrained, cfg))
    for name, changes in ABLATION.items():
        try:
            model, history = train(images, replace(cfg, **changes), Random(seed))
        except FloatingPointError:
            print(f"{name:19} diverged")
            continue
        pred = history[-1]["pred"]
        r2 = r_squared(pred, images, model, cfg)
        image_x = embed(test_images, model, cfg)
        patch_x = embed_patches(test_images, model, cfg)
        std = embedding_std(patch_x) / untrained_std
        dimensions = participation_ratio(patch_x)
        one_shot, _, _, sign = evaluate(image_x, patch_x, test_signs, test_labels, seed)
        words = ""
        if std < 0.1:  # these limits are chosen by eye
            words = "all in one point"
        elif dimensions < 1.5:
            words = "on a line"
        cells = f"{pred:9.5f}{r2:7.2f}{std:7.2f}{dimensions:12.1f}{sign:8.1%}"
        print(f"{name:19}{cells}{one_shot:8.1%}  {words}")
    print("""
The stop-gradient is the only difference between
    'no stop-gradient' and 'no EMA', and between
    'prediction alone' and 'no EMA, Var or Cov'.
In 'untrained' and 'no prediction', the predictor is not trained: ignore Pred and R2.
Unless it diverged, 'prediction alone' has the lowest Pred, and has collapsed.
So a low Pred alone proves nothing.""")


def main():
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Train a micro JEPA on 4x4 images.")
    parser.add_argument("--seed", type=int, default=0, help="for all random numbers")
    parser.add_argument("--collapse", action="store_true", help="run the ablation")
    options = parser.parse_args()
    if options.seed < 0:  # Random(-1) would be the same as Random(1)
        parser.error("--seed must be 0 or more")
    if options.collapse:
        collapse(Config(epochs=35), options.seed)  # fewer epochs, to save time
    else:
        demo(Config(), options.seed)


if __name__ == "__main__":
    try:
        main()
        sys.stdout.flush()  # a broken pipe shows here, inside the try
    except FloatingPointError as error:
        sys.exit(error)
    except KeyboardInterrupt:
        sys.exit(130)  # as other programs do after Ctrl-C
    except BrokenPipeError:  # the program that read our output, like `head`, has ended
        sys.stdout = None  # otherwise Python would write to it again at exit
        sys.exit(1)
