#!/usr/bin/env python3
"""Handwritten digits whose 4x4 patches have random signs: accuracy in %, mean (worst split).

python3 tests/studies/digits.py                          splits 0 to 4; needs scikit-learn
"""

import argparse, multiprocessing, os, random, sys
from dataclasses import replace

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
import jepa  # noqa: E402

CFG = jepa.Config(patch_size=4, embed_dim=10, encoder_hidden=160, predictor_hidden=320, epochs=40,
                  lr=0.01, ema_momentum=0.99, cov_weight=40.0, gamma=0.4)
TRAINED = {
    "untrained": {"epochs": 0},
    "no prediction": {"pred_weight": 0.0},
    "JEPA, predictor 160": {"predictor_hidden": 160},
    "JEPA": {},
    "strong Var": {**jepa.ONE_ENCODER, "var_weight": 40.0, "cov_weight": 100.0, "lr": 0.006},
}

def random_signs(img, rng):
    """Return an image [8][8] with pixels of -1 to 1, and a random sign for each 4x4 patch."""
    signs = [rng.choice([-1, 1]) for _ in range(4)]
    sign = lambda r, c: signs[r // 4 * 2 + c // 4]
    return [[sign(r, c) * (v / 8 - 1) for c, v in enumerate(row)] for r, row in enumerate(img)]

def products(patch):
    """Return the products of all pairs of pixels: a patch and its negative have the same."""
    return [a * b for i, a in enumerate(patch) for b in patch[i:]]

def joined(rows):
    """Join the rows of each image's four patches to one vector."""
    return [[v for row in rows[i : i + 4] for v in row] for i in range(0, len(rows), 4)]

def measure(task):
    """Return {row: accuracies} for one split: 1,000 images to train, the others to test."""
    seed, epochs, digits, target = task
    rng = random.Random(seed)
    order = rng.sample(range(len(digits)), len(digits))
    plain = [[v / 8 - 1 for row in digits[i] for v in row] for i in order]
    images = [random_signs(digits[i], rng) for i in order]
    labels = [target[i] for i in order[1000:]]
    patches = [patch for four in jepa.cut_images(images[1000:], CFG) for patch in four]
    features = {"pixels without signs": plain[1000:], "pixels": joined(patches),
                "products of the pixels": joined([products(patch) for patch in patches])}
    for name, changes in TRAINED.items():
        cfg = replace(CFG, **{"epochs": epochs, **changes})
        try:
            model, _ = jepa.train(images[:1000], cfg, random.Random(seed))
        except FloatingPointError:
            continue
        features[name] = joined(jepa.embed_patches(images[1000:], model, cfg))
    columns = (jepa.nearest_centroid, 1), (jepa.nearest_centroid, 5), (jepa.linear_probe, 50)
    accuracy = lambda x, classifier, shots: 100 * jepa.few_shot_accuracy(
        classifier, x, labels, shots, random.Random(seed), trials=10)
    return {name: [accuracy(x, *column) for column in columns] for name, x in features.items()}

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, default=5, help="splits 0 to N-1 (default 5)")
    parser.add_argument("--epochs", type=int, default=CFG.epochs, help=f"default {CFG.epochs}")
    options = parser.parse_args()
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        sys.exit("digits.py: scikit-learn is not installed")
    data = load_digits()
    digits, target = data.images.tolist(), data.target.tolist()
    tasks = [(seed, options.epochs, digits, target) for seed in range(options.splits)]
    with multiprocessing.Pool() as pool:
        results = pool.map(measure, tasks, 1)
    print(f"Splits 0 to {options.splits - 1}, {options.epochs} epochs{'1-shot':>12}{'5-shot':>15}{'linear probe':>15}")
    for name in results[0]:
        done = [result[name] for result in results if name in result]
        cells = [f"{sum(column) / len(column):7.1f} ({min(column):4.1f})" for column in zip(*done)]
        print(f"{name:24}" + "".join(f"{cell:>15}" for cell in cells) + f"   {len(done)} splits")

if __name__ == "__main__":
    main()
