"""Wrong, random and extreme input: each call returns the right numbers or says in one line what is wrong.

The references below are slow and obvious on purpose: index loops, their own rules of what is valid, and a
gradient by complex steps. They share no code with jepa.py."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import jepa

import cmath
import copy
import math
import random
import re
import unittest
from fractions import Fraction
from unittest import mock

try:
    import numpy
except ImportError:
    numpy = None

NAN, INF = math.nan, math.inf
IMAGE = [[0.1, 0.7, 0.3, 0.9], [0.4, 0.2, 0.8, 0.6], [0.5, 0.0, 1.0, 0.3], [0.2, 0.9, 0.1, 0.4]]
X = [[0.0, 0.1], [0.2, 0.0], [0.1, 0.1], [1.0, 1.1], [0.9, 1.0], [1.1, 0.8]]  # six embeddings
LABELS = ["a", "a", "a", "b", "b", "b"]
INVALID = "invalid"  # what a reference returns for input that must be refused


def images_of(number, height=4, width=4, seed=0):
    rng = random.Random(seed)
    return [[[rng.uniform(-1.0, 1.0) for _ in range(width)] for _ in range(height)] for _ in range(number)]


def numbers_of(value):
    """All numbers of nested lists and dicts, in one list."""
    if isinstance(value, dict):
        value = list(value.values())
    return [v for item in value for v in numbers_of(item)] if isinstance(value, (list, tuple)) else [value]


def all_finite(value):
    return all(math.isfinite(number) for number in numbers_of(value))


def close(a, b):
    """Whether two results are of one shape, with the same finite numbers up to rounding."""
    if isinstance(b, dict):
        return isinstance(a, dict) and list(a) == list(b) and all(close(a[key], b[key]) for key in b)
    if isinstance(b, (list, tuple)):
        return isinstance(a, type(b)) and len(a) == len(b) and all(map(close, a, b))
    return math.isfinite(a) and math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)


def refused(test, error, parts, function, *args, **kwargs):
    """Assert that the call raises this very class, with one line that has each of these parts in it."""
    model = copy.deepcopy(jepa.MODEL)
    with test.assertRaises(error) as caught:
        function(*args, **kwargs)
    test.assertIs(type(caught.exception), error)
    message = str(caught.exception)
    test.assertNotIn("\n", message)
    test.assertLess(len(message), 300)
    for part in parts:
        test.assertIn(str(part), message)
    test.assertEqual(model, jepa.MODEL, "the model changed")


# ---- References --------------------------------------------------------------------------------------------

def is_list(value):
    return isinstance(value, (list, tuple, range))


def is_number(value, low=-INF, high=INF):
    if not isinstance(value, (bool, int, float, Fraction)):
        return False
    try:
        return math.isfinite(float(value)) and low <= value <= high
    except OverflowError:
        return False


def is_whole(value, low, high=INF):
    return type(value) is int and is_number(value, low, high)


def is_matrix(rows, length=None):
    """One or more rows of numbers, all of one length (this one, if given) that is not 0."""
    return (is_list(rows) and len(rows) > 0 and all(is_list(row) for row in rows) and len(rows[0]) > 0
            and all(len(row) == (length or len(rows[0])) and all(map(is_number, row)) for row in rows))


def are_masks(context_mask, target_mask, num_patches):
    if not is_list(context_mask) or not is_list(target_mask) or not context_mask or not target_mask:
        return False
    seen = []
    for i in list(context_mask) + list(target_mask):
        if not is_whole(i, 0, num_patches - 1) or i in seen:
            return False
        seen.append(i)
    return True


def ref_extract_patches(img, size):
    if not is_matrix(img) or not is_whole(size, 1) or len(img) % size or len(img[0]) % size:
        return INVALID
    across = len(img[0]) // size
    patches = []
    for k in range(len(img) // size * across):
        patch = []
        for p in range(size * size):
            patch.append(float(img[k // across * size + p // size][k % across * size + p % size]))
        patches.append(patch)
    return patches


def ref_mlp(net, x):
    """One input through a network; its numbers may be complex."""
    hidden = []
    for j in range(len(net["b1"])):
        z = net["b1"][j]
        for i in range(len(x)):
            z = z + net["W1"][j][i] * x[i]
        hidden.append(z if z.real > 0.0 else 0.0)
    out = []
    for j in range(len(net["b2"])):
        z = net["b2"][j]
        for i in range(len(hidden)):
            z = z + net["W2"][j][i] * hidden[i]
        out.append(z)
    return out


def ref_encode(net, patch, patch_size):
    return ref_mlp(net, patch) if is_matrix([patch], patch_size ** 2) else INVALID


def ref_predict(model, avg_context, pos, K, D):
    if not is_matrix([avg_context], D) or not is_whole(pos, 0, K - 1):
        return INVALID
    return ref_mlp(model["predictor"], list(avg_context) + [1.0 if i == pos else 0.0 for i in range(K)])


def ref_mean(rows):
    mean = []
    for d in range(len(rows[0])):
        total = 0.0
        for i in range(len(rows)):
            total = total + rows[i][d]
        mean.append(total / len(rows))
    return mean


def ref_mse(predictions, targets):
    if not is_list(predictions) or not is_list(targets) or not targets or len(predictions) != len(targets):
        return INVALID
    total, count = 0.0, 0
    for i in range(len(targets)):  # the rows may differ in length, as long as those of a pair do not
        if not is_matrix([targets[i]]) or not is_matrix([predictions[i]], len(targets[i])):
            return INVALID
        for d in range(len(targets[i])):
            total += (predictions[i][d] - targets[i][d]) * (predictions[i][d] - targets[i][d])
            count += 1
    return total / count


def ref_covariance(z):
    """Without a mean: a covariance is half the mean product of the differences of two embeddings."""
    n, D = len(z), len(z[0])
    C = [[0.0] * D for _ in range(D)]
    for i in range(D):
        for j in range(D):
            for a in range(n):
                for b in range(a):
                    C[i][j] = C[i][j] + (z[a][i] - z[b][i]) * (z[a][j] - z[b][j]) / (n * (n - 1))
    return C


def ref_effective_rank(z):
    if not is_matrix(z):
        return INVALID
    C = ref_covariance(z)
    trace, squares = 0.0, 0.0
    for i in range(len(C)):
        trace += C[i][i]
        for j in range(len(C)):
            squares += C[i][j] * C[i][j]
    return trace * trace / squares if squares else 0.0


def ref_explained_share(z, groups):
    if not is_matrix(z) or not is_list(groups) or len(groups) != len(z):
        return INVALID
    names = []
    for group in groups:
        if group != group or isinstance(group, (list, dict, set)):  # nan is in no group
            return INVALID
        if group not in names:
            names.append(group)
    if all(list(row) == list(z[0]) for row in z):
        return 0.0
    mean, total, between = ref_mean(z), 0.0, 0.0
    for name in names:
        members = [z[i] for i in range(len(z)) if groups[i] == name]
        group_mean = ref_mean(members)
        for d in range(len(mean)):
            between += len(members) * (group_mean[d] - mean[d]) * (group_mean[d] - mean[d])
    for row in z:
        for d in range(len(mean)):
            total += (row[d] - mean[d]) * (row[d] - mean[d])
    return between / total


def ref_cosine(a, b):
    if not is_matrix([a]) or not is_matrix([b]) or len(a) != len(b) or not any(a) or not any(b):
        return INVALID
    product = square_a = square_b = 0.0
    for i in range(len(a)):
        product, square_a, square_b = product + a[i] * b[i], square_a + a[i] * a[i], square_b + b[i] * b[i]
    return product / math.sqrt(square_a * square_b)


def ref_terms(encoder, target_encoder, predictor, batch, gamma):
    """Pred, Var and Cov of a minibatch; their numbers may be complex."""
    z, K, pred, count = [], len(batch[0][0]), 0.0, 0
    for patches, context_mask, target_mask in batch:
        embs = [ref_mlp(encoder, patches[i]) for i in context_mask]
        z += embs
        for pos in target_mask:
            one_hot = [1.0 if i == pos else 0.0 for i in range(K)]
            prediction = ref_mlp(predictor, ref_mean(embs) + one_hot)
            target = ref_mlp(target_encoder, patches[pos])
            for d in range(len(target)):
                pred = pred + (prediction[d] - target[d]) * (prediction[d] - target[d])
                count += 1
    C, var, cov = ref_covariance(z), 0.0, 0.0
    for i in range(len(C)):
        sd = cmath.sqrt(C[i][i] + 0.0001)
        if sd.real < gamma:
            var = var + (gamma - sd) / len(C)
        for j in range(len(C)):
            if i != j:
                cov = cov + C[i][j] * C[i][j] / len(C)
    return pred / count, var, cov


def ref_jepa_forward(model, img, context_mask, target_mask, patch_size, K):
    patches = ref_extract_patches(img, patch_size)
    if patches == INVALID or len(patches) != K or not are_masks(context_mask, target_mask, K):
        return INVALID
    return ref_terms(model["context_encoder"], model["target_encoder"], model["predictor"],
                     [(patches, context_mask, target_mask)], 0.0)[0]


def ref_derivatives(nets, loss):
    """The gradient of a loss by the weights of the first of these networks, by complex steps: f(w + ih) is
    f(w) + ih f'(w), with no subtraction that would round. Other networks are moved with it."""
    gradient = copy.deepcopy(nets[0])
    for key in ("W1", "b1", "W2", "b2"):
        for r in range(len(gradient[key])):
            places = [(net[key][r], c) for net in nets for c in range(len(net[key][r]))] \
                if key in ("W1", "W2") else [(net[key], r) for net in nets]
            for row, c in places[:len(places) // len(nets)]:
                moved = [(other, i) for other, i in places if i == c]
                before = [other[i] for other, i in moved]
                for other, i in moved:
                    other[i] = other[i] + 1e-30j
                slope = complex(loss()).imag / 1e-30
                for (other, i), weight in zip(moved, before):
                    other[i] = weight
                if key in ("W1", "W2"):
                    gradient[key][r][c] = slope
                else:
                    gradient[key][r] = slope
    return gradient


def ref_train(model, images, epochs, lr, momentum, batch_size, weights, gamma, stop_gradient, rng, sizes):
    """The losses of each epoch, or INVALID; the model is trained in place."""
    patch_size, K, _ = sizes
    if not is_list(images) or not images or not is_whole(epochs, 0) or not is_whole(batch_size, 1):
        return INVALID
    data = [ref_extract_patches(img, patch_size) for img in images]
    if INVALID in data or any(len(patches) != K for patches in data):
        return INVALID
    if not is_number(lr, 0) or lr == 0 or not is_number(momentum, 0, 1) or not is_number(gamma, 0):
        return INVALID
    if not all(is_number(weight, 0) for weight in weights):
        return INVALID
    smallest = len(data) % batch_size or min(batch_size, len(data))  # minibatch
    if K < 2 or (K == 2 and smallest == 1 and (weights[1] or weights[2])):
        return INVALID
    encoder, target_encoder, predictor = [
        model[name] for name in ("context_encoder", "target_encoder", "predictor")]
    history = []
    for _ in range(epochs):
        rng.shuffle(data)
        losses = {"loss": 0.0, "pred": 0.0, "var": 0.0, "cov": 0.0}
        for start in range(0, len(data), batch_size):
            batch = []
            for patches in data[start:start + batch_size]:
                batch.append((patches,) + jepa.random_masks(K, rng))

            def loss(target=target_encoder):
                terms = ref_terms(encoder, target, predictor, batch, gamma)
                return weights[0] * terms[0] + weights[1] * terms[1] + weights[2] * terms[2]
            terms = ref_terms(encoder, target_encoder, predictor, batch, gamma)
            for name, term in zip(("loss", "pred", "var", "cov"), (loss(),) + terms):
                losses[name] += complex(term).real * len(batch) / len(data)
            gradients = [(encoder, ref_derivatives([encoder] + [target_encoder] * (not stop_gradient), loss)),
                         (predictor, ref_derivatives([predictor], loss))]
            for net, gradient in gradients:
                for key in net:
                    for r in range(len(net[key])):
                        if key in ("W1", "W2"):
                            for c in range(len(net[key][r])):
                                net[key][r][c] -= lr * gradient[key][r][c]
                        else:
                            net[key][r] -= lr * gradient[key][r]
            ref_ema_update(momentum, model)
        history.append(losses)
    return history


def ref_ema_update(momentum, model):
    if not is_number(momentum, 0, 1):
        return INVALID
    target, context = model["target_encoder"], model["context_encoder"]
    for key in target:
        for r in range(len(target[key])):
            if key in ("W1", "W2"):
                for c in range(len(target[key][r])):
                    target[key][r][c] = momentum * target[key][r][c] + (1 - momentum) * context[key][r][c]
            else:
                target[key][r] = momentum * target[key][r] + (1 - momentum) * context[key][r]
    return None


def ref_nearest_mean(train_x, train_labels, x):
    answers = []
    for row in x:
        best = None
        for name in train_labels:
            mean = ref_mean([train_x[i] for i in range(len(train_x)) if train_labels[i] == name])
            distance = 0.0
            for d in range(len(row)):
                distance += (row[d] - mean[d]) * (row[d] - mean[d])
            if best is None or distance < best:
                best, answer = distance, name
        answers.append(answer)
    return answers


def ref_linear_probe(train_x, train_labels, x):
    """Least squares of |w . x + b - y|^2 + penalty |w|^2, by the normal equations of w and b together."""
    n, D = len(train_x), len(train_x[0])
    C = ref_covariance(train_x)
    penalty = 0.01 * sum(C[d][d] for d in range(D)) / D * (n - 1) or 1.0
    rows = [list(row) + [1.0] for row in train_x]
    names = list(dict.fromkeys(train_labels))
    solutions = []
    for name in names:
        system = []
        for i in range(D + 1):
            left = [sum(row[i] * row[j] for row in rows) for j in range(D + 1)]
            left[i] += penalty if i < D else 0.0
            system.append(left + [sum(rows[k][i] * (train_labels[k] == name) for k in range(n))])
        for i in range(D + 1):
            pivot = max(range(i, D + 1), key=lambda r: abs(system[r][i]))
            system[i], system[pivot] = system[pivot], system[i]
            for r in range(D + 1):
                if r != i:
                    factor = system[r][i] / system[i][i]
                    for c in range(D + 2):
                        system[r][c] -= factor * system[i][c]
        solutions.append([system[i][D + 1] / system[i][i] for i in range(D + 1)])
    answers = []
    for row in x:
        scores = [sum(w * v for w, v in zip(solution, list(row) + [1.0])) for solution in solutions]
        answers.append(names[scores.index(max(scores))])
    return answers


def ref_few_label_accuracy(classifier, x, labels, per_class, rng, draws):
    if not is_matrix(x) or not is_list(labels) or len(labels) != len(x):
        return INVALID
    if any(label != label or isinstance(label, (list, dict, set)) for label in labels):
        return INVALID
    names = list(dict.fromkeys(labels))
    if not is_whole(per_class, 1, min(list(labels).count(name) for name in names) - 1):
        return INVALID
    total = 0.0
    for _ in range(draws):
        order = list(range(len(x)))
        rng.shuffle(order)
        known = []
        for name in names:
            known += [i for i in order if labels[i] == name][:per_class]
        rest = [i for i in range(len(x)) if i not in known]
        answers = classifier([x[i] for i in known], [labels[i] for i in known], [x[i] for i in rest])
        right = 0
        for k in range(len(rest)):
            right += answers[k] == labels[rest[k]]
        total += right / len(rest)
    return total / draws


# ---- A. Wrong input ----------------------------------------------------------------------------------------

class WrongImages(unittest.TestCase):

    def test_an_empty_image_is_refused(self):
        for function in (jepa.extract_patches, jepa.embed, jepa.embed_patches):
            refused(self, ValueError, ["img", "one or more", "got 0"], function, [])
            refused(self, ValueError, ["row of img", "one or more", "got 0"], function, [[], []])

    def test_a_ragged_image_is_refused(self):
        refused(self, ValueError, ["row of img", "2", "got 1"], jepa.extract_patches, [[1.0, 2.0], [3.0]])
        refused(self, ValueError, ["row of img", "2", "got 3"], jepa.extract_patches, [[1, 2], [3, 4, 5]])
        refused(self, ValueError, ["row of img", "got 0"], jepa.embed, IMAGE[:3] + [[]])

    def test_an_image_that_does_not_divide_into_patches_is_refused(self):
        refused(self, ValueError, ["img", "2x2", "3x4"], jepa.extract_patches, IMAGE[:3])
        refused(self, ValueError, ["img", "2x2", "4x3"], jepa.embed, [row[:3] for row in IMAGE])
        refused(self, ValueError, ["img", "3x3", "4x4"], jepa.extract_patches, IMAGE, 3)
        refused(self, ValueError, ["img", "8x8", "4x4"], jepa.extract_patches, IMAGE, 8)

    def test_what_is_not_an_image_at_all_is_refused(self):
        for value in (None, 3, 0.5, "abcd", b"abcd", {0: [1.0]}, {1.0}, abs):
            for function in (jepa.extract_patches, jepa.embed, jepa.embed_patches):
                refused(self, TypeError, ["img", "list", value], function, value)
            refused(self, TypeError, ["img", "list"], jepa.jepa_forward, value, [0, 1, 2], [3])

    def test_what_is_not_a_row_of_an_image_is_refused(self):
        for value in (None, 3, 0.5, "abcd", b"abcd", {0: 1.0}, {1.0}):
            refused(self, TypeError, ["row of img", "list", value], jepa.extract_patches, [value] * 2)
            refused(self, TypeError, ["row of img", "list", value], jepa.extract_patches, IMAGE[:3] + [value])

    def test_a_frozenset_is_refused_like_a_set(self):
        refused(self, TypeError, ["row of img", "list", "frozenset"],
                jepa.extract_patches, [frozenset([1.0, 2.0]), frozenset([3.0, 4.0])])

    def test_an_iterator_is_refused_as_an_image(self):
        refused(self, TypeError, ["img", "list"], jepa.extract_patches, iter(IMAGE))
        refused(self, TypeError, ["row of img", "list"], jepa.extract_patches, list(map(iter, IMAGE)))

    def test_a_pixel_that_is_not_finite_is_refused(self):
        for value in (NAN, INF, -INF):
            image = copy.deepcopy(IMAGE)
            image[2][1] = value
            for function in (jepa.extract_patches, jepa.embed, jepa.embed_patches):
                refused(self, ValueError, ["pixel of img", "finite", value], function, image)
            refused(self, ValueError, ["pixel of img", value], jepa.jepa_forward, image, [0, 1, 2], [3])
            for function in (jepa.context_encode, jepa.target_encode):
                refused(self, ValueError, ["pixel of patch", "finite", value], function, [1, 2, 3, value])

    def test_a_pixel_that_is_not_a_number_is_refused(self):
        for value in ("1", "a", b"1", None, 1j, [], [0.5], {}, abs):
            refused(self, TypeError, ["pixel of img", "number", value], jepa.extract_patches, [[1, value]])
            for function in (jepa.context_encode, jepa.target_encode):
                refused(self, TypeError, ["pixel of patch", "number", value], function, [0.0, 1, 2, value])

    def test_a_pixel_of_400_digits_is_refused(self):
        for value in (10 ** 400, -10 ** 400, Fraction(10 ** 400)):
            refused(self, ValueError, ["pixel of img", "finite", 10 ** 9], jepa.extract_patches, [[value]], 1)
            refused(self, ValueError, ["pixel of patch", "finite", 10 ** 9], jepa.context_encode, [value] * 4)

    def test_a_pixel_of_5000_digits_is_refused_by_a_message_that_names_it(self):
        refused(self, ValueError, ["pixel of img", "finite"], jepa.extract_patches, [[10 ** 5000, 0]] * 2)

    def test_an_image_with_a_different_number_of_patches_than_the_model_is_refused(self):
        for image, got in ((IMAGE[:2], 2), (IMAGE + IMAGE[:2], 6), (images_of(1, 2, 2)[0], 1)):
            for function in (jepa.image_patches, jepa.embed, jepa.embed_patches):
                refused(self, ValueError, ["img", "2x2 patches", "4", f"got {got}"], function, image)
            refused(self, ValueError, ["img", "4", f"got {got}"], jepa.jepa_forward, image, [0], [1])
            refused(self, ValueError, ["img", "4", f"got {got}"], jepa.train, [IMAGE, image], 1)


class WrongArguments(unittest.TestCase):

    def test_a_patch_size_of_no_pixels_is_refused(self):
        for value in (0, -1, -2):
            refused(self, ValueError, ["patch_size", "1", f"got {value}"], jepa.extract_patches, IMAGE, value)

    def test_a_patch_size_that_is_not_whole_is_refused(self):
        for value in (1.5, 2.0, True, None, "2", Fraction(2), [2]):
            refused(self, TypeError, ["patch_size", "whole", value], jepa.extract_patches, IMAGE, value)

    def test_a_model_of_impossible_sizes_is_refused(self):
        for name in ("patch_size", "num_patches", "embed_dim", "hidden_dim"):
            for value in (0, -1, -2):
                refused(self, ValueError, [name, f"got {value}"], jepa.init_model, **{name: value})
            for value in (1.5, 2.0, None, "2"):
                refused(self, TypeError, [name, "whole number", value], jepa.init_model, **{name: value})

    def test_a_patch_of_the_wrong_length_is_refused(self):
        for function in (jepa.context_encode, jepa.target_encode):
            for length in (0, 3, 5):
                refused(self, ValueError, ["patch", "4 items", f"got {length}"], function, [0.5] * length)

    def test_what_is_not_a_patch_at_all_is_refused(self):
        for value in (None, 3, "abcd", b"abcd", {0: 1, 1: 1, 2: 1, 3: 1}, {1, 2, 3, 4}):
            for function in (jepa.context_encode, jepa.target_encode):
                refused(self, TypeError, ["patch", "list", value], function, value)

    def test_a_position_out_of_range_is_refused(self):
        for value in (4, 400, -1, -4):
            refused(self, ValueError, ["pos", "0", "3", f"got {value}"], jepa.predict, [0.5] * 6, value)

    def test_a_position_that_is_not_whole_is_refused(self):
        for value in (1.0, 0.5, NAN, True, False, "1", None, [1]):
            refused(self, TypeError, ["pos", "whole number", value], jepa.predict, [0.5] * 6, value)

    def test_an_average_context_of_the_wrong_length_is_refused(self):
        for length in (0, 5, 7, 10):
            refused(self, ValueError, ["avg_context", "6", f"got {length}"], jepa.predict, [0.5] * length, 0)

    def test_an_average_context_of_wrong_numbers_is_refused(self):
        for error, value in ((ValueError, NAN), (ValueError, INF), (TypeError, "a"), (TypeError, None)):
            refused(self, error, ["avg_context", "number", value], jepa.predict, [0.5] * 5 + [value], 0)
        for value in (None, 3, "abcdef", {1, 2, 3, 4, 5, 6}):
            refused(self, TypeError, ["avg_context", "list", value], jepa.predict, value, 0)

    def test_an_empty_mask_is_refused(self):
        refused(self, ValueError, ["context_mask", "one or more", "0"], jepa.jepa_forward, IMAGE, [], [1])
        refused(self, ValueError, ["target_mask", "one or more", "0"], jepa.jepa_forward, IMAGE, [1], [])
        patches = jepa.extract_patches(IMAGE)
        for masks in (([], [1]), ([0, 1], []), ([], [])):
            refused(self, ValueError, ["masks", list(masks)], jepa.loss_and_gradients, [(patches,) + masks])

    def wrong_masks(self, error, context_mask, target_mask, expected):
        masks = [context_mask, target_mask]
        refused(self, error, ["masks", expected, masks], jepa.jepa_forward, IMAGE, *masks)
        refused(self, error, ["masks", expected, masks],
                jepa.loss_and_gradients, [(jepa.extract_patches(IMAGE), *masks)])
        refused(self, error, ["masks", expected, masks], jepa.check_masks, *masks, 4)

    def test_a_mask_out_of_range_is_refused(self):
        self.wrong_masks(ValueError, [0, 1, 4], [3], "0 to 3")
        self.wrong_masks(ValueError, [0, 1], [2, 400], "0 to 3")

    def test_a_negative_mask_is_refused(self):
        self.wrong_masks(ValueError, [0, 1, -2], [3], "0 to 3")
        self.wrong_masks(ValueError, [0, 1, 2], [-1], "0 to 3")

    def test_a_repeating_mask_is_refused(self):
        self.wrong_masks(ValueError, [0, 1, 1], [3], "different")
        self.wrong_masks(ValueError, [0, 1], [3, 3], "different")

    def test_overlapping_masks_are_refused(self):
        self.wrong_masks(ValueError, [0, 1, 2], [2, 3], "none in both")
        self.wrong_masks(ValueError, [0, 1, 2, 3], [3], "none in both")

    def test_masks_of_floats_are_refused(self):
        self.wrong_masks(TypeError, [0.0, 1, 2], [3], "whole numbers")
        self.wrong_masks(TypeError, [0, 1, 2], [3.0], "whole numbers")
        self.wrong_masks(TypeError, [0, 1, 2], [NAN], "whole numbers")

    def test_masks_of_strings_are_refused(self):
        self.wrong_masks(TypeError, ["0", "1", "2"], [3], "whole numbers")
        self.wrong_masks(TypeError, [0, 1, 2], ["a"], "whole numbers")
        self.wrong_masks(TypeError, [0, 1, None], [3], "whole numbers")

    def test_masks_of_true_and_false_are_refused(self):
        self.wrong_masks(TypeError, [True, 2, 3], [0], "whole numbers")
        self.wrong_masks(TypeError, [2, 3], [False], "whole numbers")

    def test_what_is_not_a_mask_at_all_is_refused(self):
        for value in (None, 1, "01", {0, 1}, {0: 1}):
            refused(self, TypeError, ["context_mask", "list", value], jepa.jepa_forward, IMAGE, value, [3])
            refused(self, TypeError, ["target_mask", "list", value], jepa.jepa_forward, IMAGE, [3], value)

    def test_a_mask_of_one_patch_is_refused(self):
        for value in (1, 0, -1):
            refused(self, ValueError, ["num_patches", "2", f"got {value}"],
                    jepa.random_masks, value, random.Random(0))
        for value in (4.0, "4", None, True, [4]):
            refused(self, TypeError, ["num_patches", "whole number", value],
                    jepa.random_masks, value, random.Random(0))

    def test_a_momentum_outside_of_0_to_1_is_refused(self):
        for value in (-0.1, 1.1, NAN, INF, -1e-300, 10 ** 400):
            shown = str(value)[:50]
            refused(self, ValueError, ["momentum", "0", "1", shown], jepa.train, [IMAGE], 1, momentum=value)
            refused(self, ValueError, ["momentum", "0", "1", shown], jepa.ema_update, value)

    def test_a_momentum_that_is_no_number_is_refused(self):
        for value in ("0.9", None, [0.9], 1j):
            refused(self, TypeError, ["momentum", "number", value], jepa.train, [IMAGE], 1, momentum=value)
            refused(self, TypeError, ["momentum", "number", value], jepa.ema_update, value)


class WrongTraining(unittest.TestCase):

    def test_training_on_no_images_is_refused(self):
        refused(self, ValueError, ["images", "one or more", "got 0"], jepa.train, [])
        refused(self, ValueError, ["images", "one or more", "got 0"], jepa.train, (), 1)

    def test_what_is_not_a_list_of_images_is_refused(self):
        for value in (None, 3, "abc", {0: IMAGE}, {1.0}):
            refused(self, TypeError, ["images", "list"], jepa.train, value, 1)
        refused(self, TypeError, ["images", "list"], jepa.train, (img for img in [IMAGE]), 1)

    def test_one_image_in_place_of_a_list_of_images_is_refused(self):
        refused(self, TypeError, ["row of img", "list", "0.1"], jepa.train, IMAGE, 1)

    def test_training_on_a_wrong_image_is_refused(self):
        refused(self, ValueError, ["row of img", "4", "3"], jepa.train, [IMAGE, IMAGE[:3] + [[1, 2, 3]]], 1)
        refused(self, ValueError, ["pixel", "finite", "nan"], jepa.train, [IMAGE, [[NAN] * 4] * 4], 1)
        refused(self, TypeError, ["pixel", "number", "None"], jepa.train, [IMAGE, [[None] * 4] * 4], 1)

    def test_a_negative_number_of_epochs_is_refused(self):
        refused(self, ValueError, ["epochs", "0", "got -1"], jepa.train, [IMAGE], -1)

    def test_a_number_of_epochs_that_is_not_whole_is_refused(self):
        for value in (1.5, 2.0, True, None, "3", NAN):
            refused(self, TypeError, ["epochs", "whole number", value], jepa.train, [IMAGE], value)

    def test_a_learning_rate_that_is_not_above_0_is_refused(self):
        for value in (0, 0.0, -0.0):
            refused(self, ValueError, ["lr", "above 0", "got 0"], jepa.train, [IMAGE], 1, lr=value)
        for value in (-1, -1e-9, NAN, INF):
            refused(self, ValueError, ["lr", "0", f"got {value}"], jepa.train, [IMAGE], 1, lr=value)

    def test_a_learning_rate_that_is_no_number_is_refused(self):
        for value in ("0.1", None, [0.1], 1j):
            refused(self, TypeError, ["lr", "number", value], jepa.train, [IMAGE], 1, lr=value)

    def test_a_minibatch_of_no_images_is_refused(self):
        for value in (0, -1):
            refused(self, ValueError, ["batch_size", "1", f"got {value}"],
                    jepa.train, [IMAGE], 1, batch_size=value)
        for value in (1.5, 2.0, True, None, "3"):
            refused(self, TypeError, ["batch_size", "whole number", value],
                    jepa.train, [IMAGE], 1, batch_size=value)

    def test_negative_loss_weights_are_refused(self):
        for name in ("pred_weight", "var_weight", "cov_weight", "gamma"):
            what = "gamma" if name == "gamma" else "weight"
            for value in (-1, -1e-9, NAN, INF):
                refused(self, ValueError, [what, "0", value], jepa.train, [IMAGE], 1, **{name: value})
            for value in (None, "1", [1.0]):
                refused(self, TypeError, [what, "number", value], jepa.train, [IMAGE], 1, **{name: value})

    def test_fewer_than_two_visible_patches_with_var_or_cov_on_are_refused(self):
        batch = [(jepa.extract_patches(IMAGE), [0], [1, 2, 3])]
        model = jepa.init_model(num_patches=2)
        for weights in ({}, {"var_weight": 0}, {"cov_weight": 0}):
            refused(self, ValueError, ["Var", "Cov", "2", "got 1"], jepa.loss_and_gradients, batch, **weights)
            refused(self, ValueError, ["Var", "Cov", "2", "got 1"],
                    jepa.train, images_of(1, 2, 4), 1, model=model, **weights)
        self.assertEqual(model, jepa.init_model(num_patches=2))

    def test_a_last_minibatch_of_one_visible_patch_is_refused_before_the_first_step(self):
        for images, batch_size in ((11, 10), (3, 2), (2, 1)):
            model = jepa.init_model(num_patches=2)
            refused(self, ValueError, ["Var", "Cov", "2", "got 1"], jepa.train, images_of(images, 2, 4), 1,
                    batch_size=batch_size, model=model)
            self.assertEqual(model, jepa.init_model(num_patches=2))

    def test_one_patch_an_image_is_refused(self):
        model = jepa.init_model(num_patches=1)
        refused(self, ValueError, ["num_patches", "2", "got 1"],
                jepa.train, images_of(3, 2, 2), 1, model=model)
        self.assertEqual(model, jepa.init_model(num_patches=1))


class WrongMeasurements(unittest.TestCase):

    def test_an_average_of_none_is_refused(self):
        refused(self, ValueError, ["embeddings", "one or more"], jepa.average, [])

    def test_an_average_of_ragged_embeddings_is_refused(self):
        for rows in ([[1.0, 2.0], [3.0]], [[1.0], [2.0, 3.0]], [[1.0], [2.0], [3.0, 4.0]]):
            for function in (jepa.average, jepa.covariance, jepa.spread, jepa.effective_rank):
                refused(self, ValueError, ["embeddings", "one length", rows], function, rows)

    def test_an_average_of_an_iterator_is_refused(self):
        for function in (jepa.average, jepa.effective_rank, jepa.spread):
            refused(self, TypeError, ["embeddings", "list"], function, (row for row in X))

    def test_what_is_not_a_list_of_embeddings_is_refused(self):
        for value in (None, 3):
            for function in (jepa.average, jepa.covariance, jepa.spread, jepa.effective_rank):
                refused(self, TypeError, ["embeddings", "list", value], function, value)

    def test_dicts_sets_and_bytes_are_no_embeddings(self):
        for value in ({(1.0, 2.0): 3.0}, {(1.0, 2.0)}, [{1.0: 2.0}], [{1.0}], [b"ab"]):
            for function in (jepa.average, jepa.spread, jepa.effective_rank):
                refused(self, TypeError, ["list"], function, value)
            refused(self, TypeError, ["list"], jepa.mse, value, value)

    def test_an_error_of_different_shapes_is_refused(self):
        for a, b in (([[1.0, 2.0]], [[1.0]]), ([[1.0]], [[1.0], [2.0]]), ([[1.0, 2.0]], [[1.0], [2.0]])):
            refused(self, ValueError, ["predictions", "targets", "shape"], jepa.mse, a, b)
            refused(self, ValueError, ["predictions", "targets", "shape"], jepa.mse, b, a)

    def test_an_error_of_different_shapes_is_refused_by_a_message_that_shows_them(self):
        with self.assertRaises(ValueError) as caught:
            jepa.mse([[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0]])
        self.assertRegex(str(caught.exception), "got .*2.*1|got .*3.0, 4.0.*5.0, 6.0")

    def test_an_error_of_nothing_is_refused(self):
        for a, b in (([], []), ([[]], [[]]), ([[], []], [[], []]), ([], [[1.0]])):
            refused(self, ValueError, ["predictions", "one or more"], jepa.mse, a, b)

    def test_a_cosine_of_zero_vectors_is_refused(self):
        for a, b in (([0.0, 0.0], [1.0, 2.0]), ([1.0, 2.0], [0.0, -0.0]), ([0.0], [0.0])):
            refused(self, ValueError, ["not zero", a, b], jepa.cosine_similarity, a, b)

    def test_a_cosine_of_different_lengths_is_refused(self):
        for a, b in (([1.0, 2.0], [1.0]), ([1.0], [1.0, 2.0]), ([1.0], [1.0, 0.0])):
            refused(self, ValueError, ["one length", a, b], jepa.cosine_similarity, a, b)
        for a, b in (([], [1.0]), ([1.0], []), ([], [])):
            refused(self, ValueError, ["a", "one"], jepa.cosine_similarity, a, b)

    def test_a_cosine_of_what_is_not_finite_is_refused(self):
        for value in (NAN, INF):
            refused(self, ValueError, [value], jepa.cosine_similarity, [1.0, value], [1.0, 1.0])
            refused(self, ValueError, [value], jepa.cosine_similarity, [1.0, 1.0], [1.0, value])

    def test_a_cosine_of_ints_of_400_digits_is_refused(self):
        refused(self, ValueError, ["finite", "1000000"], jepa.cosine_similarity, [10 ** 400, 0.5], [1.0, 2.0])
        refused(self, ValueError, ["finite", "1000000"], jepa.cosine_similarity, [10 ** 400], [10 ** 400])

    def test_a_cosine_of_what_are_not_vectors_names_them(self):
        for value in (None, 3, "ab", {1.0: 2.0, 2.0: 1.0}, {1.0, 2.0}):
            refused(self, TypeError, ["list", value], jepa.cosine_similarity, value, [1.0, 2.0])
            refused(self, TypeError, ["list", value], jepa.cosine_similarity, [1.0, 2.0], value)
        for value in (None, "a", 1j):
            refused(self, TypeError, ["number", value], jepa.cosine_similarity, [1.0, value], [1.0, 2.0])

    def test_too_many_labels_a_class_are_refused(self):
        for classifier in (jepa.nearest_mean, jepa.linear_probe):
            for value in (3, 400, 0, -1):
                refused(self, ValueError, ["per_class", "1", "2", f"got {value}"],
                        jepa.few_label_accuracy, classifier, X, LABELS, value, random.Random(0))
        refused(self, ValueError, ["per_class", "got 1"],
                jepa.few_label_accuracy, jepa.nearest_mean, X, list("aaaaab"), 1, random.Random(0))
        for value in (1.0, True, None, "1"):
            refused(self, TypeError, ["per_class", "whole number", value],
                    jepa.few_label_accuracy, jepa.nearest_mean, X, LABELS, value, random.Random(0))

    def test_labels_of_another_length_are_refused(self):
        for labels in (LABELS[:5], LABELS + ["a"], []):
            refused(self, ValueError, ["labels", "6", f"got {len(labels)}"],
                    jepa.few_label_accuracy, jepa.nearest_mean, X, labels, 1, random.Random(0))
        for value in (None, 3, "aaabbb", {0: 1}):
            refused(self, TypeError, ["labels", "list", value],
                    jepa.few_label_accuracy, jepa.nearest_mean, X, value, 1, random.Random(0))

    def test_labels_of_another_length_are_refused_by_the_classifiers_too(self):
        for classifier in (jepa.nearest_mean, jepa.linear_probe):
            for labels in (LABELS[:5], LABELS + ["a"]):
                refused(self, ValueError, ["labels", "6", f"got {len(labels)}"], classifier, X, labels, X)

    def test_a_number_that_must_be_0_or_more_is_asked_for_as_such(self):
        refused(self, ValueError, ["gamma must be a number, 0 or more", "-1"], jepa.train, [IMAGE], gamma=-1)

    def test_vectors_too_large_for_their_length_to_be_a_number_have_no_cosine(self):
        refused(self, ValueError, ["1e+200"], jepa.cosine_similarity, [1e200, 1e200], [1.0, 2.0])

    def test_one_image_of_two_patches_left_over_is_refused_before_the_first_step_for_var_or_cov_alone(self):
        images = images_of(3, height=2)
        for weights in ({"var_weight": 0}, {"cov_weight": 0}):
            model = jepa.init_model(2, 2)
            before = copy.deepcopy(model)
            with self.assertRaises(ValueError):
                jepa.train(images, batch_size=2, model=model, **weights)
            self.assertEqual(model, before)
        jepa.train(images, 1, batch_size=2, var_weight=0, cov_weight=0, model=jepa.init_model(2, 2))
        jepa.train(images_of(4, height=2), 1, batch_size=2, model=jepa.init_model(2, 2))

    def test_rows_of_another_length_than_the_labelled_ones_are_refused_by_the_classifiers(self):
        for classifier in (jepa.nearest_mean, jepa.linear_probe):
            for row in ([1.0], [1.0, 2.0, 3.0], []):
                refused(self, ValueError, ["a row of x", "2", f"got {len(row)}"],
                        classifier, X, LABELS, X + [row])

    def test_labels_of_no_embeddings_are_refused(self):
        for labels in ([], ["a", "a"]):
            refused(self, ValueError, ["one or more", "got 0"],
                    jepa.few_label_accuracy, jepa.nearest_mean, [], labels, 1, random.Random(0))

    def test_an_accuracy_of_ragged_embeddings_is_refused(self):
        for place in range(6):
            rows = [row[:1] if i == place else row for i, row in enumerate(X)]
            for classifier in (jepa.nearest_mean, jepa.linear_probe):
                refused(self, ValueError, ["one length"],
                        jepa.few_label_accuracy, classifier, rows, LABELS, 1, random.Random(0))

    def test_an_accuracy_of_no_draws_is_refused(self):
        for error, value in ((ValueError, 0), (ValueError, -1), (TypeError, 1.5), (TypeError, True)):
            refused(self, error, ["draws", value], jepa.few_label_accuracy,
                    jepa.nearest_mean, X, LABELS, 1, random.Random(0), draws=value)

    def test_groups_of_another_length_are_refused(self):
        for groups in (LABELS[:5], LABELS + ["a"], []):
            refused(self, ValueError, ["groups", "6", f"got {len(groups)}"], jepa.explained_share, X, groups)
        for value in (None, 3, "aaabbb", {0: 1}):
            refused(self, TypeError, ["groups", "list", value], jepa.explained_share, X, value)
        refused(self, ValueError, ["one or more", "0"], jepa.explained_share, [], [])
        refused(self, ValueError, ["embeddings", "one or more"], jepa.explained_share, [], ["a"])

    def test_a_rank_or_share_of_nan_is_no_number(self):
        for function, *more in ((jepa.effective_rank,), (jepa.explained_share, LABELS)):
            rows = copy.deepcopy(X)
            rows[1][1] = NAN
            try:
                result = function(rows, *more)
            except ValueError:
                continue
            self.assertTrue(math.isnan(result), f"{function.__name__} gives {result}")

    def test_a_rank_of_large_or_small_embeddings_is_that_of_the_same_embeddings_near_1(self):
        for scale in (1e6, 1e-6, 1e60, 1e-60, 1e80, 1e-80):
            rank = jepa.effective_rank([[scale * v for v in row] for row in X])
            self.assertTrue(close(rank, ref_effective_rank(X)), f"{rank} at a scale of {scale}")


# ---- B. Random input ---------------------------------------------------------------------------------------

WRONG_TYPES = [None, "a", "0.5", abs, {}, [], [0.5], [[0.5]], (), (0.5,)]
NO_LISTS = [None, "ab", abs, 1, 0.5]
JUNK = WRONG_TYPES + ["", "ab", b"ab", {0: 1.0}, set(), {0, 1}, 1j, NAN, INF, -INF, 10 ** 400, -10 ** 400,
                      range(2), range(4), -1, 0, 1, 2, 3, 0.5, -0.5, 1.0, 2.0, -0.0, True, Fraction(1, 3)]


def spoiled(value, rng, items=JUNK, lists=JUNK):
    """A copy of value that is wrong, or at least different, in one place: something left out, put in twice,
    swapped, or replaced; by one of `lists` if it is a list, else by one of `items`."""
    if isinstance(value, (list, tuple)) and value and rng.random() < 0.85:
        copied, i = list(value), rng.randrange(len(value))
        how = rng.randrange(6)
        if how == 0:
            del copied[i]
        elif how == 1:
            copied.insert(i, copied[rng.randrange(len(copied))])
        else:
            copied[i] = spoiled(copied[i], rng, items, lists)
        return type(value)(copied)
    return rng.choice(lists if isinstance(value, (list, tuple)) else items)


def random_number(rng):
    return rng.choice([rng.gauss(0.0, 1.0)] * 6 + [0, 1, 0.0, True, Fraction(1, 3), -1.5e-3])


def random_rows(n, length, rng):
    rows = [[rng.gauss(0.0, 1.0) for _ in range(length)] for _ in range(n)]
    return tuple(map(tuple, rows)) if rng.random() < 0.2 else rows


def random_image(height, width, rng):
    rows = [[random_number(rng) for _ in range(width)] for _ in range(height)]
    return tuple(map(tuple, rows)) if rng.random() < 0.2 else rows


def random_model(rng):
    """A model with a target encoder of its own, and its patch_size, K and D."""
    patch_size, K, D = rng.choice([1, 1, 2, 3]), rng.choice([1, 2, 3, 4, 4, 6]), rng.randint(1, 3)
    model = jepa.init_model(patch_size, K, D, rng.randint(1, 4), rng)
    model["target_encoder"] = jepa.init_mlp(patch_size ** 2, len(model["context_encoder"]["b1"]), D, rng)
    return model, patch_size, K, D


def fitting_image(patch_size, K, rng):
    down = rng.choice([d for d in range(1, K + 1) if K % d == 0])
    return random_image(down * patch_size, K // down * patch_size, rng)


def compare(test, expected, function, *args, **kwargs):
    """Call; it must return what is expected, or refuse the input and leave arguments and models unchanged."""
    before = copy.deepcopy((args, kwargs, jepa.MODEL))
    call = f"{function.__name__}{args} {kwargs}"
    try:
        result = function(*args, **kwargs)
    except (ValueError, TypeError) as error:
        test.assertEqual(expected, INVALID, f"{call} was refused: {error}")
        test.assertNotIn("\n", str(error))
        test.assertEqual(before, (args, kwargs, jepa.MODEL), f"{call} changed its arguments")
    except Exception as error:
        test.fail(f"{call} raised {error!r}")
    else:
        test.assertNotEqual(expected, INVALID, f"{call} was accepted: {result}")
        test.assertTrue(close(result, expected), f"{call} returned {result}, not {expected}")
        if "model" not in kwargs:
            test.assertEqual(before, (args, kwargs, jepa.MODEL), f"{call} changed its arguments")
        return 1
    return 0


class RandomInput(unittest.TestCase):
    """`right` counts the calls that were accepted: a tester whose input is all wrong would prove little."""

    def test_extract_patches_is_right_or_refuses(self):
        rng, right = random.Random(1), 0
        for _ in range(1000):
            size = rng.randint(1, 3)
            args = [random_image(size * rng.randint(1, 3), size * rng.randint(1, 3), rng), size]
            if rng.random() < 0.7:
                args = [spoiled(args[0], rng), size] if rng.random() < 0.8 else [args[0], rng.choice(JUNK)]
            right += compare(self, ref_extract_patches(*args), jepa.extract_patches, *args)
        self.assertGreater(right, 300)

    def test_the_encoders_are_right_or_refuse(self):
        rng, right = random.Random(2), 0
        for _ in range(800):
            model, patch_size, _, _ = random_model(rng)
            name = rng.choice(["context", "target"])
            patch = random_image(1, patch_size ** 2, rng)[0]
            if rng.random() < 0.6:
                patch = spoiled(patch, rng)
            expected, before = ref_encode(model[name + "_encoder"], patch, patch_size), copy.deepcopy(model)
            right += compare(self, expected, getattr(jepa, name + "_encode"), patch, model=model)
            self.assertEqual(before, model)
        self.assertGreater(right, 300)

    def test_embed_is_the_mean_of_the_target_embeddings_or_refuses(self):
        rng, right = random.Random(15), 0
        for _ in range(300):
            model, patch_size, K, _ = random_model(rng)
            image = fitting_image(patch_size, K, rng)
            if rng.random() < 0.5:
                image = spoiled(image, rng)
            expected, patches = INVALID, ref_extract_patches(image, patch_size)
            if patches != INVALID and len(patches) == K:
                expected = [ref_mlp(model["target_encoder"], patch) for patch in patches]
            before = copy.deepcopy(model)
            right += compare(self, expected, jepa.embed_patches, image, model=model)
            mean = INVALID if expected == INVALID else ref_mean(expected)
            compare(self, mean, jepa.embed, image, model=model)
            self.assertEqual(before, model)
        self.assertGreater(right, 100)

    def test_predict_is_right_or_refuses(self):
        rng, right = random.Random(3), 0
        for _ in range(800):
            model, _, K, D = random_model(rng)
            args = [random_image(1, D, rng)[0], rng.randrange(K)]
            if rng.random() < 0.6:
                args = [spoiled(args[0], rng), args[1]] if rng.random() < 0.5 else [args[0], rng.choice(JUNK)]
            before = copy.deepcopy(model)
            right += compare(self, ref_predict(model, *args, K, D), jepa.predict, *args, model=model)
            self.assertEqual(before, model)
        self.assertGreater(right, 300)

    def test_jepa_forward_is_right_or_refuses(self):
        rng, right = random.Random(4), 0
        for _ in range(1000):
            model, patch_size, K, _ = random_model(rng)
            order = rng.sample(range(K), K)
            cut = rng.randint(1, max(1, K - 1))
            args = [fitting_image(patch_size, K, rng), order[:cut], order[cut:][:rng.randint(1, K)]]
            if rng.random() < 0.1:
                args[1:] = map(tuple, args[1:])
            if rng.random() < 0.6:
                i = rng.choice([0, 1, 2, 1, 2])
                args[i] = spoiled(args[i], rng)
            before = copy.deepcopy(model)
            expected = ref_jepa_forward(model, *args, patch_size, K)
            right += compare(self, expected, jepa.jepa_forward, *args, model=model)
            self.assertEqual(before, model)
        self.assertGreater(right, 300)

    def test_random_masks_split_the_patches_or_refuse(self):
        rng, right = random.Random(5), 0
        for _ in range(400):
            value = rng.randint(2, 40) if rng.random() < 0.6 else rng.choice(JUNK)
            expected = INVALID
            if is_whole(value, 2):
                right += 1
                expected = tuple(jepa.random_masks(value, random.Random(7)))
                self.assertEqual(list(map(sorted, expected)), list(expected))
                self.assertEqual(sorted(expected[0] + expected[1]), list(range(value)))
                self.assertLessEqual(abs(len(expected[1]) - 0.25 * value), 0.5)
            compare(self, expected, lambda n: jepa.random_masks(n, random.Random(7)), value)
        self.assertGreater(right, 200)

    def test_random_masks_hide_each_patch_equally_often(self):
        rng, counts = random.Random(6), [0] * 6
        for _ in range(1200):
            for i in jepa.random_masks(6, rng)[1]:
                counts[i] += 1
        self.assertEqual(sum(counts), 2400)
        self.assertTrue(all(330 < count < 470 for count in counts), counts)

    def test_ema_update_is_right_or_refuses(self):
        rng, right = random.Random(7), 0
        for _ in range(400):
            model = random_model(rng)[0]
            momentum = rng.choice([rng.random(), rng.random(), 0, 1, rng.choice(JUNK), rng.choice(JUNK)])
            expected = copy.deepcopy(model)
            if ref_ema_update(momentum, expected) == INVALID:
                compare(self, INVALID, jepa.ema_update, momentum, model=model)
            else:
                right += 1
                jepa.ema_update(momentum, model)
            self.assertTrue(close(model, expected), momentum)
        self.assertGreater(right, 200)

    def test_average_is_right_or_refuses(self):
        rng, right = random.Random(8), 0
        for _ in range(1000):
            rows = random_rows(rng.randint(1, 4), rng.randint(1, 4), rng)
            if rng.random() < 0.6:
                rows = spoiled(rows, rng, WRONG_TYPES, NO_LISTS)
            if rows in ([[]], [()], ([],), ((),)):  # no numbers, no mean
                continue
            expected = ref_mean(rows) if is_matrix(rows) else INVALID
            right += compare(self, expected, jepa.average, rows)
        self.assertGreater(right, 300)

    def test_mse_is_right_or_refuses(self):
        rng, right = random.Random(9), 0
        for _ in range(1000):
            n, D = rng.randint(1, 3), rng.randint(1, 3)
            args = [random_rows(n, D, rng), random_rows(n, D, rng)]
            if rng.random() < 0.6:
                i = rng.randrange(2)
                args[i] = spoiled(args[i], rng, WRONG_TYPES, NO_LISTS)
                if rng.random() < 0.2:
                    args = [args[i], args[i]]
            if rng.random() < 0.02:
                args = [[[]] * n, [[]] * n]
            right += compare(self, ref_mse(*args), jepa.mse, *args)
        self.assertGreater(right, 300)

    def test_cosine_similarity_is_right_or_refuses(self):
        rng, right = random.Random(10), 0
        for _ in range(1000):
            D = rng.randint(1, 4)
            args = [random_image(1, D, rng)[0], random_image(1, D, rng)[0]]
            if rng.random() < 0.6:
                i = rng.randrange(2)
                args[i] = spoiled(args[i], rng)
            right += compare(self, ref_cosine(*args), jepa.cosine_similarity, *args)
        self.assertGreater(right, 300)

    def test_effective_rank_is_right_or_refuses(self):
        rng, right = random.Random(11), 0
        for _ in range(600):
            rows = random_rows(rng.randint(1, 6), rng.randint(1, 4), rng)
            if rng.random() < 0.1:  # all the same
                rows = [rows[0]] * len(rows)
            elif rng.random() < 0.6:
                rows = spoiled(rows, rng, WRONG_TYPES, NO_LISTS)
            if rows in ([[]], [()], ([],), ((),)):
                continue
            expected = ref_effective_rank(rows) if not is_matrix(rows) or len(rows) > 1 else 0.0
            right += compare(self, expected, jepa.effective_rank, rows)
        self.assertGreater(right, 200)

    def test_explained_share_is_right_or_refuses(self):
        rng, right = random.Random(12), 0
        for _ in range(800):
            rows = random_rows(rng.randint(1, 6), rng.randint(1, 3), rng)
            groups = [rng.choice(["a", "b", 1, 2.5, None]) for _ in rows]
            if rng.random() < 0.1:
                rows = [rows[0]] * len(rows)
            elif rng.random() < 0.6:
                if rng.random() < 0.5:
                    rows = spoiled(rows, rng, WRONG_TYPES, NO_LISTS)
                else:
                    groups = spoiled(groups, rng)
            if rows in ([[]], [()], ([],), ((),)):
                continue
            right += compare(self, ref_explained_share(rows, groups), jepa.explained_share, rows, groups)
        self.assertGreater(right, 250)

    def test_few_label_accuracy_is_right_or_refuses(self):
        rng, right = random.Random(13), 0
        classifiers = [(jepa.nearest_mean, ref_nearest_mean), (jepa.linear_probe, ref_linear_probe)]
        for _ in range(400):
            classes, each, D = rng.randint(1, 3), rng.randint(2, 4), rng.randint(1, 3)
            labels = rng.sample(["a", "b", "c"][:classes] * each, classes * each)
            x = random_rows(len(labels), D, rng)
            per_class, seed, draws = rng.randint(1, each - 1), rng.random(), rng.randint(1, 2)
            if rng.random() < 0.5:
                which = rng.randrange(3)
                x = spoiled(x, rng, WRONG_TYPES, NO_LISTS) if which == 0 else x
                labels = spoiled(labels, rng) if which == 1 else labels
                per_class = rng.choice(JUNK) if which == 2 else per_class
            classifier, reference = rng.choice(classifiers)

            def few_label_accuracy(x, labels, per_class):
                return jepa.few_label_accuracy(classifier, x, labels, per_class, random.Random(seed), draws)
            expected = ref_few_label_accuracy(reference, x, labels, per_class, random.Random(seed), draws)
            right += compare(self, expected, few_label_accuracy, x, labels, per_class)
        self.assertGreater(right, 150)

    def test_train_is_right_or_refuses(self):
        rng, right = random.Random(14), 0
        for _ in range(280):
            patch_size, K, D = rng.choice([1, 1, 2]), rng.choice([1, 2, 2, 3, 4, 4]), rng.randint(1, 2)
            hidden = rng.randint(1, 3)
            model = jepa.init_model(patch_size, K, D, hidden, rng)
            model["target_encoder"] = jepa.init_mlp(patch_size ** 2, hidden, D, rng)
            settings = {"images": [fitting_image(patch_size, K, rng) for _ in range(rng.randint(1, 3))],
                        "epochs": rng.randint(0, 2), "lr": rng.choice([1e-2, 1e-3]), "momentum": rng.random(),
                        "batch_size": rng.randint(1, 4), "pred_weight": rng.choice([1.0, 0.5, 0]),
                        "var_weight": rng.choice([1.0, 2, 0]), "cov_weight": rng.choice([1.0, 2, 0]),
                        "gamma": rng.choice([0.35, 1.0]), "stop_gradient": rng.random() < 0.7}
            if rng.random() < 0.5:
                name = rng.choice(["images"] * 5 + list(settings)[:-1])
                settings[name] = spoiled(settings[name], rng)
            if K < 3 and settings["epochs"] == 0:
                continue  # whether it is refused for too few patches, or has nothing to do, is left open
            if is_number(settings["lr"], 0) and settings["lr"] > 0.1:
                settings["lr"] = 0.1  # not to diverge
            trained, seed = copy.deepcopy(model), rng.random()
            expected = ref_train(trained, settings["images"], settings["epochs"], settings["lr"],
                                 settings["momentum"], settings["batch_size"],
                                 [settings[name] for name in ("pred_weight", "var_weight", "cov_weight")],
                                 settings["gamma"], settings["stop_gradient"], random.Random(seed),
                                 (patch_size, K, D))

            def train(model, settings):
                return jepa.train(rng=random.Random(seed), model=model, **settings)
            right += compare(self, expected, train, model=model, settings=settings)
            self.assertTrue(close(model, trained), settings)
        self.assertGreater(right, 100)


# ---- C. Extremes -------------------------------------------------------------------------------------------

def trained(images, epochs=2, **settings):
    """A new model, trained; its losses. Asserts that all of it is finite."""
    model = settings.pop("model", None) or jepa.init_model()
    history = jepa.train(images, epochs, model=model, **settings)
    assert len(history) == epochs and all_finite(history), history
    assert all_finite(model), model
    assert all(losses[name] >= 0.0 for losses in history for name in losses), history
    return model, history


class Extremes(unittest.TestCase):

    def test_training_works_on_one_image(self):
        model, history = trained([IMAGE], 3)
        self.assertNotEqual(model, jepa.init_model())
        self.assertGreater(history[0]["pred"], 0.0)

    def test_training_works_on_images_of_one_class(self):
        rng = random.Random(0)
        trained([jepa.draw_image("checker", rng)[0] for _ in range(10)], 3)

    def test_training_works_on_constant_images(self):
        for value in (0.5, -3.0):
            trained([[[value] * 4] * 4] * 5)
        _, history = trained([[[0.1 * i] * 4] * 4 for i in range(5)])
        self.assertGreater(history[0]["var"], 0.0)

    def test_training_works_on_images_of_zeros(self):
        zeros = [[0] * 4] * 4
        model, history = trained([zeros] * 5)
        self.assertEqual(history[0]["cov"], 0.0)
        self.assertTrue(math.isclose(history[0]["var"], jepa.GAMMA - math.sqrt(jepa.EPS), rel_tol=1e-9))
        self.assertEqual(jepa.jepa_forward(zeros, [0, 1, 2], [3], jepa.init_model()) > 0.0, True)
        self.assertEqual(jepa.embed(zeros, jepa.init_model()), [0.0] * 6)

    def test_equal_images_with_var_on_divide_by_nothing(self):
        for settings in ({}, {"pred_weight": 0, "cov_weight": 0}, {"gamma": 0}, {"stop_gradient": False}):
            trained([IMAGE] * 7, **settings)
            trained([[[0.3, -0.2] * 2] * 2 + [[0.1, 0.6] * 2] * 2] * 3, **settings)  # four patches, two kinds
            trained([[[0.3, -0.2] * 2, [0.1, 0.6] * 2] * 2] * 3, **settings)  # all patches are the same

    def test_all_loss_weights_zero_leave_the_context_encoder_and_the_predictor(self):
        model, _ = trained([IMAGE], pred_weight=0, var_weight=0, cov_weight=0)
        self.assertEqual(model["context_encoder"], jepa.init_model()["context_encoder"])
        self.assertEqual(model["predictor"], jepa.init_model()["predictor"])

    def test_pixels_may_be_ints_bools_and_fractions(self):
        for kind in (int, bool, Fraction):
            image = [[kind(round(pixel)) for pixel in row] for row in IMAGE]
            floats = [[float(pixel) for pixel in row] for row in image]
            patches = jepa.extract_patches(image)
            self.assertEqual({type(pixel) for patch in patches for pixel in patch}, {float})
            self.assertEqual(patches, jepa.extract_patches(floats))
            masks = [0, 2], [1, 3]
            self.assertEqual(jepa.jepa_forward(image, *masks), jepa.jepa_forward(floats, *masks))
            self.assertEqual(trained([image, IMAGE]), trained([floats, IMAGE]))
            patch = [kind(1), kind(0), kind(1), kind(1)]
            for function in (jepa.context_encode, jepa.target_encode):
                self.assertEqual(function(patch), function([1.0, 0.0, 1.0, 1.0]))
        self.assertEqual(jepa.extract_patches([[Fraction(1, 3)]], 1), [[1 / 3]])

    def test_pixels_of_a_million_and_a_millionth_give_the_right_loss(self):
        model = jepa.init_model()
        for scale in (1e6, 1e-6, 1e30, 1e-30):
            image = [[scale * pixel for pixel in row] for row in IMAGE]
            for masks in (([0, 1, 2], [3]), ([3], [0, 1, 2]), ([2, 0], [1])):
                loss = jepa.jepa_forward(image, *masks, model)
                expected = ref_jepa_forward(model, image, *masks, 2, 4)
                self.assertTrue(math.isclose(loss, expected, rel_tol=1e-9) and loss > 0.0, (scale, loss))
            self.assertTrue(all_finite(jepa.embed(image, model)))

    def test_training_works_with_pixels_of_a_million_and_a_millionth_at_a_tiny_learning_rate(self):
        for scale, lr in ((1e6, 1e-28), (1e-6, 1e-4)):
            images = [[[scale * pixel for pixel in row] for row in img] for img in images_of(6)]
            model, history = trained(images, 3, lr=lr, batch_size=6)
            self.assertNotEqual(model, jepa.init_model())
            self.assertLess(history[-1]["loss"], history[0]["loss"])

    def test_two_patches_an_image_are_enough(self):
        new = jepa.init_model(num_patches=2)
        for images, batch_size in ((2, 2), (10, 5), (3, 10)):
            model, _ = trained(images_of(images, 2, 4), model=copy.deepcopy(new), batch_size=batch_size)
            self.assertNotEqual(model, new)
        trained(images_of(3, 4, 2), model=copy.deepcopy(new), batch_size=1, var_weight=0, cov_weight=0)
        image = images_of(1, 2, 4)[0]
        for masks in (([0], [1]), ([1], [0])):
            loss = jepa.jepa_forward(image, *masks, new)
            self.assertTrue(close(loss, ref_jepa_forward(new, image, *masks, 2, 2)))

    def test_images_of_16x16_pixels_work(self):
        images = images_of(3, 16, 16)
        for patch_size, K in ((2, 64), (4, 16), (8, 4)):
            model = jepa.init_model(patch_size, K)
            self.assertEqual(jepa.sizes(model), (patch_size, K, 6))
            patches = jepa.extract_patches(images[0], patch_size)
            self.assertEqual(patches, ref_extract_patches(images[0], patch_size))
            masks = jepa.random_masks(K, random.Random(0))
            self.assertEqual([len(mask) for mask in masks], [K - K // 4, K // 4])
            loss = jepa.jepa_forward(images[0], *masks, model)
            self.assertTrue(close(loss, ref_jepa_forward(model, images[0], *masks, patch_size, K)))
            trained(images, 1, model=model, lr=1e-3)
            self.assertEqual(len(jepa.embed_patches(images[0], model)), K)

    def test_a_batch_size_larger_than_the_data_takes_all_of_it(self):
        images = images_of(3)
        self.assertEqual(trained(images, batch_size=3), trained(images, batch_size=4))
        self.assertEqual(trained(images, batch_size=3), trained(images, batch_size=10 ** 20))

    def test_no_epochs_change_nothing(self):
        calls = []
        model, history = trained([IMAGE], 0, on_epoch=lambda *args: calls.append(args))
        self.assertEqual((model, history, calls), (jepa.init_model(), [], []))

    def test_on_epoch_is_given_the_epoch_and_its_losses(self):
        calls = []
        _, history = trained([IMAGE], 3, on_epoch=lambda *args: calls.append(args))
        self.assertEqual(calls, list(zip([1, 2, 3], history)))

    def test_a_momentum_of_1_keeps_the_target_encoder_and_of_0_copies_the_context_encoder(self):
        model, _ = trained([IMAGE], momentum=1)
        self.assertEqual(model["target_encoder"], jepa.init_model()["target_encoder"])
        model, _ = trained([IMAGE], momentum=0)
        self.assertEqual(model["target_encoder"], model["context_encoder"])

    def test_one_embedding_and_equal_embeddings_have_no_rank_share_or_spread(self):
        for rows in ([[0.1, 0.7]], [[0.0, 0.0]] * 3, [[0.5, -2.0]] * 4, [[0.1, 0.7]] * 3, [[1 / 3] * 3] * 7):
            self.assertEqual(jepa.effective_rank(rows), 0.0, rows)
            self.assertEqual(jepa.explained_share(rows, [i % 2 for i in range(len(rows))]), 0.0, rows)
            self.assertLess(jepa.spread(rows), 1e-15)


# ---- D. Divergence -----------------------------------------------------------------------------------------

class Divergence(unittest.TestCase):

    def diverge(self, lr, batch_size=4, seed=0, epochs=30, **settings):
        """Train until it diverges. Asserts that the model is that after the last good step; returns it, the
        epoch, and the number of good steps."""
        rng, model, states = random.Random(seed), jepa.init_model(rng=random.Random(seed)), []
        images = [jepa.draw_image(name, rng)[0] for name in jepa.PATTERNS for _ in range(3)]
        states.append(copy.deepcopy(model))

        def ema_update(momentum, trained_model, ema_update=jepa.ema_update):
            ema_update(momentum, trained_model)
            states.append(copy.deepcopy(trained_model))
        with mock.patch.object(jepa, "ema_update", ema_update):
            with self.assertRaises(FloatingPointError) as caught:
                jepa.train(images, epochs, lr=lr, batch_size=batch_size, model=model,
                           rng=random.Random(seed), **settings)
        message = str(caught.exception)
        self.assertNotIn("\n", message)
        self.assertRegex(message, r"epoch \d+\b")
        self.assertIn("smaller lr", message)
        self.assertIn(f"{lr:g}", message)
        epoch, steps = int(re.search(r"epoch (\d+)", message).group(1)), len(states) - 1
        self.assertEqual(epoch, steps // (len(images) // batch_size) + 1)
        self.assertTrue(all_finite(model))
        self.assertEqual(model, states[-1])
        return images, model, epoch

    def test_a_large_learning_rate_diverges_with_an_error_that_names_epoch_and_lr(self):
        for seed in range(3):
            for lr in (10, 1e10, 1e300, 1.7e308):
                self.diverge(lr, seed=seed)

    def test_divergence_is_told_with_every_part_of_the_loss_alone_and_without_the_stop_gradient(self):
        for lr in (10, 1e300):
            for settings in ({"var_weight": 0, "cov_weight": 0}, {"pred_weight": 0, "var_weight": 0},
                             {"stop_gradient": False}, {"momentum": 0}, {"momentum": 1}):
                self.diverge(lr, **settings)

    def test_a_huge_loss_weight_diverges_with_the_same_error(self):
        for name in ("pred_weight", "cov_weight"):
            self.diverge(0.02, **{name: 1e300})

    def test_the_diverged_model_is_as_it_was_before_the_bad_step(self):
        for lr in (10, 1, 1e300):
            images, model, epoch = self.diverge(lr, batch_size=12)  # one step an epoch
            replayed = jepa.init_model(rng=random.Random(0))
            jepa.train(images, epoch - 1, lr=lr, batch_size=12, model=replayed, rng=random.Random(0))
            self.assertEqual(model, replayed)

    def test_huge_pixels_diverge_with_the_same_error(self):
        for scale in (1e100, 1e200):
            model = jepa.init_model()
            with self.assertRaises(FloatingPointError) as caught:
                jepa.train([[[scale * pixel for pixel in row] for row in IMAGE]], 1, model=model)
            self.assertIn("epoch 1", str(caught.exception))
            self.assertEqual(model, jepa.init_model())

    def test_a_loss_that_is_not_finite_is_told_even_if_the_weights_are(self):
        model = jepa.init_model()
        with self.assertRaises(FloatingPointError):
            jepa.train([[[1e160] * 4] * 4], 1, pred_weight=0, var_weight=0, cov_weight=0, model=model)
        self.assertEqual(model, jepa.init_model())

    def test_one_weight_that_is_not_finite_is_noticed_wherever_it_is(self):
        for value in (NAN, INF, -INF):
            for key in ("W1", "b1", "W2", "b2"):
                net = copy.deepcopy(jepa.init_model()["predictor"])
                self.assertTrue(jepa.is_finite(net))
                row = net[key][-1] if key in ("W1", "W2") else net[key]
                row[-1] = value
                self.assertFalse(jepa.is_finite(net), (key, value))


# ---- E. What belongs to whom -------------------------------------------------------------------------------

class Ownership(unittest.TestCase):

    def test_two_models_never_share_state(self):
        first, second = jepa.init_model(), jepa.init_model()
        jepa.train(images_of(3), 2, momentum=0, model=first)
        self.assertEqual(second, jepa.init_model())
        jepa.round_weights(first)
        self.assertEqual(second, jepa.init_model())
        lists = [id(value) for model in (first, second) for net in model.values() for value in net.values()]
        rows = [id(row) for model in (first, second) for net in model.values() for key in ("W1", "W2")
                for row in net[key]]
        self.assertEqual(len(set(lists + rows)), len(lists + rows))

    def test_the_networks_of_a_model_never_share_state(self):
        for momentum in (0, 0.5, 1):
            model = jepa.init_model()
            jepa.train(images_of(3), 1, momentum=momentum, model=model)
            before = copy.deepcopy(model["target_encoder"])
            for key in ("W1", "W2"):
                for row in model["context_encoder"][key]:
                    row[0] += 1.0
            model["context_encoder"]["b1"][0] += 1.0
            self.assertEqual(model["target_encoder"], before)

    def test_training_a_model_leaves_the_default_model(self):
        before = copy.deepcopy(jepa.MODEL)
        jepa.train(images_of(3), 2, model=jepa.init_model())
        jepa.ema_update(0.5, jepa.init_model(rng=random.Random(1)))
        jepa.round_weights(jepa.init_model(rng=random.Random(1)))
        self.assertEqual(jepa.MODEL, before)

    def test_training_without_a_model_trains_the_default_model(self):
        before = copy.deepcopy(jepa.MODEL)
        try:
            model = copy.deepcopy(jepa.MODEL)
            history = jepa.train(images_of(3), 2)
            self.assertNotEqual(jepa.MODEL, before)
            self.assertEqual(history, jepa.train(images_of(3), 2, model=model))
            self.assertEqual(jepa.MODEL, model)
            for function in (jepa.embed, jepa.embed_patches):
                self.assertEqual(function(IMAGE), function(IMAGE, model))
                self.assertNotEqual(function(IMAGE), function(IMAGE, before))
            masks = [0, 1], [2]
            self.assertEqual(jepa.jepa_forward(IMAGE, *masks), jepa.jepa_forward(IMAGE, *masks, model))
            jepa.ema_update(0)
            self.assertEqual(jepa.MODEL["target_encoder"], jepa.MODEL["context_encoder"])
        finally:
            for name, net in before.items():
                jepa.MODEL[name].update(net)
        self.assertEqual(jepa.MODEL, before)
        self.assertEqual(jepa.embed(IMAGE), jepa.embed(IMAGE, before))

    def same_results(self, convert, whole):
        """convert makes rows of another type, whole an image or a list of them."""
        image, images = whole([convert(row) for row in IMAGE]), images_of(3)
        others = whole([whole([convert(row) for row in img]) for img in images])
        masks = [0, 1, 2], [3]
        self.assertEqual(jepa.extract_patches(image), jepa.extract_patches(IMAGE))
        self.assertEqual(type(jepa.extract_patches(image)[0][0]), float)
        self.assertEqual(jepa.embed_patches(image), jepa.embed_patches(IMAGE))
        self.assertEqual(jepa.jepa_forward(image, *map(convert, masks)), jepa.jepa_forward(IMAGE, *masks))
        self.assertEqual(trained(others), trained(images))
        self.assertEqual(jepa.context_encode(convert(IMAGE[0])), jepa.context_encode(IMAGE[0]))
        self.assertEqual(jepa.predict(convert([0.5] * 6), 1), jepa.predict([0.5] * 6, 1))
        rows = whole([convert(row) for row in X])
        self.assertEqual(list(jepa.average(rows)), jepa.average(X))
        groups = convert([0, 0, 0, 1, 1, 1])
        for result, expected in (
                (jepa.mse(rows, rows[::-1]), jepa.mse(X, X[::-1])),
                (jepa.cosine_similarity(rows[1], rows[4]), jepa.cosine_similarity(X[1], X[4])),
                (jepa.effective_rank(rows), jepa.effective_rank(X)),
                (jepa.spread(rows), jepa.spread(X)),
                (jepa.explained_share(rows, groups), jepa.explained_share(X, LABELS))):
            self.assertTrue(close(float(result), expected), (result, expected))
        for classifier in (jepa.nearest_mean, jepa.linear_probe):
            accuracy = jepa.few_label_accuracy(classifier, rows, groups, 2, random.Random(0))
            self.assertEqual(accuracy, jepa.few_label_accuracy(classifier, X, LABELS, 2, random.Random(0)))

    def test_lists_and_tuples_give_equal_results(self):
        self.same_results(list, list)
        self.same_results(tuple, tuple)
        self.same_results(tuple, list)

    @unittest.skipIf(numpy is None, "NumPy is not installed")
    def test_numpy_arrays_give_equal_results(self):
        self.same_results(numpy.array, numpy.array)
        self.same_results(numpy.array, list)

    @unittest.skipIf(numpy is None, "NumPy is not installed")
    def test_numpy_numbers_give_equal_results(self):
        for kind in (numpy.float32, numpy.float64, numpy.int8, numpy.uint8, numpy.bool_):
            image = [[kind(round(pixel)) for pixel in row] for row in IMAGE]
            floats = [[float(pixel) for pixel in row] for row in image]
            self.assertEqual(jepa.extract_patches(image), jepa.extract_patches(floats))
            self.assertEqual(type(jepa.extract_patches(image)[0][0]), float)
            self.assertEqual(jepa.embed(image), jepa.embed(floats))
            self.assertEqual(trained(numpy.array([image, floats])), trained([floats, floats]))
        self.assertEqual(jepa.extract_patches(IMAGE, numpy.int64(2)), jepa.extract_patches(IMAGE))
        self.assertEqual(jepa.predict([0.5] * 6, numpy.int8(1)), jepa.predict([0.5] * 6, 1))
        self.assertEqual(trained([IMAGE], numpy.int64(2), lr=numpy.float64(0.02), batch_size=numpy.int64(10)),
                         trained([IMAGE]))

    @unittest.skipIf(numpy is None, "NumPy is not installed")
    def test_wrong_numpy_input_is_refused(self):
        refused(self, ValueError, ["img", "one or more"], jepa.extract_patches, numpy.zeros((0, 4)))
        refused(self, ValueError, ["row of img", "one or more"], jepa.extract_patches, numpy.zeros((4, 0)))
        refused(self, TypeError, ["row of img", "list"], jepa.extract_patches, numpy.zeros(4))
        refused(self, TypeError, ["pixel of img", "number"], jepa.extract_patches, numpy.zeros((4, 4, 3)))
        refused(self, ValueError, ["pixel of img", "nan"], jepa.extract_patches, numpy.full((4, 4), NAN))
        refused(self, ValueError, ["images", "one or more"], jepa.train, numpy.zeros((0, 4, 4)))
        refused(self, ValueError, ["masks", "0 to 3"],
                jepa.jepa_forward, IMAGE, numpy.array([0, 1]), numpy.array([4]))
        for wrong in (numpy.array([0.0, 1.0]), numpy.array([True, False])):
            refused(self, TypeError, ["masks", "whole numbers"],
                    jepa.jepa_forward, IMAGE, wrong, numpy.array([3]))
        for wrong in (numpy.float64(1.0), numpy.bool_(True), numpy.array([1])):
            refused(self, TypeError, ["pos"], jepa.predict, [0.5] * 6, wrong)

    @unittest.skipIf(numpy is None, "NumPy is not installed")
    def test_a_complex_numpy_pixel_is_refused(self):
        refused(self, TypeError, ["pixel of img", "number", "1+2j"],
                jepa.extract_patches, numpy.full((4, 4), 1 + 2j))

    @unittest.skipIf(numpy is None, "NumPy is not installed")
    def test_a_numpy_array_of_no_dimension_is_refused_by_a_message_that_names_it(self):
        refused(self, TypeError, ["img", "list", "array(3"], jepa.extract_patches, numpy.array(3.0))

    def test_no_public_function_modifies_its_input(self):
        model = jepa.init_model()
        patches, images = jepa.extract_patches(IMAGE), images_of(3)
        masks, batch = ([2, 0, 1], [3]), [(patches, [2, 0], [3, 1]), (patches, [1], [0])]
        net, (h, y) = model["context_encoder"], jepa.mlp_forward(model["context_encoder"], patches)
        centered, C = jepa.covariance(X)
        calls = [
            (jepa.print_images, images), (jepa.extract_patches, IMAGE), (jepa.check_masks, *masks, 4),
            (jepa.dot, X[0], X[1]), (jepa.linear, X, X, [1.0] * 6), (jepa.matmul_t, X, X),
            (jepa.transpose, X),
            (jepa.mlp_forward, net, patches), (jepa.mlp_backward, net, patches, h, y),
            (jepa.blend, 1.0, net, -0.5, net), (jepa.sizes, model), (jepa.image_patches, IMAGE, model),
            (jepa.context_encode, patches[0], model), (jepa.target_encode, patches[0], model),
            (jepa.predictor_input, y[0], 1, 4), (jepa.predict, y[0], 1, model), (jepa.average, X),
            (jepa.mse, X, X[::-1]), (jepa.jepa_forward, IMAGE, *masks, model), (jepa.covariance, X),
            (jepa.variance_loss, C), (jepa.covariance_loss, C), (jepa.is_finite, net),
            (jepa.variance_covariance_gradient, centered, C, 1.0, 1.0),
            (jepa.loss_and_gradients, batch, model),
            (jepa.loss_and_gradients, batch, model, 1.0, 1.0, 1.0, 1.0, False),
            (jepa.embed_patches, IMAGE, model), (jepa.embed, IMAGE, model), (jepa.spread, X),
            (jepa.cosine_similarity, X[1], X[2]), (jepa.effective_rank, X), (jepa.explained_share, X, LABELS),
            (jepa.nearest_mean, X, LABELS, X), (jepa.linear_probe, X, LABELS, X), (jepa.vector_text, X[0]),
            (jepa.few_label_accuracy, jepa.nearest_mean, X, LABELS, 1, random.Random(0)),
            (jepa.few_label_accuracy, jepa.linear_probe, X, LABELS, 1, random.Random(0)),
            (jepa.kept_and_dropped, model, [IMAGE] + images, [0, 1, 0, 1], [0.1 * i for i in range(16)])]
        before_default = copy.deepcopy(jepa.MODEL)
        for function, *args in calls:
            args = [arg for arg in args if not isinstance(arg, random.Random)]
            before = copy.deepcopy(args)
            more = [random.Random(0)] if function is jepa.few_label_accuracy else []
            with mock.patch("builtins.print"):
                function(*args, *more)
            self.assertEqual(args, before, function.__name__)
        before = copy.deepcopy(images)
        jepa.train(images, 2, model=model)
        self.assertEqual(images, before, "train")
        self.assertEqual(jepa.MODEL, before_default)


if __name__ == "__main__":
    unittest.main()
