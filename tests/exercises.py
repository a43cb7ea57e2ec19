#!/usr/bin/env python3
"""Do README's exercises: change one line of jepa.py, train, and print what there is to see.

python3 tests/exercises.py                 each exercise, seeds 0 to 3, at full length
python3 tests/exercises.py --seeds 1 --epochs 20
"""
import argparse
import os

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
EXERCISES = {  # name: (text in jepa.py, text in its place)
    "nothing changed": ("", ""),
    "hide two patches": ("round(num_patches / 4)", "round(num_patches / 2)"),
    "12 hidden units": ("HIDDEN_DIM = 6, 40", "HIDDEN_DIM = 6, 12"),
    "stop-gradient off": ("if not stop_gradient:", "if True:"),
    "a fifth pattern": ('    "uniform": lambda', '    "diagonal": lambda row, column: (row + column) / 3 - 1,\n'
                        '    "uniform": lambda'),
    "pixels as targets": ("    avg_context = [", "    target_embs = [[*patch, 0.0, 0.0] for patch in x_target]\n"
                          "    avg_context = ["),
}


def changed(name):
    """The names that jepa.py defines, with one exercise's change in its text."""
    with open(os.path.join(ROOT, "jepa.py"), encoding="utf-8") as file:
        source = file.read()
    before, after = EXERCISES[name]
    if before and source.count(before) != 1:
        raise ValueError(f"{before!r} stands {source.count(before)} times in jepa.py, not once")
    names = {"__name__": name}
    exec(compile(source.replace(before, after) if before else source, "jepa.py", "exec"), names)
    return names


def see(name, seed, epochs=None):
    """What the demo's table shows of a model trained so, and its rank and Pred; None if it diverged."""
    jepa = changed(name)
    data = images, held_out, _, _ = jepa["draw_data"](seed)
    try:
        model, history = jepa["fit"](seed, images, epochs or jepa["EPOCHS"])
    except FloatingPointError:
        return None
    patches = [row for img in held_out for row in jepa["embed_patches"](img, model)]
    return (*jepa["measure"](model, data, seed), jepa["effective_rank"](patches), history[-1]["pred"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4, help="seeds 0 to N-1 (default 4)")
    parser.add_argument("--epochs", type=int, help="of each training (default: the demo's)")
    options = parser.parse_args()
    print(f"{'':20}seed  1 label  5 labels  probe  pattern   coin  hidden   rank    Pred")
    for name in EXERCISES:
        for seed in range(options.seeds):
            figures = see(name, seed, options.epochs)
            print(f"{name:20}{seed:4}", "diverged" if figures is None else "  {:7.1%}  {:8.1%}  {:5.0%}  {:7.1%}"
                  "  {:5.1%}  {:6.1%}  {:5.2f}  {:6.4f}".format(*figures), flush=True)


if __name__ == "__main__":
    main()
