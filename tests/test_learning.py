"""Learning: the data, the training loop, the measurements, collapse, and what the demo shows."""

import inspect, math, random, re, unittest
from unittest import mock

import jepa
from tests.support import (STUBS, demo_output, few_images, flat, printed, spy, start_demo,
                           start_surroundings, surroundings)


def setUpModule():
    start_demo()
    start_surroundings()


def trained(seed=0, images=None, **settings):
    """A new model trained on a few images, and its history."""
    model = jepa.init_model(rng=random.Random(seed))
    settings = {"lr": 0.01, "pred_weight": 10.0, "var_weight": 5.0, "cov_weight": 5.0, **settings}
    return model, jepa.train(images or few_images(seed), rng=random.Random(seed), model=model,
                             **settings)


class TheData(unittest.TestCase):
    def test_the_patterns_are_the_four_of_the_design(self):
        four = [-1.0, -1 / 3, 1 / 3, 1.0]
        expected = {"h_gradient": [four] * 4, "v_gradient": [[v] * 4 for v in four],
                    "checker": [[1.0, -1.0] * 2, [-1.0, 1.0] * 2] * 2, "uniform": [[0.0] * 4] * 4}
        self.assertEqual(list(jepa.PATTERNS), list(expected))
        for name, rows in expected.items():
            for a, e in zip(flat(jepa.clean_image(name)), flat(rows)):
                self.assertAlmostEqual(a, 0.9 * e, 12)

    def test_a_coin_of_minus_1_makes_a_patch_the_negative_of_what_it_is_with_a_coin_of_1(self):
        rng, noise = random.Random(6), set()
        with mock.patch.object(rng, "gauss", lambda mean, sd: noise.add((mean, sd)) or 0.0):
            for name in [*jepa.PATTERNS] * 60:
                image, coins = jepa.draw_image(name, rng)
                contrast = abs(image[0][0])  # each pattern but uniform begins with a 1 or -1
                self.assertTrue(0.8 <= contrast <= 1.0 or name == "uniform")
                for row in range(4):
                    for column in range(4):
                        coin = coins[row // 2 * 2 + column // 2]
                        self.assertAlmostEqual(image[row][column], delta=1.1e-6, second=(
                            coin * contrast * jepa.PATTERNS[name](row, column)))
        self.assertEqual(noise, {(0.0, 0.1)})

    def test_coins_are_fair_contrasts_fill_their_range_and_pixels_have_six_decimals(self):
        rng = random.Random(7)
        images, coins = zip(*[jepa.draw_image("checker", rng) for _ in range(600)])
        self.assertAlmostEqual(sum(flat(coins)) / 2400, 0.0, delta=0.06)
        self.assertEqual(len(set(map(tuple, coins))), 16)
        signal = [abs(v) for image in images for v in image[0]]
        self.assertAlmostEqual(sum(signal) / 2400, 0.9, delta=0.01)
        self.assertAlmostEqual(jepa.spread([[v] for v in signal]) ** 2, 0.1 ** 2 + 0.2 ** 2 / 12, 2)
        self.assertEqual(flat(images), [round(v, 6) for v in flat(images)])

    def test_a_seed_draws_the_same_data_and_no_image_is_both_trained_on_and_held_out(self):
        images, held_out, coins, labels = jepa.draw_data(3)
        self.assertEqual((images, held_out, coins, labels), jepa.draw_data(3))
        self.assertNotEqual(images, jepa.draw_data(4)[0])
        self.assertEqual([len(images), len(held_out), len(coins)], [jepa.NUM_IMAGES, 400, 400])
        self.assertEqual([labels.count(name) for name in jepa.PATTERNS], [100] * 4)
        self.assertEqual([img for img in held_out if img in images], [])


class TheLoop(unittest.TestCase):
    def test_a_seed_gives_the_same_weights_twice_and_no_rng_leaves_the_global_one_alone(self):
        self.assertEqual(trained(0, epochs=3), trained(0, epochs=3))
        self.assertNotEqual(trained(0, epochs=3)[0], trained(1, epochs=3)[0])
        models = [jepa.init_model(), jepa.init_model(rng=random.Random(0))]
        seeded = jepa.init_model()
        jepa.train(few_images(), 1, rng=random.Random(0), model=seeded)
        for model in models:
            random.random()
            state = random.getstate()
            jepa.train(few_images(), 1, model=model)
            self.assertEqual(random.getstate(), state)
        self.assertEqual(models, [seeded, seeded])  # so the default is random.Random(0)

    def test_each_epoch_uses_each_image_once_in_batches_of_the_size_in_a_new_order(self):
        with spy("loss_and_gradients") as calls:
            trained(epochs=2, batch_size=3)
        seen = [args[0] for args, _ in calls]
        self.assertEqual([len(batch) for batch in seen], [3, 3, 2, 3, 3, 2])
        epochs = [[img for batch in part for img, _, _ in batch] for part in (seen[:3], seen[3:])]
        self.assertNotEqual(*epochs)
        for epoch in epochs:
            self.assertEqual(sorted(epoch), sorted(map(jepa.extract_patches, few_images())))
        self.assertGreater(len({tuple(hidden) for batch in seen for _, _, hidden in batch}), 1)

    def test_the_losses_of_an_epoch_are_the_means_of_its_steps_and_on_epoch_gets_them(self):
        told = []
        with spy("loss_and_gradients") as calls:
            model, history = trained(epochs=2, batch_size=4, on_epoch=lambda *a: told.append(a))
        for term, value in history[0].items():
            mean = sum(result[0][term] for _, result in calls[:2]) / 2
            self.assertAlmostEqual(value, mean, 12)
        loss, pred, var, cov = [history[0][name] for name in ("loss", "pred", "var", "cov")]
        self.assertAlmostEqual(loss, 10 * pred + 5 * var + 5 * cov, 12)
        self.assertEqual(told, [(1, history[0], model), (2, history[1], model)])
        self.assertIs(told[0][2], model)

    def test_weights_have_six_decimals_so_a_difference_in_the_last_bit_dies_out(self):
        models = [jepa.init_model(rng=random.Random(4)) for _ in range(2)]
        models[1]["context_encoder"]["W1"][0][0] *= 1 + 2 ** -52
        models[1]["predictor"]["W2"][1][1] *= 1 - 2 ** -52
        self.assertNotEqual(*models)
        for model in models:
            jepa.train(few_images(per_pattern=5), 15, 0.01, 0.9, 5, 10.0, 5.0, 5.0, model=model)
        self.assertEqual(*models)
        self.assertEqual(flat(models[0]), [round(w, 6) for w in flat(models[0])])

    def test_sizes_come_from_the_arguments_so_larger_and_oblong_images_train_too(self):
        rng = random.Random(3)
        for height, width, patch_size in ((8, 8, 4), (2, 6, 2), (9, 6, 3)):
            K = height // patch_size * (width // patch_size)
            image = lambda: [[rng.random() for _ in range(width)] for _ in range(height)]
            model = jepa.init_model(patch_size, K, 5, 7, rng)
            before = flat(model)
            self.assertEqual(len(jepa.train([image(), image()], 2, lr=0.001, model=model)), 2)
            self.assertNotEqual(flat(model), before)
            self.assertEqual([len(row) for row in jepa.embed_patches(image(), model)], [5] * K)


class TheMeasurements(unittest.TestCase):
    def test_nearest_mean_is_the_nearest_by_brute_force(self):
        rng = random.Random(8)
        x, labels = [[rng.gauss(0, 1) for _ in range(3)] for _ in range(40)], list("abac") * 10
        mean = {c: [sum(row[d] for row, label in zip(x, labels) if label == c) / labels.count(c)
                    for d in range(3)] for c in "abc"}
        self.assertEqual(jepa.nearest_mean(x, labels, x), [min("abc", key=lambda c: sum(
            (v - m) ** 2 for v, m in zip(row, mean[c]))) for row in x])

    def test_the_linear_probe_is_the_ridge_regression_that_it_says(self):
        # one dimension and a constant, two classes: two equations, by Cramer's rule
        x, labels = [[0.0], [1.0], [2.0], [5.0]], ["a", "a", "a", "b"]
        xx, x1, n = 1.01 * 30.0 + 1e-9, 8.0, 1.01 * 4 + 1e-9
        line = {c: (xy * n - x1 * y, xx * y - x1 * xy) for c, xy, y in (("a", 3, 3), ("b", 5, 1))}
        points = [[v / 100] for v in range(-200, 800)]
        expected = [max("ab", key=lambda c: line[c][0] * v + line[c][1]) for v, in points]
        self.assertEqual(jepa.linear_probe(x, labels, points), expected)
        self.assertEqual(set(expected), {"a", "b"})
        rng = random.Random(9)  # and it solves what can be solved
        x = [[a + rng.gauss(0, 0.1) for a in row] for row in ([0, 0, 4], [5, 0, 0], [0, 6, 0]) * 9]
        self.assertEqual(jepa.linear_probe(x, list("abc") * 9, x), list("abc") * 9)

    def test_few_label_accuracy_gives_so_many_labels_a_class_and_tests_on_all_others(self):
        labels, x, calls = [i % 3 for i in range(30)], [[float(i)] for i in range(30)], []

        def classifier(train_x, train_labels, rest):
            calls.append(sorted(v for v, in train_x))
            self.assertEqual(sorted(train_x + rest), x)
            self.assertEqual(train_labels, [v % 3 for v, in train_x])
            self.assertEqual([train_labels.count(c) for c in range(3)], [4, 4, 4])
            return [v % 3 if v < 15 else -1 for v, in rest]

        rng = random.Random(1)
        accuracy = jepa.few_label_accuracy(classifier, x, labels, 4, rng, draws=6)
        self.assertEqual(len(set(map(tuple, calls))), 6)
        shares = [(15 - sum(v < 15 for v in known)) / 18 for known in calls]
        self.assertAlmostEqual(accuracy, sum(shares) / 6)

    def test_an_explained_share_is_that_of_the_variance_between_groups_in_all_variance(self):
        x = [[0.0, 1.0], [4.0, 2.0], [0.0, 1.0], [4.0, 2.0]]
        for rows, groups, share in ((x, "abab", 1.0), (x, "aabb", 0.0),
                                    ([[0.0], [2.0], [4.0], [6.0]], "aabb", 16 / 20),
                                    ([[0.0], [2.0], [7.0]], ["a", ("b", 1), "a"], 1.5 / 26)):
            self.assertAlmostEqual(jepa.explained_share(rows, groups), share)
        self.assertFalse(jepa.explained_share([[1.0]] * 4, [0, 0, 1, 1]) > 0)

    def test_guesses_are_the_candidates_by_distance_to_what_all_other_patches_predict(self):
        (model, _), img = trained(epochs=2), few_images()[3]
        candidates = {tuple(patch): jepa.target_encode(patch, model)
                      for patch in jepa.extract_patches(few_images()[5])}
        patches = jepa.extract_patches(img)
        embs = [jepa.context_encode(patch, model) for patch in patches]
        for pos, guesses in enumerate(jepa.guess_patches(img, candidates, model)):
            others = jepa.average([embs[i] for i in range(4) if i != pos])
            prediction = jepa.predict(others, pos, model)
            distance = lambda patch: math.dist(prediction, candidates[patch])
            self.assertEqual([patch for _, patch in guesses], sorted(candidates, key=distance))
            self.assertAlmostEqual(guesses[1][0], distance(guesses[1][1]), 12)
        targets = [jepa.target_encode(patch, model) for patch in patches]
        self.assertEqual(jepa.embed_patches(img, model), targets)
        self.assertEqual(jepa.embed(img, model), jepa.average(targets))

    def test_pattern_and_coin_shares_tell_an_encoder_of_coins_from_one_of_patterns(self):
        data = jepa.draw_data(1)
        diagonals = lambda patch: patch[0] + patch[3] - patch[1] - patch[2]
        stubs = {"few_label_accuracy": lambda *_: 0.0,
                 "guess_patches": lambda *_: [[(0.0, (0.5,) * 4)]] * 4}
        for encode, low, high, least in ((lambda patch: abs(diagonals(patch)), 4, 3, 0.9),
                                         (lambda patch: diagonals(patch) > 0, 3, 4, 0.2)):
            encoder = lambda img, model: [[encode(patch)] for patch in jepa.extract_patches(img)]
            with mock.patch.multiple(jepa, embed_patches=encoder, **stubs):
                shares = jepa.measure(jepa.MODEL, data, 0)
            self.assertLess(shares[low], 0.05)
            self.assertGreater(shares[high], least)  # only the checker's coins show in a diagonal

    def test_a_patch_counts_as_named_where_it_and_its_negative_are_the_nearest(self):
        data, answers = [part[:400:100] for part in jepa.draw_data(2)], []
        for name in data[3]:  # right in either order, but for one
            pairs = [{tuple(p), tuple(-v for v in p)}
                     for p in jepa.extract_patches(jepa.clean_image(name))]
            right = [[(0.0, p) for p in pair] + [(1.0, (9.0,) * 4)] for pair in pairs]
            answers += [[*right[:3], right[3][::-1] if name == "checker" else right[3]]]
        stubs = {"guess_patches": lambda *_: answers.pop(0), "few_label_accuracy": lambda *_: 0.0}
        with mock.patch.multiple(jepa, **stubs):
            self.assertEqual(jepa.measure(jepa.init_model(), data, 0)[-1], 15 / 16)


class Collapse(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.images, cls.held_out, _, cls.labels = jepa.draw_data(3)
        cls.untrained = jepa.init_model(2, 4, jepa.EMBED_DIM, jepa.HIDDEN_DIM, random.Random(3))

    def rank_and_spread(self, model):
        rows = sum([jepa.embed_patches(img, model) for img in self.held_out[::4]], [])
        return jepa.effective_rank(rows), jepa.spread(rows)

    def test_a_short_run_beats_the_untrained_encoder_stays_alive_and_knows_no_sign(self):
        model, _ = jepa.fit(3, self.images, 24)
        before, after = [jepa.few_label_accuracy(
            jepa.nearest_mean, [jepa.embed(img, m) for img in self.held_out], self.labels, 1,
            random.Random(0)) for m in (self.untrained, model)]
        self.assertGreater(after, max(before + 0.15, 0.85))
        self.assertGreater(self.rank_and_spread(model)[0], 0.6 * jepa.EMBED_DIM)
        pairs, right = {name: jepa.clean_pairs(name) for name in jepa.PATTERNS}, []
        embs = {p: jepa.target_encode(p, model) for four in pairs.values() for pair in four for p in pair}
        for img, name in zip(self.held_out, self.labels):
            guesses = jepa.guess_patches(img, embs, model)
            for ((_, first), (_, second), *_), pair, patch in zip(guesses, pairs[name], jepa.extract_patches(img)):
                if {first, second} == pair:  # then it is chance which of the two comes first
                    right.append(jepa.dot(first, patch) > 0)
        self.assertGreater(len(right), 600)
        self.assertAlmostEqual(sum(right) / len(right), 0.5, delta=0.06)

    def test_with_nothing_against_it_collapse_is_total_at_a_pred_of_almost_nothing(self):
        model, history = trained(images=self.images, epochs=12, momentum=0, stop_gradient=False,
                                 lr=0.02, pred_weight=20, var_weight=0, cov_weight=0)
        before, after = [self.rank_and_spread(m)[1] for m in (jepa.init_model(), model)]
        self.assertLess(after, 0.1 * before)
        self.assertLess(history[-1]["pred"], 0.05 * history[0]["pred"])

    def test_without_the_stop_gradient_embeddings_fall_onto_few_dimensions(self):
        model, _ = jepa.fit(0, self.images, 8, stop=0)
        self.assertLess(self.rank_and_spread(model)[0], jepa.EMBED_DIM / 2)

    def test_fit_multiplies_a_setting_by_0_to_take_a_part_away(self):
        signature, train = inspect.signature(jepa.train), mock.Mock(return_value=["history"])
        parts = {"pred": "pred_weight", "var": "var_weight", "cov": "cov_weight", "ema": "momentum"}
        for off in ({}, {"pred": 0}, {"var": 0, "cov": 0}, {"ema": 0}, {"stop": 0}):
            with mock.patch.object(jepa, "train", train):
                model, _ = jepa.fit(7, "images", 3, "report", **off)
            used = signature.bind(*train.call_args[0], **train.call_args[1]).arguments
            for part, argument in parts.items():
                self.assertEqual(used[argument], off.get(part, 1) * getattr(jepa, argument.upper()))
            self.assertEqual(used["stop_gradient"], off.get("stop", 1))

    def test_a_row_that_diverges_reads_diverged_and_the_next_come_with_verdicts_by_the_rule(self):
        nan, half = math.nan, jepa.EMBED_DIM / 2
        rows = {"gone": ("diverged",), "whole": ("alive", 0.101, half + 0.01),
                "point": ("TOTAL COLLAPSE", 0.099, half + 3), "nan": ("COLLAPSE", nan, nan),
                "line": ("DIMENSIONAL COLLAPSE", 0.2, half - 0.01), "flat": ("COLLAPSE", 2, nan)}
        fits = [FloatingPointError("diverged")] + [(self.untrained, [{"pred": 0.5}])] * 5
        share, rank = zip(*[row[1:] for row in rows.values() if row[1:]])
        stubs = {"fit": mock.Mock(side_effect=fits), **STUBS,
                 "spread": mock.Mock(side_effect=(1.0, *share)), "embed_patches": lambda *_: [[0]],
                 "effective_rank": mock.Mock(side_effect=rank), "VARIANTS": dict.fromkeys(rows, {})}
        with mock.patch.multiple(jepa, **stubs):
            table = printed(jepa.collapse, 0, 3).splitlines()[-len(rows):]
        for (name, (verdict, *_)), line in zip(rows.items(), table):
            self.assertRegex(line, rf"^{name} .*{verdict}$")
            self.assertEqual("alive" in line, verdict == "alive")


class WhatTheDemoPrints(unittest.TestCase):
    def test_it_is_the_same_bytes_in_all_surroundings_and_no_file_is_written(self):
        runs, files = surroundings()
        plain = runs["plain"].stdout
        self.assertRegex(plain, r"\AVibeML [^\0]*Epoch   12 [^\0]*classification!\n\Z")
        for name, result in runs.items():
            with self.subTest(name):
                self.assertEqual((result.stderr, result.returncode), ("", 0))
                self.assertEqual(result.stdout, plain)
        self.assertEqual(files, ["jepa.py"])

    def test_the_lines_of_the_seed_stand_in_its_order_and_format(self):
        number, names, D = r"-?\d+\.\d{3}", list(jepa.PATTERNS), jepa.EMBED_DIM
        patterns = [
            r"VibeML Micro JEPA - Learning Representations via Prediction$", "={60}$",
            rf"Generated {jepa.NUM_IMAGES} training images \(4x4\)\n"
            rf"Architecture: 2x2 patches -> {D}-dim embeddings$",
            rf"Training for {jepa.EPOCHS} epochs\.\.\.\n"
            rf"Learning rate: {jepa.LEARNING_RATE}, EMA momentum: {jepa.MOMENTUM}$", "-{60}$",
            r"Epoch    1 \| Loss: \d+\.\d{4} \| Pred: \d+\.\d{4} \| Var: \d+\.\d{4}( \||$)",
            rf"Epoch {jepa.EPOCHS:4} \| Loss: ", "Representation Quality Test\n={60}$",
            "Embeddings for different patterns:$",
            *[rf"{name:12}: \[ *{number}(, *{number}){{{D - 1}}}\]$" for name in names],
            r"Cosine similarities between patterns:$",
            " {12}" + "  ".join(f"{name:>10}" for name in names) + "$",
            *[rf"{name:10}( *{number}){{{len(names)}}}$" for name in names],
            r"Linear Probe Test: \d+(\.\d+)?% accuracy on downstream classification!$"]
        text, position = demo_output(), 0
        for pattern in patterns:
            found = re.compile("^" + pattern, re.MULTILINE).search(text, position)
            self.assertIsNotNone(found, pattern)
            position = found.end()

    def test_it_fills_a_screen_and_a_half_of_plain_ascii(self):
        text = demo_output()
        self.assertTrue(text.isascii() and text.endswith("\n"))
        self.assertNotRegex(text, r".{101}|\bnan\b|\binf\b")
        self.assertLessEqual(len(text.splitlines()), 70)

    def test_an_epoch_line_at_1_each_10_and_the_last_whose_terms_add_up_to_a_falling_loss(self):
        lines = [list(map(float, re.findall(r"\d+(?:\.\d+)?", line)))
                 for line in re.findall("(?m)^Epoch.*", demo_output())]
        self.assertEqual([line[0] for line in lines], [1, *range(10, jepa.EPOCHS, 10), jepa.EPOCHS])
        for _, loss, pred, var, cov, rank, *_ in lines:
            self.assertAlmostEqual(loss, pred + var + cov, delta=0.00021)
            self.assertTrue(1.0 <= rank <= jepa.EMBED_DIM)
        self.assertTrue(lines[-1][1] < lines[1][1] and lines[-1][2] < lines[1][2])
        self.assertGreater(lines[-1][5], max(lines[0][5], 0.8 * jepa.EMBED_DIM))

    def test_the_row_of_jepa_beats_the_others_and_pixels_show_a_probe_nothing(self):
        rows = {name: [float(v) for v in re.findall(r"([\d.]+)%", cells)] for name, cells in
                re.findall(r"^(\w[\w +,]*?)  +((?:[\d.]+% +){3,}.*)$", demo_output(), re.MULTILINE)}
        best = rows.pop("JEPA")
        self.assertGreaterEqual(len(rows), 3)
        for name, row in rows.items():
            self.assertGreater(best[0], row[0] + 10, name)
            self.assertTrue(best[1] > row[1] and best[2] > row[2] and best[3] > row[3], name)
        self.assertLess(rows["pixels"][2], 50)
        self.assertGreater(best[3], 1.5 * best[4])  # the share of the pattern, of the coin
        self.assertGreater(best[5], rows["untrained"][5] + 30)  # hidden patches named
        probe = re.search(r"Linear Probe Test: ([\d.]+)%", demo_output()).group(1)
        self.assertAlmostEqual(float(probe), best[2], delta=0.051)
