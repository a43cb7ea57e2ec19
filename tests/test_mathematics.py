"""The mathematics: forward, losses, gradients, against an independent autograd and finite differences."""

import copy
import math
import random
import unittest

import jepa
from tests.support import flat, golden_cases

TERMS = {"pred": (1.0, 0.0, 0.0), "var": (0.0, 1.0, 0.0), "cov": (0.0, 0.0, 1.0)}


def random_case(rng):
    """A model and a minibatch of random sizes and masks, with every relu away from its kink."""
    while True:
        patch_size, rows, columns = rng.randint(1, 3), rng.randint(1, 3), rng.randint(2, 3)
        K, D, hidden = rows * columns, rng.randint(2, 4), rng.randint(3, 6)
        model = jepa.init_model(patch_size, K, D, hidden, rng)
        for net in model.values():
            net["b1"] = [rng.uniform(-0.5, 0.5) for _ in net["b1"]]
            net["b2"] = [rng.uniform(-0.5, 0.5) for _ in net["b2"]]
        model["target_encoder"] = jepa.init_mlp(patch_size**2, hidden, D, rng)
        batch = []
        for _ in range(rng.randint(1, 3)):
            img = [
                [rng.uniform(-1, 1) for _ in range(columns * patch_size)] for _ in range(rows * patch_size)
            ]
            order = rng.sample(range(K), K)
            cut = rng.randint(1, K - 1)
            batch.append(
                (jepa.extract_patches(img, patch_size), order[:cut], order[cut:][: rng.randint(1, K)])
            )
        if sum(len(context_mask) for _, context_mask, _ in batch) < 3:
            continue
        distances = []
        original = jepa.linear
        try:
            jepa.linear = lambda x, W, b: distances.extend(flat(original(x, W, b))) or original(x, W, b)
            jepa.loss_and_gradients(batch, model)
        finally:
            jepa.linear = original
        if min(map(abs, distances)) > 1e-4:
            return model, batch


def numeric_gradient(loss, weights, step=1e-6):
    """The gradient of loss() by nested lists of weights: central differences, one weight at a time."""
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


class Mathematics(unittest.TestCase):
    def assertClose(self, actual, expected, relative):
        """All numbers agree to `relative` of the largest expected one."""
        actual, expected = flat(actual), flat(expected)
        self.assertEqual(len(actual), len(expected))
        scale = max(max(map(abs, expected)), 1e-12)
        for a, e in zip(actual, expected):
            self.assertLessEqual(abs(a - e), relative * scale, f"{a} is not {e}")


class Golden(Mathematics):
    def test_there_are_three_golden_cases(self):
        self.assertEqual(len(golden_cases()), 3)

    def test_the_forward_pass_gives_the_golden_numbers(self):
        for case in golden_cases():
            with self.subTest(case["name"]):
                expected, model = case["expected"], case["model"]
                self.assertEqual(case["batch"][0][0], expected["patches_of_image_0"])
                embeddings, losses = [], []
                for (patches, context_mask, target_mask), img in zip(case["batch"], case["images"]):
                    context = [jepa.context_encode(patches[i], model) for i in context_mask]
                    targets = [jepa.target_encode(patches[i], model) for i in target_mask]
                    predictions = [jepa.predict(jepa.average(context), pos, model) for pos in target_mask]
                    number = len(losses)
                    self.assertClose(context, expected["context_embeddings"][number], 1e-9)
                    self.assertClose(targets, expected["target_embeddings"][number], 1e-9)
                    self.assertClose(predictions, expected["predictions"][number], 1e-9)
                    embeddings += context
                    losses.append(jepa.jepa_forward(img, context_mask, target_mask, model))
                    self.assertClose(losses[-1], jepa.mse(predictions, targets), 1e-12)
                weights = [len(target_mask) for target_mask in case["target_masks"]]
                pooled = sum(w * loss for w, loss in zip(weights, losses)) / sum(weights)
                self.assertClose(pooled, expected["loss"]["pred"], 1e-9)
                C = jepa.covariance(embeddings)[1]
                self.assertClose(C, expected["covariance"], 1e-9)
                self.assertClose(jepa.variance_loss(C, case["gamma"]), expected["loss"]["var"], 1e-9)
                self.assertClose(jepa.covariance_loss(C), expected["loss"]["cov"], 1e-9)
                self.assertClose(
                    jepa.effective_rank(embeddings), expected["effective_rank_participation_ratio"], 1e-9
                )

    def test_each_loss_term_and_each_of_its_gradients_is_golden(self):
        for case in golden_cases():
            for term, weights in TERMS.items():
                with self.subTest(case["name"], term=term):
                    losses, gradients = jepa.loss_and_gradients(
                        case["batch"], case["model"], *weights, case["gamma"]
                    )
                    self.assertClose(losses[term], case["expected"]["loss"][term], 1e-9)
                    for net, expected in case["expected"]["gradient"][term].items():
                        for name in expected:
                            # where the true gradient is 0, the autograd has rounding noise
                            scale = max(map(abs, flat(expected)), default=0.0)
                            for a, e in zip(flat(gradients[net][name]), flat(expected[name])):
                                self.assertLessEqual(abs(a - e), 1e-9 * max(abs(e), 1e-3 * scale))
                            self.assertEqual(len(flat(gradients[net][name])), len(flat(expected[name])))

    def test_a_weighted_loss_has_the_weighted_sum_of_the_gradients(self):
        for case in golden_cases():
            weights = {"pred": 3.0, "var": 0.5, "cov": 7.0}
            _, gradients = jepa.loss_and_gradients(
                case["batch"], case["model"], *weights.values(), case["gamma"]
            )
            for net in gradients:
                terms = [
                    [weights[term] * v for v in flat(case["expected"]["gradient"][term][net])]
                    for term in weights
                ]
                self.assertClose(gradients[net], [sum(column) for column in zip(*terms)], 1e-9)

    def test_without_stop_gradient_it_is_golden_too(self):
        for case in golden_cases():
            with self.subTest(case["name"]):
                expected = case["expected"]["without_stop_gradient"]
                model = dict(case["model"], target_encoder=copy.deepcopy(case["context_encoder"]))
                losses, gradients = jepa.loss_and_gradients(
                    case["batch"], model, 1.0, 0.0, 0.0, stop_gradient=False
                )
                self.assertClose(losses["pred"], expected["pred"], 1e-9)
                for net in gradients:
                    for name in gradients[net]:
                        self.assertClose(gradients[net][name], expected["gradient_of_pred"][net][name], 1e-9)


class FiniteDifferences(Mathematics):
    def test_gradients_agree_on_random_sizes_masks_and_weights(self):
        rng = random.Random(1)
        for number in range(12):
            model, batch = random_case(rng)
            weights = rng.choice([(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (2.0, 3.0, 5.0)])
            gamma = rng.choice([0.1, 0.5, 2.0])

            def loss():
                terms, _ = jepa.loss_and_gradients(batch, model, *weights, gamma)
                return sum(w * terms[name] for w, name in zip(weights, ("pred", "var", "cov")))

            _, gradients = jepa.loss_and_gradients(batch, model, *weights, gamma)
            for net in gradients:
                with self.subTest(number=number, net=net):
                    numeric = numeric_gradient(loss, model[net])
                    for a, e in zip(flat(gradients[net]), flat(numeric)):
                        self.assertLessEqual(abs(a - e), 1e-6 * (1 + abs(e)))

    def test_gradients_agree_without_stop_gradient(self):
        rng = random.Random(2)
        for number in range(4):
            model, batch = random_case(rng)
            model["target_encoder"] = model[
                "context_encoder"
            ]  # one encoder, so that a change reaches both branches
            _, gradients = jepa.loss_and_gradients(batch, model, 1.0, 1.0, 1.0, 0.5, stop_gradient=False)
            numeric = numeric_gradient(
                lambda: sum(jepa.loss_and_gradients(batch, model, gamma=0.5)[0].values()),
                model["context_encoder"],
            )
            for a, e in zip(flat(gradients["context_encoder"]), flat(numeric)):
                self.assertLessEqual(abs(a - e), 1e-6 * (1 + abs(e)))

    def test_the_loss_that_training_reports_is_the_loss_that_it_differentiates(self):
        rng = random.Random(3)
        images = [jepa.draw_image(name, rng)[0] for name in jepa.PATTERNS]
        model = jepa.init_model(rng=rng)
        batches = []
        original = jepa.loss_and_gradients
        jepa.loss_and_gradients = lambda batch, *rest: batches.append(batch) or original(batch, *rest)
        try:
            before = copy.deepcopy(model)
            history = jepa.train(
                images, 1, 1e-3, 0.5, 4, 2.0, 3.0, 5.0, 0.6, rng=random.Random(4), model=model
            )
        finally:
            jepa.loss_and_gradients = original

        def loss():
            terms, _ = jepa.loss_and_gradients(batches[0], before, gamma=0.6)
            return 2.0 * terms["pred"] + 3.0 * terms["var"] + 5.0 * terms["cov"]

        self.assertAlmostEqual(history[0]["loss"], loss(), 12)
        for net in ("context_encoder", "predictor"):
            step = [(b - a) / 1e-3 for a, b in zip(flat(model[net]), flat(before[net]))]
            self.assertClose(step, numeric_gradient(loss, before[net]), 1e-5)
        for term, weight in (("pred", 2.0), ("var", 3.0), ("cov", 5.0)):
            history[0]["loss"] -= weight * history[0][term]
        self.assertAlmostEqual(history[0]["loss"], 0.0, 12)


class TargetEncoder(Mathematics):
    def setUp(self):
        rng = random.Random(5)
        self.model = jepa.init_model(rng=rng)
        self.model["target_encoder"] = jepa.init_mlp(4, 12, 6, rng)
        self.images = [jepa.draw_image(name, rng)[0] for name in jepa.PATTERNS]

    def test_it_starts_equal_to_the_context_encoder_and_shares_no_list_with_it(self):
        model = jepa.init_model(rng=random.Random(6))
        self.assertEqual(model["target_encoder"], model["context_encoder"])
        model["context_encoder"]["W1"][0][0] += 1.0
        model["context_encoder"]["b2"][0] += 1.0
        self.assertNotEqual(model["target_encoder"]["W1"][0], model["context_encoder"]["W1"][0])
        self.assertNotEqual(model["target_encoder"]["b2"], model["context_encoder"]["b2"])

    def test_n_updates_have_the_closed_form(self):
        start, context = flat(self.model["target_encoder"]), flat(self.model["context_encoder"])
        target_encoder = self.model["target_encoder"]
        for _ in range(50):
            jepa.ema_update(0.9, self.model)
        expected = [0.9**50 * t + (1 - 0.9**50) * c for t, c in zip(start, context)]
        self.assertClose(self.model["target_encoder"], expected, 1e-12)
        self.assertIs(self.model["target_encoder"], target_encoder)

    def test_momentum_0_copies_and_momentum_1_freezes(self):
        before = copy.deepcopy(self.model)
        jepa.ema_update(1, self.model)
        self.assertEqual(self.model, before)
        jepa.ema_update(0, self.model)
        self.assertEqual(self.model["target_encoder"], before["context_encoder"])
        self.assertEqual(self.model["context_encoder"], before["context_encoder"])

    def test_after_a_copy_it_still_shares_no_list_with_the_context_encoder(self):
        jepa.ema_update(0, self.model)
        for name in ("b1", "b2"):
            self.model["context_encoder"][name][0] += 1.0
            self.assertNotEqual(self.model["target_encoder"][name], self.model["context_encoder"][name])
        for name in ("W1", "W2"):
            for row in self.model["context_encoder"][name]:
                row[0] += 1.0
            for mine, theirs in zip(self.model["target_encoder"][name], self.model["context_encoder"][name]):
                self.assertNotEqual(mine, theirs)

    def test_it_gets_no_gradient_and_the_optimiser_never_touches_it(self):
        before = copy.deepcopy(self.model)
        for stop_gradient in (True, False):
            jepa.train(self.images, 3, momentum=1, stop_gradient=stop_gradient, model=self.model)
            self.assertEqual(self.model["target_encoder"], before["target_encoder"])
            self.assertNotEqual(self.model["context_encoder"], before["context_encoder"])
        batch = [(jepa.extract_patches(self.images[0]), [0, 1, 2], [3])]
        self.assertEqual(set(jepa.loss_and_gradients(batch, self.model)[1]), {"context_encoder", "predictor"})

    def test_training_moves_it_by_the_moving_average_alone(self):
        before = copy.deepcopy(self.model)
        jepa.train(self.images, 1, momentum=0.75, batch_size=4, model=self.model)
        expected = jepa.blend(0.75, before["target_encoder"], 0.25, self.model["context_encoder"])
        self.assertEqual(self.model["target_encoder"], expected)

    def test_measuring_changes_no_weight(self):
        before = copy.deepcopy(self.model)
        x = [jepa.embed(img, self.model) for img in self.images for _ in range(3)]
        for classifier in (jepa.nearest_mean, jepa.linear_probe):
            jepa.few_label_accuracy(classifier, x, [i // 3 for i in range(12)], 1, random.Random(0))
        jepa.jepa_forward(self.images[0], [0, 1], [2], self.model)
        self.assertEqual(self.model, before)


class NoLeak(Mathematics):
    def predictions(self, call):
        """The predictions that a call hands to mse."""
        caught, original = [], jepa.mse
        jepa.mse = lambda predictions, targets: (
            caught.append((predictions, targets)) or original(predictions, targets)
        )
        try:
            call()
        finally:
            jepa.mse = original
        return caught[0]

    def test_the_pixels_of_a_hidden_patch_change_no_prediction(self):
        rng = random.Random(7)
        for _ in range(20):
            img = [[rng.uniform(0, 1) for _ in range(4)] for _ in range(4)]
            context_mask, target_mask = jepa.random_masks(4, rng)
            hidden = target_mask[0]
            other = [list(row) for row in img]
            for row in range(2):
                for column in range(2):
                    other[hidden // 2 * 2 + row][hidden % 2 * 2 + column] += rng.uniform(1, 2)
            pairs = []
            for image in (img, other):
                batch = [(jepa.extract_patches(image), context_mask, target_mask)]
                pairs.append(self.predictions(lambda: jepa.jepa_forward(image, context_mask, target_mask)))
                pairs.append(self.predictions(lambda: jepa.loss_and_gradients(batch, jepa.MODEL)))
            for one, two in ((0, 2), (1, 3)):
                self.assertEqual(pairs[one][0], pairs[two][0])
                self.assertNotEqual(pairs[one][1], pairs[two][1])

    def test_the_position_of_the_hidden_patch_changes_the_prediction(self):
        self.assertNotEqual(jepa.predict([0.1] * 6, 0), jepa.predict([0.1] * 6, 1))


class Patches(Mathematics):
    def test_any_image_is_cut_in_row_major_order_and_nothing_is_lost(self):
        rng = random.Random(8)
        for _ in range(50):
            size, rows, columns = rng.randint(1, 4), rng.randint(1, 4), rng.randint(1, 4)
            img = [[rng.random() for _ in range(columns * size)] for _ in range(rows * size)]
            patches = jepa.extract_patches(img, size)
            self.assertEqual(len(patches), rows * columns)
            for row in range(rows * size):
                for column in range(columns * size):
                    patch = patches[row // size * columns + column // size]
                    self.assertEqual(patch[row % size * size + column % size], img[row][column])

    def test_masks_cover_all_patches_once_with_a_quarter_hidden(self):
        rng = random.Random(9)
        for num_patches in range(2, 70):
            context_mask, target_mask = jepa.random_masks(num_patches, rng)
            self.assertEqual(sorted(context_mask + target_mask), list(range(num_patches)))
            self.assertGreaterEqual(min(len(context_mask), len(target_mask)), 1)
            self.assertLessEqual(abs(len(target_mask) - num_patches / 4), 0.5 if num_patches > 2 else 1)

    def test_every_patch_is_hidden_equally_often(self):
        rng = random.Random(10)
        hidden = [jepa.random_masks(4, rng)[1][0] for _ in range(4000)]
        for patch in range(4):
            self.assertAlmostEqual(hidden.count(patch) / 4000, 0.25, delta=0.03)


class Pieces(Mathematics):
    def test_initial_weights_are_xavier_uniform_and_biases_zero(self):
        net = jepa.init_mlp(30, 50, 20, random.Random(11))
        self.assertEqual(
            [len(net["W1"]), len(net["W1"][0]), len(net["W2"]), len(net["W2"][0])], [50, 30, 20, 50]
        )
        for name, ins_and_outs in (("W1", 80), ("W2", 70)):
            limit, weights = math.sqrt(6 / ins_and_outs), flat(net[name])
            self.assertLessEqual(max(map(abs, weights)), limit)
            self.assertGreater(max(weights), 0.99 * limit)
            self.assertLess(min(weights), -0.99 * limit)
        self.assertEqual(flat(net["b1"]) + flat(net["b2"]), [0.0] * 70)

    def test_sizes_are_read_off_the_weights(self):
        self.assertEqual(jepa.sizes(jepa.init_model(3, 8, 5, 7)), (3, 8, 5))

    def test_the_loss_terms_at_known_points(self):
        C = [[4.0, 0.5], [0.5, 0.01 - jepa.EPS]]
        self.assertAlmostEqual(jepa.variance_loss(C, 1.0), (0.0 + 1.0 - 0.1) / 2)
        self.assertAlmostEqual(jepa.covariance_loss(C), (0.25 + 0.25) / 2)
        self.assertAlmostEqual(jepa.mse([[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.0], [3.0, 2.0]]), 1.0)
        self.assertEqual(jepa.average([[1.0, 2.0], [3.0, 6.0]]), [2.0, 4.0])

    def test_covariance_is_the_textbook_one(self):
        rng = random.Random(12)
        z = [[rng.gauss(0, 1) for _ in range(3)] for _ in range(7)]
        centered, C = jepa.covariance(z)
        mean = [sum(row[d] for row in z) / 7 for d in range(3)]
        self.assertClose(centered, [[row[d] - mean[d] for d in range(3)] for row in z], 1e-12)
        expected = [
            [sum((row[i] - mean[i]) * (row[j] - mean[j]) for row in z) / 6 for j in range(3)]
            for i in range(3)
        ]
        self.assertClose(C, expected, 1e-12)

    def test_effective_rank_is_d_for_a_ball_1_for_a_line_0_for_a_point(self):
        cross = [[s if i == d else 0.0 for i in range(5)] for d in range(5) for s in (-1.0, 1.0)]
        self.assertAlmostEqual(jepa.effective_rank(cross), 5.0)
        self.assertAlmostEqual(jepa.effective_rank([[t, 2 * t, -t] for t in (0.0, 1.0, 5.0)]), 1.0)
        self.assertEqual(jepa.effective_rank([[1.0, 2.0]] * 4), 0.0)
        far = [[5 + 1e-5 * i, 5 + 1e-5 * i * i, 3.0] for i in (0, 1, 3)]  # close together, far from zero
        self.assertAlmostEqual(jepa.effective_rank(far), 1.0085, delta=0.0001)
        self.assertAlmostEqual(jepa.spread([[0.0, 1.0], [2.0, 1.0]]), 1.0)

    def test_cosines(self):
        self.assertAlmostEqual(jepa.cosine_similarity([1.0, 0.0], [5.0, 0.0]), 1.0)
        self.assertAlmostEqual(jepa.cosine_similarity([1.0, 0.0], [0.0, 2.0]), 0.0)
        self.assertAlmostEqual(jepa.cosine_similarity([1.0, 1.0], [-3.0, -3.0]), -1.0)


if __name__ == "__main__":
    unittest.main()
