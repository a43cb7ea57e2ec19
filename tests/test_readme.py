"""README and EVIDENCE: commands, snippets, output, figures and exercises, against what they are."""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree
from unittest import mock

import jepa
from tests import exercises
from tests.support import HERE, ROOT, demo_output, run, start_demo


def setUpModule():
    start_demo()


def text(*path):
    with open(os.path.join(ROOT, *path), encoding="utf-8") as file:
        return file.read()


def blocks(language, source=None):
    """The contents of the fenced blocks of this language, in order."""
    parts = re.split(r"^```(.*)\n", source or text("README.md"), flags=re.MULTILINE)
    return [body for name, body in zip(parts[1::4], parts[2::4]) if name == language]


def recorded(name):
    """What study.py printed into tests/recorded/name: {method: {figure: [mean, worst, sd, seed 0]}},
    and its lines of verdicts and of seeds below 95 % as text."""
    methods = {}
    for line in text("tests", "recorded", name).splitlines()[1:]:
        if line and not line.startswith(" "):
            row = methods.setdefault(line[:34].strip(), {})
        elif ": " in line:
            row.update([line.strip().split(": ")])
        elif line.strip():
            row[line[4:28].strip()] = [float(cell) for cell in line[28:].split()]
    return methods


def percent(row, figure, digits=1):
    """Mean and, in brackets, worst, in per cent."""
    return "{:.{d}f} ({:.{d}f})".format(*[100 * v for v in row[figure][:2]], d=digits)


def accuracy_table():
    """The rows of the table on README's first screen."""
    study = recorded("study.txt")
    study.update(recorded("study_200.txt"), **recorded("study_200_control.txt"))
    names = {"pixels": "pixels", "untrained": "untrained encoder",
             "Var + Cov alone": "no prediction, only spread (Var + Cov, see below)", "JEPA": "**JEPA**"}
    for name, shown in names.items():
        cells = [percent(study[name], figure) if figure in study[name] else "-"
                 for figure in ("1 label", "5 labels", "probe, 50 labels", "hidden patches named")]
        yield f"| {shown} | " + " | ".join(cells) + " |"


def collapse_table():
    """The rows of README's table of collapse, of the seeds that did not diverge."""
    for name, row in recorded("collapse.txt").items():
        pred, spread, rank = [row[figure][:2] for figure in
                              ("Pred at the end", "spread of untrained", "effective rank")]
        yield (f"| {name} | {pred[0]:.4f} ({pred[1]:.4f}) | {spread[0]:.2f} ({spread[1]:.2f}) | "
               f"{rank[0]:.2f} ({rank[1]:.2f}) | {percent(row, '1 label')} | {row['verdicts'].lower()} |")


def sentences():
    """What README says with figures that were recorded."""
    study, collapse = recorded("study.txt"), recorded("collapse.txt")
    jepa_200, control = recorded("study_200.txt")["JEPA"], recorded("study_200_control.txt")["Var + Cov alone"]
    start, demo = study["untrained"], dict(re.findall(r"^Epoch +(\d+) \| Loss: ([\d.]+)", demo_output(), re.M))
    share = {figure: [100 * row[figure][0] for row in (jepa_200, control, start)]
             for figure in ("hidden patches named", "pattern share", "coin share")}
    yield "in {0:.1f} % of cases (untrained: {2:.1f})".format(*share["hidden patches named"])
    three = " explains {:.0f} %{} (Var + Cov alone {:.0f}, untrained {:.0f})"
    for figure, whose, of in (("pattern share", "which", " of the variance of patch embeddings"),
                              ("coin share", "pattern and place", "")):
        yield whose + three.format(share[figure][0], of, *share[figure][1:])
    yield f"from {float(demo['1']):.1f} in epoch 1 to {float(demo['20']):.1f} in epoch 20"
    yield f"to {float(demo[str(jepa.EPOCHS)]):.1f} as it learns"
    yield f"below 95 % with 1 label: {jepa_200['below 95 % with 1 label']}"
    yield f"{100 * jepa_200['1 label'][0] - 100 * control['1 label'][0]:.0f} points"
    rank = "effective rank"
    yield (f"the rank is {collapse['no stop-gradient'][rank][0]:.1f} of 6 "
           f"(with it {collapse['everything on'][rank][0]:.1f})")
    yield f"an untrained encoder has rank {start[rank][0]:.1f}"
    yield f"the spread is {collapse['prediction alone']['spread of untrained'][0]:.2f} of the untrained"
    preds = [collapse[name]["Pred at the end"][0] for name in ("everything on", "no stop-gradient")]
    yield f"at a Pred {preds[0] / preds[1]:.0f} times lower"
    strong, no_var = recorded("study_no_stop.txt")["no stop-gradient"], recorded("study_no_var.txt")["JEPA"]
    yield f"one label names {percent(strong, '1 label')} %"
    yield f"the rank is {no_var[rank][0]:.1f}; one label names {percent(no_var, '1 label')} %"
    yield "hidden patches less ({:.0f} % for {:.0f} on these seeds)".format(
        *[100 * collapse[name]["hidden patches named"][0] for name in ("no EMA", "everything on")])
    one, dimensions = [collapse["no Var + Cov"][figure][0] for figure in ("1 label", rank)]
    yield f"nearly as well ({100 * one:.1f} %), but in {dimensions:.1f} dimensions"
    for name in ("no EMA", "no Var + Cov", "no Cov"):
        diverged = re.search(r"diverged (\d+)", collapse[name]["verdicts"])
        yield f"{diverged.group(1) if diverged else 'none'} of 20 diverge"


def digits_table():
    """The rows of README's table of digits, and what it says of images without coins."""
    for line in text("tests", "recorded", "digits.txt").splitlines()[1:]:
        name, cells = line[:24].strip(), re.findall(r"[\d.]+ \([\d.]+\)", line)
        if name in ("pixels", "untrained", "Var + Cov alone", "JEPA"):
            yield "| " + ("**JEPA**" if name == "JEPA" else name) + " | " + " | ".join(cells) + " |"
        if name == "pixels, none turned":
            yield f"raw pixels themselves have {cells[0].split()[0]} %"


def exercise_sentences():
    """What README promises of each exercise, with the least and the most of the recorded seeds."""
    rows = [re.split(r"\s{2,}", line) for line in text("tests", "recorded", "exercises.txt").splitlines()[1:]]
    seen = {}
    for name, _, *cells in rows:
        seen.setdefault(name, []).append([cell.rstrip("%") for cell in cells])
    numbers = {name: list(zip(*cells)) for name, cells in seen.items()}
    span = lambda name, column: "{} to {}".format(*[f(numbers[name][column], key=float) for f in (min, max)])
    yield f"One label still names {span('hide two patches', 0)} %"
    worst, *others = sorted(numbers["12 hidden units"][0], key=float)
    yield ("On seed 1 the two gradient patterns merge, and one label names "
           f"{worst} % (on the others {others[0]} to {others[-1]})")
    preds = [jepa.PRED_WEIGHT * f(map(float, numbers["stop-gradient off"][7])) for f in (min, max)]
    pred, rank, one = [span("stop-gradient off", column) for column in (7, 6, 0)]
    yield (f"Pred falls to {pred} (printed with its weight of 75: {preds[0]:.1f} to {preds[1]:.1f}), "
           f"the rank to {rank}, the accuracy to {one} %")
    one, hidden = [span("a fifth pattern", column) for column in (0, 5)]
    yield f"one label names {one} %, {hidden} % of hidden patches are named"
    yield f"so that adds nothing: {span('pixels as targets', 0)} %"
    yield f"({span('pixels as targets', 4)} % of the variance; {span('nothing changed', 4)} with embeddings"


class Text(unittest.TestCase):
    def test_it_keeps_to_its_length_and_shows_the_command_first(self):
        lines = text("README.md").splitlines()
        self.assertLessEqual(len(lines), 180)
        self.assertIn("python3 jepa.py", lines[:10])
        self.assertIn("**JEPA**", "\n".join(lines[:32]))
        source = text("jepa.py").splitlines()
        self.assertLessEqual(len(source), 460)
        self.assertLessEqual(max(map(len, source)), 100)
        self.assertTrue(any("terms, gradients = loss_and_gradients(" in line for line in source[:249]))

    def test_its_tables_and_sentences_have_the_recorded_figures(self):
        flowing = " ".join(text("README.md").split())
        for row in [*accuracy_table(), *collapse_table(), *digits_table(), *sentences(),
                    *exercise_sentences()]:
            with self.subTest(row):
                self.assertIn(" ".join(row.split()), flowing)

    def test_the_gain_of_a_longer_control_in_evidence_is_the_recorded_one(self):
        short, full = [recorded(name)["Var + Cov alone"] for name in
                       ("study_200_control_20.txt", "study_200_control.txt")]
        gains = [100 * (full[f][0] - short[f][0]) for f in ("1 label", "5 labels", "probe, 50 labels")]
        self.assertEqual(jepa.CONTROL_EPOCHS, 20)
        self.assertIn(f"training adds {min(gains):.0f} to {max(gains):.0f} points", text("tests", "EVIDENCE.md"))

    def test_every_recorded_file_stands_in_evidence_as_it_was_recorded(self):
        evidence = text("tests", "EVIDENCE.md")
        for name in sorted(os.listdir(os.path.join(HERE, "recorded"))):
            with self.subTest(name):
                self.assertIn(f"```\n{text('tests', 'recorded', name).strip()}\n```", evidence)

    def test_its_output_is_what_the_demo_prints(self):
        excerpt = blocks("")[1]
        self.assertIn(excerpt.strip(), demo_output())
        self.assertIn(demo_output().strip(), text("tests", "EVIDENCE.md"))

    def test_seed_0_of_the_study_is_the_demo(self):
        row = re.search(r"^JEPA +(.*)$", demo_output(), re.MULTILINE).group(1).split()
        study = recorded("study_200.txt")["JEPA"]
        figures = ("1 label", "5 labels", "probe, 50 labels", "pattern share", "coin share", "hidden patches named")
        for cell, figure in zip(row, figures):
            self.assertAlmostEqual(float(cell.rstrip("%")), 100 * study[figure][3], delta=0.051)

    def test_its_map_of_the_file_is_right(self):
        headers = [(n, line) for n, line in enumerate(text("jepa.py").splitlines(), 1) if line.startswith("# ----")]
        numbers = [n for n, _ in headers] + [len(text("jepa.py").splitlines()) + 1]
        for (n, line), after in zip(headers, numbers[1:]):
            title = re.split("[:,]", line.strip("# -"))[0]
            with self.subTest(title):
                self.assertIn(f"{title} {n}-{after - 1}", text("README.md"))

    def test_its_links_to_files_lead_somewhere(self):
        for document, folder in (("README.md", ""), (os.path.join("tests", "EVIDENCE.md"), "tests")):
            for target in re.findall(r"\]\(([^)#]+)", text(document)):
                if not target.startswith("http"):
                    self.assertTrue(os.path.exists(os.path.join(ROOT, folder, target)), target)

    def test_its_commands_name_programs_and_options_that_exist(self):
        commands = set()
        for document in (text("README.md"), text("tests", "EVIDENCE.md")):
            for block in blocks("bash", document):
                commands.update(block.splitlines())
            commands.update(re.findall(r"`(python3 [^`]+)`", document))
        self.assertGreater(len(commands), 6)
        for command in sorted(commands):
            words = shlex.split(command)[1:]
            with self.subTest(command):
                if words[0] == "-m":
                    self.assertEqual(words, ["-m", "unittest"])
                    continue
                help_text = subprocess.run([sys.executable, os.path.join(ROOT, words[0]), "--help"], check=True,
                                           stdout=subprocess.PIPE, universal_newlines=True, timeout=60).stdout
                for option in [word for word in words if word.startswith("--")]:
                    self.assertIn(option, help_text)


class Snippets(unittest.TestCase):
    def test_the_notebook_recipe_prints_what_the_readme_says(self):
        recipe = blocks("python")[0]
        with mock.patch.object(jepa, "random_masks"), contextlib.redirect_stdout(io.StringIO()) as out:
            jepa.random_masks = jepa.train.__globals__["random_masks"] = ORIGINAL_MASKS
            exec(compile(recipe, "README.md", "exec"), {})
        said = re.findall(r"^print.*  # (.*)$", recipe, re.MULTILINE)
        self.assertEqual(out.getvalue().splitlines(), said)

    def test_the_core_gives_what_jepa_forward_gives(self):
        names = {name: getattr(jepa, name) for name in dir(jepa)}
        exec(compile(blocks("python")[-1], "README.md", "exec"), names)
        image = [[0.1 * row - 0.2 * column for column in range(4)] for row in range(4)]
        for masks in (([0, 1, 2], [3]), ([3, 1], [0, 2])):
            self.assertAlmostEqual(names["jepa_forward"](image, *masks), jepa.jepa_forward(image, *masks), 14)

    def test_the_recipe_of_digits_runs_and_prints_a_line_a_row(self):
        recipe = [block for block in blocks("python") if "sklearn" in block][0]
        try:
            import sklearn.datasets  # noqa: F401
        except ImportError:
            self.skipTest("scikit-learn is not installed")
        with mock.patch.object(jepa, "train"), contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(recipe, "README.md", "exec"), {})
        self.assertEqual(len(out.getvalue().splitlines()), 4)


ORIGINAL_MASKS = jepa.random_masks


class Exercises(unittest.TestCase):
    """Each exercise of README, at 25 epochs on one seed: what it promises is under way."""

    def see(self, name):
        return dict(zip(("one", "five", "probe", "pattern", "coin", "hidden", "rank", "pred"),
                        exercises.see(name, 1, 25)))

    def test_two_hidden_patches_leave_enough_to_tell_the_pattern(self):
        self.assertGreater(self.see("hide two patches")["pattern"], 0.35)

    def test_twelve_hidden_units_learn_less(self):
        self.assertLess(self.see("12 hidden units")["one"], 0.9)

    def test_without_the_stop_gradient_the_rank_falls_and_so_does_pred(self):
        figures = self.see("stop-gradient off")
        self.assertLess(figures["rank"], 3)
        self.assertLess(figures["pred"], 0.02)

    def test_a_fifth_pattern_is_shown_and_learned(self):
        names = exercises.changed("a fifth pattern")
        self.assertEqual(len(set(names["draw_data"](0)[3])), 5)
        self.assertGreater(self.see("a fifth pattern")["one"], 0.7)

    def test_pixels_as_targets_teach_the_encoder_nothing_about_the_pattern(self):
        figures = self.see("pixels as targets")
        self.assertLess(figures["one"], 0.85)
        self.assertLess(figures["hidden"], 0.5)

    def test_all_exercises_stand_in_the_readme(self):
        for name, (before, after) in list(exercises.EXERCISES.items())[1:]:
            with self.subTest(name):
                self.assertIn(after.splitlines()[0].strip(), text("README.md"))


class Figures(unittest.TestCase):
    def test_they_are_drawn_by_figure_py_and_show_the_figures_of_the_demo(self):
        for name in ("embeddings.svg", "collapse.svg"):
            svg = text(".github", name)
            xml.etree.ElementTree.fromstring(svg)
            self.assertIn(f".github/{name}", text("README.md"))
        jepa_row = re.search(r"^JEPA +([\d.]+)%", demo_output(), re.MULTILINE).group(1)
        untrained = re.search(r"^untrained +([\d.]+)%", demo_output(), re.MULTILINE).group(1)
        for accuracy in (jepa_row, untrained):
            self.assertIn(f"{accuracy} %", text(".github", "embeddings.svg"))

    def test_figure_py_draws_both_in_the_same_shape_from_a_short_training(self):
        with tempfile.TemporaryDirectory() as folder:
            run("--epochs", "1", "--output", folder, command=(sys.executable, os.path.join(HERE, "figure.py")))
            for name in ("embeddings.svg", "collapse.svg"):
                with open(os.path.join(folder, name), encoding="utf-8") as file:
                    drawn, shown = [re.sub(r"[-\u2212]?\d[\d.]*", "0", svg) for svg in (file.read(), text(".github", name))]
                words = [re.findall(r"<text[^>]*>([^<]*[a-zA-Z]{4}[^<]*)<", svg) for svg in (drawn, shown)]
                self.assertLess(set(words[1]) - set(words[0]), {"all 0 images are here", "JEPA"})
                self.assertGreater(len(words[0]), 4)
                self.assertEqual(drawn.count("<use"), shown.count("<use"))


class Scripts(unittest.TestCase):
    def test_the_study_and_the_benchmark_run(self):
        study = "--seeds 1 --epochs 1 --only JEPA --set VAR_WEIGHT=0"
        for script, options, words in (("study.py", study.split(), "VAR_WEIGHT=0"),
                                       ("bench.py", ["--quick"], "One training step")):
            with self.subTest(script):
                result = run(*options, command=(sys.executable, os.path.join(HERE, script)))
                self.assertEqual(result.returncode, 0, result.stderr)
                self.assertIn(words, result.stdout)


if __name__ == "__main__":
    unittest.main()
