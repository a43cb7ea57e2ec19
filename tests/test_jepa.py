"""The parts: patches, masks, the moving average, training, learning, collapse, evaluation."""

import copy, math, random, statistics, unittest
from dataclasses import replace
from unittest import mock

import jepa
from tests.support import few_images, flat, read

CFG = jepa.Config()
GENTLE = replace(CFG, epochs=3, lr=0.01, pred_weight=10.0, var_weight=5.0, cov_weight=5.0)

class Data(unittest.TestCase):
    def test_an_image_is_sign_times_contrast_times_pattern_plus_noise_to_six_decimals(self):
        rng, noise, contrasts, signs = random.Random(6), set(), [], []
        with mock.patch.object(rng, "gauss", lambda mean, sd: noise.add((mean, sd)) or 0.0):
            for name in [*jepa.PATTERNS] * 200:
                image, four = jepa.draw_image(name, rng)
                contrast = abs(image[0][0])  # each pattern but uniform begins with 1 or -1
                contrasts += [contrast] if name != "uniform" else []
                signs += four
                for row, column in [(row, column) for row in range(4) for column in range(4)]:
                    pixel = four[row // 2 * 2 + column // 2] * contrast * jepa.PATTERNS[name](row, column)
                    self.assertAlmostEqual(image[row][column], pixel, delta=1.1e-6)
        self.assertEqual((noise, set(signs)), ({(0.0, 0.1)}, {-1, 1}))
        self.assertLess(abs(sum(signs)) / len(signs), 0.06)
        self.assertTrue(0.8 <= min(contrasts) < 0.81 and 0.99 < max(contrasts) <= 1.0)
        pixels = flat(jepa.draw_image("checker", random.Random(1))[0])
        self.assertEqual(pixels, [round(v, 6) for v in pixels])
        self.assertNotEqual(pixels, [round(v, 5) for v in pixels])

    def test_any_image_is_cut_row_by_row_and_nothing_is_lost(self):
        rng = random.Random(9)
        for _ in range(50):
            size, rows, columns = rng.randint(1, 4), rng.randint(1, 4), rng.randint(1, 4)
            img = [[rng.random() for _ in range(columns * size)] for _ in range(rows * size)]
            patches = jepa.extract_patches(img, size)
            self.assertEqual(len(flat(patches)), len(flat(img)))
            for row, column in [(r, c) for r in range(rows * size) for c in range(columns * size)]:
                patch = patches[row // size * columns + column // size]
                self.assertEqual(patch[row % size * size + column % size], img[row][column])

    def test_masks_cover_all_patches_once_with_a_quarter_hidden_each_equally_often(self):
        rng = random.Random(10)
        for num_patches in range(2, 70):
            context_mask, target_mask = jepa.random_masks(num_patches, rng)
            self.assertEqual(sorted(context_mask + target_mask), list(range(num_patches)))
            self.assertLessEqual(abs(len(target_mask) - max(1, num_patches / 4)), 0.5)
        hidden = [jepa.random_masks(4, rng)[1][0] for _ in range(4000)]
        for patch in range(4):
            self.assertAlmostEqual(hidden.count(patch) / 4000, 0.25, delta=0.03)

class Model(unittest.TestCase):
    def test_weights_start_xavier_uniform_biases_zero_and_the_encoders_equal_but_apart(self):
        cfg = jepa.Config(patch_size=5, encoder_hidden=50, embed_dim=20, predictor_hidden=40)
        model = jepa.init_model(cfg, random.Random(11))
        for net, sizes in (("context_encoder", (25, 50, 20)), ("predictor", (24, 40, 20))):
            for W, ins, outs in (("W1", *sizes[:2]), ("W2", *sizes[1:])):
                *weights, biases = model[net][W]
                self.assertEqual((len(weights), biases), (ins, [0.0] * outs))
                low, high = (edge(flat(weights)) / math.sqrt(6 / (ins + outs)) for edge in (min, max))
                self.assertTrue(-1.0 <= low < -0.98 and 0.98 < high <= 1.0)
        encoders = model["target_encoder"], model["context_encoder"]
        self.assertEqual(*encoders)
        self.assertFalse({id(row) for row in encoders[0]["W1"]} & {id(row) for row in encoders[1]["W1"]})

    def test_jepa_forward_is_the_pred_of_a_batch_of_one_whatever_the_masks(self):
        rng = random.Random(8)
        for K, size in ((4, 2), (6, 1)):
            cfg = replace(CFG, num_patches=K, patch_size=size)
            model = jepa.init_model(cfg, rng)
            model["target_encoder"] = jepa.init_model(cfg, rng)["context_encoder"]
            image = [[rng.gauss(0, 1) for _ in range(K * size // 2)] for _ in range(2 * size)]
            for _ in range(5):
                order, cut = rng.sample(range(K), K), rng.randint(1, K - 1)
                batch = [(jepa.extract_patches(image, size), order[:cut], order[cut:])]
                losses, _ = jepa.loss_and_gradients(batch, model, cfg)
                forward = jepa.jepa_forward(image, order[:cut], order[cut:], model, cfg)
                self.assertAlmostEqual(forward, losses["pred"], 12)

    def test_the_functions_of_one_image_use_MODEL_and_training_leaves_it_alone(self):
        for function, args in ((jepa.context_encode, ([0.1] * 4,)), (jepa.predict, ([0.1] * 6, 1)),
                               (jepa.jepa_forward, (few_images()[0], [0, 1, 2], [3]))):
            self.assertEqual(function(*args), function(*args, model=jepa.MODEL))
        before = copy.deepcopy(jepa.MODEL)
        jepa.train(few_images(), replace(GENTLE, epochs=1), random.Random(0))
        self.assertEqual(jepa.MODEL, before)

    def test_n_updates_of_the_target_encoder_have_the_closed_form_of_a_moving_average(self):
        model = jepa.init_model(CFG, random.Random(5))
        model["target_encoder"] = jepa.init_model(CFG, random.Random(6))["context_encoder"]
        for momentum in (0.9, 1.0, 0.0):
            with mock.patch.dict(jepa.MODEL, copy.deepcopy(model)):
                for _ in range(20):
                    jepa.ema_update(momentum)
                moved, kept = flat(jepa.MODEL["target_encoder"]), jepa.MODEL["context_encoder"]
            self.assertEqual(kept, model["context_encoder"])
            for a, t, c in zip(moved, flat(model["target_encoder"]), flat(kept)):
                self.assertAlmostEqual(a, momentum**20 * t + (1 - momentum**20) * c, 12)

class Training(unittest.TestCase):
    def train(self, cfg, seed=0, images=None, **options):
        batches, masks, original = [], [], jepa.loss_and_gradients

        def spy(batch, model, cfg):
            batches.append([patches for patches, _, _ in batch])
            masks.extend(target_mask for _, _, target_mask in batch)
            return original(batch, model, cfg)

        with mock.patch.object(jepa, "loss_and_gradients", spy):
            rng = seed if isinstance(seed, random.Random) else random.Random(seed)
            return (*jepa.train(images or few_images(), cfg, rng, **options), batches, masks)

    def test_a_seed_repeats_itself_and_one_generator_in_several_calls_draws_anew(self):
        random.seed(0)
        state, runs = random.getstate(), [self.train(GENTLE, seed) for seed in (0, 0, 1)]
        self.assertEqual(runs[0], runs[1])
        self.assertNotEqual(runs[0][0], runs[2][0])
        rng, once = random.Random(0), replace(GENTLE, epochs=1)
        model, _, *first = self.train(once, rng)
        again, _, *second = self.train(once, rng, model=model)
        self.assertNotEqual(again, model)
        self.assertTrue(first[0] != second[0] and first[1] != second[1])
        self.assertEqual(random.getstate(), state)

    def test_each_epoch_uses_each_image_once_in_batches_of_the_size_in_a_new_order(self):
        _, _, batches, _ = self.train(replace(GENTLE, epochs=2, batch_size=3))
        self.assertEqual([len(batch) for batch in batches], [3, 3, 2, 3, 3, 2])
        epochs = [sum(batches[:3], []), sum(batches[3:], [])]
        self.assertNotEqual(*epochs)
        for epoch in epochs:
            self.assertEqual(sorted(epoch), sorted(map(jepa.extract_patches, few_images())))

    def test_the_loss_of_an_epoch_is_the_mean_over_images_also_with_a_smaller_last_batch(self):
        told, calls, original = [], [], jepa.loss_and_gradients
        spy = lambda *args: calls.append((len(args[0]), original(*args))) or calls[-1][1]
        with mock.patch.object(jepa, "loss_and_gradients", spy):
            cfg, tell = replace(GENTLE, epochs=1, batch_size=5), lambda *args: told.append(args)
            model, history = jepa.train(few_images()[:6], cfg, random.Random(0), on_epoch=tell)
        for term, value in history[0].items():
            self.assertAlmostEqual(value, sum(size * losses[term] for size, (losses, _) in calls) / 6, 12)
        self.assertEqual([size for size, _ in calls], [5, 1])
        self.assertTrue(told == [(1, history[0], model)] and told[0][2] is model)

    def test_weights_have_six_decimals_so_a_difference_in_the_last_bit_dies_out(self):
        models = [jepa.init_model(CFG, random.Random(4)) for _ in range(2)]
        models[1]["context_encoder"]["W1"][0][0] *= 1 + 2**-52
        models[1]["predictor"]["W2"][1][1] *= 1 - 2**-52
        self.assertNotEqual(*models)
        cfg = replace(GENTLE, epochs=15)
        models = [jepa.train(few_images(0, 5), cfg, random.Random(0), model)[0] for model in models]
        self.assertEqual(*models)
        self.assertEqual(flat(models[0]), [round(w, 6) for w in flat(models[0])])

    def test_larger_and_oblong_images_and_masks_of_ones_own_train_too(self):
        rng, own = random.Random(3), lambda num_patches, rng: ([0], [num_patches - 1])
        for height, width, size in ((8, 8, 4), (2, 6, 2), (9, 6, 3)):
            K = height // size * (width // size)
            cfg = replace(GENTLE, patch_size=size, num_patches=K, embed_dim=5, lr=0.001)
            images = [[[rng.random() for _ in range(width)] for _ in range(height)] for _ in "ab"]
            model, _, _, masks = self.train(cfg, rng, images, masks=own)
            self.assertEqual(masks, [[K - 1]] * 6)
            self.assertEqual([len(row) for row in jepa.embed(images, model, cfg)], [5, 5])
            self.assertEqual(len(jepa.embed_patches(images, model, cfg)), 2 * K)

    def test_after_a_divergence_the_model_is_as_before_and_a_lower_rate_trains_it(self):
        model = jepa.init_model(CFG, random.Random(0))
        before = copy.deepcopy(model)
        for lr in (10.0, 1e200):
            with self.assertRaises(FloatingPointError):
                jepa.train(few_images(), replace(CFG, lr=lr), random.Random(0), model)
            self.assertEqual(model, before)
        trained, history = jepa.train(few_images(), GENTLE, random.Random(0), model)
        self.assertEqual((len(history), model), (3, before))
        self.assertNotEqual(trained, before)

class Learning(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        rng = random.Random(3)
        cls.images = jepa.draw_dataset(50, rng)[0]
        cls.test_set = jepa.draw_dataset(60, rng)
        cls.start = jepa.init_model(CFG, random.Random(3))
        cls.model, cls.history = jepa.train(cls.images, replace(CFG, epochs=14), random.Random(3))

    def rows(self, model):
        return jepa.embed_patches(self.test_set[0], model, CFG)

    def figures(self, model):
        images, signs, labels = self.test_set
        return jepa.evaluate(jepa.embed(images, model, CFG), self.rows(model), signs, labels, 0)

    def test_a_short_training_beats_the_untrained_encoder_and_drops_the_sign(self):
        before, after = self.figures(self.start), self.figures(self.model)
        self.assertGreater(after[0], max(before[0] + 0.15, 0.85))
        self.assertGreater(after[2], before[2] + 0.2)
        self.assertLess(after[3], before[3] - 0.2)
        self.assertGreater(jepa.participation_ratio(self.rows(self.model)), 2.5)

    def test_R2_is_one_minus_the_error_in_units_of_the_variance_of_the_targets(self):
        columns = zip(*jepa.embed_patches(self.images, self.model, CFG))
        variance = statistics.mean(map(statistics.variance, columns))
        for share in (0.0, 0.25, 2.0):
            r2 = jepa.r_squared(share * variance, self.images, self.model, CFG)
            self.assertAlmostEqual(r2, 1 - share)
        equal = {"target_encoder": {"W1": [[0.0] * 2] * 5, "W2": [[0.3] * 6] * 3}}
        self.assertTrue(math.isnan(jepa.r_squared(0.1, self.images, equal, CFG)))

    def test_without_prediction_the_sign_stays_and_with_strong_var_it_goes(self):
        rows = [replace(CFG, **jepa.ABLATION[row], epochs=10) for row in ("no prediction", "strong Var")]
        signs = [self.figures(jepa.train(self.images, cfg, random.Random(3))[0])[3] for cfg in rows]
        self.assertTrue(signs[0] > 0.4 and signs[1] < 0.2, signs)

class Evaluation(unittest.TestCase):
    def test_mean_and_mean_squared_error_and_standard_deviation_are_the_textbook_ones(self):
        self.assertEqual(jepa.average([[1.0, 2.0], [3.0, 6.0]]), [2.0, 4.0])
        self.assertEqual(jepa.mse([[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.0], [3.0, 2.0]]), 1.0)
        self.assertAlmostEqual(jepa.embedding_std([[0.0, 1.0], [2.0, 1.0]]), 1.0)

    def test_the_participation_ratio_is_d_for_a_ball_1_for_a_line_and_0_for_a_point(self):
        ball = [[s if i == d else 0.0 for i in range(5)] for d in range(5) for s in (-1.0, 1.0)]
        far = [[5 + 1e-5 * i, 5 + 1e-5 * i * i, 3.0] for i in (0, 1, 3)]  # close, far from 0
        line = [[t, 2 * t, -t] for t in (0.0, 1.0, 5.0)]
        for rows, ratio in ((ball, 5.0), (line, 1.0), ([[1.0, 2.0]] * 4, 0.0), (far, 1.0085)):
            self.assertAlmostEqual(jepa.participation_ratio(rows), ratio, 4)

    def test_explained_variance_is_the_share_between_the_means_of_the_labels(self):
        x = [[0.0, 1.0], [4.0, 2.0], [0.0, 1.0], [4.0, 2.0]]
        for rows, labels, share in ((x, "abab", 1.0), (x, "aabb", 0.0),
                                    ([[0.0], [2.0], [7.0]], ["a", ("b", 1), "a"], 1.5 / 26)):
            self.assertAlmostEqual(jepa.explained_variance(rows, list(labels)), share)

    def test_the_share_of_the_sign_is_what_it_adds_to_pattern_and_position(self):
        images, signs, labels = jepa.draw_dataset(50, random.Random(1))
        patches = [patch for four in jepa.cut_images(images, CFG) for patch in four]
        diagonal = [[p[0] + p[3] - p[1] - p[2]] for p in patches]  # the sign of checkers
        size, side = [[abs(v)] for v, in diagonal], [[i % 2] for i in range(800)]
        for rows, pattern, sign in ((size, 0.97, 0.0), (diagonal, 0.0, 0.97), (side, 0.0, 0.0)):
            with mock.patch.object(jepa, "few_shot_accuracy", lambda *_: 0.5):
                shares = jepa.evaluate([[0.0]] * 200, rows, signs, labels, 0)[2:]
            for share, expected in zip(shares, (pattern, sign)):
                self.assertAlmostEqual(share, expected, delta=0.03)

    def test_nearest_centroid_answers_with_the_class_whose_mean_is_nearest(self):
        x, labels = [[0.0, 1.0], [8.0, 1.0], [10.0, 1.0]], ["a", "a", "b"]  # means at 4 and 10
        self.assertEqual(jepa.nearest_centroid(x, labels, [[6.9, 9.0], [7.1, -9.0]]), ["a", "b"])

    def test_the_linear_probe_is_ridge_regression_that_leaves_the_intercept_alone(self):
        x, labels = [[0.0], [1.0], [2.0], [5.0]], ["a", "a", "a", "b"]
        squares = 14.0  # of -2, -1, 0 and 3; a step is 0.9 / 14, the weights shrink by 0.01
        slope = 3.0 / (squares + 0.01 * squares / 0.9)
        value = {"a": lambda v: 0.75 - slope * (v - 2.0), "b": lambda v: 0.25 + slope * (v - 2.0)}
        points = [[v / 100] for v in range(-200, 800)]
        expected = [max("ab", key=lambda c: value[c](v)) for v, in points]
        self.assertEqual(jepa.linear_probe(x, labels, points), expected)
        self.assertEqual(set(expected), {"a", "b"})
        rng = random.Random(9)
        x = [[a + rng.gauss(0, 0.1) for a in row] for row in ([0, 0, 4], [5, 0, 0], [0, 6, 0]) * 9]
        self.assertEqual(jepa.linear_probe(x, list("abc") * 9, x), list("abc") * 9)

    def test_few_shot_accuracy_gives_so_many_labels_a_class_and_tests_on_all_others(self):
        labels, x, calls = [i % 3 for i in range(30)], [[float(i)] for i in range(30)], []

        def classifier(train_x, train_labels, rest):
            calls.append(sorted(v for v, in train_x))
            self.assertEqual(sorted([*train_x, *rest]), x)
            self.assertEqual([*train_labels], [v % 3 for v, in train_x])
            self.assertEqual([train_labels.count(c) for c in range(3)], [4, 4, 4])
            return [v % 3 if v < 15 else -1 for v, in rest]

        accuracy = jepa.few_shot_accuracy(classifier, x, labels, 4, random.Random(1), trials=6)
        self.assertEqual(len({tuple(known) for known in calls}), 6)
        shares = [(15 - sum(v < 15 for v in known)) / 18 for known in calls]
        self.assertAlmostEqual(accuracy, sum(shares) / 6)
