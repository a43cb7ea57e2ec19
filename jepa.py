#!/usr/bin/env python3
"""Micro JEPA: a Joint-Embedding Predictive Architecture to read in one sitting.

A JEPA learns from images without labels. It cuts an image into patches and hides some
of them. The hidden patches are the targets, the visible ones are the context. From the
context it predicts the targets: not their pixels, but their embeddings. An embedding is
a short list of numbers that a network, the encoder, computes from a patch.

    context patches --> context encoder --> mean ---+
                                                    +--> predictor --> prediction --+
                           position of the target --+                               |
                                                                                  error
                                                                                    |
    target patch -----> target encoder --------------------------> target ----------+

The gradient of the error trains the predictor and the context encoder. It stops at the
target. The target encoder has no gradient: its weights are an exponential moving average
(EMA) of the context encoder's weights, so it follows slowly.

The encoder learns to keep what the patches of an image have in common, and to drop what
only one patch has. This takes three steps:

1. What only one patch has tells nothing about the other patches. In the mean of the
   context it is noise, which makes predictions worse. So the gradient shrinks it in the
   context encoder.
2. The EMA carries this change over to the target encoder.
3. The targets now contain less that cannot be predicted, and the error falls.

`python3 jepa.py` trains a JEPA and shows what it learned. With `--collapse` it shows what
happens when a part is missing.

Shapes are in brackets: [n][D] is a list of n rows, each a list of D numbers.

    B  images in a batch      n  context patches in a batch, over all its images
    K  patches in an image    m  target patches in a batch, over all its images
    P  pixels in a patch      D  dimensions of an embedding

No function uses a later one. To copy one into a notebook, copy what is above it, too.
"""

import argparse
import copy
import math
import os
import random
import sys
from dataclasses import dataclass, replace
from operator import mul

# ---- 1. Settings ---------------------------------------------------------------------


@dataclass(frozen=True)
class Config:
    """Settings of a model and its training. replace(cfg, lr=0.01) makes a changed copy."""

    patch_size: int = 2  # height and width of a patch, in pixels
    num_patches: int = 4  # K
    embed_dim: int = 6  # D
    encoder_hidden: int = 32  # hidden units of each encoder
    predictor_hidden: int = 64  # hidden units of the predictor
    epochs: int = 50  # passes over the training images
    batch_size: int = 5  # B
    lr: float = 0.02  # learning rate
    ema_momentum: float = 0.99  # share of itself that the target encoder keeps a step
    pred_weight: float = 75.0  # weight of Pred, the prediction error, in the loss
    var_weight: float = 10.0  # weight of Var, which keeps every dimension in use
    cov_weight: float = 100.0  # weight of Cov, which keeps the dimensions uncorrelated
    gamma: float = 0.1  # the standard deviation that Var asks of every dimension
    stop_gradient: bool = True  # False lets the gradient flow into the targets, too

    def __post_init__(self):
        """Raise ValueError if a setting cannot work."""
        for name, value in vars(self).items():
            if not value >= 0:
                raise ValueError(f"{name} must be 0 or more, got {value}")
        if self.ema_momentum > 1:
            raise ValueError(f"ema_momentum must be 0 to 1, got {self.ema_momentum}")


# ---- 2. Data -------------------------------------------------------------------------
# An image shows one of four patterns, but each of its four patches is multiplied by a
# random sign, 1 or -1. The sign of one patch tells nothing about the others, while the
# pattern is what they have in common. So the encoder should keep the pattern and drop
# the sign.

PATTERNS = {  # the pixel at a row and column from 0 to 3: -1 is black, 0 grey, 1 white
    "h_gradient": lambda row, column: 2.0 * column / 3.0 - 1.0,
    "v_gradient": lambda row, column: 2.0 * row / 3.0 - 1.0,
    "checker": lambda row, column: 1.0 if (row + column) % 2 == 0 else -1.0,
    "uniform": lambda row, column: 0.0,
}


def draw_image(pattern, rng):
    """Draw an image [4][4] of a pattern. Return it with the signs [4] of its patches."""
    contrast = rng.uniform(0.8, 1.0)
    signs = [rng.choice([-1, 1]) for _ in range(4)]
    image = [[0.0] * 4 for _ in range(4)]
    for row in range(4):
        for column in range(4):
            sign = signs[row // 2 * 2 + column // 2]
            pixel = sign * contrast * PATTERNS[pattern](row, column)
            pixel += rng.gauss(0.0, 0.1)
            image[row][column] = round(pixel, 6)  # the same on every machine
    return image, signs


def draw_dataset(per_pattern, rng):
    """Draw images of every pattern in turn. Return images, their signs and their labels."""
    labels = list(PATTERNS) * per_pattern
    images, signs = zip(*[draw_image(label, rng) for label in labels])
    return images, signs, labels


def to_list(values):
    """Return the items of a list, iterator, array, tensor or data frame as a list."""
    if isinstance(values, (str, dict, set)):
        raise TypeError(f"a {type(values).__name__} is not a list or an array")
    if hasattr(values, "to_numpy"):  # pandas
        values = values.to_numpy()
    if hasattr(values, "tolist"):  # NumPy and PyTorch
        values = values.tolist()
    return [item.tolist() if hasattr(item, "tolist") else item for item in values]


def to_rows(values, name):
    """Return a table of numbers of any kind as lists of floats [n][d]. All data enters here.

    Raise ValueError unless all numbers are finite and all rows have the same length.
    """
    try:
        rows = [[float(value) for value in to_list(row)] for row in to_list(values)]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be rows of numbers: {error}") from None
    lengths = {len(row) for row in rows}
    finite = all(math.isfinite(value) for row in rows for value in row)
    if len(lengths) != 1 or 0 in lengths or not finite:
        raise ValueError(f"{name} must be rows of one length, of finite numbers")
    return rows


def extract_patches(img, patch_size=2, name="image"):
    """Cut an image [height][width] into flat patches [K][P], row by row.

    Raise ValueError if the image is not made of whole patches.
    """
    img = to_rows(img, f"{name} (height x width, grey, about -1 to 1)")
    height = len(img)
    width = len(img[0])
    if patch_size < 1 or height % patch_size or width % patch_size:
        raise ValueError(f"{name} is {height}x{width}, no multiple of {patch_size}")
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

    Raise ValueError if there is no image, or one that does not fit the settings.
    """
    data = []
    for i, img in enumerate(to_list(images)):
        patches = extract_patches(img, cfg.patch_size, f"image {i}")
        if len(patches) != cfg.num_patches:
            raise ValueError(
                f"image {i} has {len(patches)}, not {cfg.num_patches} patches"
            )
        data.append(patches)
    if not data:
        raise ValueError("there are no images")
    return data


# ---- 3. A network, forward and backward ----------------------------------------------
# All networks here are of one kind: linear, ReLU, linear. A bias is the weight of an
# input that is always 1. So each layer appends a 1 to its input, and a network is just
# two matrices.


def dot(a, b):
    """Return the dot product of two vectors of the same length."""
    return sum(map(mul, a, b), 0.0)


if hasattr(math, "sumprod"):  # built into Python 3.12 and newer
    dot = math.sumprod


def transpose(a):
    """Swap rows and columns: [n][k] -> [k][n]."""
    return list(zip(*a))


def matmul(a, b):
    """Return the matrix product a @ b: [n][k], [k][m] -> [n][m]."""
    columns = transpose(b)
    return [[dot(row, column) for column in columns] for row in a]


def scale(a, x):
    """Return the matrix a * x."""
    return [[a * v for v in row] for row in x]


def weighted_sum(a, x, b, y):
    """Return the matrix a * x + b * y."""
    return [[a * v + b * w for v, w in zip(*rows)] for rows in zip(x, y)]


def blend(a, net, b, other):
    """Set net = a * net + b * other, weight by weight, in place."""
    for W in net:
        net[W] = weighted_sum(a, net[W], b, other[W])


def init_mlp(num_in, num_hidden, num_out, rng):
    """Return a new network, {"W1": [in+1][hidden], "W2": [hidden+1][out]}.

    The weights start at random (Glorot and Bengio 2010, eq. 16). The last row of a matrix
    holds the biases, which start at 0.
    """
    net = {}
    sizes = {"W1": (num_in, num_hidden), "W2": (num_hidden, num_out)}
    for name, (rows, columns) in sizes.items():
        limit = math.sqrt(6.0 / (rows + columns))
        W = [[rng.uniform(-limit, limit) for _ in range(columns)] for _ in range(rows)]
        net[name] = W + [[0.0] * columns]
    return net


def mlp_forward(net, x):
    """Return the outputs [n][out] for inputs x [n][in], and a cache for the way back."""
    if len(x[0]) + 1 != len(net["W1"]):
        raise ValueError(f"expected rows of {len(net['W1']) - 1}, got {len(x[0])}")
    x = [[*row, 1.0] for row in x]  # [n][in+1]
    z = matmul(x, net["W1"])  # [n][hidden]
    h = [[v if v > 0.0 else 0.0 for v in row] + [1.0] for row in z]  # [n][hidden+1]
    y = matmul(h, net["W2"])  # [n][out]
    return y, (x, h)


def mlp_backward(net, cache, dy):
    """Apply the chain rule to mlp_forward, from its last line to its first.

    dy [n][out] is the gradient of the loss with respect to the outputs. Return the
    gradients of the two matrices, and dx [n][in], the gradient of the inputs.
    """
    x, h = cache
    dW2 = matmul(transpose(h), dy)  # [hidden+1][out]
    W2 = net["W2"][:-1]  # [hidden][out], without the biases: they do not touch h
    dz = []  # [n][hidden]: dy @ W2.T, but 0 where ReLU gave 0
    for h_row, dy_row in zip(h, dy):
        dz.append([dot(dy_row, w) if v > 0.0 else 0.0 for v, w in zip(h_row[:-1], W2)])
    dW1 = matmul(transpose(x), dz)  # [in+1][hidden]
    dx = matmul(dz, transpose(net["W1"][:-1]))  # [n][in]
    return {"W1": dW1, "W2": dW2}, dx


def init_model(cfg, rng):
    """Return a new model, a dict of three networks. The two encoders start out equal."""
    P = cfg.patch_size * cfg.patch_size
    D = cfg.embed_dim
    encoder = init_mlp(P, cfg.encoder_hidden, D, rng)
    predictor = init_mlp(D + cfg.num_patches, cfg.predictor_hidden, D, rng)
    target = copy.deepcopy(encoder)
    return {
        "context_encoder": encoder,
        "target_encoder": target,
        "predictor": predictor,
    }


# ---- 4. The losses, each with its gradient -------------------------------------------
# Pred is the prediction error. It can be cheated: if the encoder gives every patch the
# same embedding, prediction is perfect and useless. The encoder has collapsed to a point.
# Two terms of VICReg (Bardes, Ponce and LeCun 2022) work against this. Over the context
# embeddings of a batch, Var asks every dimension to vary, and Cov asks the dimensions to
# be uncorrelated, as otherwise all embeddings could lie on one line.

EPS = 1e-4  # added to a variance, because the square root has no derivative at 0


def mse_loss(predictions, targets):
    """Return the mean squared error, and its gradient [m][D] for the predictions."""
    errors = weighted_sum(1.0, predictions, -1.0, targets)  # [m][D]
    count = len(errors) * len(errors[0])
    loss = sum(dot(row, row) for row in errors) / count
    return loss, scale(2.0 / count, errors)


def center(column):
    """Subtract the mean from n numbers. If they are equal to within rounding, return 0s."""
    mean = sum(column) / len(column)
    centered = [v - mean for v in column]
    if max(centered) <= 1e-12 * abs(mean):
        return [0.0] * len(column)
    return centered


def variance_loss(embeddings, gamma):
    """Return Var, VICReg's variance loss (eq. 1 and 2), and its gradient [n][D].

    It is the mean of max(0, gamma - std) over the dimensions.
    """
    D = len(embeddings[0])
    degrees = max(1, len(embeddings) - 1)
    loss = 0.0
    gradient = []  # [D][n]
    for column in transpose(embeddings):
        centered = center(column)
        std = math.sqrt(dot(centered, centered) / degrees + EPS)
        loss += max(0.0, gamma - std) / D
        # d loss / d std = -1 / D, as long as std < gamma
        # d std / d embedding = centered / (std * degrees)
        slope = -1.0 / (D * std * degrees) if std < gamma else 0.0
        gradient.append([slope * v for v in centered])
    return loss, transpose(gradient)


def covariance_matrix(centered):
    """Return the covariance matrix [D][D] of centered columns [D][n] (VICReg eq. 3)."""
    degrees = max(1, len(centered[0]) - 1)
    return scale(1.0 / degrees, matmul(centered, transpose(centered)))


def covariance_loss(embeddings):
    """Return Cov, VICReg's covariance loss (eq. 4), and its gradient [n][D].

    It is the sum of the squared covariances of different dimensions, divided by D.
    """
    centered = [center(column) for column in transpose(embeddings)]  # [D][n]
    C = covariance_matrix(centered)
    D = len(C)
    for d in range(D):
        C[d][d] = 0.0  # leave out the variances
    loss = sum(dot(row, row) for row in C) / D
    # d loss / d C = 2 C / D
    # C = centered @ centered.T / degrees contains centered twice, and C is symmetric. So
    # d loss / d centered = 2 (d loss / d C) @ centered / degrees.
    degrees = max(1, len(embeddings) - 1)
    gradient = scale(4.0 / (D * degrees), matmul(C, centered))  # [D][n]
    return loss, transpose(gradient)


# ---- 5. The heart: a batch, forward and backward -------------------------------------


def check_masks(context_mask, target_mask, num_patches):
    """Raise ValueError unless the masks list different patches, at least one each."""
    both = [*context_mask, *target_mask]
    in_range = all(0 <= i < num_patches for i in both)
    different = len(set(both)) == len(both)
    if not (len(context_mask) and len(target_mask) and in_range and different):
        raise ValueError(
            f"masks need different patches, got {context_mask}, {target_mask}"
        )


def one_hot(position, length):
    """Return a list of zeros with a 1 at a position."""
    return [1.0 if i == position else 0.0 for i in range(length)]


def loss_and_gradients(batch, model, cfg):
    """Run one batch forward and backward.

    The batch has (patches [K][P], context_mask, target_mask) for each image. A mask lists
    indices of patches. Return two dicts: the loss with its three terms, not yet weighted,
    and the gradients of the context encoder and the predictor.
    """
    # Gather all context patches and all target patches, with the index of their image.
    context = []  # [n][P]
    context_image = []  # [n]
    targets = []  # [m][P]
    target_image = []  # [m]
    positions = []  # [m][K]
    for b, (patches, context_mask, target_mask) in enumerate(batch):
        check_masks(context_mask, target_mask, len(patches))
        for i in context_mask:
            context.append(patches[i])
            context_image.append(b)
        for i in target_mask:
            targets.append(patches[i])
            target_image.append(b)
            positions.append(one_hot(i, len(patches)))

    # A target is predicted from the mean over the context of its own image. The mean is a
    # product with weights: 1 / count for the patches of that context, 0 for all others.
    mean_weights = []  # [m][n]
    for b in target_image:
        weight = 1.0 / context_image.count(b)
        mean_weights.append([weight if i == b else 0.0 for i in context_image])

    # Forward
    encoder, predictor = model["context_encoder"], model["predictor"]
    context_embs, context_cache = mlp_forward(encoder, context)  # [n][D]
    target_embs, target_cache = mlp_forward(model["target_encoder"], targets)  # [m][D]
    mean_context = matmul(mean_weights, context_embs)  # [m][D]
    inputs = [mean + pos for mean, pos in zip(mean_context, positions)]  # [m][D+K]
    predictions, predictor_cache = mlp_forward(predictor, inputs)  # [m][D]

    # The three terms of the loss, and their gradients
    pred, d_predictions = mse_loss(predictions, target_embs)  # [m][D]
    var, d_var = variance_loss(context_embs, cfg.gamma)  # [n][D]
    cov, d_cov = covariance_loss(context_embs)  # [n][D]
    loss = cfg.pred_weight * pred + cfg.var_weight * var + cfg.cov_weight * cov

    # Backward
    d_predictions = scale(cfg.pred_weight, d_predictions)  # [m][D]
    d_predictor, d_inputs = mlp_backward(predictor, predictor_cache, d_predictions)
    D = len(context_embs[0])
    d_mean_context = [row[:D] for row in d_inputs]  # [m][D], the positions are left out
    d_embs = matmul(transpose(mean_weights), d_mean_context)  # [n][D]
    d_embs = weighted_sum(1.0, d_embs, cfg.var_weight, d_var)  # [n][D]
    d_embs = weighted_sum(1.0, d_embs, cfg.cov_weight, d_cov)  # [n][D]
    d_encoder, _ = mlp_backward(encoder, context_cache, d_embs)

    # One call is missing: the backward pass of the target encoder. Its output is taken as
    # given, like a label. That is the stop-gradient. Without it the targets would also
    # move towards the predictions, and both could meet in one point: collapse.
    if not cfg.stop_gradient:  # only for the ablation
        # The gradient for the targets is the negative of that for the predictions. The
        # context encoder gets it, as if both encoders were one: with ema_momentum 0 they are.
        d_targets = scale(-1.0, d_predictions)  # [m][D]
        d_shared, _ = mlp_backward(model["target_encoder"], target_cache, d_targets)
        blend(1.0, d_encoder, 1.0, d_shared)

    losses = {"loss": loss, "pred": pred, "var": var, "cov": cov}
    return losses, {"context_encoder": d_encoder, "predictor": d_predictor}


# ---- 6. One image at a time ----------------------------------------------------------
# The same forward pass in its simplest form, for one image. These functions use MODEL
# unless they are given another model. Nothing else in this file uses it.

MODEL = init_model(Config(), random.Random(0))


def context_encode(patch, model=MODEL):
    """Return the embedding [D] of a context patch [P]."""
    return mlp_forward(model["context_encoder"], to_rows([patch], "patch"))[0][0]


def target_encode(patch, model=MODEL):
    """Return the embedding [D] of a target patch [P]."""
    return mlp_forward(model["target_encoder"], to_rows([patch], "patch"))[0][0]


def average(embeddings):
    """Return the mean [D] of n embeddings [n][D]."""
    rows = to_rows(embeddings, "embeddings")
    return [sum(column) / len(rows) for column in transpose(rows)]


def predict(avg_context, pos, model=MODEL, cfg=Config()):
    """Predict the embedding [D] of the patch at index pos from the mean context [D]."""
    if not 0 <= pos < cfg.num_patches:
        raise ValueError(f"pos must be 0 to {cfg.num_patches - 1}, got {pos}")
    rows = to_rows([[*avg_context, *one_hot(pos, cfg.num_patches)]], "avg_context")
    return mlp_forward(model["predictor"], rows)[0][0]


def mse(predictions, targets):
    """Return the mean squared error between predictions [m][D] and targets [m][D]."""
    predictions = to_rows(predictions, "predictions")
    targets = to_rows(targets, "targets")
    if len(predictions) != len(targets) or len(predictions[0]) != len(targets[0]):
        raise ValueError("predictions and targets must have the same shape")
    return mse_loss(predictions, targets)[0]


def jepa_forward(img, context_mask, target_mask, model=MODEL, cfg=Config()):
    """Return Pred, the prediction error, of one image [height][width]."""
    patches = cut_images([img], cfg)[0]
    check_masks(context_mask, target_mask, len(patches))
    # Encode the context with the encoder that is trained.
    context_embs = [context_encode(patches[i], model) for i in context_mask]
    avg_context = average(context_embs)
    # Encode the targets with the EMA encoder.
    target_embs = [target_encode(patches[i], model) for i in target_mask]
    # Predict the embedding at each target position.
    predictions = [predict(avg_context, pos, model, cfg) for pos in target_mask]
    # The loss is the mean squared error in embedding space.
    return mse(predictions, target_embs)


def ema_update(momentum=0.99, model=MODEL):
    """Set target encoder = momentum * target encoder + (1 - momentum) * context encoder."""
    blend(momentum, model["target_encoder"], 1.0 - momentum, model["context_encoder"])


# ---- 7. Training ---------------------------------------------------------------------


def random_masks(num_patches, rng):
    """Draw a context mask and a target mask. About a quarter of the patches are targets."""
    order = list(range(num_patches))
    rng.shuffle(order)
    num_targets = max(1, round(num_patches / 4))
    return sorted(order[num_targets:]), sorted(order[:num_targets])


def round_weights(net):
    """Round all weights of a network to six decimals, in place.

    Versions of Python differ in the last bit of a sum, and training amplifies the
    difference. Rounding removes it, so that a seed gives the same result everywhere.
    """
    for W, rows in net.items():
        net[W] = [[round(weight, 6) for weight in row] for row in rows]


def check_rng(rng):
    """Raise ValueError unless rng is one of Python's own random generators."""
    if not isinstance(rng, random.Random):
        raise ValueError(f"rng must be a random.Random, got {type(rng).__name__}")


def train(images, cfg, rng, model=None, masks=random_masks, on_epoch=None):
    """Train a new model, or the given one in place, on images [N][height][width].

    Return the model, and a list with the losses of each epoch, averaged over the images.
    Pixels should be about -1 to 1. rng draws the weights, the order of images and the
    masks: to go on with training, use the same rng again. masks(num_patches, rng) returns
    a context mask and a target mask. on_epoch(epoch, losses, model) follows each epoch.
    If training diverges, raise FloatingPointError and leave the model as it was.
    """
    check_rng(rng)
    data = cut_images(images, cfg)
    if model is None:
        model = init_model(cfg, rng)
    before = copy.deepcopy(model)
    history = []
    for epoch in range(1, cfg.epochs + 1):
        rng.shuffle(data)
        losses = {"loss": 0.0, "pred": 0.0, "var": 0.0, "cov": 0.0}
        for start in range(0, len(data), cfg.batch_size):
            batch = []
            for patches in data[start : start + cfg.batch_size]:
                batch.append((patches, *masks(cfg.num_patches, rng)))
            # Step 1: forward and backward
            batch_losses, gradients = loss_and_gradients(batch, model, cfg)
            # Step 2: gradient descent on the context encoder and the predictor
            for name, gradient in gradients.items():
                blend(1.0, model[name], -cfg.lr, gradient)
            # Step 3: the target encoder follows the context encoder
            ema_update(cfg.ema_momentum, model)
            for term in losses:
                losses[term] += batch_losses[term] * len(batch) / len(data)
        for net in model.values():
            round_weights(net)
        total = sum(sum(map(sum, W)) for net in model.values() for W in net.values())
        if not math.isfinite(total):
            model.update(before)
            advice = f"try a lower lr than {cfg.lr}, and pixels of about -1 to 1"
            raise FloatingPointError(f"training diverged in epoch {epoch}: {advice}")
        history.append(losses)
        if on_epoch:
            on_epoch(epoch, losses, model)
    return model, history


# ---- 8. Evaluation -------------------------------------------------------------------
# A low Pred does not show that anything was learned: a collapsed encoder has the lowest.
# So we look at the embeddings of new images. Labels are used only here, to measure.


def embed_patches(images, model, cfg):
    """Return the target encoder's embeddings [N*K][D] of the patches of N images.

    I-JEPA is evaluated with its target encoder, too. If the model is None, return the
    patches as they are, for comparison.
    """
    patches = []
    for image_patches in cut_images(images, cfg):
        patches += image_patches
    if model is None:
        return patches
    return mlp_forward(model["target_encoder"], patches)[0]


def embed(images, model, cfg):
    """Return the embeddings [N][D] of N images. Each is the mean over its patches."""
    rows = embed_patches(images, model, cfg)
    K = cfg.num_patches
    return [average(rows[start : start + K]) for start in range(0, len(rows), K)]


def covariance(embeddings):
    """Return the covariance matrix [D][D] of embeddings [n][D]."""
    columns = transpose(to_rows(embeddings, "embeddings"))
    return covariance_matrix([center(column) for column in columns])


def embedding_std(embeddings):
    """Return the standard deviation of embeddings [n][D], root mean square over D."""
    C = covariance(embeddings)
    return math.sqrt(sum(C[d][d] for d in range(len(C))) / len(C))


def participation_ratio(embeddings):
    """Return the number of dimensions in use, from 1 (a line) to D; 0 for a point.

    It is trace(C)^2 / sum of C_ij^2, with C the covariance matrix.
    """
    C = covariance(embeddings)
    trace = sum(C[d][d] for d in range(len(C)))
    squares = sum(dot(row, row) for row in C)
    return trace * trace / squares if squares > 0.0 else 0.0


def group_rows(rows, labels):
    """Return {label: its rows}. Raise ValueError unless there is a label for each row."""
    labels = to_list(labels)
    if len(labels) != len(rows):
        raise ValueError(f"{len(rows)} rows need as many labels, got {len(labels)}")
    groups = {}
    for row, label in zip(rows, labels):
        groups.setdefault(label, []).append(row)
    return groups


def explained_variance(embeddings, labels):
    """Return the share of the variance of embeddings [n][D] that is between labels [n].

    It is 1 if all rows of a label are equal, and 0 if all labels have the same mean.
    """
    rows = to_rows(embeddings, "embeddings")
    means = []
    for members in group_rows(rows, labels).values():
        means += [average(members)] * len(members)
    total = embedding_std(rows)
    return (embedding_std(means) / total) ** 2 if total > 0.0 else 0.0


def nearest_centroid(train_x, train_labels, x):
    """Classify rows of x [m][D] by the nearest class mean of train_x [n][D]. Return [m]."""
    classes = group_rows(to_rows(train_x, "train_x"), train_labels)
    means = {label: average(rows) for label, rows in classes.items()}
    found = []
    for row in to_rows(x, "x"):
        found.append(min(means, key=lambda label: math.dist(means[label], row)))
    return found


def solve(A, B):
    """Solve A @ X = B for X [k][c] by Gauss-Jordan elimination: A [k][k], B [k][c]."""
    rows = [[*a, *b] for a, b in zip(A, B)]
    for i in range(len(rows)):
        pivot = [v / rows[i][i] for v in rows[i]]
        rows = [[v - row[i] * p for v, p in zip(row, pivot)] for row in rows]
        rows[i] = pivot
    return [row[len(A) :] for row in rows]


def linear_probe(train_x, train_labels, x):
    """Classify rows of x [m][D] by ridge regression on train_x [n][D]. Return [m].

    For each class a linear function is fitted, to be 1 on its rows and 0 on all others.
    The class with the largest value wins.
    """
    train_x, x = to_rows(train_x, "train_x"), to_rows(x, "x")
    if len(x[0]) != len(train_x[0]):
        raise ValueError(f"expected rows of {len(train_x[0])}, got {len(x[0])}")
    labels = to_list(train_labels)
    classes = list(group_rows(train_x, labels))
    y = [
        one_hot(classes.index(label), len(classes)) for label in labels
    ]  # [n][classes]
    X_t = [center(column) for column in transpose(train_x)]  # [D][n]
    A = matmul(X_t, transpose(X_t))  # [D][D]
    for d in range(len(A)):
        A[d][d] *= 1.01  # the ridge
        if A[d][d] == 0.0:
            A[d][d] = 1.0  # a constant feature gets the weight 0
    weights = solve(A, matmul(X_t, y))  # [D][classes]
    x_mean, y_mean = average(train_x), average(y)
    centered = [[v - mean for v, mean in zip(row, x_mean)] for row in x]  # [m][D]
    found = []
    for row in matmul(centered, weights):
        scores = [v + mean for v, mean in zip(row, y_mean)]
        found.append(classes[scores.index(max(scores))])
    return found


def few_shot_accuracy(classifier, x, labels, shots, rng, trials=20):
    """Return the accuracy, 0 to 1, of a classifier with few labels: the mean over trials.

    In each trial it is given `shots` random rows of each class of x [n][D], with their
    labels, and classifies all other rows.
    """
    check_rng(rng)
    classes = group_rows(to_rows(x, "x"), labels)
    accuracy = 0.0
    for _ in range(trials):
        train_x, train_labels = [], []
        test_x, test_labels = [], []
        for label, rows in classes.items():
            if not 0 < shots < len(rows):
                raise ValueError(f"{shots} shots need more rows of class {label!r}")
            rows = rng.sample(rows, len(rows))
            train_x += rows[:shots]
            train_labels += [label] * shots
            test_x += rows[shots:]
            test_labels += [label] * (len(rows) - shots)
        found = classifier(train_x, train_labels, test_x)
        if len(found) != len(test_x):
            raise ValueError(f"expected {len(test_x)} labels, got {len(found)}")
        correct = [a == b for a, b in zip(found, test_labels)]
        accuracy += sum(correct) / len(correct) / trials
    return accuracy


# ---- 9. The demo ---------------------------------------------------------------------


def r_squared(pred, images, model, cfg):
    """Return R2 = 1 - Pred / variance of the targets, the patch embeddings of images.

    It is the share of that variance that the predictor explains; nan without variance.
    """
    variance = embedding_std(embed_patches(images, model, cfg)) ** 2
    return 1.0 - pred / variance if variance > 0.0 else math.nan


def evaluate(model, dataset, cfg, seed):
    """Return four figures of a model, or of the pixels if the model is None.

    They are the accuracies with one label per class and of a linear probe with 50, and the
    shares of the variance of patches that the pattern and the sign explain. The share of
    the sign is what it adds to that of pattern and position.
    """
    images, signs, labels = dataset
    rng = random.Random(seed)
    x = embed(images, model, cfg)
    one_shot = few_shot_accuracy(nearest_centroid, x, labels, 1, rng)
    probe = few_shot_accuracy(linear_probe, x, labels, 50, rng)
    patch_rows = embed_patches(images, model, cfg)
    places = [(label, position) for label in labels for position in range(4)]
    patch_signs = [sign for image_signs in signs for sign in image_signs]
    by_pattern = explained_variance(patch_rows, [label for label, _ in places])
    by_place = explained_variance(patch_rows, places)
    by_sign = explained_variance(patch_rows, zip(places, patch_signs)) - by_place
    return one_shot, probe, by_pattern, by_sign


def clean_image(pattern):
    """Return a pattern [4][4] at its mean contrast, without signs and noise."""
    pixel = PATTERNS[pattern]
    return [[0.9 * pixel(row, column) for column in range(4)] for row in range(4)]


def show(images, heads):
    """Print images side by side, each under its head. A pixel of None is hidden."""
    width = 2 * len(images[0][0]) + 4
    print("".join(f"{head:{width}}" for head in heads).rstrip())
    for rows in zip(*images):
        line = ""
        for row in rows:
            for pixel in row:
                level = min(9, max(0, int(5 * (pixel or 0.0) + 5)))
                line += "??" if pixel is None else 2 * " .:-=+*#%@"[level]
            line += "    "
        print(line.rstrip())


def demo(cfg, seed):
    """Print what `python3 jepa.py` shows."""
    rng = random.Random(seed)
    images, signs, _ = draw_dataset(50, rng)
    test_set = draw_dataset(100, rng)
    clean_images = [clean_image(pattern) for pattern in PATTERNS]
    print(f"""VibeML Micro JEPA - Learning Representations via Prediction
============================================================

Generated {len(images)} training images (4x4)
Architecture: 2x2 patches -> {cfg.embed_dim}-dim embeddings

The patterns:""")
    show(clean_images, PATTERNS)
    print("\nTraining images and the signs of their patches. ?? is hidden:")
    examples = []
    for image in images[:4]:
        bottom = [row[:2] + [None, None] for row in image[2:]]
        examples.append(image[:2] + bottom)
    show(examples, [" ".join(f"{sign:+}" for sign in four) for four in signs[:4]])

    print(f"""
Training for {cfg.epochs} epochs...
Learning rate: {cfg.lr}, EMA momentum: {cfg.ema_momentum}
Loss: {cfg.pred_weight:g} Pred + {cfg.var_weight:g} Var + {cfg.cov_weight:g} Cov
R2: the share of the variance of the targets that the predictor explains
------------------------------------------------------------""")

    def report(epoch, losses, model):
        if epoch in (1, 2, 5, cfg.epochs) or epoch % 10 == 0:
            r2 = r_squared(losses["pred"], images, model, cfg)
            line = (
                f"Epoch {epoch:4} | Loss: {losses['loss']:.4f} | Pred: {losses['pred']:.4f} | "
                f"Var: {losses['var']:.4f} | Cov: {losses['cov']:.4f} | R2: {r2:.2f}"
            )
            print(line.replace("nan", "-"), flush=True)

    model, _ = train(images, cfg, random.Random(seed), on_epoch=report)

    print("""
Representation Quality Test
============================================================
Embeddings for different patterns:""")
    embeddings = embed(clean_images, model, cfg)
    for pattern, a in zip(PATTERNS, embeddings):
        print(f"{pattern:12}: [" + ", ".join(f"{v:6.3f}" for v in a) + "]")
    print("\nCosine similarities between patterns:")
    print(" " * 10 + "".join(f"{pattern:>12}" for pattern in PATTERNS))
    for pattern, a in zip(PATTERNS, embeddings):
        line = f"{pattern:10}"
        for b in embeddings:
            lengths = max(math.hypot(*a) * math.hypot(*b), 1e-12)
            line += f"{dot(a, b) / lengths:12.3f}"
        print(line)

    print("\nHidden patches, and the clean patches nearest to their predictions:")
    candidates = []
    for patches in cut_images(clean_images, cfg):
        candidates += [patches[3], [-pixel for pixel in patches[3]]]
    for *visible, hidden in cut_images(test_set[0][:3], cfg):
        avg_context = average([context_encode(patch, model) for patch in visible])
        prediction = predict(avg_context, 3, model, cfg)
        candidates.sort(key=lambda p: math.dist(prediction, target_encode(p, model)))
        pictures = [[patch[:2], patch[2:]] for patch in [hidden, *candidates[:3]]]
        show(pictures, ("hidden", "1st", "2nd", "3rd"))

    print("""
              accuracy on new images     patch variance explained by
                1-shot  linear probe          pattern      sign""")

    def evaluate_row(name, net):
        figures = evaluate(net, test_set, cfg, seed)
        line = "{:8.1%}{:14.1%}{:17.1%}{:10.1%}".format(*figures)
        print(f"{name:14}{line}", flush=True)
        return 100 * figures[1]

    baseline, _ = train(images, replace(cfg, pred_weight=0.0), random.Random(seed))
    evaluate_row("pixels", None)
    before = evaluate_row("untrained", init_model(cfg, random.Random(seed)))
    evaluate_row("no prediction", baseline)
    probe = evaluate_row("JEPA", model)
    print(f"""'no prediction' trained as long as JEPA, with the same Var and Cov.

Linear Probe Test: {probe:.4g}% accuracy on downstream classification!
(untrained encoder: {before:.4g}%)""")


# ---- 10. Ablation: what is each part for? --------------------------------------------

ONE_ENCODER = {"stop_gradient": False, "ema_momentum": 0.0}
ABLATION = {
    "untrained": {"epochs": 0},
    "everything": {},
    "no prediction": {"pred_weight": 0.0},
    "no stop-gradient": ONE_ENCODER,
    "no EMA": {"ema_momentum": 0.0},
    "no Var": {"var_weight": 0.0},
    "no Cov": {"cov_weight": 0.0},
    "no Var, no Cov": {"var_weight": 0.0, "cov_weight": 0.0},
    "prediction alone": {**ONE_ENCODER, "var_weight": 0.0, "cov_weight": 0.0},
    "strong Var": {**ONE_ENCODER, "gamma": 0.4, "var_weight": 40.0, "lr": 0.012},
}


def collapse(cfg, seed):
    """Print what `python3 jepa.py --collapse` shows."""
    rng = random.Random(seed)
    images, _, _ = draw_dataset(50, rng)
    test_set = draw_dataset(100, rng)
    print("""Ablation: which part prevents collapse?
============================================================
                     Pred     R2    std  dimensions   sign  1-shot""")
    untrained_std = 0.0
    for name, changes in ABLATION.items():
        try:
            model, history = train(images, replace(cfg, **changes), random.Random(seed))
        except FloatingPointError:
            print(f"{name:18}diverged", flush=True)
            continue
        pred = history[-1]["pred"] if history else math.nan
        r2 = r_squared(pred, images, model, cfg)
        patch_rows = embed_patches(test_set[0], model, cfg)
        std = embedding_std(patch_rows)
        untrained_std = untrained_std or std
        dimensions = participation_ratio(patch_rows)
        one_shot, _, _, sign = evaluate(model, test_set, cfg, seed)
        line = f"{name:18}{pred:7.5f}{r2:7.2f}{std / untrained_std:7.2f}"
        line += f"{dimensions:12.1f}{sign:7.1%}{one_shot:8.1%}  "
        if std < 0.1 * untrained_std:
            line += "all in one point"
        elif dimensions < 1.5:
            line += "on a line"
        print(line.replace("nan", "  -").rstrip(), flush=True)
    print("...")


def main():
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Train a micro JEPA on 4x4 images.")
    parser.add_argument("--seed", type=int, default=0, help="of data, weights, masks")
    parser.add_argument("--epochs", type=int, default=50, help="passes over the images")
    parser.add_argument("--collapse", action="store_true", help="leave out parts")
    options = parser.parse_args()
    if options.seed < 0 or options.epochs < 1:
        parser.error("--seed must be 0 or more, and --epochs 1 or more")
    run = collapse if options.collapse else demo
    run(Config(epochs=options.epochs), options.seed)


# Pasted into a notebook, the file only defines its functions.
pasted = "__file__" not in globals() and hasattr(sys, "ps1")
if __name__ == "__main__" and not pasted:
    try:
        main()
        sys.stdout.flush()
    except FloatingPointError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader, `head` for example, has stopped
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
