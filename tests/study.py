#!/usr/bin/env python3
"""Repeat the demo over seeds: mean, worst and standard deviation of every figure that README quotes.

python3 tests/study.py --seeds 20               the demo's figures, beside its baselines
python3 tests/study.py --seeds 10 --collapse    the rows of `jepa.py --collapse`
python3 tests/study.py --seeds 200 --only JEPA  does any seed diverge?
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
from figure import principal_components

ACCURACIES = ["1 label a class", "5 labels a class", "5 labels, probe", "50 labels, probe"]
HIGHER_IS_WORSE = [
    "brightness share",
    "prediction error",
    "cosine of different patterns",
    "loss at epoch 50",
    "loss at the end",
    "Pred",
]


def mean_patch(images, held_out, whiten):
    """The mean patch of each held-out image, on the principal components of all training patches; with whiten
    each component is scaled to variance 1. All are kept: as many as a patch has pixels."""
    patches = [patch for img in images for patch in jepa.extract_patches(img)]
    mean, covariance = jepa.average(patches), jepa.covariance(patches)[1]
    components = principal_components(covariance, len(mean))
    rows = []
    for img in held_out:
        centered = [v - m for v, m in zip(jepa.average(jepa.extract_patches(img)), mean)]
        scores = [(jepa.dot(axis, centered), math.sqrt(variance)) for axis, variance in components]
        rows.append([score / sd if whiten else score for score, sd in scores])
    return rows


def encoder_figures(model, held_out, labels, offsets, seed):
    """What the demo measures of a model: accuracies, shares and effective rank."""
    pattern, brightness = jepa.kept_and_dropped(model, held_out, labels, offsets)
    *_, noisy, different = jepa.noise_cosines(model, seed)
    error = jepa.prediction_error(model, held_out)
    flat = [row for img in held_out for row in jepa.embed_patches(img, model)]
    accuracies = jepa.accuracies([jepa.embed(img, model) for img in held_out], labels, seed)
    return {
        **dict(zip(ACCURACIES, accuracies)),
        "pattern share": pattern,
        "brightness share": brightness,
        "effective rank": jepa.effective_rank(flat),
        "prediction error": error,
        "cosine with noise of sd 0.2": noisy,
        "cosine of different patterns": different,
    }


def measure(method, epochs, seed):
    """The figures of one method on one seed, as a dict; {} if its training diverged."""
    images, held_out, labels, offsets = jepa.draw_data(seed)
    if method == "pixels":
        x = [[pixel for row in img for pixel in row] for img in held_out]
        return dict(zip(ACCURACIES, jepa.accuracies(x, labels, seed)))
    if method.startswith("mean patch"):
        x = mean_patch(images, held_out, whiten=method == "mean patch, whitened")
        return dict(zip(ACCURACIES, jepa.accuracies(x, labels, seed)))
    model = jepa.init_model(rng=random.Random(seed))
    if method == "untrained encoder":
        return encoder_figures(model, held_out, labels, offsets, seed)
    settings = {
        "JEPA": {},
        "Var + Cov alone": {"pred_weight": 0},
        "prediction alone": {"var_weight": 0, "cov_weight": 0},
        "no stop-gradient": {"stop_gradient": False},
    }[method]
    try:
        history = jepa.train(
            images,
            epochs,
            rng=random.Random(seed),
            model=model,
            on_epoch=lambda epoch, losses: jepa.round_weights(model),
            **settings,
        )
    except FloatingPointError:
        return {}
    return {
        **encoder_figures(model, held_out, labels, offsets, seed),
        **({"loss at epoch 50": history[49]["loss"]} if epochs > 50 else {}),
        "loss at the end": history[-1]["loss"],
    }


def measure_variant(name, epochs, seed):
    """The figures of one row of --collapse on one seed, as a dict, with its verdict; {} if it diverged."""
    try:
        pred, _, share, rank, one_label, verdict = jepa.train_variant(seed, epochs, dict(jepa.VARIANTS)[name])
    except FloatingPointError:
        return {}
    return {
        "Pred": pred,
        "spread of untrained": share,
        "effective rank": rank,
        "1 label a class": one_label,
        "verdict": verdict,
    }


def run(task):
    function, name, epochs, seed = task
    return name, seed, function(name, epochs, seed)


def print_figures(name, results):
    """A block of lines: a figure, its mean, worst and standard deviation over the seeds, and seed 0."""
    done = [figures for figures in results if figures]
    print(f"\n{name}{'':{40 - len(name)}}mean     worst        sd    seed 0")
    for figure in [figure for figure in (done[0] if done else []) if figure != "verdict"]:
        values = [figures[figure] for figures in done]
        mean = sum(values) / len(values)
        sd = math.sqrt(sum((v - mean) ** 2 for v in values) / max(1, len(values) - 1))
        worst = max(values) if figure in HIGHER_IS_WORSE else min(values)
        print(f"    {figure:30}{mean:10.4f}{worst:10.4f}{sd:10.4f}{results[0].get(figure, math.nan):10.4f}")
    if done and "verdict" in done[0]:
        verdicts = [figures["verdict"] for figures in done]
        print("    " + ", ".join(f"{verdict} {verdicts.count(verdict)}" for verdict in sorted(set(verdicts))))
    if done and "loss at epoch 50" in done[0]:
        falling = sum(figures["loss at the end"] < figures["loss at epoch 50"] for figures in done)
        print(f"    loss lower at the end than at epoch 50: {falling} of {len(done)}")
    print(f"    diverged: {len(results) - len(done)} of {len(results)}")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20, metavar="N", help="seeds 0 to N-1 (default 20)")
    parser.add_argument(
        "--epochs", type=int, metavar="N", help="epochs of each training (default: jepa.py's)"
    )
    parser.add_argument("--collapse", action="store_true", help="the rows of `jepa.py --collapse` instead")
    parser.add_argument("--only", metavar="METHOD", help="this method or row alone")
    options = parser.parse_args()
    if options.collapse:
        function, names, epochs = measure_variant, [name for name, _ in jepa.VARIANTS], jepa.COLLAPSE_EPOCHS
    else:
        function, epochs = measure, jepa.EPOCHS
        names = [
            "pixels",
            "mean patch",
            "mean patch, whitened",
            "untrained encoder",
            "prediction alone",
            "Var + Cov alone",
            "no stop-gradient",
            "JEPA",
        ]
    if options.only not in [None] + names or options.seeds < 1 or (options.epochs or 1) < 1:
        parser.error(f"--seeds and --epochs must be 1 or more, --only one of: {'; '.join(names)}")
    names, epochs = [options.only] if options.only else names, options.epochs or epochs
    tasks = [(function, name, epochs, seed) for name in reversed(names) for seed in range(options.seeds)]
    results = {name: {} for name in names}
    try:
        # Ctrl-C reaches the workers too: let only this process answer it, by ending them
        ignore = (signal.SIGINT, signal.SIG_IGN)
        with multiprocessing.Pool(initializer=signal.signal, initargs=ignore) as pool:
            for count, (name, seed, figures) in enumerate(pool.imap_unordered(run, tasks), 1):
                results[name][seed] = figures
                print(f"\r{count} of {len(tasks)} runs", end="", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        print("\nstudy.py: interrupted", file=sys.stderr)
        sys.exit(130)
    print(file=sys.stderr)
    print(f"Seeds 0 to {options.seeds - 1}, {epochs} epochs")
    for name in names:
        print_figures(name, [results[name][seed] for seed in range(options.seeds)])


if __name__ == "__main__":
    main()
