#!/usr/bin/env python3
"""Measure the demo's figures, and more, over many seeds: mean, worst and best.

python3 tests/studies/study.py                        every row, seeds 0 to 19
python3 tests/studies/study.py --seeds 1000 --only JEPA
python3 tests/studies/study.py --only JEPA --set lr=0.01 gamma=0.4
python3 tests/studies/study.py --first 1000 --seeds 24 --sweep     settings of the baseline
"""

import argparse, math, multiprocessing, os, random, sys
from dataclasses import replace

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
import jepa  # noqa: E402

FIXED = ["mean of the pixels", "all 16 pixels", "all 16 pixels, nearest neighbor",
         "all 16 absolute values", "products of the pixels"]
AUTOENCODERS = {"masked autoencoder": {"var_weight": 0.0, "cov_weight": 0.0},
                "masked autoencoder, Var and Cov": {}}
BASELINES = {  # no prediction, at settings of its own
    "no prediction, tuned": {"pred_weight": 0.0, "gamma": 0.4, "lr": 0.05},
    "no prediction, gamma 0.4, 200 epochs": {"pred_weight": 0.0, "gamma": 0.4, "epochs": 200},
}
TRAINED = {"JEPA": {}, **jepa.ABLATION, "untrained": {"epochs": 0}, **BASELINES}
TRAINED.pop("everything")  # that is JEPA
ROWS = [*FIXED, *AUTOENCODERS, *TRAINED]
HIGHER_IS_WORSE = ("sign", "Pred", "loss")
SWEEP = {f"gamma {gamma}, Cov {cov:g}, lr {lr}": {"pred_weight": 0.0, "gamma": gamma,
                                                   "cov_weight": cov, "lr": lr}
         for gamma in (0.1, 0.4, 1.0) for cov in (10.0, 100.0) for lr in (0.02, 0.05)}

def products(patch):
    """Return the products of all pairs of pixels: a patch and its negative have the same."""
    return [a * b for i, a in enumerate(patch) for b in patch[i:]]

def pixel_features(name, patches):
    """Return a vector for an image, computed from its pixels without learning."""
    pixels = [pixel for patch in patches for pixel in patch]
    if name == "mean of the pixels":
        return jepa.average(patches)
    if name == "all 16 absolute values":
        return [abs(pixel) for pixel in pixels]
    if name == "products of the pixels":
        return jepa.average([products(patch) for patch in patches])
    return pixels

def nearest_neighbor(train_x, train_labels, x):
    """Classify each row of x by the label of the nearest row of train_x."""
    nearest = [min(range(len(train_x)), key=lambda i: math.dist(row, train_x[i])) for row in x]
    return [train_labels[i] for i in nearest]

def train_autoencoder(images, cfg, seed):
    """Train the same encoder and predictor to predict the hidden pixels themselves.

    An identity network in the place of the target encoder makes the pixels the targets.
    """
    rng = random.Random(seed)
    model = jepa.init_model(cfg, rng)
    P, K = cfg.patch_size**2, cfg.num_patches
    model["predictor"] = jepa.init_mlp(cfg.embed_dim + K, cfg.predictor_hidden, P, rng)
    plus = [jepa.one_hot(i, P) for i in range(P)]
    minus = jepa.scale(-1.0, plus)
    W1 = [a + b for a, b in zip(plus, minus)] + [[0.0] * 2 * P]
    model["target_encoder"] = {"W1": W1, "W2": plus + minus + [[0.0] * P]}
    data = jepa.cut_images(images, cfg)
    for _ in range(cfg.epochs):
        rng.shuffle(data)
        for start in range(0, len(data), cfg.batch_size):
            batch = [(patches, *jepa.random_masks(K, rng))
                     for patches in data[start : start + cfg.batch_size]]
            losses, gradients = jepa.loss_and_gradients(batch, model, cfg)
            if not losses["loss"] < 1e9:
                raise FloatingPointError("diverged")
            for name, gradient in gradients.items():
                for layer in gradient:
                    change = jepa.add(model[name][layer], gradient[layer], -cfg.lr)
                    model[name][layer] = change
    return {**model, "target_encoder": model["context_encoder"]}

def retrieved(images, labels, model, cfg):
    """Return how often the patches nearest to a prediction are the hidden one and its negative.

    The candidates are the clean patches of all patterns and their negatives. Grey patches
    are not asked for, as they are their own negatives.
    """
    candidates, hits = [], []
    for pattern in jepa.PATTERNS:
        for patch in jepa.extract_patches(jepa.clean_image(pattern)):
            both = (patch, [-v for v in patch])
            candidates += [candidate for candidate in both if candidate not in candidates]
    embeddings = [jepa.target_encode(patch, model) for patch in candidates]
    for patches, label in zip(jepa.cut_images(images, cfg), labels):
        context = [jepa.context_encode(patch, model) for patch in patches]
        clean = jepa.extract_patches(jepa.clean_image(label))
        for k in range(len(patches)) if label != "uniform" else ():
            visible = jepa.average(context[:k] + context[k + 1 :])
            prediction = jepa.predict(visible, k, model, cfg)
            distances = [math.dist(prediction, embedding) for embedding in embeddings]
            order = sorted(range(len(candidates)), key=lambda i: distances[i])
            nearest = [candidates[i] for i in order[:2]]
            hits.append(clean[k] in nearest and [-v for v in clean[k]] in nearest)
    return sum(hits) / len(hits)

def measure(task):
    """Return (row, seed, {figure: value}); no figures if the training diverged."""
    name, changes, epochs, seed = task
    cfg = replace(jepa.Config(epochs=epochs), **changes)
    rng = random.Random(seed)
    images, _, _ = jepa.draw_dataset(50, rng)
    test_images, signs, labels = jepa.draw_dataset(100, rng)
    model, history = None, []
    try:
        if name in AUTOENCODERS:
            model = train_autoencoder(images, cfg, seed)
        elif name not in FIXED:
            model, history = jepa.train(images, cfg, random.Random(seed))
    except FloatingPointError:
        return name, seed, {}
    x = [pixel_features(name, patches) for patches in jepa.cut_images(test_images, cfg)]
    x = jepa.embed(test_images, model, cfg) if model else x
    nearest = nearest_neighbor if "neighbor" in name else jepa.nearest_centroid
    shot = lambda classifier, shots: jepa.few_shot_accuracy(
        classifier, x, labels, shots, random.Random(seed))
    figures = {"1-shot": shot(nearest, 1), "5-shot": shot(nearest, 5)}
    figures["linear probe"] = shot(jepa.linear_probe, 50)
    if model:
        untrained = jepa.init_model(cfg, random.Random(seed))
        std = jepa.embedding_std(jepa.embed_patches(test_images, untrained, cfg))
        rows = jepa.embed_patches(test_images, model, cfg)
        _, _, figures["pattern"], figures["sign"] = jepa.evaluate(x, rows, signs, labels, seed)
        figures["std"] = jepa.embedding_std(rows) / std
        figures["dimensions"] = jepa.participation_ratio(rows)
    if model and name not in AUTOENCODERS:
        figures["retrieved"] = retrieved(test_images, labels, model, cfg)
    if history:
        figures["Pred"] = history[-1]["pred"]
        figures["R2"] = jepa.r_squared(history[-1]["pred"], images, model, cfg)
        figures["loss, epoch 1"] = history[0]["loss"]
        figures["loss, last epoch"] = history[-1]["loss"]
    return name, seed, figures

def print_row(name, results):
    """Print every figure of a row over its seeds, {seed: figures}, and the seeds that failed."""
    done = [figures for figures in results.values() if figures]
    print(f"\n{name}: {len(results) - len(done)} of {len(results)} diverged")
    for figure in done[0] if done else []:
        values = sorted(figures[figure] for figures in done)
        if figure.startswith(HIGHER_IS_WORSE):
            values.reverse()
        mean = sum(values) / len(values)
        print(f"    {figure:18}{mean:10.5f}  worst{values[0]:10.5f}  best{values[-1]:10.5f}")
    low = [seed for seed, figures in results.items() if figures and figures["1-shot"] < 0.95]
    failed = [seed for seed, figures in results.items() if not figures]
    print(f"    1-shot below 95 %: {len(low)}", f"(seeds {low})" if 0 < len(low) < 20 else "")
    if failed:
        print(f"    diverged: seeds {failed[:20]}")

def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20, help="how many (default 20)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (default 0)")
    parser.add_argument("--epochs", type=int, default=50, help="of each training (default 50)")
    parser.add_argument("--only", nargs="+", metavar="ROW", help="measure these rows alone")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings")
    parser.add_argument("--sweep", action="store_true", help="settings of the baseline instead")
    options = parser.parse_args()
    changes = {}
    for name, _, value in [setting.partition("=") for setting in options.set]:
        if not hasattr(jepa.Config(), name):
            parser.error(f"--set: there is no setting {name}")
        changes[name] = type(getattr(jepa.Config(), name))(float(value))
    trained = SWEEP if options.sweep else TRAINED
    rows = options.only or (list(SWEEP) if options.sweep else ROWS)
    for row in rows:
        if row not in ROWS and row not in trained:
            parser.error(f"unknown row {row!r}; the rows are: {'; '.join(ROWS)}")
    seeds = range(options.first, options.first + options.seeds)
    tasks = [(row, {**trained.get(row, AUTOENCODERS.get(row, {})), **changes}, options.epochs, seed)
             for row in rows for seed in seeds]
    results = {row: {} for row in rows}
    with multiprocessing.Pool() as pool:
        for count, (row, seed, figures) in enumerate(pool.imap(measure, tasks), 1):
            results[row][seed] = figures
            print(f"\r{count} of {len(tasks)} runs", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    settings = "".join(f", {setting}" for setting in options.set)
    print(f"Seeds {seeds[0]} to {seeds[-1]}, {options.epochs} epochs{settings}")
    for row in rows:
        print_row(row, results[row])

if __name__ == "__main__":
    main()
