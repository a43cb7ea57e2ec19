"""Wrong and unusual input: each call gives the right number, or says in one line what is wrong."""

import copy, math, random, unittest

import jepa
from tests.support import flat

try:
    import numpy, pandas
except ImportError:
    numpy = pandas = None
try:
    import torch
except ImportError:
    torch = None

NAN = math.nan
CFG = jepa.Config()
ONE = jepa.Config(epochs=1)
IMAGE = [[0.1, -0.7, 0.3, 0.9], [0.4, 0.2, -0.8, 0.6], [-0.5, 0.0, 1.0, 0.3], [0.2, 0.9, 0.1, -0.4]]
EIGHT = [row * 2 for row in IMAGE * 2]
X = [[0.0, 0.1], [0.2, 0.0], [0.1, 0.1], [1.0, 1.1], [0.9, 1.0], [1.1, 0.8]]
LABELS = ["a", "a", "a", "b", "b", "b"]
WHOLE = [[200, 3], [16, 250], [90, 90], [0, 255], [130, 129], [255, 1]]
MODEL = jepa.init_model(CFG, random.Random(2))

class Tensor(list):
    """Numbers and labels come out of it by tolist, while its items are objects that hash by identity."""
    __iter__ = lambda self: (Tensor(v) if isinstance(v, list) else object() for v in list.__iter__(self))
    tolist = lambda self: list(list.__iter__(self))

class Frame(Tensor):
    """Like a data frame: iteration gives the names of columns, which are numbers."""
    __iter__ = lambda self: iter("0123456789"[: len(list.__getitem__(self, 0))])
    to_numpy = lambda self: Tensor(list.__iter__(self))

def rng():
    return random.Random(1)

def evaluate(expression, **names):
    return eval(expression, {**vars(jepa), **globals(), **names})

REFUSED = """  # a call | words that its one line has, in this order
extract_patches([]) | image; extract_patches([[]]) | 1x0; extract_patches(IMAGE, -2) | -2
extract_patches([[0.0] * 4] * 3) | 3x4 | 2; extract_patches([[NAN] * 4] * 4) | finite
extract_patches([[1.0, 2.0], [3.0]]) | one length; extract_patches(object()) | height x width, grey
extract_patches([0.1] * 16) | height x width, grey | -1 to 1; train([], ONE, rng()) | images
extract_patches([[[0.1, 0.2, 0.3]] * 4] * 4) | height x width, grey; train(IMAGE, ONE, rng()) | height
train([IMAGE, EIGHT], ONE, rng()) | 4 | 16; train([object()] * 3, ONE, rng()) | height x width, grey
train([IMAGE, [[NAN] * 4] * 4], ONE, rng()) | finite; train([[0.1] * 16] * 3, ONE, rng()) | height
train([IMAGE], ONE, 42) | int; train([IMAGE], ONE, None) | None; train([IMAGE], ONE, object()) | object
train([IMAGE], ONE, rng(), {}) | context_encoder; train([IMAGE] * 2, ONE, rng(), "model") |
train([IMAGE], Config(embed_dim=5), rng(), {**MODEL, "predictor": init_mlp(9, 3, 5, rng())}) | multiply
train([IMAGE], ONE, rng(), masks=lambda K, rng: ([0, 1], [1])) | [0, 1] | [1]
embed([EIGHT], MODEL, CFG) | 4 | 16; embed_patches([EIGHT], MODEL, CFG) | 4 | 16; embed(IMAGE, MODEL, CFG) | height
jepa_forward(EIGHT, [0, 1, 2], [3]) | 4 | 16; jepa_forward(IMAGE, [0, 1, 2], [2]) | [0, 1, 2] | [2]
jepa_forward(IMAGE, [0, 1, 1], [2]) | [0, 1, 1]; jepa_forward(IMAGE, [], [2]) | []; train([IMAGE], ONE, rng(), masks=lambda K, rng: ([], [1])) | []; jepa_forward(IMAGE, [0], []) | []; jepa_forward(IMAGE, [0], [-1]) | -1; jepa_forward(IMAGE, [0], [4]) | 3 | [4]
context_encode([0.1] * 3) | (1, 4) | (5, 32); target_encode([0.1] * 5) | (1, 6) | (5, 32); predict([0.1] * 5, 0) | (1, 10) | (11, 64)
matmul(X, X) | (6, 2) | (6, 2); add(X, X[1:], 1.0) | (6, 2) | (5, 2); mse_loss(X, [[0.1]] * 6) | (6, 2) | (6, 1); mlp_forward(MODEL["predictor"], X) | (6, 3)
predict([0.1] * 6, 4) | 0 to 3 | 4; predict([0.1] * 6, 1.5) | 1.5; predict([0.1] * 6, -1) | -1; average([[10**400]]) | too large; mse([], []) | rows; mse(X, X[1:]) | (6, 2) | (5, 2)
mse([[0.1]], [[0.1, 0.2]]) | (1, 1) | (1, 2); mse(X[1:], X) | (5, 2) | (6, 2); mse([[0.1, 0.2]], [[0.1]]) | (1, 2) | (1, 1); average([]) | rows; average([[1.0], [2.0, 3.0]]) | one length
participation_ratio([[1, 2, 9], [3, 1], [2, 2]]) | one length; embedding_std([[1, 2], [NAN, 1]]) | finite
participation_ratio([{0: 1.0, 1: 2.0}] * 3) | dict; participation_ratio(["12", "34"]) | str
participation_ratio({0: [1.0]}) | dict; embedding_std([[1.0, 2.0], [3.0]]) | one length
explained_variance(X, LABELS[1:]) | 6 | 5; explained_variance(X, [*LABELS, 0]) | 6 | 7; nearest_centroid(X, LABELS[1:], X) | 6 | 5
nearest_centroid(X, LABELS, [[0.1]]) |; linear_probe(X, LABELS, [[0.1]]) | (1, 2) | (3, 2); linear_probe(X, LABELS, [[0.1] * 3]) | (1, 4) | (3, 2)
linear_probe(X, LABELS, [[NAN, 0.1]]) | finite; linear_probe([[NAN, 1.0], *X[1:]], LABELS, X) | finite
linear_probe(X, LABELS[1:], X) | 6 | 5; few_shot_accuracy(nearest_centroid, X, LABELS[1:], 1, rng()) | 6 | 5
few_shot_accuracy(nearest_centroid, X, LABELS, 3, rng()) | 'a' | 3 rows | 3 shots; few_shot_accuracy(nearest_centroid, X, LABELS, 0, rng()) | 'a' | 3 rows | 0 shots; few_shot_accuracy(lambda x, labels, rest: labels[:1], X, LABELS, 1, rng()) | range
few_shot_accuracy(nearest_centroid, X, LABELS, 1, 42) | int | sample"""
for _name in "epochs batch_size lr pred_weight var_weight cov_weight gamma ema_momentum".split():
    REFUSED += f"; Config({_name}=-1) | {_name} | -1; Config({_name}=NAN) | {_name} | nan; Config({_name}=math.inf) | {_name} | inf"

# Calls that give the same whatever holds the numbers of `table` and the labels of `names`.
ALIKE = """average(table(WHOLE)); mse(table([[0, 9]]), table([[16, 250]]))
nearest_centroid(table(WHOLE), names(LABELS), table(WHOLE)); embedding_std(table(WHOLE))
linear_probe(table(WHOLE), names(LABELS), table(WHOLE)); participation_ratio(table(WHOLE))
explained_variance(table(WHOLE), names(LABELS)); extract_patches(table(IMAGE))
few_shot_accuracy(nearest_centroid, table(WHOLE * 9), names(LABELS * 9), 3, rng())
few_shot_accuracy(linear_probe, table(WHOLE * 9), names([0, 0, 0, 1, 1, 1] * 9), 3, rng())
jepa_forward(table(IMAGE), [0, 1, 2], [3]); embed([table(IMAGE)], MODEL, CFG)
train([table(IMAGE) for _ in "abc"], ONE, rng())""".replace("\n", "; ").split("; ")

class Refusals(unittest.TestCase):
    def test_what_would_silently_mislead_is_refused_in_one_line_that_says_what_was_expected(self):
        rows = REFUSED.split("\n", 1)[1].replace("\n", "; ").split("; ")
        for row in rows:
            call, *words = [part.strip() for part in row.split(" |")]
            before, position = copy.deepcopy(MODEL), 0
            with self.subTest(call):
                with self.assertRaises((ValueError, LookupError, TypeError, AttributeError, ArithmeticError)) as caught:
                    evaluate(call)
                message = str(caught.exception)
                self.assertEqual(len(message.splitlines()), 1, message)
                self.assertLess(len(message), 160)
                for word in words:
                    position = message.find(word, position)
                    self.assertNotEqual(position, -1, f"{word!r} is not in {message!r}")
            self.assertEqual(MODEL, before)

class Conversions(unittest.TestCase):
    def assertAlike(self, table, names=list):
        for call in ALIKE:
            with self.subTest(call):
                expected = flat(evaluate(call, table=list, names=list))
                self.assertEqual(flat(evaluate(call, table=table, names=names)), expected)

    def test_iterators_tuples_arrays_tensors_and_frames_give_what_lists_give(self):
        self.assertAlike(iter, iter)
        self.assertAlike(lambda rows: (row for row in rows), lambda labels: map(str, labels))
        self.assertAlike(lambda rows: tuple(map(tuple, rows)), tuple)
        self.assertAlike(Tensor, Tensor)
        self.assertAlike(Frame, Tensor)

    @unittest.skipUnless(pandas, "NumPy and pandas are not installed")
    def test_numpy_and_pandas_give_what_lists_give(self):
        for kind in (numpy.float64, numpy.longdouble):
            self.assertAlike(lambda rows: numpy.array(rows, kind), numpy.array)
        index = random.Random(2)
        series = lambda values: pandas.Series(values, index.sample(range(len(values)), len(values)))
        self.assertAlike(lambda rows: pandas.DataFrame(rows, columns=range(len(rows[0]))), series)
        small = numpy.array(WHOLE, numpy.uint8)  # must not wrap around at 255
        self.assertEqual(jepa.embedding_std(small), jepa.embedding_std(WHOLE))

    @unittest.skipUnless(torch, "PyTorch is not installed")
    def test_tensors_give_what_lists_give(self):
        self.assertAlike(lambda rows: torch.tensor(rows, dtype=torch.float64))

class Rounding(unittest.TestCase):
    def test_equal_rows_use_no_dimension_and_explain_nothing_whatever_their_size(self):
        for size in (1.0, 1e6, 1e-6):
            rows = [[0.1 * size, 0.2 * size, 0.3 * size, 0.7 * size]] * 100
            self.assertEqual(jepa.participation_ratio(rows), 0.0)
            self.assertEqual(jepa.embedding_std(rows), 0.0)
            self.assertEqual(jepa.explained_variance(rows, [i % 3 for i in range(100)]), 0.0)
            small = [[v + 1e-9 * size * (i % 2) for v in row] for i, row in enumerate(rows)]
            self.assertAlmostEqual(jepa.participation_ratio(small), 1.0, 5)

    def test_the_linear_probe_answers_the_same_for_any_shift_and_size_of_the_features(self):
        g = random.Random(4)
        rows = [[g.gauss(c, 1.0), g.gauss(-c, 1.0), 0.7] for c in range(3) for _ in range(60)]
        labels = [c for c in range(3) for _ in range(60)]
        expected = jepa.linear_probe(rows, labels, rows)
        self.assertTrue(90 < sum(a == b for a, b in zip(expected, labels)) < 170)
        for size, shift in ((1.0, 1000.0), (1.0, 1e6), (1e-3, 0.0), (1e3, 0.0)):
            other = [[size * v + shift for v in row] for row in rows]
            self.assertEqual(jepa.linear_probe(other, labels, other), expected)
        self.assertEqual(jepa.linear_probe([[0.7]] * 5, list("aaabb"), [[0.7], [5.0]]), ["a", "a"])
