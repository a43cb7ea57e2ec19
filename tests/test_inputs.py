"""Wrong and unusual input: each call gives the right numbers or says in one line what is wrong."""

import array, ast, copy, inspect, math, random, re, sys, unittest
from unittest import mock

import jepa
from tests.support import PROGRAM, STUBS, Byte, Half, flat, printed, source

try:
    import numpy
    import pandas
except ImportError:
    numpy = pandas = None

# The names that the expressions below use, beside those of jepa.py.
NAN, INF, MASKS = math.nan, math.inf, ([0, 1, 2], [3])
IMAGE = [[0.1, -0.7, 0.3, 0.9], [0.4, 0.2, -0.8, 0.6], [-0.5, 0.0, 1.0, 0.3], [0.2, 0.9, 0.1, -0.4]]
BROKEN = [[NAN, *IMAGE[0][1:]], *IMAGE[1:]]
X = [[0.0, 0.1], [0.2, 0.0], [0.1, 0.1], [1.0, 1.1], [0.9, 1.0], [1.1, 0.8]]  # six embeddings
LABELS, NAN_ROW = ["a", "a", "a", "b", "b", "b"], [*X[:5], [NAN, 0.8]]
RNG, EMB, HISTORY = random.Random(1), [0.1] * jepa.EMBED_DIM, [{"loss": 1.0}]
WHOLE = [[200, 3], [16, 250], [90, 90], [0, 255], [130, 129], [255, 1]]  # whole numbers, 0 to 255
PIXELS = [[(37 * row + 91 * column) % 256 for column in range(4)] for row in range(4)]
SMALL = jepa.init_model(2, 4, 3, 5)


def evaluate(expression, **names):
    return eval(expression, {**vars(jepa), **globals(), **names})


# Calls that must give the same, whatever kind of numbers `rows` makes of their whole numbers.
CALLS = """average(rows(WHOLE)); mse(rows([[0, 9]]), rows([[16, 250]])); covariance(rows(WHOLE))
nearest_mean(rows([[200], [200], [90], [90]]), list("aabb"), rows([[200], [91], [0]]))
linear_probe(rows(WHOLE), LABELS, rows(WHOLE[::-1])); explained_share(rows(WHOLE), LABELS)
few_label_accuracy(nearest_mean, rows(WHOLE * 9), LABELS * 9, 3, random.Random(1))
few_label_accuracy(linear_probe, rows(WHOLE * 9), LABELS * 9, 3, random.Random(1))
spread(rows(WHOLE)); effective_rank(rows(WHOLE)); variance_covariance(rows(WHOLE), 1.0, 2.0, 300.0)
extract_patches(rows(PIXELS)); context_encode(rows(PIXELS)[1], SMALL); embed(rows(PIXELS), SMALL)
predict(rows(PIXELS)[1][:3], 2, SMALL); jepa_forward(rows(PIXELS), *MASKS, model=SMALL)
loss_and_gradients([(rows(PIXELS), *MASKS)], SMALL)
guess_patches(rows(PIXELS), {7: [0.1, 0.2, 0.3], 8: [-9, 9, 5]}, SMALL)
train([rows(PIXELS)] * 3, 1, 1e-12, model=init_model(2, 4, 3, 5))""".replace("\n", "; ").split("; ")

# What would mislead without a word | words that its message must have, in this order
REFUSALS = """extract_patches([]) | image; extract_patches([[]]) | image
extract_patches(IMAGE, 0) | 0x0; extract_patches(IMAGE, -2) | -2
extract_patches([[0.0] * 4] * 3) | image | 2x2 | 3x4
extract_patches([[0.0] * 3] * 4) | image | 2x2 | 4x3; extract_patches(BROKEN) | image | finite
extract_patches([*IMAGE[:3], [0.0] * 3]) | image | one length
extract_patches([[-INF] * 2] * 2) | image | finite; context_encode([0.1] * 3) | x | fit | W1
target_encode([0.1] * 5) | x | fit | W1; loss_and_gradients([([[0.1] * 3] * 4, *MASKS)], MODEL) | x
predict(EMB[1:], 0) | x | fit; predict(EMB, 4) | pos | 0 to 3 | 4; predict(EMB, -1) | pos | -1
mse([[0.1]], [[0.1], [0.2]]) | as many; mse([[0.1, 0.2]], [[0.1]])
jepa_forward(IMAGE, [0, 1, 2], [2]) | masks | [0, 1, 2] | [2]; jepa_forward(BROKEN, *MASKS) | finite
jepa_forward(IMAGE, [0, 1, 1], [2]) | masks | [0, 1, 1]; jepa_forward(IMAGE, [], [2]) | masks | []
jepa_forward(IMAGE, [0], []) | masks | []; jepa_forward(IMAGE, [0], [-1]) | masks | -1
jepa_forward(IMAGE, [0], [4]) | masks | 4; jepa_forward(IMAGE[:2], [0], [1]) | 4
jepa_forward([row * 2 for row in IMAGE], *MASKS) | 4; train([]) | no images
train([IMAGE] * 7 + [BROKEN]) | image 7 | finite
train([IMAGE] * 5 + [IMAGE[:3]]) | image 5 | 2x2 | 3x4
train([IMAGE] * 3 + [IMAGE[:2]] + [IMAGE]) | image 3 | 4 patches
train([IMAGE], rng=42) | rng | random.Random(42); init_model(rng=42) | rng | random.Random(42)
train([IMAGE], rng=0) | rng | random.Random(0); init_model(rng=0) | rng | random.Random(0)
few_label_accuracy(nearest_mean, X, LABELS * 2, 1, RNG) | 6 | 12
few_label_accuracy(nearest_mean, X, list("aaabbc"), 1, RNG) | 'c' | 1
few_label_accuracy(nearest_mean, X, LABELS, 3, RNG) | 'a' | 3
few_label_accuracy(nearest_mean, X, LABELS, 0, RNG)
few_label_accuracy(nearest_mean, X, LABELS, 1, 42) | rng | random.Random(42)
explained_share(X, LABELS[:5]) | 6 | 5""".replace("\n", "; ").split("; ")
for _name in "epochs=0 epochs=-1 lr=0 lr=NAN batch_size=0 momentum=1.1 momentum=NAN".split():
    REFUSALS.append(f"train([IMAGE], {_name}) | {_name.split('=')[0]}")
for _name in "pred_weight=-1 var_weight=-1 cov_weight=-1 gamma=-1 gamma=NAN pred_weight=NAN cov_weight=NAN".split():
    REFUSALS.append(f"train([IMAGE], {_name}) | {_name.split('=')[0].split('_')[-1]}")
for _name in ("embed(IMAGE, HISTORY)", "embed_patches(IMAGE, HISTORY)", "predict(EMB, 0, HISTORY)",
              "jepa_forward(IMAGE, *MASKS, HISTORY)", "train([IMAGE], model=HISTORY)"):
    REFUSALS.append(_name + " | init_model | list")
for _name in ("nearest_mean", "linear_probe"):
    REFUSALS += [f"{_name}({rest}" for rest in (
        "NAN_ROW, LABELS, X) | finite", "X, LABELS, NAN_ROW) | finite", "X, LABELS[:5], X) | 6 | 5",
        "X, LABELS, [[0.1]]) | length", "[[0.1], *X[:5]], LABELS, X) | length")]
DIVERGING = ["train([[[0, 9, 255, 3]] * 4] * 40, 30, 0.02) | epoch | 0 | 255 | -1 | 1 | lr | 0.02",
             "train([IMAGE] * 9, 40, lr=1e6) | epoch | -0.8 | 1 | lr | 1e+06"]


class Inputs(unittest.TestCase):
    def test_what_would_silently_mislead_is_refused_in_one_line_that_names_it(self):
        for error, table in ((ValueError, REFUSALS), (FloatingPointError, DIVERGING)):
            for row in table:
                (call, *words), before = row.split(" | "), copy.deepcopy(jepa.MODEL)
                with self.subTest(row):
                    with self.assertRaises(error) as caught:
                        evaluate(call)
                    pattern = ".*".join(["", *map(re.escape, words), ""])
                    self.assertRegex(str(caught.exception), rf"\A(?=.{{9,200}}\Z){pattern}\Z")
                    self.assertTrue(error is FloatingPointError or jepa.MODEL == before)
                jepa.MODEL.update(before)

    def assertAlike(self, *kinds):
        """Each of CALLS gives the same with rows of these kinds as with lists of floats."""
        floats = lambda rows: [list(map(float, row)) for row in rows]
        for call in CALLS:
            expected = flat(evaluate(call, rows=floats))
            for kind, rows in enumerate(kinds):
                with self.subTest(call, kind=kind):
                    self.assertEqual(flat(evaluate(call, rows=rows)), expected)

    def assertByPosition(self, *kinds):
        """Embeddings and labels of these kinds belong together by position."""
        x, labels, accuracy = X * 9, LABELS * 9, jepa.few_label_accuracy
        for one, other in [(one, other) for one in (list, *kinds) for other in (list, *kinds)]:
            for classifier in (jepa.nearest_mean, jepa.linear_probe):
                self.assertEqual(accuracy(classifier, one(x), other(labels), 3, random.Random(1)),
                                 accuracy(classifier, x, labels, 3, random.Random(1)))
                self.assertEqual(classifier(one(x), other(labels), X), classifier(x, labels, X))
            self.assertEqual(jepa.explained_share(one(x), other(labels)),
                             jepa.explained_share(x, labels))

    def test_numbers_that_wrap_around_give_what_the_same_numbers_give_as_floats(self):
        self.assertAlmostEqual(evaluate(CALLS[1], rows=list), (16 ** 2 + 241 ** 2) / 2)
        self.assertEqual(evaluate(CALLS[3], rows=list), ["a", "b", "b"])
        self.assertAlike(list, lambda rows: [list(map(Byte, row)) for row in rows],
                         lambda rows: [list(map(Half, row)) for row in rows],
                         lambda rows: tuple(array.array("B", row) for row in rows))

    def test_rows_and_labels_are_taken_by_position_whatever_their_index_says(self):
        class Series(list):  # as a pandas.Series that was reordered: [i] goes by its index
            __getitem__ = lambda self, i: list.__getitem__(self, (i + 1) % len(self))

        self.assertByPosition(Series)

    @unittest.skipUnless(pandas, "NumPy and pandas are not installed")
    def test_numpy_arrays_and_pandas_series_give_what_lists_give(self):
        self.assertAlike(*[lambda rows, kind=kind: numpy.array(rows, kind) for kind in (
            numpy.uint8, numpy.int16, numpy.float16, numpy.float32, numpy.float64)])
        index = random.Random(2).sample(range(54), 54)
        self.assertByPosition(numpy.array, lambda values: pandas.Series(values, index))

    def test_a_nan_stays_visible(self):
        patches = jepa.extract_patches(IMAGE)
        for i in range(4):
            broken = [[NAN, *patch[1:]] if i == k else patch for k, patch in enumerate(patches)]
            losses, _ = jepa.loss_and_gradients([(broken, *MASKS)], jepa.MODEL)
            self.assertTrue(math.isnan(losses["loss"]) and math.isnan(losses["pred"]))
        for call in ("average(NAN_ROW)", "spread(NAN_ROW)", "effective_rank(NAN_ROW)",
                     "mse(NAN_ROW, X)", "explained_share(NAN_ROW, LABELS)",
                     "context_encode([NAN, 0, 0, 0])"):
            self.assertTrue(any(map(math.isnan, flat(evaluate(call)))), call)


class Settings(unittest.TestCase):
    def test_the_demo_uses_the_settings_that_it_prints_as_they_are_when_it_runs(self):
        runs, original, signature = [], jepa.train, inspect.signature(jepa.train)

        def train(*args, **kwargs):
            runs.append((signature.bind(*args, **kwargs).arguments, original(*args, **kwargs)))
            return runs[-1][1]

        settings = {"LEARNING_RATE": 0.2, "VAR_WEIGHT": 0, "PRED_WEIGHT": 3.0, "COV_WEIGHT": 0.5,
                    "MOMENTUM": 0.75, "BATCH_SIZE": 8, "GAMMA": 0.3, "NUM_IMAGES": 24,
                    "EMBED_DIM": 5, "HIDDEN_DIM": 9, "CONTROL_EPOCHS": 1}
        with mock.patch.multiple(jepa, train=train, **STUBS, **settings):
            text = printed(jepa.demo, 0, 2)
        for (used, _), epochs, pred_weight in zip(runs, (2, 1), (3.0, 0)):
            names = ("lr", "var_weight", "cov_weight", "momentum", "batch_size", "gamma", "epochs")
            self.assertEqual([used[name] for name in names], [0.2, 0, 0.5, 0.75, 8, 0.3, epochs])
            self.assertEqual(used["pred_weight"], pred_weight)
            self.assertEqual((jepa.sizes(used["model"])[2], len(used["images"])), (5, 24))
            self.assertEqual(len(used["model"]["predictor"]["W1"]), 9)
        for words in ("Generated 24 ", " 5-dim ", " 2 epochs", "rate: 0.2, EMA momentum: 0.75"):
            self.assertIn(words, text)
        for epoch, losses in enumerate(runs[0][1], 1):
            line = f"Epoch {epoch:4} | Loss: {losses['loss']:.4f} | Pred: {3 * losses['pred']:.4f}"
            self.assertIn(f"{line} | Var: 0.0000 | Cov: {0.5 * losses['cov']:.4f}", text)

    def test_a_model_that_replaces_MODEL_is_the_one_that_is_used_and_trained(self):
        other = jepa.init_model(2, 4, 3, 5, random.Random(9))
        with mock.patch.object(jepa, "MODEL", other):
            for call in ("context_encode([0.1] * 4{})", "target_encode([0.1] * 4{})",
                         "predict([0.1] * 3, 1{})", "jepa_forward(IMAGE, *MASKS{})"):
                self.assertEqual(evaluate(call.format("")), evaluate(call.format(", MODEL")))
            before = copy.deepcopy(other)
            jepa.train([IMAGE], 1)
            self.assertNotEqual(other["context_encoder"], before["context_encoder"])
            jepa.ema_update(0)
            self.assertEqual(other["target_encoder"], other["context_encoder"])

    def test_texts_follow_a_fifth_pattern(self):
        five = dict(jepa.PATTERNS, dots=lambda row, column: -1.0 + 2.0 * (row % 2 * (column % 2)))
        stubs = {**STUBS, "VARIANTS": {"everything on": {}}, "NUM_IMAGES": 10, "CONTROL_EPOCHS": 1}
        with mock.patch.multiple(jepa, PATTERNS=five, **stubs):
            texts = printed(jepa.demo, 0, 1), printed(jepa.collapse, 0, 1)
        for text in texts:
            self.assertIn("20%", text)
            self.assertNotRegex(text.lower(), r"25%|\bfour\b|4 patterns")
        self.assertEqual(len(re.findall(r"^dots ", texts[0], re.MULTILINE)), 2)


# A cheap call of every function of the file, made where the file ends after that function.
PREFIX_CALLS = """draw_image('checker', random.Random(0)); check(True, 'x') or 1; matrix([[1]], 'x')
extract_patches([[1, 2], [3, 4]]) == [[1, 2, 3, 4]]; init_mlp(4, 5, 6, random.Random(0))
mlp_forward(init_mlp(2, 3, 1, random.Random(0)), [[1, 2]])[0]
mlp_backward(init_mlp(1, 1, 1, random.Random(0)), ([[1, 1]], [[1, 1]]), [[1]])
blend(0.5, {'W': [[2.0]]}, 2.0, {'W': [[3.0]]}) == {'W': [[7.0]]}; init_model(2, 4, 3, 5)
sizes(init_model(2)) == (2, 4, EMBED_DIM); grouped([1, 2, 3], 'aba') == {'a': [1, 3], 'b': [2]}
average([[1, 2], [3, 4]]) == [2, 3]; covariance([[1]]); variance_covariance([[1]], 1, 1, 1)
loss_and_gradients([([[0.1] * 4] * 4, [0], [1])], init_model()); ema_update() or 1
context_encode([0.1] * 4); target_encode([0.1] * 4); predict([0.1] * EMBED_DIM, 0)
mse([[1, 2]], [[1, 4]]) == 2; jepa_forward(IMAGE, [0, 1, 2], [3]); train([IMAGE], 1)
random_masks(8, random.Random(0)); embed_patches(IMAGE, MODEL); embed(IMAGE, MODEL)
spread([[1], [3]]); guess_patches(IMAGE, {7: [0] * EMBED_DIM}, MODEL); effective_rank([[0], [1]])
explained_share([[0], [1]], 'ab') == 1; nearest_mean([[0], [1]], 'ab', [[0.9]]) == ['b']
linear_probe([[0], [1]], 'ab', [[0.9]]) == ['b']; draw_data(0); fit(0, [IMAGE], 1)
few_label_accuracy(nearest_mean, [[0], [0], [1], [1]], 'aabb', 1, random.Random(0)) == 1
clean_image('checker'); clean_pairs('checker'); show([IMAGE]) or 1; demo(0, 1) or 1
measure(None, (0, [IMAGE] * 204, [[1, 1, -1, 1]] * 204, [*PATTERNS] * 51), 0)
verdict(1, 9) == 'alive'; collapse(0, 1) or 1; main"""


class Copying(unittest.TestCase):
    def test_the_file_down_to_a_function_is_all_that_the_function_needs(self):
        calls = {call.split("(")[0]: call for call in PREFIX_CALLS.replace("\n", "; ").split("; ")}
        functions = [node for node in ast.parse(source()).body if isinstance(node, ast.FunctionDef)]
        self.assertEqual({node.name for node in functions}, set(calls))
        for node in functions:
            with self.subTest(node.name):
                here = {"__name__": "notebook", "IMAGE": IMAGE, "result": []}
                exec("\n".join(source().splitlines()[:node.end_lineno]), here)
                if node.name in ("demo", "collapse"):  # cheaper
                    here.update(STUBS, CONTROL_EPOCHS=1)
                printed(exec, f"result.append({calls[node.name]})", here)
                self.assertTrue(here["result"][0])

    def test_pasted_into_an_interactive_interpreter_it_defines_and_neither_runs_nor_exits(self):
        here = {"__name__": "__main__"}
        with mock.patch.object(sys, "argv", ["ipykernel_launcher.py", "-f", "kernel.json"]):
            with mock.patch.object(sys, "ps1", ">>> ", create=True):
                self.assertEqual(printed(exec, source(), here), "")
        self.assertEqual(len(here["context_encode"]([0.1] * 4)), jepa.EMBED_DIM)

    def test_it_fits_one_sitting_and_needs_the_standard_library_alone(self):
        lines = source().splitlines()
        self.assertLessEqual(len(lines), 460)
        self.assertLessEqual(max(map(len, lines)), 100)
        self.assertTrue(source().isascii())
        step = [i for i, line in enumerate(lines, 1) if line.startswith("def loss_and_gradients")]
        self.assertLess(step[0], 200)  # the heart is met early
        self.assertNotRegex(source(), r"(?m)^ *(import|from) (?!operator import mul$"
                                      r"|((argparse|math|random|signal|sys)(, |$))+$)")
        self.assertEqual(jepa.__file__, PROGRAM)
