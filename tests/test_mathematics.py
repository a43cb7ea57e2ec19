"""The mathematics: forward, losses, gradients, against an independent autograd and differences."""

import copy
import math
import random
import unittest
from unittest import mock

import jepa
from tests.support import flat, golden_cases

TERMS = {"pred": (1.0, 0.0, 0.0), "var": (0.0, 1.0, 0.0), "cov": (0.0, 0.0, 1.0)}


def random_case(rng):
    """A model and a minibatch of random sizes and masks, with every relu away from its kink."""
    while True:
        patch_size, rows, columns = rng.randint(1, 3), rng.randint(1, 3), rng.randint(2, 3)
        K, D, hidden = rows * columns, rng.randint(2, 4), rng.randint(3, 6)
        model = jepa.init_model(patch_size, K, D, hidden, rng)
        model["target_encoder"] = jepa.init_mlp(patch_size ** 2, hidden, D, rng)
        for row in [row for net in model.values() for W in net.values() for row in W]:
            row[-1] = rng.uniform(-0.5, 0.5)  # the bias
        batch, sums = [], []
        for _ in range(rng.randint(1, 3)):
            img = [[rng.uniform(-1, 1) for _ in range(columns * patch_size)]
                   for _ in range(rows * patch_size)]
            order, cut = rng.sample(range(K), K), rng.randint(1, K - 1)
            batch.append((jepa.extract_patches(img, patch_size), order[:cut],
                          order[cut:][:rng.randint(1, K)]))
        with watched_networks() as calls:
            jepa.loss_and_gradients(batch, model)
        for net, (x, _), _ in calls:
            sums += flat(jepa.matmul_t([[*row, 1.0] for row in x], net["W1"]))
        if sum(len(mask) for _, mask, _ in batch) >= 3 and min(map(abs, sums)) > 1e-4:
            return model, batch


class watched_networks:
    """In `with watched_networks() as calls`, calls lists (network, its arguments, its outputs)."""

    def __enter__(self):
        calls, original = [], jepa.mlp_forward

        def forward(net, x):
            result = original(net, x)
            calls.append((net, (x, None), result[0]))
            return result

        self.patch = mock.patch.object(jepa, "mlp_forward", forward)
        self.patch.start()
        return calls

    def __exit__(self, *error):
        self.patch.stop()


def numeric_gradient(loss, weights, step=1e-6):
    """The gradient of loss() by nested lists: central differences, one number at a time."""
    if isinstance(weights, dict):
        return {name: numeric_gradient(loss, weights[name], step) for name in weights}
    if isinstance(weights[0], list):
        return [numeric_gradient(loss, row, step) for row in weights]
    gradient = []
    for i, weight in enumerate(weights):
        weights[i] = weight + step
        above = loss()
        weights[i] = weight - step
        gradient.append((above - loss()) / (2 * step))
        weights[i] = weight
    return gradient


def total(batch, model, weights, gamma, **options):
    """The weighted loss, by the terms that are reported."""
    terms, _ = jepa.loss_and_gradients(batch, model, *weights, gamma, **options)
    return sum(w * terms[name] for w, name in zip(weights, TERMS))


class Mathematics(unittest.TestCase):
    def assertClose(self, actual, expected, relative, absolute=None):
        """All numbers agree: each to `relative` of itself or of a thousandth of the largest."""
        actual, expected = flat(actual), flat(expected)
        self.assertEqual(len(actual), len(expected))
        scale = 1e-3 * max(map(abs, expected))  # a true 0 is rounding noise in the autograd
        for a, e in zip(actual, expected):
            allowed = relative * max(abs(e), scale) if absolute is None else absolute
            self.assertLessEqual(abs(a - e), allowed, f"{a} is not {e}")


class Golden(Mathematics):
    def setUp(self):
        self.cases = golden_cases()
        epsilon = mock.patch.object(jepa, "EPS", self.cases[0]["eps"])
        epsilon.start()
        self.addCleanup(epsilon.stop)

    def test_there_are_three_cases_of_different_sizes(self):
        self.assertEqual(len({(case["num_patches"], case["embed_dim"]) for case in self.cases}), 3)

    def test_the_forward_pass_gives_the_golden_numbers(self):
        for case in self.cases:
            expected, model, context = case["expected"], case["model"], []
            self.assertEqual(case["batch"][0][0], expected["patches_of_image_0"])
            self.assertEqual(jepa.sizes(model), tuple(case[name] for name in (
                "patch_size", "num_patches", "embed_dim")))
            for i, (patches, context_mask, target_mask) in enumerate(case["batch"]):
                embs = [jepa.context_encode(patches[k], model) for k in context_mask]
                targets = [jepa.target_encode(patches[k], model) for k in target_mask]
                predictions = [jepa.predict(jepa.average(embs), k, model) for k in target_mask]
                self.assertClose(embs, expected["context_embeddings"][i], 1e-9)
                self.assertClose(targets, expected["target_embeddings"][i], 1e-9)
                self.assertClose(predictions, expected["predictions"][i], 1e-9)
                context += embs
            self.assertClose(jepa.covariance(context)[1], expected["covariance"], 1e-9)
            self.assertClose(jepa.effective_rank(context),
                             expected["effective_rank_participation_ratio"], 1e-9)
            var, cov, _ = jepa.variance_covariance(context, 1.0, 1.0, case["gamma"])
            self.assertClose([var, cov], [expected["loss"][term] for term in ("var", "cov")], 1e-9)

    def test_each_term_of_the_loss_and_its_gradient_are_golden(self):
        for case in self.cases:
            for term, weights in TERMS.items():
                with self.subTest(case["name"], term=term):
                    losses, gradients = jepa.loss_and_gradients(
                        case["batch"], case["model"], *weights, case["gamma"])
                    for name in TERMS:  # reported before weighting
                        self.assertClose(losses[name], case["expected"]["loss"][name], 1e-9)
                    self.assertEqual(losses["loss"], losses[term])
                    for net, expected in case["expected"]["gradient"][term].items():
                        for W in expected:
                            self.assertClose(gradients[net][W], expected[W], 1e-9)

    def test_a_weighted_loss_has_the_weighted_sum_of_the_gradients(self):
        weights = {"pred": 3.0, "var": 0.5, "cov": 7.0}
        for case in self.cases:
            losses, gradients = jepa.loss_and_gradients(
                case["batch"], case["model"], *weights.values(), case["gamma"])
            expected = case["expected"]
            self.assertClose(losses["loss"], sum(w * expected["loss"][term]
                                                 for term, w in weights.items()), 1e-9)
            for net in gradients:
                terms = [[w * v for v in flat(expected["gradient"][term][net])]
                         for term, w in weights.items()]
                self.assertClose(gradients[net], [sum(column) for column in zip(*terms)], 1e-9)

    def test_without_stop_gradient_it_is_golden_too(self):
        for case in self.cases:
            expected = case["expected"]["without_stop_gradient"]
            model = dict(case["model"], target_encoder=copy.deepcopy(case["context_encoder"]))
            losses, gradients = jepa.loss_and_gradients(
                case["batch"], model, *TERMS["pred"], stop_gradient=False)
            self.assertClose(losses["pred"], expected["pred"], 1e-9)
            for net in gradients:
                for W in gradients[net]:
                    self.assertClose(gradients[net][W], expected["gradient_of_pred"][net][W], 1e-9)


class FiniteDifferences(Mathematics):
    def test_gradients_agree_on_random_sizes_masks_and_weights_with_and_without_the_stop(self):
        rng = random.Random(1)
        for number in range(14):
            model, batch = random_case(rng)
            weights, gamma = rng.choice([*TERMS.values(), (2.0, 3.0, 5.0)]), rng.choice([0.1, 0.5, 2])
            loss = lambda: total(batch, model, weights, gamma)
            numeric = {name: numeric_gradient(loss, net) for name, net in model.items()}
            through_targets = flat(numeric.pop("target_encoder"))
            for stop_gradient in (True, False):  # without it the target encoder's gradient is added
                _, gradients = jepa.loss_and_gradients(
                    batch, model, *weights, gamma, stop_gradient=stop_gradient)
                self.assertEqual(set(gradients), set(numeric))
                expected = copy.deepcopy(numeric)
                if not stop_gradient:
                    pairs = zip(flat(numeric["context_encoder"]), through_targets)
                    expected["context_encoder"] = [a + b for a, b in pairs]
                for net in gradients:
                    with self.subTest(number=number, net=net, stop_gradient=stop_gradient):
                        for a, e in zip(flat(gradients[net]), flat(expected[net])):
                            self.assertLessEqual(abs(a - e), 2e-6 * (1 + abs(e)))

    def test_a_network_hands_back_the_gradients_of_its_weights_and_of_its_input(self):
        rng = random.Random(2)
        net = jepa.init_mlp(4, 7, 3, rng)
        x, dy = [[[rng.gauss(0, 1) for _ in range(n)] for _ in range(5)] for n in (4, 3)]
        loss = lambda: sum(a * b for a, b in zip(flat(jepa.mlp_forward(net, x)[0]), flat(dy)))
        gradients, dx = jepa.mlp_backward(net, jepa.mlp_forward(net, x)[1], dy, with_dx=True)
        self.assertClose(gradients, numeric_gradient(loss, net), 0, 1e-7)
        self.assertClose(dx, numeric_gradient(loss, x), 0, 1e-7)
        self.assertEqual([len(row) for row in dx], [4] * 5)

    def test_a_step_of_training_is_minus_lr_times_the_gradient_of_the_loss_that_it_reports(self):
        rng, batches = random.Random(3), []
        images = [jepa.draw_image(name, rng)[0] for name in jepa.PATTERNS]
        for stop_gradient in (True, False):
            model = jepa.init_model(2, 4, 3, 5, rng)
            before, original = copy.deepcopy(model), jepa.loss_and_gradients
            spy = lambda batch, *rest: batches.append(batch) or original(batch, *rest)
            with mock.patch.object(jepa, "loss_and_gradients", spy):
                losses, = jepa.train(images, 1, 0.5, 1.0, 4, 2.0, 3.0, 5.0, 0.6, stop_gradient,
                                     random.Random(4), model=model)
            if not stop_gradient:  # one list, so that a change reaches both branches
                before["target_encoder"] = before["context_encoder"]
            loss = lambda: total(batches[-1], before, (2.0, 3.0, 5.0), 0.6)
            self.assertAlmostEqual(losses["loss"], loss(), 12)
            for net in ("context_encoder", "predictor"):
                step = [(a - b) / -0.5 for a, b in zip(flat(model[net]), flat(before[net]))]
                self.assertClose(step, numeric_gradient(loss, before[net]), 0, 3e-6)  # rounded to 1e-6


class TargetEncoder(Mathematics):
    def setUp(self):
        rng = random.Random(5)
        self.model = jepa.init_model(rng=rng)
        other = jepa.init_model(rng=rng)["context_encoder"]
        self.model["target_encoder"] = {W: [[round(w, 6) for w in row] for row in rows]
                                        for W, rows in other.items()}
        self.images = [jepa.draw_image(name, rng)[0] for name in jepa.PATTERNS]

    def assertApart(self, model):
        before = copy.deepcopy(model["target_encoder"])
        for W in ("W1", "W2"):
            for row in model["context_encoder"][W]:
                row[0] += 1.0
            model["context_encoder"][W].append("a row")
        self.assertEqual(model["target_encoder"], before)

    def test_it_starts_equal_to_the_context_encoder_and_shares_no_list_with_it(self):
        model = jepa.init_model(rng=random.Random(6))
        self.assertEqual(model["target_encoder"], model["context_encoder"])
        self.assertApart(model)

    def test_n_updates_have_the_closed_form(self):
        start, context = flat(self.model["target_encoder"]), flat(self.model["context_encoder"])
        for _ in range(50):
            jepa.ema_update(0.9, self.model)
        expected = [0.9 ** 50 * t + (1 - 0.9 ** 50) * c for t, c in zip(start, context)]
        self.assertClose(self.model["target_encoder"], expected, 0, 1e-12)
        self.assertEqual(flat(self.model["context_encoder"]), context)

    def test_momentum_1_freezes_it_and_0_copies_without_sharing_a_list(self):
        before = copy.deepcopy(self.model)
        jepa.ema_update(1, self.model)
        self.assertEqual(self.model, before)
        jepa.ema_update(0, self.model)
        self.assertEqual(self.model["target_encoder"], before["context_encoder"])
        self.assertApart(self.model)

    def test_no_gradient_enters_it_and_the_optimiser_never_touches_it(self):
        before = copy.deepcopy(self.model)
        for stop_gradient in (True, False):
            jepa.train(self.images, 3, lr=1e-3, momentum=1, stop_gradient=stop_gradient,
                       model=self.model)
            self.assertEqual(self.model["target_encoder"], before["target_encoder"])
            self.assertNotEqual(self.model["context_encoder"], before["context_encoder"])
            batch = [(jepa.extract_patches(self.images[0]), [0, 1, 2], [3])]
            gradients = jepa.loss_and_gradients(batch, self.model, stop_gradient=stop_gradient)[1]
            self.assertEqual(set(gradients), {"context_encoder", "predictor"})

    def test_training_moves_it_by_the_moving_average_alone(self):
        before = copy.deepcopy(self.model)
        jepa.train(self.images, 1, momentum=0.75, batch_size=4, model=self.model)
        pairs = zip(flat(before["target_encoder"]), flat(self.model["context_encoder"]))
        self.assertClose(self.model["target_encoder"], [0.75 * t + 0.25 * c for t, c in pairs], 0,
                         2e-6)

    def test_measuring_changes_no_weight(self):
        before = copy.deepcopy(self.model)
        data = self.images, self.images, [[1, -1, 1, 1]] * 4, list(jepa.PATTERNS)
        with mock.patch.object(jepa, "few_label_accuracy", return_value=1.0):
            jepa.measure(self.model, data, 0)
        jepa.jepa_forward(self.images[0], [0, 1], [2], self.model)
        self.assertEqual(self.model, before)


class NoLeak(Mathematics):
    def test_the_pixels_of_a_hidden_patch_change_its_target_and_no_prediction(self):
        rng, model = random.Random(7), jepa.init_model(rng=random.Random(1))
        for _ in range(20):
            img, masks = [[rng.uniform(-1, 1) for _ in range(4)] for _ in range(4)], (
                jepa.random_masks(4, rng))
            hidden, pairs, other = masks[1][0], [], [list(row) for row in img]
            for k in range(4):
                other[hidden // 2 * 2 + k // 2][hidden % 2 * 2 + k % 2] += rng.uniform(1, 2)
            for image in (img, other):
                with watched_networks() as calls:
                    jepa.jepa_forward(image, *masks, model)
                pairs.append([[y for net, _, y in calls if net is model[name]] for name in
                              ("predictor", "context_encoder", "target_encoder")])
            self.assertEqual(pairs[0][:2], pairs[1][:2])
            self.assertNotEqual(pairs[0][2], pairs[1][2])
            guesses = [jepa.guess_patches(image, [[0.5] * 4], model) for image in (img, other)]
            self.assertEqual(*[four[hidden] for four in guesses])
            self.assertNotEqual(*[four[hidden - 1] for four in guesses])

    def test_the_position_of_the_hidden_patch_changes_the_prediction(self):
        avg_context = [0.1] * jepa.sizes(jepa.MODEL)[2]
        self.assertEqual(len({tuple(jepa.predict(avg_context, pos)) for pos in range(4)}), 4)

    def test_jepa_forward_is_the_composition_of_its_parts_and_the_pred_of_a_minibatch_of_one(self):
        rng = random.Random(8)
        for _ in range(10):
            model, batch = random_case(rng)
            for patches, context_mask, target_mask in batch:
                avg_context = jepa.average([jepa.context_encode(patches[i], model)
                                            for i in context_mask])
                predictions = [jepa.predict(avg_context, pos, model) for pos in target_mask]
                targets = [jepa.target_encode(patches[i], model) for i in target_mask]
                expected = jepa.mse(predictions, targets)
                with mock.patch.object(jepa, "extract_patches", lambda img, *rest: patches):
                    forward = jepa.jepa_forward(None, context_mask, target_mask, model)
                of_one = jepa.loss_and_gradients([(patches, context_mask, target_mask)], model)[0]
                self.assertClose([forward, of_one["pred"]], [expected] * 2, 1e-12)


class Pieces(Mathematics):
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
            self.assertTrue(context_mask)
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
            self.assertLessEqual(max(map(abs, weights)), limit)
            self.assertGreater(max(weights), 0.99 * limit)
            self.assertLess(min(weights), -0.99 * limit)

    def test_the_terms_of_the_loss_at_known_points(self):
        root = math.sqrt(2)  # two dimensions of variance 4 and 0.01, correlated not at all or fully
        for rows, var, cov in (([[root, 0.05 * root], [-root, 0.05 * root], [root, -0.05 * root],
                                 [-root, -0.05 * root]], (1 - math.sqrt(0.02 / 3 + 1e-4)) / 2, 0.0),
                               ([[root, root], [-root, -root]], 0.0, 16.0),
                               ([[3.0, 3.0]], 1 - 0.01, 0.0)):
            with mock.patch.object(jepa, "EPS", 1e-4):
                self.assertClose(jepa.variance_covariance(rows, 1.0, 1.0, 1.0)[:2], [var, cov], 0, 1e-12)
        self.assertAlmostEqual(jepa.mse([[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.0], [3.0, 2.0]]), 1.0)
        self.assertEqual(jepa.average([[1.0, 2.0], [3.0, 6.0]]), [2.0, 4.0])

    def test_covariance_is_the_textbook_one(self):
        rng = random.Random(12)
        x = [[rng.gauss(0, 1) for _ in range(3)] for _ in range(7)]
        mean = [sum(row[d] for row in x) / 7 for d in range(3)]
        centred, C = jepa.covariance(x)
        self.assertClose(centred, [[row[d] - mean[d] for d in range(3)] for row in x], 0, 1e-12)
        self.assertClose(C, [[sum((row[i] - mean[i]) * (row[j] - mean[j]) for row in x) / 6
                              for j in range(3)] for i in range(3)], 0, 1e-12)

    def test_effective_rank_is_d_for_a_ball_1_for_a_line_0_for_a_point(self):
        cross = [[s if i == d else 0.0 for i in range(5)] for d in range(5) for s in (-1.0, 1.0)]
        self.assertAlmostEqual(jepa.effective_rank(cross), 5.0)
        self.assertAlmostEqual(jepa.effective_rank([[t, 2 * t, -t] for t in (0.0, 1.0, 5.0)]), 1.0)
        self.assertEqual(jepa.effective_rank([[1.0, 2.0]] * 4), 0.0)
        far = [[5 + 1e-5 * i, 5 + 1e-5 * i * i, 3.0] for i in (0, 1, 3)]  # close, far from zero
        self.assertAlmostEqual(jepa.effective_rank(far), 1.0085, delta=0.0001)
        self.assertAlmostEqual(jepa.spread([[0.0, 1.0], [2.0, 1.0]]), 1.0)


if __name__ == "__main__":
    unittest.main()
