#!/usr/bin/env python3
"""README's recipe of digits over splits: mean (worst) accuracy in %. Needs scikit-learn.

python3 tests/digits.py                  splits 0 to 4; some minutes
python3 tests/digits.py --splits 1 --epochs 1
"""
import argparse
import multiprocessing
import os
import random
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import jepa

EPOCHS, D, HIDDEN, LR = 40, 10, 160, 0.01  # all else as the demo has it
COLUMNS = (jepa.nearest_mean, 1), (jepa.nearest_mean, 5), (jepa.linear_probe, 50)


def flip(img, rng):
    """An image [8][8], pixels 0 to 16, with pixels -1 to 1 and each 4x4 patch its negative by a coin."""
    coins = [rng.choice([-1, 1]) for _ in range(4)]
    return [[coins[r // 4 * 2 + c // 4] * (img[r][c] / 8 - 1) for c in range(8)] for r in range(8)]


def with_predictions(img, net):
    """Each patch's embedding, averaged with what the other three patches predict in its place."""
    seen = [jepa.context_encode(patch, net) for patch in jepa.extract_patches(img, 4)]
    guesses = [jepa.predict(jepa.average(seen[:k] + seen[k + 1:]), k, net) for k in range(4)]
    return [jepa.average(pair) for pair in zip(jepa.embed_patches(img, net), guesses)]


def split(task):
    """{row: accuracy of each column} for one split; 1,000 images to train, the others to test."""
    seed, epochs, raw, target = task
    rng = random.Random(seed)
    nets = [jepa.init_model(4, 4, D, HIDDEN, random.Random(seed)) for _ in range(3)]
    order = rng.sample(range(len(raw)), len(raw))
    images = [flip(raw[i], rng) for i in order]
    for net, weight in zip(nets[1:], (0.0, jepa.PRED_WEIGHT)):
        jepa.train(images[:1000], epochs, LR, pred_weight=weight, rng=random.Random(seed), model=net)
    plain, labels = [[[v / 8 - 1 for v in row] for row in raw[i]] for i in order], [target[i] for i in order[1000:]]
    rows = {"pixels, none turned": (plain, jepa.extract_patches, 4), "pixels": (images, jepa.extract_patches, 4)}
    for name, net in zip(("untrained", "Var + Cov alone", "JEPA"), nets):
        rows[name] = images, jepa.embed_patches, net
    rows["JEPA, with predictions"] = images, with_predictions, nets[2]
    return {name: [100 * jepa.few_label_accuracy(classifier, [sum(patches(img, net), []) for img in data[1000:]],
                                                 labels, n, random.Random(seed)) for classifier, n in COLUMNS]
            for name, (data, patches, net) in rows.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, default=5, help="splits 0 to N-1 (default 5)")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"of each training (default {EPOCHS})")
    options = parser.parse_args()
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        sys.exit("digits.py: scikit-learn is not installed")
    digits = load_digits()
    raw, target = digits.images.tolist(), digits.target.tolist()
    tasks = [(seed, options.epochs, raw, target) for seed in range(options.splits)]
    with multiprocessing.Pool() as pool:
        results = pool.map(split, tasks, 1)
    print(f"Splits 0 to {options.splits - 1}, {options.epochs} epochs" + "{:>8}{:>15}{:>15}".format(
        "1 label", "5 labels", "probe, 50") + "   split 0")
    for name in results[0]:
        columns = list(zip(*(result[name] for result in results)))
        print(f"{name:24}", *[f"{sum(c) / len(c):6.1f} ({min(c):4.1f})" for c in columns],
              "  ", " ".join(f"{v:5.1f}" for v in results[0][name]))


if __name__ == "__main__":
    main()
