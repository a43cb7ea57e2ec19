#!/usr/bin/env python3
"""Do the README's exercises: change one line of jepa.py, train, and print what there is to see.

python3 tests/studies/exercises.py                 each exercise, seeds 0 to 3
"""

import argparse, multiprocessing, os, random, types

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
EXERCISES = {  # name: (text in jepa.py, text in its place)
    "nothing changed": ("", ""),
    "hide two patches": ("round(num_patches / 4)", "round(num_patches / 2)"),
    "3 dimensions": ("embed_dim: int = 6", "embed_dim: int = 3"),
    "a fifth pattern": ('    "uniform": lambda', '    "diagonal": lambda row, column: (row + column) / 3.0'
                        ' - 1.0,\n    "uniform": lambda'),
    "pixels as targets": ("    means = matmul(mean_matrix", "    target_embs = [[*patch, 0.0, 0.0] for patch in"
                          " target_patches]\n    means = matmul(mean_matrix"),
    "the other school": ("demo(Config()", "demo(Config(**ABLATION['strong Var'])"),
}

def changed(name):
    """Return jepa.py as a module with the change of one exercise."""
    with open(os.path.join(ROOT, "jepa.py"), encoding="utf-8") as file:
        source = file.read()
    before, after = EXERCISES[name]
    if before and source.count(before) != 1:
        raise ValueError(f"{before!r} is {source.count(before)} times in jepa.py")
    module = types.ModuleType("exercise")
    exec(compile(source.replace(before, after) if before else source, "jepa.py", "exec"), vars(module))
    return module

def see(task):
    """Return a line of what the demo's table and the ablation show of one exercise."""
    name, seed, epochs = task
    jepa = changed(name)
    cfg = jepa.Config(epochs=epochs, **(jepa.ABLATION["strong Var"] if name == "the other school" else {}))
    rng = random.Random(seed)
    images, _, _ = jepa.draw_dataset(50, rng)
    test_images, signs, labels = jepa.draw_dataset(100, rng)
    try:
        model, history = jepa.train(images, cfg, random.Random(seed))
    except FloatingPointError as error:
        return f"{name:20}{seed:5}  {error}"
    rows = jepa.embed_patches(test_images, model, cfg)
    figures = jepa.evaluate(jepa.embed(test_images, model, cfg), rows, signs, labels, seed)
    line = "".join(f"{100 * figure:9.1f}" for figure in figures)
    pred = history[-1]["pred"]
    line += f"{jepa.participation_ratio(rows):8.1f}{pred:9.4f}{jepa.r_squared(pred, images, model, cfg):7.2f}"
    return f"{name:20}{seed:5}{line}"

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4, help="seeds 0 to N-1 (default 4)")
    parser.add_argument("--epochs", type=int, default=50, help="of each training (default 50)")
    options = parser.parse_args()
    tasks = [(name, seed, options.epochs) for name in EXERCISES for seed in range(options.seeds)]
    print(f"{'exercise':20} seed   1-shot    probe  pattern     sign    dims     Pred     R2")
    with multiprocessing.Pool() as pool:
        for line in pool.imap(see, tasks):
            print(line, flush=True)

if __name__ == "__main__":
    main()
