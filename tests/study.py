#!/usr/bin/env python3
"""Repeat the demo over seeds: mean, worst, standard deviation and seed 0 of every figure it shows.

python3 tests/study.py --seeds 20                 JEPA and its baselines
python3 tests/study.py --seeds 20 --collapse      the rows of `jepa.py --collapse`, at full length
python3 tests/study.py --seeds 200 --only JEPA    does any seed fail?
python3 tests/study.py --only JEPA --set VAR_WEIGHT=0     other settings of jepa.py
"""
import argparse
import math
import multiprocessing
import os
import random
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import jepa

ACCURACIES = ["1 label", "5 labels", "probe, 50 labels"]
FIGURES = ACCURACIES + ["pattern share", "coin share", "hidden patches named"]
HIGHER_IS_WORSE = ["coin share", "Pred at epoch 10", "Pred at the end", "loss at epoch 5", "loss at the end"]
VARIANTS = {"JEPA": {}, "Var + Cov alone": {"pred": 0}}


def whiten(rows):
    """Rows [n][d] with their mean taken away and their covariance C made the unit matrix: L^-1 . x,
    where C = L . L^T (Cholesky)."""
    z, C = jepa.covariance(rows)
    d = len(C)
    L = [[0.0] * d for _ in range(d)]
    for i in range(d):
        for j in range(i + 1):
            rest = C[i][j] - sum(L[i][k] * L[j][k] for k in range(j))
            L[i][j] = math.sqrt(rest) if i == j else rest / L[j][j]
    white = []
    for row in z:
        y = []
        for i in range(d):
            y.append((row[i] - sum(L[i][k] * y[k] for k in range(i))) / L[i][i])
        white.append(y)
    return white


def products(patch):
    """The products of all pairs of pixels of a patch: the same for the patch and its negative."""
    return [a * b for i, a in enumerate(patch) for b in patch[i:]]


def features(method, images):
    """The vector of each image, of a method that learns nothing."""
    patches = [jepa.extract_patches(img) for img in images]
    if method == "pixels":
        return [sum(four, []) for four in patches]
    if method == "pixel products, mean of patches":
        return [jepa.average([products(patch) for patch in four]) for four in patches]
    x = [jepa.average(four) for four in patches]
    return whiten(x) if method == "mean patch, whitened" else x


def accuracies(x, labels, seed):
    classifiers = (jepa.nearest_mean, 1), (jepa.nearest_mean, 5), (jepa.linear_probe, 50)
    return [jepa.few_label_accuracy(classifier, x, labels, n, random.Random(seed)) for classifier, n in classifiers]


def measure(method, epochs, seed):
    """The figures of one method on one seed, as a dict; {} if its training diverged."""
    data = images, held_out, _, labels = jepa.draw_data(seed)
    untrained = jepa.init_model(2, 4, jepa.EMBED_DIM, jepa.HIDDEN_DIM, random.Random(seed))
    losses = {}
    if method == "untrained":
        model = untrained
    elif method in VARIANTS or method in jepa.VARIANTS:
        off = VARIANTS[method] if method in VARIANTS else jepa.VARIANTS[method]
        try:
            model, history = jepa.fit(seed, images, epochs, **off)
        except FloatingPointError:
            return {}
        early = min(epochs, 10) - 1
        losses = {"Pred at epoch 10": history[early]["pred"], "Pred at the end": history[-1]["pred"],
                  "loss at epoch 5": history[early // 2]["loss"], "loss at the end": history[-1]["loss"]}
    else:
        return dict(zip(ACCURACIES, accuracies(features(method, held_out), labels, seed)))
    rows = [[row for img in held_out for row in jepa.embed_patches(img, net)] for net in (untrained, model)]
    share, rank = jepa.spread(rows[1]) / jepa.spread(rows[0]), jepa.effective_rank(rows[1])
    return {**dict(zip(FIGURES, jepa.measure(model, data, seed))), "spread of untrained": share,
            "effective rank": rank, **losses, "verdict": jepa.verdict(share, rank)}


def run(task):
    return task[0], task[2], measure(*task)


def prepare(settings):
    """In each worker: Ctrl-C reaches it too, but shall end the main process; and its own jepa is set."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    vars(jepa).update(settings)


def print_figures(method, results):
    """A block of lines: a figure, its mean, worst and sd over the seeds that did not diverge, seed 0."""
    done = [figures for figures in results if figures]
    print(f"\n{method}{'':{34 - len(method)}}mean     worst        sd    seed 0")
    for figure in [figure for figure in (done[0] if done else []) if figure != "verdict"]:
        values = [figures[figure] for figures in done]
        mean = sum(values) / len(values)
        sd = math.sqrt(sum((v - mean) ** 2 for v in values) / max(1, len(values) - 1))
        worst = max(values) if figure in HIGHER_IS_WORSE else min(values)
        print(f"    {figure:24}{mean:10.4f}{worst:10.4f}{sd:10.4f}{results[0].get(figure, math.nan):10.4f}")
    verdicts = [figures.get("verdict", "diverged") for figures in results]
    if set(verdicts) != {"diverged"} or not done:
        counts = [f"{v} {verdicts.count(v)}" for v in sorted(set(verdicts))]
        print("    verdicts: " + ", ".join(counts))
    below = sum(figures["1 label"] < 0.95 for figures in done)
    print(f"    below 95 % with 1 label: {below} of {len(results)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20, metavar="N", help="how many (default 20)")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="the first of them (default 0)")
    parser.add_argument("--epochs", type=int, metavar="N", help="of each training (default: the demo's)")
    parser.add_argument("--collapse", action="store_true", help="the rows of `jepa.py --collapse` instead")
    parser.add_argument("--only", metavar="METHOD", help="this method or row alone")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings of jepa.py")
    options = parser.parse_args()
    try:
        settings = {name: type(getattr(jepa, name))(value) for name, value in
                    (setting.split("=") for setting in options.set)}
    except (AttributeError, TypeError, ValueError) as error:
        parser.error(f"--set: {error}")
    vars(jepa).update(settings)
    methods = list(jepa.VARIANTS) if options.collapse else [
        "pixels", "mean patch", "mean patch, whitened", "pixel products, mean of patches", "untrained",
        "Var + Cov alone", "JEPA"]
    if options.only not in [None] + methods or options.seeds < 1 or (options.epochs or 1) < 1:
        parser.error(f"--seeds and --epochs must be 1 or more, --only one of: {'; '.join(methods)}")
    methods, epochs = [options.only] if options.only else methods, options.epochs or jepa.EPOCHS
    seeds = range(options.first, options.first + options.seeds)
    tasks = [(method, epochs, seed) for method in reversed(methods) for seed in seeds]
    results = {method: {} for method in methods}
    with multiprocessing.Pool(initializer=prepare, initargs=(settings,)) as pool:
        for count, (method, seed, figures) in enumerate(pool.imap_unordered(run, tasks), 1):
            results[method][seed] = figures
            print(f"\r{count} of {len(tasks)} runs", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print(", ".join([f"Seeds {seeds[0]} to {seeds[-1]}", f"{epochs} epochs", *options.set]))
    for method in methods:
        print_figures(method, [results[method][seed] for seed in seeds])


if __name__ == "__main__":
    main()
