"""The mathematics: forward, losses, gradients, against an independent autograd and differences."""

import copy, math, random, unittest
from unittest import mock

import jepa
from tests.support import few_images, flat, golden_cases, numeric_gradient, random_case, spy

TERMS = {"pred": (1.0, 0.0, 0.0), "var": (0.0, 1.0, 0.0), "cov": (0.0, 0.0, 1.0)}


def total(batch, model, weights, gamma):
    """The weighted loss, by the terms that are reported."""
    terms, _ = jepa.loss_and_gradients(batch, model, *weights, gamma)
    return sum(w * terms[name] for w, name in zip(weights, TERMS))


class Mathematics(unittest.TestCase):
    def assertClose(self, actual, expected, relative=0.0, absolute=1e-12):
        """All numbers agree: each to `absolute` or `relative` of itself."""
        actual, expected = flat(actual), flat(expected)
        self.assertEqual(len(actual), len(expected))
        for a, e in zip(actual, expected):
            self.assertLessEqual(abs(a - e), max(relative * abs(e), absolute), f"{a} is not {e}")

    def assertGolden(self, actual, expected):
        """All numbers agree to 1e-9 of themselves, or of a thousandth of the largest."""
        noise = 1e-12 * max(map(abs, flat(expected)))  # a true 0 is that much in the autograd
        self.assertClose(actual, expected, 1e-9, noise)


class Golden(Mathematics):
    def setUp(self):
        self.cases = golden_cases()
        epsilon = mock.patch.object(jepa, "EPS", self.cases[0]["eps"])
        epsilon.start()
        self.addCleanup(epsilon.stop)

    def test_the_forward_pass_gives_the_golden_numbers(self):
        self.assertEqual(len({(case["num_patches"], case["embed_dim"]) for case in self.cases}), 3)
        for case in self.cases:
            expected, model, context = case["expected"], case["model"], []
            self.assertEqual(case["batch"][0][0], expected["patches_of_image_0"])
            self.assertEqual(jepa.sizes(model), tuple(case[name] for name in (
                "patch_size", "num_patches", "embed_dim")))
            for i, (patches, context_mask, target_mask) in enumerate(case["batch"]):
                embs = [jepa.context_encode(patches[k], model) for k in context_mask]
                targets = [jepa.target_encode(patches[k], model) for k in target_mask]
                predictions = [jepa.predict(jepa.average(embs), k, model) for k in target_mask]
                self.assertGolden(embs, expected["context_embeddings"][i])
                self.assertGolden(targets, expected["target_embeddings"][i])
                self.assertGolden(predictions, expected["predictions"][i])
                context += embs
            self.assertGolden(jepa.covariance(context)[1], expected["covariance"])
            self.assertGolden(jepa.effective_rank(context),
                              expected["effective_rank_participation_ratio"])
            var, cov, _ = jepa.variance_covariance(context, 1.0, 1.0, case["gamma"])
            self.assertGolden([var, cov], [expected["loss"][term] for term in ("var", "cov")])

    def test_each_term_and_their_weighted_sum_and_their_gradients_are_golden(self):
        for case in self.cases:
            golden = case["expected"]["gradient"]
            for weights in (*TERMS.values(), (3.0, 0.5, 7.0)):
                losses, gradients = jepa.loss_and_gradients(
                    case["batch"], case["model"], *weights, case["gamma"])
                for name in TERMS:  # reported before weighting
                    self.assertGolden(losses[name], case["expected"]["loss"][name])
                self.assertGolden(losses["loss"], sum(
                    w * case["expected"]["loss"][name] for w, name in zip(weights, TERMS)))
                for net, W in [(net, W) for net in gradients for W in gradients[net]]:
                    with self.subTest(case["name"], weights=weights, net=net, W=W):
                        terms = [[w * v for v in flat(golden[name][net][W])]
                                 for w, name in zip(weights, TERMS)]
                        self.assertGolden(gradients[net][W], list(map(sum, zip(*terms))))

    def test_without_stop_gradient_it_is_golden_too(self):
        for case in self.cases:
            expected = case["expected"]["without_stop_gradient"]
            model = dict(case["model"], target_encoder=copy.deepcopy(case["context_encoder"]))
            losses, gradients = jepa.loss_and_gradients(
                case["batch"], model, *TERMS["pred"], stop_gradient=False)
            self.assertGolden(losses["pred"], expected["pred"])
            for net in gradients:
                for W in gradients[net]:
                    self.assertGolden(gradients[net][W], expected["gradient_of_pred"][net][W])


class FiniteDifferences(Mathematics):
    def test_gradients_agree_on_random_sizes_masks_and_weights_with_and_without_the_stop(self):
        rng = random.Random(1)
        for number in range(14):
            model, batch = random_case(rng)
            weights, gamma = rng.choice([*TERMS.values(), (2, 3, 5)]), rng.choice([0.1, 0.5, 2.0])
            numeric = {name: numeric_gradient(lambda: total(batch, model, weights, gamma), net)
                       for name, net in model.items()}
            through_targets = flat(numeric.pop("target_encoder"))
            for stop_gradient in (True, False):  # without it the target encoder's gradient is added
                _, gradients = jepa.loss_and_gradients(batch, model, *weights, gamma, stop_gradient)
                self.assertEqual(set(gradients), set(numeric))
                expected = flat(numeric["context_encoder"])
                if not stop_gradient:
                    expected = [a + b for a, b in zip(expected, through_targets)]
                with self.subTest(number=number, stop_gradient=stop_gradient):
                    self.assertClose(gradients["context_encoder"], expected, 2e-6, 2e-6)
                    self.assertClose(gradients["predictor"], numeric["predictor"], 2e-6, 2e-6)

    def test_a_network_hands_back_the_gradients_of_its_weights_and_of_its_input(self):
        rng = random.Random(2)
        net = jepa.init_mlp(4, 7, 3, rng)
        x, dy = [[[rng.gauss(0, 1) for _ in range(n)] for _ in range(5)] for n in (4, 3)]
        loss = lambda: sum(a * b for a, b in zip(flat(jepa.mlp_forward(net, x)[0]), flat(dy)))
        gradients, dx = jepa.mlp_backward(net, jepa.mlp_forward(net, x)[1], dy, 4)
        self.assertClose(gradients, numeric_gradient(loss, net), absolute=1e-7)
        self.assertClose(dx, numeric_gradient(loss, x), absolute=1e-7)
        self.assertFalse(any(jepa.mlp_backward(net, jepa.mlp_forward(net, x)[1], dy)[1]))

    def test_var_and_cov_have_their_gradient_from_two_embeddings_on_and_none_of_one(self):
        rng = random.Random(6)
        for n in (1, 2, 3, 5):
            embs = [[rng.gauss(0, 1) for _ in range(3)] for _ in range(n)]
            loss = lambda: jepa.dot([2.0, 3.0], jepa.variance_covariance(embs, 2.0, 3.0, 1.5)[:2])
            gradient = jepa.variance_covariance(embs, 2.0, 3.0, 1.5)[2]
            self.assertClose(gradient, numeric_gradient(loss, embs), absolute=1e-6)
            self.assertEqual(any(flat(gradient)), n > 1)
        kink = math.sqrt(jepa.covariance(embs)[1][1][1] + jepa.EPS)  # a standard deviation of gamma
        gradient = jepa.variance_covariance(embs, 2.0, 0.0, kink)[2]
        self.assertFalse(any(row[1] for row in gradient))

    def test_a_step_of_training_is_minus_lr_times_the_gradient_of_the_loss_that_it_reports(self):
        rng, images = random.Random(3), few_images(3, 1)
        for stop_gradient in (True, False):
            model = jepa.init_model(2, 4, 3, 5, rng)
            before = copy.deepcopy(model)
            with spy("loss_and_gradients") as calls:
                losses, = jepa.train(images, 1, 0.5, 1.0, 4, 2.0, 3.0, 5.0, 0.6, stop_gradient,
                                     random.Random(4), model=model)
            if not stop_gradient:  # one list, so that a change reaches both branches
                before["target_encoder"] = before["context_encoder"]
            loss = lambda: total(calls[0][0][0], before, (2.0, 3.0, 5.0), 0.6)
            self.assertAlmostEqual(losses["loss"], loss(), 12)
            for net in ("context_encoder", "predictor"):  # weights were rounded to 1e-6
                step = [(a - b) / -0.5 for a, b in zip(flat(model[net]), flat(before[net]))]
                self.assertClose(step, numeric_gradient(loss, before[net]), absolute=3e-6)


class TargetEncoder(Mathematics):
    def setUp(self):
        rng = random.Random(5)
        self.model, other = jepa.init_model(rng=rng), jepa.init_model(rng=rng)["context_encoder"]
        self.model["target_encoder"] = {W: [[round(w, 6) for w in row] for row in other[W]]
                                        for W in other}
        self.before, self.images = copy.deepcopy(self.model), few_images(5, 1)

    def assertApart(self, model):
        """The encoders are equal, and share no list."""
        encoders = model["target_encoder"], model["context_encoder"]
        self.assertEqual(*encoders)
        lists = [{id(rows) for W in net.values() for rows in (W, *W)} for net in encoders]
        self.assertFalse(lists[0] & lists[1])

    def test_it_starts_equal_to_the_context_encoder_and_shares_no_list_with_it(self):
        self.assertApart(jepa.init_model(rng=random.Random(6)))

    def test_n_updates_have_the_closed_form(self):
        for _ in range(50):
            jepa.ema_update(0.9, self.model)
        pairs = zip(*[flat(self.before[name]) for name in ("target_encoder", "context_encoder")])
        self.assertClose(self.model["target_encoder"],
                         [0.9 ** 50 * t + (1 - 0.9 ** 50) * c for t, c in pairs])
        self.assertEqual(self.model["context_encoder"], self.before["context_encoder"])

    def test_momentum_1_freezes_it_and_0_copies_without_sharing_a_list(self):
        jepa.ema_update(1, self.model)
        self.assertEqual(self.model, self.before)
        jepa.ema_update(0, self.model)
        self.assertEqual(self.model["context_encoder"], self.before["context_encoder"])
        self.assertApart(self.model)

    def test_no_gradient_enters_it_and_the_optimiser_never_touches_it(self):
        for stop_gradient in (True, False):
            with spy("loss_and_gradients") as calls:
                jepa.train(self.images, 3, lr=1e-3, momentum=1, stop_gradient=stop_gradient,
                           model=self.model)
            self.assertEqual(self.model["target_encoder"], self.before["target_encoder"])
            self.assertNotEqual(self.model["context_encoder"], self.before["context_encoder"])
            self.assertEqual(set(calls[0][1][1]), {"context_encoder", "predictor"})

    def test_training_moves_it_by_the_moving_average_alone(self):
        jepa.train(self.images, 1, momentum=0.75, batch_size=4, model=self.model)
        pairs = zip(flat(self.before["target_encoder"]), flat(self.model["context_encoder"]))
        self.assertClose(self.model["target_encoder"], [0.75 * t + 0.25 * c for t, c in pairs],
                         absolute=2e-6)

    def test_measuring_changes_no_weight(self):
        data = self.images, self.images, [[1, -1, 1, 1]] * 4, list(jepa.PATTERNS)
        with mock.patch.object(jepa, "few_label_accuracy", return_value=1.0):
            jepa.measure(self.model, data, 0)
        jepa.jepa_forward(self.images[0], [0, 1], [2], self.model)
        self.assertEqual(self.model, self.before)


class Pieces(Mathematics):
    def test_the_pixels_of_a_hidden_patch_change_its_target_and_no_prediction(self):
        rng, model = random.Random(7), jepa.init_model(rng=random.Random(1))
        for img in few_images(7, 5):
            masks, seen, other = jepa.random_masks(4, rng), [], [list(row) for row in img]
            hidden = masks[1][0]
            for k in range(4):
                other[hidden // 2 * 2 + k // 2][hidden % 2 * 2 + k % 2] += rng.uniform(1, 2)
            for image in (img, other):
                with spy("mlp_forward") as calls:
                    jepa.jepa_forward(image, *masks, model)
                seen.append([[y for (net, _), (y, _) in calls if net is model[name]] for name in
                             ("predictor", "context_encoder", "target_encoder")])
            self.assertEqual(seen[0][:2], seen[1][:2])
            self.assertNotEqual(seen[0][2], seen[1][2])
            embs = {"a patch": [0.5] * jepa.EMBED_DIM}
            guesses = [jepa.guess_patches(image, embs, model) for image in (img, other)]
            self.assertEqual(*[four[hidden] for four in guesses])
            self.assertNotEqual(*[four[hidden - 1] for four in guesses])

    def test_jepa_forward_is_the_composition_of_its_parts_and_the_pred_of_a_minibatch_of_one(self):
        rng = random.Random(8)
        for _ in range(10):
            model, batch = random_case(rng)
            for patches, context_mask, target_mask in batch:
                embs = [jepa.context_encode(patches[i], model) for i in context_mask]
                context = jepa.average(embs)
                targets = [jepa.target_encode(patches[i], model) for i in target_mask]
                pred = jepa.mse([jepa.predict(context, pos, model) for pos in target_mask], targets)
                with mock.patch.object(jepa, "extract_patches", lambda img, *rest: patches):
                    forward = jepa.jepa_forward(None, context_mask, target_mask, model)
                of_one = jepa.loss_and_gradients([(patches, context_mask, target_mask)], model)[0]
                self.assertClose([forward, of_one["pred"]], [pred, pred])

    def test_any_image_is_cut_in_row_major_order_and_nothing_is_lost(self):
        rng = random.Random(9)
        for _ in range(50):
            size, rows, columns = rng.randint(1, 4), rng.randint(1, 4), rng.randint(1, 4)
            img = [[rng.random() for _ in range(columns * size)] for _ in range(rows * size)]
            patches = jepa.extract_patches(img, size)
            self.assertEqual(len(flat(patches)), len(flat(img)))
            for row in range(rows * size):
                for column in range(columns * size):
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

    def test_initial_weights_are_xavier_uniform_and_biases_zero(self):
        net = jepa.init_mlp(30, 50, 20, random.Random(11))
        for W, outs, ins in (("W1", 50, 30), ("W2", 20, 50)):
            self.assertEqual([len(row) for row in net[W]], [ins + 1] * outs)
            self.assertEqual([row[-1] for row in net[W]], [0.0] * outs)
            limit, weights = math.sqrt(6 / (ins + outs)), [w for row in net[W] for w in row[:-1]]
            self.assertTrue(0.99 * limit < max(weights) <= limit)
            self.assertTrue(-0.99 * limit > min(weights) >= -limit)

    def test_covariance_mean_and_mean_squared_error_are_the_textbook_ones(self):
        x = [[math.sin(i * i + d) for d in range(3)] for i in range(7)]
        mean = [sum(row[d] for row in x) / 7 for d in range(3)]
        centred, C = jepa.covariance(x)
        self.assertClose(centred, [[row[d] - mean[d] for d in range(3)] for row in x])
        self.assertClose(C, [[sum((row[i] - mean[i]) * (row[j] - mean[j]) for row in x) / 6
                              for j in range(3)] for i in range(3)])
        self.assertAlmostEqual(jepa.mse([[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.0], [3.0, 2.0]]), 1.0)
        self.assertEqual(jepa.average([[1.0, 2.0], [3.0, 6.0]]), [2.0, 4.0])

    def test_effective_rank_is_d_for_a_ball_1_for_a_line_0_for_a_point(self):
        ball = [[s if i == d else 0.0 for i in range(5)] for d in range(5) for s in (-1.0, 1.0)]
        far = [[5 + 1e-5 * i, 5 + 1e-5 * i * i, 3.0] for i in (0, 1, 3)]  # close, far from zero
        for rows, rank in ((ball, 5.0), ([[t, 2 * t, -t] for t in (0.0, 1.0, 5.0)], 1.0),
                           ([[1.0, 2.0]] * 4, 0.0), (far, 1.0085)):
            self.assertAlmostEqual(jepa.effective_rank(rows), rank, 4)
        self.assertAlmostEqual(jepa.spread([[0.0, 1.0], [2.0, 1.0]]), 1.0)
