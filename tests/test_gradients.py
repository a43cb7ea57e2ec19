"""The mathematics: losses and gradients against an independent autograd and differences."""

import math, random, unittest
from dataclasses import replace

import jepa
from tests.support import few_images, flat, golden_case, numeric_gradient, random_case, weighted

try:
    import torch
except ImportError:
    torch = None

TERMS, ALL = {term: {term: 1.0} for term in ("pred", "var", "cov")}, {"pred": 3.0, "var": 0.5, "cov": 7.0}

class Mathematics(unittest.TestCase):
    def assertClose(self, actual, expected, relative=0.0, absolute=1e-12):
        actual, expected = flat(actual), flat(expected)
        self.assertEqual(len(actual), len(expected))
        for a, e in zip(actual, expected):
            self.assertLessEqual(abs(a - e), max(relative * abs(e), absolute), f"{a} for {e}")

    def assertGolden(self, actual, expected):
        # A true 0 may be noise in the autograd.
        self.assertClose(actual, expected, 1e-9, 1e-12 * max(map(abs, flat(expected))))

class Golden(Mathematics):
    def setUp(self):
        self.case = golden_case()
        self.expected = self.case["expected"]
        self.assertEqual(jepa.EPS, self.case["eps"])

    def test_the_functions_of_one_image_give_the_golden_embeddings_and_predictions(self):
        model, context = self.case["model"], []
        self.assertEqual(self.case["batch"][0][0], self.expected["patches_of_image_0"])
        for i, (patches, context_mask, target_mask) in enumerate(self.case["batch"]):
            context += [jepa.context_encode(patches[k], model) for k in context_mask]
            targets = [jepa.target_encode(patches[k], model) for k in target_mask]
            mean = jepa.average(context[-len(context_mask):])
            predictions = [jepa.predict(mean, k, model, self.case["cfg"]) for k in target_mask]
            self.assertGolden(targets, self.expected["target_embeddings"][i])
            self.assertGolden(predictions, self.expected["predictions"][i])
        self.assertGolden(context, sum(self.expected["context_embeddings"], []))
        columns = jepa.centered_columns(context)
        C = jepa.scale(1.0 / (len(context) - 1), jepa.matmul(columns, jepa.transpose(columns)))
        self.assertGolden(C, self.expected["covariance"])
        ratio = self.expected["effective_rank_participation_ratio"]
        self.assertGolden(jepa.participation_ratio(context), ratio)

    def test_each_term_and_the_weighted_sum_and_their_gradients_are_golden(self):
        golden = self.expected["gradient"]
        for weights in (*TERMS.values(), ALL):
            cfg = weighted(self.case["cfg"], **weights)
            losses, gradients = jepa.loss_and_gradients(self.case["batch"], self.case["model"], cfg)
            for term in TERMS:  # told before weighting
                self.assertGolden(losses[term], self.expected["loss"][term])
            total = sum(w * self.expected["loss"][term] for term, w in weights.items())
            self.assertGolden(losses["loss"], total)
            self.assertEqual(set(gradients), {"context_encoder", "predictor"})
            for net in gradients:
                with self.subTest(net, weights=weights):
                    parts = [[w * v for v in flat(golden[term][net])] for term, w in weights.items()]
                    self.assertGolden(gradients[net], [sum(column) for column in zip(*parts)])

    def test_without_stop_gradient_one_encoder_does_both_and_it_is_golden_too(self):
        expected = self.expected["without_stop_gradient"]
        cfg = replace(weighted(self.case["cfg"], pred=1.0), stop_gradient=False)
        losses, gradients = jepa.loss_and_gradients(self.case["batch"], self.case["model"], cfg)
        self.assertGolden(losses["pred"], expected["pred"])
        self.assertGolden(gradients, expected["gradient_of_pred"])

class FiniteDifferences(Mathematics):
    def test_gradients_agree_on_random_sizes_masks_and_weights(self):
        rng = random.Random(1)
        for number in range(12):
            model, batch, cfg = random_case(rng)
            cfg = weighted(cfg, **rng.choice([*TERMS.values(), ALL]))
            for stop_gradient in (True, False):
                used = replace(cfg, stop_gradient=stop_gradient)
                loss = lambda: jepa.loss_and_gradients(batch, model, used)[0]["loss"]
                _, gradients = jepa.loss_and_gradients(batch, model, used)
                numeric = {name: numeric_gradient(loss, model[name]) for name in gradients}
                with self.subTest(number, stop_gradient=stop_gradient):
                    self.assertClose(gradients, numeric, 2e-6, 2e-6)

    def test_a_network_hands_back_the_gradients_of_its_weights_and_of_its_input(self):
        rng = random.Random(2)
        net = jepa.init_mlp(4, 7, 3, rng)
        x, dy = [[[rng.gauss(0, 1) for _ in range(n)] for _ in range(5)] for n in (4, 3)]
        loss = lambda: jepa.dot(flat(jepa.mlp_forward(net, x)[0]), flat(dy))
        gradients, dx = jepa.mlp_backward(net, jepa.mlp_forward(net, x)[1], dy, need_dx=True)
        self.assertClose(gradients, numeric_gradient(loss, net), absolute=1e-7)
        self.assertClose(dx, numeric_gradient(loss, x), absolute=1e-7)

    def test_each_loss_returns_its_value_and_its_gradient(self):
        rng = random.Random(6)
        for n in (1, 2, 3, 5):
            x, y = [[[rng.gauss(0, 1) for _ in range(3)] for _ in range(n)] for _ in range(2)]
            for loss in (lambda: jepa.mse_loss(x, y), lambda: jepa.variance_loss(x, 1.5),
                         lambda: jepa.covariance_loss(x)):
                self.assertClose(loss()[1], numeric_gradient(lambda: loss()[0], x), absolute=1e-6)
                self.assertEqual(any(flat(loss()[1])), n > 1 or loss()[0] == jepa.mse(x, y))

    def test_a_dimension_that_reaches_gamma_has_no_gradient_and_one_below_has(self):
        x, std = [[0.0, 0.0], [2.0, 0.2]], math.sqrt(2.0 + jepa.EPS)
        loss, gradient = jepa.variance_loss(x, std)
        self.assertEqual([row[0] for row in gradient], [0.0] * 2)
        self.assertTrue(gradient[0][1] > 0 > gradient[1][1])
        self.assertAlmostEqual(loss, (std - math.sqrt(0.02 + jepa.EPS)) / 2)
        self.assertAlmostEqual(jepa.covariance_loss([[0.0, 0.0], [2.0, 2.0]])[0], 4.0)

    def test_a_step_of_training_is_minus_lr_times_the_gradient_and_then_the_average_moves(self):
        for options in ({"ema_momentum": 0.75}, {"stop_gradient": False}):
            cfg = replace(weighted(jepa.Config(embed_dim=3), **ALL), epochs=1, batch_size=4, lr=0.5, **options)
            before, images, masks = jepa.init_model(cfg, random.Random(3)), few_images(3, 1), ([2, 0], [1])
            model, (losses,) = jepa.train(images, cfg, random.Random(4), before, lambda K, rng: masks)
            batch = [(patches, *masks) for patches in jepa.cut_images(images, cfg)]
            expected, gradients = jepa.loss_and_gradients(batch, before, cfg)
            self.assertClose(losses, expected)
            for net, gradient in gradients.items():  # weights were rounded to 1e-6
                step = [w - 0.5 * d for w, d in zip(flat(before[net]), flat(gradient))]
                self.assertClose(model[net], step, absolute=1e-6)
            m, pairs = cfg.ema_momentum, zip(flat(before["target_encoder"]), flat(model["context_encoder"]))
            self.assertClose(model["target_encoder"], [m * t + (1 - m) * c for t, c in pairs], absolute=2e-6)

@unittest.skipUnless(torch, "PyTorch is not installed")
class Autograd(Mathematics):
    def test_gradients_agree_with_pytorch_on_random_cases(self):
        rng = random.Random(5)
        number = lambda x, **options: torch.tensor(x, dtype=torch.float64, **options)
        append = lambda *parts: torch.cat([*parts, torch.ones(1, dtype=torch.float64)])
        for _ in range(10):
            model, batch, cfg = random_case(rng)
            cfg = weighted(cfg, **ALL)
            nets = {name: {W: number(rows, requires_grad=True) for W, rows in net.items()}
                    for name, net in model.items()}
            forward = lambda name, *x: (
                append(torch.relu(append(*x) @ nets[name]["W1"])) @ nets[name]["W2"])
            context, errors = [], []
            for patches, context_mask, target_mask in batch:
                embs = [forward("context_encoder", number(patches[i])) for i in context_mask]
                context += embs
                mean = torch.stack(embs).mean(0)
                for i in target_mask:
                    position = number(jepa.one_hot(i, len(patches)))
                    target = forward("target_encoder", number(patches[i])).detach()
                    errors.append(forward("predictor", mean, position) - target)
            C = torch.cov(torch.stack(context).T)
            std = torch.sqrt(torch.diag(C) + jepa.EPS)
            loss = ALL["pred"] * torch.stack(errors).square().mean()
            loss += ALL["var"] * torch.relu(cfg.gamma - std).mean()
            loss += ALL["cov"] * (C - torch.diag(torch.diag(C))).square().sum() / len(C)
            loss.backward()
            _, gradients = jepa.loss_and_gradients(batch, model, cfg)
            expected = {name: {W: nets[name][W].grad.tolist() for W in gradients[name]}
                        for name in gradients}
            self.assertClose(gradients, expected, 1e-9, 1e-11)
