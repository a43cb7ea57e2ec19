#!/usr/bin/env python3
"""Micro JEPA: a Joint-Embedding Predictive Architecture to read in one sitting.

A JEPA learns without labels. Ours learns from images. It cuts an image into patches and
hides some of them. The visible patches are the context, and the hidden ones are the
target patches. From the context, it predicts the target patches: not their pixels, but
their embeddings. An embedding is a list of numbers that a network, called an encoder,
computes from a patch. There are two encoders:

    context patches --> context encoder --> mean ---+
                                                    +--> predictor --> prediction --+
                  position of the target patch -----+                               |
                                                                                  error
                                                                                    |
    target patch -----> target encoder --------------------------> target ----------+

The predictor is given the mean of the context embeddings, and the position of the patch
that it has to predict. The error is the mean squared difference between prediction and
target. Gradient descent lowers it by changing the predictor and the context encoder. No
gradient flows back through the target. This rule is called the stop-gradient. So the
target encoder is not trained. Instead, it follows the context encoder: after every
step, each of its weights becomes 95 % of its old value plus 5 % of the corresponding
weight of the context encoder. Such a running average is called an exponential moving
average (EMA). BYOL (Grill et al. 2020) has one in the same place. The whole design
follows I-JEPA (Assran et al. 2023), but is far simpler.

What do the encoders learn? Each of our images shows one of four patterns, such as a
checkerboard, and each patch is multiplied by a random sign, 1 or -1. During training,
the embeddings come to depend less on the sign:

1. The sign of a visible patch says nothing about the hidden patch. In the mean of the
   context embeddings, it is only noise. A prediction that depends on it has a larger
   error on average. So over many steps, gradient descent makes the prediction depend
   less on the sign, by changing both the predictor and the context encoder.
2. The target encoder follows the context encoder. So it depends less on the sign, too.
3. As a result, the sign of a target patch, which cannot be predicted, changes the
   target less. So the error falls.

The pattern is kept. All patches of an image share it, so the context shows the pattern
of the hidden patch. Does this help, if the sign is unknown? The best prediction is the
mean of two embeddings, those of the patch and of its negative. With a linear encoder,
they would be bias + v and bias - v, and their mean would be the bias for every pattern.
With the ReLU of our encoder (section 3), the mean differs from pattern to pattern. So
knowing the pattern lowers the error, the gradient makes the context encoder tell the
patterns apart, and the target encoder follows.

A low error alone proves nothing. If the encoders gave every patch the same embedding,
the predictor could always answer with that embedding, and the error would be 0. This is
called collapse to a point. If the gradient also flowed through the targets, training
could reach it by pulling the targets towards the predictions. With the stop-gradient,
the gradient can only pull the predictions towards the targets. Why this is enough to
prevent collapse to a point is only partly understood (Tian, Chen and Ganguli 2021).

The embeddings can also collapse to a line. Then they differ from patch to patch, but in
one direction only. Any two numbers of the embedding that vary rise and fall together,
or one rises when the other falls. The loss has two more terms, which I-JEPA does not
have. The variance loss asks each number of the embedding to vary from patch to patch.
The covariance loss asks the numbers to be uncorrelated. On a line, they cannot both be
satisfied.

`python3 jepa.py` trains a JEPA and, for comparison, the same networks without the
prediction error. `python3 jepa.py --collapse` leaves out other parts, too.

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
    # The three terms of the loss (section 4) have weights, which were found by trial.
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
# An image has 4x4 pixels, from -1 for black to 1 for white. It shows one of four
# patterns, multiplied by a random contrast of 0.8 to 1. Then each of its four patches
# is multiplied by a random sign, and every pixel gets some noise. The patches share
# the contrast, so it can be predicted, like the pattern.

# Each pattern is a function of row and column that returns a pixel. The first two are
# ramps from black to white. The last is grey, and a sign does not change it.
PATTERNS = {
    "h_gradient": lambda row, column: 2.0 * column / 3.0 - 1.0,  # -1, -1/3, 1/3, 1
    "v_gradient": lambda row, column: 2.0 * row / 3.0 - 1.0,
    "checker": lambda row, column: (-1.0) ** (row + column),
    "uniform": lambda row, column: 0.0,
}


def clean_image(pattern, contrast=0.9):  # 0.9 is the mean contrast
    """Return an image [4][4] of a pattern, without signs and noise."""
    value = PATTERNS[pattern]
    return [[contrast * value(row, column) for column in range(4)] for row in range(4)]


def draw_image(pattern, rng):
    """Draw an image [4][4] of a pattern. Return it and the signs [4] of its patches."""
    image = clean_image(pattern, contrast=rng.uniform(0.8, 1.0))
    signs = [rng.choice([-1, 1]) for _ in range(4)]
    for row in range(4):
        for column in range(4):
            pos = 2 * (row // 2) + column // 2  # patches 0 and 1 are at the top
            pixel = signs[pos] * image[row][column] + rng.gauss(0.0, 0.1)
            # Round, because platforms differ in the last digits of gauss().
            image[row][column] = round(pixel, 6)
    return image, signs


def draw_dataset(per_pattern, rng):
    """Draw per_pattern images of each pattern. Return the images, signs and labels."""
    labels = list(PATTERNS) * per_pattern  # the patterns take turns
    # zip(*pairs) turns a list of pairs into two tuples.
    images, signs = zip(*[draw_image(label, rng) for label in labels])
    return images, signs, labels


# The next two functions turn your own data into checked lists. Skip them at first.
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
    lengths = {len(row) for row in rows}
    finite = all(isfinite(value) for row in rows for value in row)
    if len(lengths) != 1 or not finite:
        raise ValueError(f"{name} must be rows of finite numbers, all of one length")
    return rows


def shape(x):
    """Return the number of rows and the number of columns of a matrix."""
    return len(x), len(x[0])


def extract_patches(img, patch_size=2):
    """Cut an image [height][width] into patches [K][P], row by row, from left to right.

    Raise ValueError if the image does not divide into whole patches.
    """
    img = to_rows(img, "an image (height x width, grey values of about -1 to 1)")
    height, width = shape(img)
    if patch_size < 1 or height % patch_size or width % patch_size:
        raise ValueError(
            f"cannot cut {height}x{width} pixels into {patch_size}x{patch_size} patches"
        )
    patches = []
    for top in range(0, height, patch_size):
        for left in range(0, width, patch_size):
            patch = []
            for row in img[top : top + patch_size]:
                patch += row[left : left + patch_size]
            patches.append(patch)
    return patches


def cut_images(images, cfg):
    """Cut images [N][height][width] into patches [N][K][P].

    Raise ValueError if there are no images, or if one of them does not have K patches.
    """
    data = [extract_patches(img, cfg.patch_size) for img in to_list(images)]
    counts = {len(patches) for patches in data}
    if counts != {cfg.num_patches}:  # counts is empty if there are no images
        raise ValueError(f"images need {cfg.num_patches} patches, got {sorted(counts)}")
    return data


# ---- 3. A network, forward and backward ----------------------------------------------
# All networks here are multilayer perceptrons (MLPs) of two linear layers, with a ReLU
# between them: relu(v) is the maximum of v and 0. A bias is the weight of an input that
# is always 1. So we append a 1 to the input of each layer, and a network is just two
# matrices, W1 and W2.
#
# In the backward pass, dA stands for the gradient of the loss with respect to A. Take a
# matrix product Y = X @ W, where Y[r][j] is the sum over i of X[r][i] * W[i][j]. By the
# chain rule,
#     dW[i][j] = sum over r of X[r][i] * dY[r][j],  which is  dW = X.T @ dY
#     dX[r][i] = sum over j of dY[r][j] * W[i][j],  which is  dX = dY @ W.T
# with .T for transpose.


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


def init_layer(num_in, num_out, rng):
    """Return random weights [in+1][out]. The last row, the biases, starts at 0."""
    # The larger the layer, the smaller the weights (Glorot and Bengio 2010, eq. 16).
    limit = sqrt(6.0 / (num_in + num_out))
    weights = [
        [rng.uniform(-limit, limit) for _ in range(num_out)] for _ in range(num_in)
    ]
    return weights + [[0.0] * num_out]


def init_mlp(num_in, num_hidden, num_out, rng):
    """Return a new network: W1 [in+1][hidden] and W2 [hidden+1][out]."""
    return {
        "W1": init_layer(num_in, num_hidden, rng),
        "W2": init_layer(num_hidden, num_out, rng),
    }


def mlp_forward(net, x):
    """Return outputs [n][out] for inputs x [n][in], and a cache for mlp_backward."""
    x = [[*row, 1.0] for row in x]  # [n][in+1]
    z = matmul(x, net["W1"])  # [n][hidden]
    h = [[v if v > 0.0 else 0.0 for v in row] for row in z]  # [n][hidden]: ReLU
    h = [[*row, 1.0] for row in h]  # [n][hidden+1]
    y = matmul(h, net["W2"])  # [n][out]
    return y, (x, h)


def mlp_backward(net, cache, dy, need_dx=False):
    """Apply the chain rule to mlp_forward, from its last line to its first.

    dy has the shape [n][out]. Return {"W1": dW1, "W2": dW2}, and dx [n][in] if needed.
    """
    x, h = cache  # [n][in+1] and [n][hidden+1], with the 1s
    dW2 = matmul(transpose(h), dy)  # [hidden+1][out]
    # The 1s in h are constants and get no gradient. So we need W2 without its bias row,
    # and each row of h without its last number.
    W2 = net["W2"][:-1]  # [hidden][out], row j: from hidden unit j to the outputs
    # dh = dy @ W2.T, so dh[r][j] = dot(dy[r], W2[j]). Where h is 0, ReLU blocks the
    # gradient, and dz is 0. There we do not compute dh, to save time.
    dz = []  # [n][hidden]
    for h_row, dy_row in zip(h, dy):
        dz_row = []
        for h_j, W2_j in zip(h_row[:-1], W2):
            dz_row.append(dot(dy_row, W2_j) if h_j > 0.0 else 0.0)
        dz.append(dz_row)
    dW1 = matmul(transpose(x), dz)  # [in+1][hidden]
    dx = None
    if need_dx:
        dx = matmul(dz, transpose(net["W1"][:-1]))  # [n][in], without the biases
    return {"W1": dW1, "W2": dW2}, dx


def add_to(net, change, factor):
    """Add factor * change to net, in place. Both are dicts with W1 and W2."""
    for layer in net:
        net[layer] = add(net[layer], change[layer], factor)


def init_model(cfg, rng):
    """Return a new model, a dict of three networks. The encoders start out equal."""
    D = cfg.embed_dim
    encoder = init_mlp(cfg.patch_size**2, cfg.encoder_hidden, D, rng)
    # The predictor takes the mean of the context embeddings, D numbers, and the
    # position, K numbers: a 1 at the position, and 0 elsewhere (one-hot).
    predictor = init_mlp(D + cfg.num_patches, cfg.predictor_hidden, D, rng)
    return {
        "context_encoder": encoder,
        "target_encoder": deepcopy(encoder),
        "predictor": predictor,
    }


# ---- 4. The losses, each with its gradient -------------------------------------------
# The first loss is the prediction error. The variance and the covariance loss come from
# VICReg, variance-invariance-covariance regularization (Bardes, Ponce and LeCun 2022).
# They act on the context embeddings of a batch. Each of the D numbers of an embedding
# is called a dimension.

EPS = 1e-4  # added to each variance: at 0, the square root has no derivative


def mse_loss(predictions, targets):
    """Return the mean squared error of predictions [n][D], and its gradient [n][D]."""
    errors = add(predictions, targets, -1.0)  # predictions - targets, [n][D]
    count = len(errors) * len(errors[0])
    loss = sum_of_squares(errors) / count
    # d loss / d predictions = 2 * errors / count
    return loss, scale(2.0 / count, errors)


def centered_columns(embeddings):
    """Return the columns of embeddings [n][D] as a list [D][n], each minus its mean."""
    columns = []
    for column in transpose(embeddings):
        # The mean of equal numbers may be off by a rounding error. So we subtract the
        # first number before we take the mean. Then equal numbers give exactly 0.
        column = [v - column[0] for v in column]
        mean = sum(column) / len(column)
        columns.append([v - mean for v in column])
    return columns


def variance_loss(embeddings, gamma):
    """Return VICReg's variance loss (eq. 1, 2) of embeddings [n][D], and its gradient.

    The loss is the mean of max(0, gamma - std) over the dimensions.
    """
    columns = centered_columns(embeddings)  # [D][n]
    D = len(columns)
    n_minus_1 = max(1, len(embeddings) - 1)  # not 0, because we divide by it
    loss = 0.0
    gradient = []  # [D][n]
    for column in columns:
        std = sqrt(dot(column, column) / n_minus_1 + EPS)
        loss += max(0.0, gamma - std) / D
        # Let c be the column. As long as std is below gamma, d loss / d std = -1 / D.
        # d std / d c[r] = c[r] / (std * (n - 1)).
        # Together: g[r] = d loss / d c[r] = -c[r] / (D * std * (n - 1)).
        # Before centering, the column was x, with c[r] = x[r] - mean(x). If x[r] rises
        # by 1, the mean rises by 1/n. So c[r] rises by 1 - 1/n, and every other c[s]
        # falls by 1/n. So d loss / d x[r] = g[r] - (sum of all g[s]) / n.
        # This sum is 0, because g is a multiple of c, and c sums to 0.
        factor = -1.0 / (D * std * n_minus_1) if std < gamma else 0.0
        gradient.append([factor * v for v in column])
    return loss, transpose(gradient)  # [n][D]


def covariance_loss(embeddings):
    """Return VICReg's covariance loss (eq. 4) of embeddings [n][D], and its gradient.

    The loss is the sum of the squares of all covariances C[i][j], i != j, divided by D.
    """
    columns = centered_columns(embeddings)  # [D][n]
    D = len(columns)
    n_minus_1 = max(1, len(embeddings) - 1)
    C = scale(1.0 / n_minus_1, matmul(columns, transpose(columns)))  # [D][D], eq. 3
    for d in range(D):
        C[d][d] = 0.0  # leave out the variances
    loss = sum_of_squares(C) / D
    # Let c_i be the centered column i. For i != j, C[i][j] = dot(c_i, c_j) / (n - 1).
    # d loss / d C[i][j] = 2 C[i][j] / D, and d C[i][j] / d c_i = c_j / (n - 1).
    # C[i][j] and C[j][i] are both in the sum, which gives another factor of 2. So
    # d loss / d c_i = 4 / (D * (n - 1)) * sum over j of C[i][j] * c_j.
    # Each c_j sums to 0, and so does this gradient. So, as in variance_loss, it is also
    # the gradient with respect to the column before centering.
    gradient = scale(4.0 / (D * n_minus_1), matmul(C, columns))  # [D][n]
    return loss, transpose(gradient)  # [n][D]


# ---- 5. One image --------------------------------------------------------------------
# This is a JEPA in its simplest form: the forward pass of one image, and the update of
# the target encoder. If you give these functions no model, they use MODEL, which has
# random weights.

MODEL = init_model(Config(), Random(0))


def run_network(net, x):
    """Return the output [out] of a network for one input [in]."""
    outputs, _ = mlp_forward(net, to_rows([x]))
    return outputs[0]


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
    vector = [0.0] * length
    vector[position] = 1.0
    return vector


def predict(avg_context, pos, model=MODEL, cfg=Config()):
    """Predict the embedding [D] of patch pos from the mean context embedding [D].

    Raise ValueError if pos is not a patch number, from 0 to K - 1.
    """
    if pos not in range(cfg.num_patches):
        raise ValueError(f"pos must be from 0 to {cfg.num_patches - 1}, got {pos}")
    x = [*avg_context, *one_hot(pos, cfg.num_patches)]  # [D+K]
    return run_network(model["predictor"], x)


def mse(predictions, targets):
    """Return the mean squared error between predictions [n][D] and targets [n][D]."""
    error, _ = mse_loss(to_rows(predictions), to_rows(targets))
    return error


def check_masks(context_mask, target_mask, num_patches):
    """Raise ValueError if a mask is empty or out of range, or if a patch occurs twice.

    A mask is a list of patch numbers, from 0 to num_patches - 1. The context mask lists
    the visible patches, and the target mask the hidden ones.
    """
    both = [*context_mask, *target_mask]
    valid = len(context_mask) > 0 and len(target_mask) > 0
    for pos in both:
        if pos not in range(num_patches) or both.count(pos) > 1:
            valid = False
    if not valid:
        raise ValueError(
            f"masks must list different patches from 0 to {num_patches - 1}, "
            f"got {context_mask} and {target_mask}"
        )


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


def ema_update(momentum=Config.ema_momentum, model=MODEL):
    """Set target encoder = momentum * target + (1 - momentum) * context encoder."""
    target = model["target_encoder"]
    context = model["context_encoder"]
    for layer in target:
        target[layer] = add(
            scale(momentum, target[layer]), context[layer], 1.0 - momentum
        )


# ---- 6. The heart: a batch, forward and backward -------------------------------------
# This is jepa_forward for a batch of images, with all three losses and their gradients.


def loss_and_gradients(batch, model, cfg):
    """Run one batch forward and backward.

    batch is a list of B tuples (patches [K][P], context_mask, target_mask). Return two
    dicts. The first has the total loss, and its three terms before weighting. The
    second has the gradients of the context encoder and of the predictor.
    """
    # Gather the patches of all images: n context patches and m target patches.
    context_patches = []  # [n][P]
    context_image_index = []  # [n], the index of the image of each patch
    target_patches = []  # [m][P]
    target_image_index = []  # [m], the same for the target patches
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
    # the same image. We write the means as a matrix product, mean_matrix @
    # context_embs, because we know how to go backward through a matrix product. If a
    # batch has two images of three context patches each, a row of mean_matrix is
    #     [1/3, 1/3, 1/3, 0, 0, 0] for a target patch of the first image, and
    #     [0, 0, 0, 1/3, 1/3, 1/3] for a target patch of the second image.
    mean_matrix = []  # [m][n]
    for index in target_image_index:
        share = 1.0 / context_image_index.count(index)
        mean_matrix.append([share if i == index else 0.0 for i in context_image_index])

    # Forward
    encoder = model["context_encoder"]
    predictor = model["predictor"]
    # Without the stop-gradient, the context encoder makes the targets (section 10).
    target_encoder = model["target_encoder"] if cfg.stop_gradient else encoder
    context_embs, context_cache = mlp_forward(encoder, context_patches)  # [n][D]
    target_embs, target_cache = mlp_forward(target_encoder, target_patches)  # [m][D]
    means = matmul(mean_matrix, context_embs)  # [m][D]
    inputs = [[*mean, *position] for mean, position in zip(means, positions)]
    predictions, predictor_cache = mlp_forward(predictor, inputs)  # [m][D]

    # The three terms of the loss, each with its gradient before weighting
    pred_loss, pred_gradient = mse_loss(predictions, target_embs)
    var_loss, var_gradient = variance_loss(context_embs, cfg.gamma)
    cov_loss, cov_gradient = covariance_loss(context_embs)
    loss = cfg.pred_weight * pred_loss + cfg.var_weight * var_loss
    loss += cfg.cov_weight * cov_loss

    # Backward
    d_predictions = scale(cfg.pred_weight, pred_gradient)  # [m][D]
    d_predictor, d_inputs = mlp_backward(
        predictor, predictor_cache, d_predictions, need_dx=True
    )
    # The means are the first D numbers of the inputs, and the rest is the position.
    d_means = [row[: cfg.embed_dim] for row in d_inputs]  # [m][D]
    # means = mean_matrix @ context_embs has the form Y = X @ W of section 3, with the
    # embeddings as W. So dW = X.T @ dY gives their gradient:
    d_context_embs = matmul(transpose(mean_matrix), d_means)  # [n][D]
    # The context embeddings enter all three terms, so three gradients add up.
    d_context_embs = add(d_context_embs, var_gradient, cfg.var_weight)
    d_context_embs = add(d_context_embs, cov_gradient, cfg.cov_weight)
    d_encoder, _ = mlp_backward(encoder, context_cache, d_context_embs)

    # One call is missing here on purpose: the backward pass of the target encoder. Its
    # output is taken as given, like a label. This is the stop-gradient.

    # Section 10 also trains without the stop-gradient. In that case, the context
    # encoder has made the targets, and we do go backward through them.
    if not cfg.stop_gradient:
        # The error depends only on prediction - target, so this is -d_predictions.
        d_target_embs = scale(-1.0, d_predictions)  # [m][D]
        through_targets, _ = mlp_backward(encoder, target_cache, d_target_embs)
        add_to(d_encoder, through_targets, 1.0)

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
    """Train a copy of a model, or a new model if none is given.

    images    [N][height][width], with pixels of about -1 to 1
    rng       a random.Random for the weights, the order of images and the masks. To
              continue training, pass the model and the same rng object again.
    masks     a function of num_patches and rng that returns (context_mask, target_mask)
    on_epoch  a function of epoch, losses and model, called after each epoch

    Return the trained model, and a list of the losses of each epoch, averaged over the
    images. Raise FloatingPointError if training diverges.
    """
    if not isinstance(rng, Random):
        raise ValueError(f"rng must be a random.Random, got {type(rng).__name__}")
    data = cut_images(images, cfg)
    model = init_model(cfg, rng) if model is None else deepcopy(model)
    history = []
    for epoch in range(1, cfg.epochs + 1):
        rng.shuffle(data)
        losses = {"loss": 0.0, "pred": 0.0, "var": 0.0, "cov": 0.0}
        for start in range(0, len(data), cfg.batch_size):
            batch = []
            for patches in data[start : start + cfg.batch_size]:
                context_mask, target_mask = masks(cfg.num_patches, rng)
                batch.append((patches, context_mask, target_mask))
            # Step 1: forward and backward
            batch_losses, gradients = loss_and_gradients(batch, model, cfg)
            # Step 2: gradient descent on the context encoder and the predictor
            for name, gradient in gradients.items():
                add_to(model[name], gradient, -cfg.lr)
            # Step 3: the target encoder follows the context encoder
            ema_update(cfg.ema_momentum, model)
            # Average over the images. The last batch can be smaller than the others.
            for term in losses:
                losses[term] += batch_losses[term] * len(batch) / len(data)
        # Losses of the demo are below 10. The condition is also true for nan.
        if not losses["loss"] < 1e9:
            raise FloatingPointError(
                f"training diverged in epoch {epoch}: "
                f"try a lower lr than {cfg.lr}, and pixels of about -1 to 1"
            )
        for net in model.values():
            round_weights(net)
        history.append(losses)
        if on_epoch:
            on_epoch(epoch, losses, model)
    return model, history


# ---- 8. Evaluation -------------------------------------------------------------------
# We look at the embeddings that the target encoder makes, as in I-JEPA. From here on
# labels are used, but only to measure.


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

    Let C be the covariance matrix. Return
        (sum of the diagonal of C)^2 / (sum of the squares of all numbers of C).
    If the dimensions are uncorrelated and all have the variance v, this is
    (D * v)^2 / (D * v^2) = D. On a line, the dimensions are fully correlated, so
    C[i][j]^2 = C[i][i] * C[j][j]. The sum of these products over all i and j is the
    square of the sum of the diagonal, so the result is 1.
    """
    columns = centered_columns(to_rows(embeddings))  # [D][n]
    # This is (n - 1) * C. The factor does not change the ratio. Number i of the
    # diagonal is the sum of the squares of column i.
    products = matmul(columns, transpose(columns))  # [D][D]
    # If all rows are equal, both sums are 0, and so is the result.
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
    variance of these means, divided by the variance of the rows. If all rows are equal,
    return 0.
    """
    rows = to_rows(embeddings)
    means = []  # [n][D], grouped by label; a variance does not depend on the order
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

    This tests how much a linear function can read from embeddings. Each class gets a
    linear function, which should be 1 on the rows of the class and 0 on the others. A
    row gets the label whose function is largest. Ridge regression is linear regression
    with a penalty on large weights. Gradient descent solves it, approximately.
    """
    train_x = to_rows(train_x)
    labels = to_list(train_labels)
    classes = list(group_rows(train_x, labels))  # each label once
    wanted = [one_hot(classes.index(label), len(classes)) for label in labels]
    # Let X be train_x, with the mean of each column subtracted. We minimize the sum of
    # the squares of X @ weights + constants - wanted, plus penalty times the sum of the
    # squares of the weights. By dW = X.T @ dY of section 3, half the gradient is
    #     X.T @ (X @ weights + constants - wanted) + penalty * weights.
    # The columns of X sum to 0, so X.T @ constants is 0.
    columns = centered_columns(train_x)  # [D][n], this is X.T
    XtX = matmul(columns, transpose(columns))  # X.T @ X, [D][D]
    XtY = matmul(columns, wanted)  # X.T @ wanted, [D][classes]
    step = 0.9 / max(sum_of_squares(columns), 1e-300)  # never divide by 0
    penalty = 0.01 / step  # about 1 % of the sum of squares
    # Gradient descent converges if step * (eigenvalue + penalty) is below 2 for every
    # eigenvalue of XtX. Here it is at most 0.9 + 0.01: no eigenvalue is negative, and
    # their sum is the sum of the diagonal, which is the sum of the squares of X.
    weights = scale(0.0, XtY)  # [D][classes], zeros to start from
    for _ in range(200):
        half_gradient = add(matmul(XtX, weights), XtY, -1.0)
        half_gradient = add(half_gradient, weights, penalty)
        weights = add(weights, half_gradient, -step)
    # The best constants are the means of wanted, because the columns of X @ weights sum
    # to 0, too. So a row of x gets
    #     (row - mean of train_x) @ weights + mean of wanted = row @ weights + bias,
    # where bias = mean of wanted - (mean of train_x) @ weights.
    bias = add([average(wanted)], matmul([average(train_x)], weights), -1.0)
    weights.append(bias[0])  # [D+1][classes]
    values = matmul([[*row, 1.0] for row in to_rows(x)], weights)  # [m][classes]
    return [classes[row.index(max(row))] for row in values]


def few_shot_accuracy(classifier, x, labels, shots, rng, trials=20):
    """Return the accuracy, 0 to 1, of a classifier that sees few labels.

    In each trial, it is given `shots` random rows of each class of x [n][D], with their
    labels. It has to find the labels of all other rows. The classifier is a function
    like nearest_centroid.
    """
    classes = group_rows(to_rows(x), labels)
    for label, rows in classes.items():
        if not 0 < shots < len(rows):
            raise ValueError(f"class {label!r} has {len(rows)} rows, got {shots} shots")
    correct = 0
    count = 0
    for _ in range(trials):
        train_x = []
        train_labels = []
        test_x = []
        test_labels = []
        for label, rows in classes.items():
            shuffled = rng.sample(rows, len(rows))
            train_x += shuffled[:shots]
            train_labels += [label] * shots
            test_x += shuffled[shots:]
            test_labels += [label] * (len(rows) - shots)
        predicted = classifier(train_x, train_labels, test_x)
        for i, label in enumerate(test_labels):
            if predicted[i] == label:
                correct += 1
        count += len(test_labels)
    return correct / count


def r_squared(pred_loss, images, model, cfg):
    """Return the share of the variance of the targets that the predictor explains.

    This is an estimate, because pred_loss is the mean over an epoch in which the
    weights changed. It is below 0 if always predicting the mean target would be better.
    If the variance is 0, return nan.
    """
    std = embedding_std(embed_patches(images, model, cfg))
    return 1.0 - pred_loss / std**2 if std > 0.0 else nan


def evaluate(image_vectors, patch_vectors, signs, labels, seed):
    """Measure how much vectors reveal about patterns and signs.

    image_vectors has N rows, one for each image, and patch_vectors has N*K rows, one
    for each patch. The rows are embeddings or pixels. Return

    - the accuracy of nearest_centroid with one label per class
    - the accuracy of linear_probe with 50 labels per class
    - the share of the variance of the patch vectors that the pattern explains
    - the share that the sign explains beyond pattern and position

    The last one is the difference of two shares: that of pattern, position and sign
    together, minus that of pattern and position. The position is included, because the
    effect of the sign depends on it: in h_gradient, -1 makes left patches lighter and
    right ones darker. Without the position, these effects would partly cancel.
    """
    rng = Random(seed)
    one_shot = few_shot_accuracy(nearest_centroid, image_vectors, labels, 1, rng)
    probe = few_shot_accuracy(linear_probe, image_vectors, labels, 50, rng)
    # Three ways to group the N*K patches
    patterns = []
    without_sign = []
    with_sign = []
    for pattern, image_signs in zip(labels, signs):
        for pos, sign in enumerate(image_signs):
            patterns.append(pattern)
            without_sign.append((pattern, pos))
            with_sign.append((pattern, pos, sign))
    by_pattern = explained_variance(patch_vectors, patterns)
    share = explained_variance(patch_vectors, with_sign)
    share_without = explained_variance(patch_vectors, without_sign)
    return one_shot, probe, by_pattern, share - share_without


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
    print(f"""VibeML Micro JEPA - Learning Representations via Prediction
============================================================

Generated {len(images)} training images (4x4)
Architecture: 2x2 patches -> {cfg.embed_dim}-dim embeddings

The patterns:""")
    show(clean_images, PATTERNS)
    print("\nTraining images with the signs of their patches. One patch is hidden: ??")
    examples = []
    for image in images[:4]:
        # Hide the bottom right patch. Training hides a random one.
        bottom = [[*row[:2], None, None] for row in image[2:]]
        examples.append(image[:2] + bottom)
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
            print(
                f"Epoch {epoch:4} | Loss: {losses['loss']:.4f} | "
                f"Pred: {losses['pred']:.4f} | Var: {losses['var']:.4f} | "
                f"Cov: {losses['cov']:.4f} | R2: {r2:.2f}"
            )

    # Each model gets a new Random(seed), so all models start from the same weights.
    jepa, _ = train(images, cfg, Random(seed), on_epoch=report)
    print("""
Representation Quality Test
============================================================
Embeddings for different patterns:""")
    embeddings = embed(clean_images, jepa, cfg)
    for pattern, row in zip(PATTERNS, embeddings):
        print(f"{pattern:12}: [" + ", ".join(f"{v:6.3f}" for v in row) + "]")
    print("\nCosine similarities between patterns:")
    print(" " * 10 + "".join(f"{pattern:>12}" for pattern in PATTERNS))
    # Divide each embedding by its length. Then a dot product is a cosine.
    units = [[v / hypot(*row) for v in row] for row in embeddings]
    for pattern, cosines in zip(PATTERNS, matmul(units, transpose(units))):
        print(f"{pattern:10}" + "".join(f"{v:12.3f}" for v in cosines))
    print("""
               accuracy on new images      share of patch variance
                1-shot   linear probe         pattern    sign""")
    image_pixels = [[v for row in image for v in row] for image in test_images]
    patch_pixels = [
        patch for patches in cut_images(test_images, cfg) for patch in patches
    ]
    rows = [("pixels", image_pixels, patch_pixels)]
    no_pred, _ = train(images, replace(cfg, pred_weight=0.0), Random(seed))
    models = {
        "untrained": init_model(cfg, Random(seed)),
        "no prediction": no_pred,
        "JEPA": jepa,
    }
    for name, model in models.items():
        patch_vectors = embed_patches(test_images, model, cfg)
        rows.append((name, embed(test_images, model, cfg), patch_vectors))
    probes = {}
    for name, image_vectors, patch_vectors in rows:
        one_shot, probe, pattern, sign = evaluate(
            image_vectors, patch_vectors, test_signs, test_labels, seed
        )
        print(f"{name:14}{one_shot:8.1%}{probe:15.1%}{pattern:16.1%}{sign:8.1%}")
        probes[name] = probe
    print(f"""
'1-shot' has 1 label per pattern, 'linear probe' 50. Chance is {1 / len(PATTERNS):.0%}.
'sign' is what the sign explains beyond pattern and position. 'no prediction' is trained
on Var and Cov alone. Compared with it and with 'untrained', JEPA has a lower 'sign' on
nearly every seed, and values at least as high in the other columns.

Linear Probe Test: {probes['JEPA']:.1%} accuracy on downstream classification! \
(untrained encoder: {probes['untrained']:.1%})""")


# ---- 10. Ablation: which part prevents collapse? -------------------------------------
# An ablation leaves out parts of a method. Each row of ABLATION changes some settings.

# Without the stop-gradient, the context encoder makes the targets, and the target
# encoder is idle. But the evaluation reads the target encoder. So we set the momentum
# to 0, which makes it a copy of the context encoder.
ONE_ENCODER = {"stop_gradient": False, "ema_momentum": 0.0}
NO_VAR_NO_COV = {"var_weight": 0.0, "cov_weight": 0.0}
ABLATION = {
    "untrained": {"epochs": 1, "lr": 0.0},  # an epoch without learning
    "everything": {},
    "no prediction": {"pred_weight": 0.0},
    "no stop-gradient": ONE_ENCODER,
    "no EMA": {"ema_momentum": 0.0},  # after every step, the target encoder is a copy
    "no Var": {"var_weight": 0.0},
    "no Cov": {"cov_weight": 0.0},
    "no Var, no Cov": NO_VAR_NO_COV,
    "no EMA, Var or Cov": {"ema_momentum": 0.0, **NO_VAR_NO_COV},
    "prediction alone": {**ONE_ENCODER, **NO_VAR_NO_COV},
    # Here, a strong variance loss replaces the stop-gradient, as in VICReg. It makes
    # the embeddings and the gradients larger, hence the lower learning rate.
    "strong Var": {**ONE_ENCODER, "var_weight": 40.0, "gamma": 0.4, "lr": 0.012},
}

# The table shows means over 20 seeds after 50 epochs (tests/studies/RESULTS.md), while
# `--collapse` trains one seed for 35 epochs. The columns are
#     Pred, R2  the prediction error and r_squared, if the predictor is trained
#     std       the standard deviation of the embeddings, divided by its value before
#               training (0.24)
#     dims      the participation_ratio
#     sign      the share of the variance that the sign explains, as in evaluate
#     1-shot    the accuracy with one label per class; chance is 25 %
#     worst     the lowest value of the 20 seeds
#     diverged  the number of runs that diverged; the other columns leave them out
#
#                                               dims     sign     1-shot
#  row                   Pred    R2   std  mean worst        %  mean worst  diverged
#  "untrained"                         1.00   2.5   1.8     68.9  68.2  61.1
#  "everything"         0.00825  0.69  0.67   4.9   3.6     22.3  99.9  99.4
#  "no prediction"                     0.56   5.6   5.5     47.8  77.7  74.9
#  "no stop-gradient"   0.00066  0.95  0.47   1.3   1.0      0.6  80.1  56.5
#  "no EMA"             0.00862  0.65  0.65   5.3   4.7     24.7  99.8  99.2
#  "no Var"             0.00880  0.76  0.74   2.3   1.0      4.7  97.9  75.1
#  "no Cov"             0.10212  0.57  1.87   2.3   1.1     20.0  87.4  55.2        6
#  "no Var, no Cov"     0.06278  0.63  1.74   2.5   1.4     13.8  96.8  75.9        7
#  "no EMA, Var or Cov" 0.03794  0.78  1.71   2.6   1.9     13.2  97.8  70.6
#  "prediction alone"   0.00004 -0.42  0.02   4.3   2.6      8.0  43.8  35.0
#  "strong Var"         0.01093  0.93  1.62   4.7   3.9      1.3 100.0 100.0
#
# Without Var and Cov, it is the stop-gradient that prevents collapse to a point. It is
# the only difference between "prediction alone" and "no EMA, Var or Cov". Without it,
# std has fallen to 0.02 of its value before training. Pred is tiny only because the
# embeddings are: R2 is below 0, so always predicting the mean target would be better.
# (dims is above 1 and 1-shot above 25 %, because small differences remain, and these
# two do not depend on scale.)
#
# The stop-gradient is also the only difference between "no stop-gradient" and "no EMA".
# In all four rows, the target encoder equals the context encoder, so the targets are
# the same, and only the gradient differs. Without the stop-gradient, Var and Cov still
# prevent collapse to a point, but dims falls from 5.3 to 1.3, close to a line. A line
# costs little. Var is 0 once every dimension has the standard deviation 0.1, which is
# 0.1 / 0.24 = 0.42 in the column std. On a line, each of the 6 * 5 covariances is then
# 0.1^2 or -0.1^2, and Cov is 30 * (0.1^2)^2 / 6 = 0.0005. With its weight of 100, it
# adds only 0.05 to the loss. For comparison, the weighted error of "no EMA" is
# 75 * 0.00862 = 0.65. So Var and Cov hardly keep the embeddings off a line.
#
# Together, Var and Cov make training more reliable. In "no Var", "no Cov" and
# "no Var, no Cov", dims is about half as high as in "everything", and 1-shot is lower,
# above all on the worst seeds. Cov also keeps the embeddings small, because large
# embeddings have large covariances. Without Cov, runs diverge: of 100 seeds, 44 in
# "no Cov", 35 in "no Var, no Cov", and 6 in "no EMA, Var or Cov". But Var has a price:
# the sign explains 4.7 % in "no Var", and 22.3 % in "everything". Perhaps the sign
# fills some of the dimensions that Var keeps in use.
#
# Prediction raises 1-shot from 77.7 % in "no prediction" to 99.9 %, and lowers the sign
# from 47.8 % to 22.3 %. Var and Cov alone lower it, too, from 68.9 % to 47.8 %.
#
# EMA is not needed here: "no EMA" is about as good as "everything".
#
# "strong Var" does not need the stop-gradient. It asks for a standard deviation of 0.4,
# which makes a line expensive: 100 * 30 * (0.4^2)^2 / 6 = 12.8. And the gradient
# through the targets trains the encoder to leave out the sign, because it cannot be
# predicted. But training is less reliable than in "everything", as more seeds show: of
# 1,000 seeds, 15 end with a 1-shot accuracy below 95 %. In "everything", 1 of 1,000
# does, and 1 more diverges.


def collapse(cfg, seed):
    """Train with parts left out, and print how far the embeddings have collapsed."""
    rng = Random(seed)
    images, _, _ = draw_dataset(50, rng)
    test_images, test_signs, test_labels = draw_dataset(100, rng)
    print(f"""Ablation, {cfg.epochs} epochs: which part prevents collapse?
============================================================
Pred        prediction error in the last epoch
R2          1 for perfect prediction, 0 for always predicting the mean target
std         standard deviation of the embeddings, divided by its value before training
dimensions  how many of the {cfg.embed_dim} dimensions the embeddings use
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
        patch_vectors = embed_patches(test_images, model, cfg)
        std = embedding_std(patch_vectors) / untrained_std
        dimensions = participation_ratio(patch_vectors)
        one_shot, _, _, sign = evaluate(
            embed(test_images, model, cfg), patch_vectors, test_signs, test_labels, seed
        )
        words = ""
        if std < 0.1:  # these limits are chosen by eye
            words = "all in one point"
        elif dimensions < 1.5:
            words = "on a line"
        print(
            f"{name:19}{pred:9.5f}{r2:7.2f}{std:7.2f}{dimensions:12.1f}"
            f"{sign:8.1%}{one_shot:8.1%}  {words}"
        )
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
