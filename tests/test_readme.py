"""The README: its commands, snippets, output, tables, figures and links, against what they really are."""

import ast
import contextlib
import importlib.util
import io
import os
import random
import re
import shlex
import subprocess
import sys
import unittest
import xml.etree.ElementTree

import jepa
from tests.support import HERE, PROGRAM, ROOT, demo_output, recorded, start_demo


def setUpModule():
    start_demo()


def readme():
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        return file.read()


def blocks(language):
    """The contents of the fenced blocks of this language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", readme(), re.MULTILINE | re.DOTALL)


# Tables and sentences of the README with recorded figures: made here from tests/recorded, expected there.


def percent(row, figure):
    """Mean and, in brackets, worst of an accuracy, in per cent."""
    mean, worst = row[figure][:2]
    return f"{100 * mean:.1f} ({100 * worst:.1f})"


def plain(row, figure, digits=2):
    """Mean and, in brackets, worst of a figure."""
    return f"{row[figure][0]:.{digits}f} ({row[figure][1]:.{digits}f})" if figure in row else "-"


def study_table():
    lines = [
        "| mean (worst seed), % | 1 label | 5 labels | 5 labels, probe | 50 labels, probe |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, row in recorded("study.txt").items():
        figures = ("1 label a class", "5 labels a class", "5 labels, probe", "50 labels, probe")
        lines.append(f"| {name} | " + " | ".join(percent(row, figure) for figure in figures) + " |")
    return "\n".join(lines)


def shares_table():
    lines = [
        "| mean (worst seed) | pattern | brightness | rank | prediction error "
        "| cosine, noise 0.2 | cosine, other pattern |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    figures = (
        "pattern share",
        "brightness share",
        "effective rank",
        "prediction error",
        "cosine with noise of sd 0.2",
        "cosine of different patterns",
    )
    for name, row in recorded("study.txt").items():
        if "effective rank" in row:
            lines.append(f"| {name} | " + " | ".join(plain(row, figure) for figure in figures) + " |")
    return "\n".join(lines)


def collapse_table():
    lines = ["| | Pred | spread | rank | 1 label, % | verdicts |", "| --- | --- | --- | --- | --- | --- |"]
    for name, row in recorded("collapse.txt").items():
        cells = [plain(row, "Pred", 4), plain(row, "spread of untrained"), plain(row, "effective rank")]
        lines.append(
            f"| {name} | "
            + " | ".join(cells + [percent(row, "1 label a class"), row["verdicts"].lower()])
            + " |"
        )
    return "\n".join(lines)


def sentences():
    """Every sentence of the README with a recorded figure that stands outside the tables."""
    study, many = recorded("study.txt"), recorded("study_200.txt")["JEPA"]
    one = {name: row["1 label a class"] for name, row in study.items()}
    gap = {name: 100 * (one["JEPA"][0] - one[name][0]) for name in one}
    jepa_row, alone, free = study["JEPA"], study["prediction alone"], study["no stop-gradient"]
    return [
        f"{100 * one['JEPA'][0]:.1f} % in the mean and {100 * one['JEPA'][1]:.1f} % on the worst seed, "
        f"{gap['pixels']:.0f} points above pixels, "
        f"{gap['untrained encoder']:.0f} above the untrained encoder, and "
        f"{gap['Var + Cov alone']:.1f} above Var + Cov without prediction.",
        f"{100 * study['pixels']['5 labels, probe'][0]:.1f} % against "
        f"{100 * jepa_row['5 labels, probe'][0]:.1f} %",
        f"{100 * one['mean patch, whitened'][0]:.1f} % with 1 label",
        f"{100 * (one['mean patch'][0] - one['pixels'][0]):.0f} points above pixels by averaging alone.",
        f"{alone['pattern share'][0]:.2f} pattern and {alone['brightness share'][0]:.2f} brightness, "
        f"but it does so in {alone['effective rank'][0]:.1f} dimensions of six",
        f"fell from epoch 50 to 500 on {jepa_row['falling']} seeds, in the mean from "
        f"{jepa_row['loss at epoch 50'][0]:.2f} to {jepa_row['loss at the end'][0]:.2f}",
        f"it fell on {many['falling'].split()[0]}, and {many['diverged'].split()[0]} diverged",
        f"{100 * one['prediction alone'][1]:.0f} % with 1 label",
        f"{100 * one['no stop-gradient'][0]:.1f} % with 1 label (worst seed "
        f"{100 * one['no stop-gradient'][1]:.1f}), {free['pattern share'][0]:.2f} pattern and "
        f"{free['brightness share'][0]:.2f} brightness,",
        f"but in {free['effective rank'][0]:.1f} dimensions of six "
        f"instead of {jepa_row['effective rank'][0]:.1f}.",
        f"it is {100 * one['JEPA'][0]:.1f} % (pixels {100 * one['pixels'][0]:.1f}, "
        f"untrained {100 * one['untrained encoder'][0]:.1f})",
    ]


class Output(unittest.TestCase):
    def test_its_output_block_is_what_the_program_prints(self):
        block = readme().split("## Output")[1].split("```")[1]
        self.assertEqual(block.lstrip("\n"), demo_output())

    def test_the_opening_quotes_the_output_below_it(self):
        jepa_row, untrained, pixels = [
            re.search(rf"^{name} +([\d.]+)%", demo_output(), re.MULTILINE).group(1)
            for name in ("JEPA", "untrained encoder", r"pixels \(16\)")
        ]
        opening = " ".join(readme().split("## What is JEPA?")[0].split())
        with open(os.path.join(ROOT, ".github", "embeddings.svg"), encoding="utf-8") as file:
            axes = [float(share) for share in re.findall(r"([\d.]+) % of variance", file.read())]
        for words in (
            f"enough to name {float(jepa_row):.0f} % of images",
            f"raw pixels: {float(pixels):.0f} %",
            f"untrained: {float(untrained):.0f} %",
            "whose untrained network is the worst of twenty",
            f"the two axes hold {sum(axes[2:]):.0f} % of the variance",
        ):
            self.assertTrue(words in opening, words)


class Figures(unittest.TestCase):
    def test_its_tables_and_sentences_are_the_recorded_figures(self):
        text = readme()
        for table in (study_table(), shares_table(), collapse_table()):
            self.assertTrue(table in text, f"not in README.md:\n{table}")
        flowing = " ".join(text.replace("**", "").split())
        for sentence in sentences():
            self.assertTrue(sentence in flowing, f"not in README.md: {sentence}")

    def test_the_recorded_figures_of_seed_0_are_those_of_the_program_now(self):
        study = recorded("study.txt")
        for name, printed in (
            ("pixels", r"pixels \(16\)"),
            ("untrained encoder", "untrained encoder"),
            ("JEPA", "JEPA"),
        ):
            rows = re.findall(rf"^{printed} +(.*)$", demo_output(), re.MULTILINE)
            accuracies = [float(cell.rstrip("%")) / 100 for cell in rows[0].split()]
            figures = ("1 label a class", "5 labels a class", "5 labels, probe", "50 labels, probe")
            for figure, value in zip(figures, accuracies):
                self.assertAlmostEqual(study[name][figure][3], value, delta=0.00051)
            if name != "pixels":
                for figure, value in zip(("pattern share", "brightness share"), map(float, rows[1].split())):
                    self.assertAlmostEqual(study[name][figure][3], value, delta=0.0051)
        loss = re.search(r"^Epoch  500 \| Loss: ([\d.]+)", demo_output(), re.MULTILINE).group(1)
        self.assertAlmostEqual(study["JEPA"]["loss at the end"][3], float(loss), delta=0.00011)

    def test_the_recorded_figures_are_as_good_as_the_project_promises(self):
        study = recorded("study.txt")
        one = {name: row["1 label a class"] for name, row in study.items()}
        self.assertEqual(one["untrained encoder"][1], one["untrained encoder"][3])  # "the worst of twenty"
        self.assertGreaterEqual(one["JEPA"][0], 0.97)
        self.assertGreaterEqual(one["JEPA"][1], 0.80)
        self.assertGreaterEqual(one["JEPA"][0] - max(one["pixels"][0], one["untrained encoder"][0]), 0.40)
        self.assertGreaterEqual(one["JEPA"][0] - one["Var + Cov alone"][0], 0.02)
        self.assertGreaterEqual(study["JEPA"]["5 labels a class"][0], 0.99)
        self.assertGreaterEqual(study["JEPA"]["50 labels, probe"][0], 0.995)
        self.assertGreaterEqual(study["JEPA"]["effective rank"][1], 5.0)
        self.assertEqual(study["JEPA"]["falling"], "20 of 20")
        self.assertEqual(recorded("study_200.txt")["JEPA"]["diverged"], "0 of 200")
        verdicts = {name: row["verdicts"] for name, row in recorded("collapse.txt").items()}
        self.assertEqual(verdicts["everything on"], "alive 10")
        self.assertEqual(verdicts["none of the four"], "TOTAL COLLAPSE 10")
        self.assertEqual(verdicts["no guard but EMA"], "TOTAL COLLAPSE 10")
        self.assertEqual(verdicts["no stop-gradient, no Cov"], "DIMENSIONAL COLLAPSE 10")

    def test_the_tables_of_the_benchmark_are_the_recorded_ones(self):
        section = readme().split("## What does a framework buy you")[1].split("\n## ")[0]
        tables = section.split("```\n")[1::2]
        self.assertEqual(len(tables), 2)
        for name, table in zip(("bench.txt", "bench_313.txt"), tables):
            with open(os.path.join(HERE, "recorded", name), encoding="ascii") as file:
                self.assertTrue(table in file.read(), f"not in tests/recorded/{name}:\n{table}")

    def test_the_figure_is_small_valid_and_of_this_model(self):
        path = os.path.join(ROOT, ".github", "embeddings.svg")
        self.assertLess(os.path.getsize(path), 60000)
        text = "".join(xml.etree.ElementTree.parse(path).getroot().itertext())
        for name in ("untrained encoder", "JEPA"):
            accuracy = re.search(rf"^{name} +([\d.]+)%", demo_output(), re.MULTILINE).group(1)
            self.assertIn(f"{accuracy} %", text)
        for name in jepa.PATTERNS:
            self.assertIn(name, text)


class Commands(unittest.TestCase):
    QUICK = {  # what each command of the README is called with here, so that the tests stay short
        "python3 jepa.py": ["--epochs", "1"],
        "python3 jepa.py --seed 7 --epochs 100": ["--epochs", "1"],
        "python3 jepa.py --collapse": ["--epochs", "1"],
        "python3 jepa.py --help": [],
        "python3 jepa.py --seed 0": ["--epochs", "1"],
        "python3 -m unittest": ["tests.test_mathematics.Patches"],
        "python3 tests/study.py --seeds 20": ["--seeds", "1", "--epochs", "1"],
        "python3 tests/study.py --seeds 10 --collapse": ["--seeds", "1", "--epochs", "1"],
        "python3 tests/study.py --seeds 200 --only JEPA": ["--seeds", "1", "--epochs", "1"],
        "python3 tests/bench.py": ["--quick"],
        "python3 tests/bench.py --demo": None,  # the same program; twice the demo would be too long here
        "python3 tests/figure.py": ["--epochs", "0", "--output", os.devnull],
        ".ci/run": None,  # it runs these tests
    }

    def test_every_command_that_it_gives_runs(self):
        commands = [line for block in blocks("bash") for line in block.splitlines() if line]
        commands += re.findall(r"`((?:python3 |\.ci/run)[^`]*)`", readme())
        self.assertEqual(set(commands) - set(self.QUICK), set())
        self.assertEqual(set(self.QUICK) - set(commands), set())
        running = []
        for command, extra in self.QUICK.items():
            if extra is None:
                self.assertTrue(
                    os.path.exists(os.path.join(ROOT, command.split()[-1] if "run" in command else "tests"))
                )
                continue
            words = [sys.executable] + shlex.split(command)[1:] + extra
            running.append(
                (
                    command,
                    subprocess.Popen(
                        words,
                        cwd=ROOT,
                        stdout=subprocess.PIPE,
                        stderr=subprocess.STDOUT,
                        stdin=subprocess.DEVNULL,
                    ),
                )
            )
            if len(running) > 1:
                self.finish(*running.pop(0))
        for command, process in running:
            self.finish(command, process)

    def finish(self, command, process):
        output, _ = process.communicate(timeout=200)
        self.assertEqual(process.returncode, 0, f"{command}:\n{output.decode()}")


class Snippets(unittest.TestCase):
    def test_the_recipes_print_what_it_says_that_they_print(self):
        section = readme().split("## In a notebook")[1].split("\n## ")[0]
        found = re.findall(r"```python\n(.*?)```\n\nprints[^\n]*\n\n```\n(.*?)```", section, re.DOTALL)
        self.assertEqual(len(found), 3)
        namespace, original = {}, jepa.random_masks
        try:
            for source, printed in found:
                if "sklearn" in source:
                    self.digits(source, printed)
                    continue
                output = io.StringIO()
                with contextlib.redirect_stdout(output):
                    exec(source, namespace)
                self.assertEqual(output.getvalue(), printed)
        finally:
            jepa.random_masks = original

    def digits(self, source, printed):
        """The recipe for digits: the recorded figures; shortened, it runs where scikit-learn is."""
        with open(os.path.join(HERE, "recorded", "digits.txt"), encoding="ascii") as file:
            self.assertEqual(file.read(), printed)
        text = " ".join(readme().split())
        for label, form in (
            ("1 label a class", "{:.1f} % from pixels, {:.1f} % from the untrained encoder and {:.1f} %"),
            ("5 labels", "five labels {:.1f}, {:.1f} and {:.1f} %"),
        ):
            means = []
            for name in ("pixels", "untrained", "JEPA"):
                values = re.findall(rf"{name} .*{label}: ([\d.]+)", printed)
                means.append(100 * sum(map(float, values)) / len(values))
            self.assertTrue(form.format(*means) in text, form.format(*means))
        compile(source, "README.md", "exec")
        if importlib.util.find_spec("sklearn"):
            short = source.replace("range(5)", "range(1)").replace("epochs=EPOCHS", "epochs=0")
            self.assertNotEqual(short, source)
            with contextlib.redirect_stdout(io.StringIO()):
                exec(short, {"EPOCHS": 0})

    def test_the_forward_pass_of_the_last_section_gives_the_loss_of_jepa_forward(self):
        source = blocks("python")[-1]
        self.assertIn("def jepa_forward(img, context_mask, target_mask):", source)
        namespace = dict(vars(jepa))
        exec(source, namespace)
        rng = random.Random(1)
        for _ in range(20):
            img, _ = jepa.draw_image(rng.choice(list(jepa.PATTERNS)), rng)
            masks = jepa.random_masks(4, rng)
            self.assertEqual(namespace["jepa_forward"](img, *masks), jepa.jepa_forward(img, *masks))


class Links(unittest.TestCase):
    def test_its_links_to_files_and_sections_resolve(self):
        text = readme()
        anchors = {
            re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-")
            for title in re.findall(
                r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE
            )
        }
        links = re.findall(r"\]\(([^)\s]+)\)", text)
        self.assertGreater(len(links), 10)
        for link in links:
            if link.startswith("#"):
                self.assertIn(link[1:], anchors)
            elif not link.startswith("https://"):
                self.assertTrue(os.path.exists(os.path.join(ROOT, link)), link)

    def test_the_files_that_it_names_exist(self):
        for name in re.findall(r"`((?:tests|\.github|\.ci)/[\w./]*)`", readme()):
            self.assertTrue(os.path.exists(os.path.join(ROOT, name)), name)

    def test_nothing_else_stands_at_the_top_level(self):
        allowed = {"jepa.py", "README.md", "LICENSE", "tests", ".github", ".ci", ".gitignore"}
        try:
            listing = subprocess.run(
                ["git", "ls-files"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        except OSError:
            self.skipTest("git is not installed")
        tracked = {line.split("/")[0] for line in listing.stdout.decode().splitlines()}
        if not tracked:
            self.skipTest("not a git checkout")
        self.assertEqual(tracked, allowed)


BUNDLES = ("*head*", "*checks*", "*network*", "*model*")
MODEL_PIECES = ("init_model", "MODEL", "sizes", "_patch")


def parts():
    """jepa.py in pieces to paste, {function, constant or bundle: source}, and its public functions."""
    with open(PROGRAM, encoding="utf-8") as file:
        source = file.read()
    lines, pieces, public = source.splitlines(), {}, []
    sections = [(number, line[7:]) for number, line in enumerate(lines, 1) if line.startswith("# ---- ")]

    def section(line):
        return max(
            (title for number, title in sections if number <= line), default="1", key=lambda title: title[0]
        )

    for node in ast.parse(source).body:
        first = min([node.lineno] + [d.lineno for d in getattr(node, "decorator_list", [])])
        text = "\n".join(lines[first - 1 : node.end_lineno]) + "\n"
        title = section(node.lineno)
        if isinstance(node, ast.FunctionDef):
            pieces[node.name] = text
            if title[0] != "1" and not node.name.startswith("_"):
                public.append(node.name)
        if isinstance(node, ast.Assign):
            pieces[node.targets[0].id] = text
        if title[0] in "12" and not isinstance(node, ast.Expr):
            pieces["*head*"] = pieces.get("*head*", "") + text
        if title[0] == "3" and isinstance(node, ast.FunctionDef) and node.name.startswith("_"):
            pieces["*checks*"] = pieces.get("*checks*", "") + text
        if title[0] == "4":
            pieces["*network*"] = pieces.get("*network*", "") + text
        if pieces and list(pieces)[-1] in MODEL_PIECES and pieces[list(pieces)[-1]] == text:
            pieces["*model*"] = pieces.get("*model*", "") + text
    return pieces, public


def companions(function):
    """What else must be pasted with a function: bundles and names, in the order of the file."""
    pieces, _ = parts()
    order = list(pieces)
    bundled = {}
    for bundle in BUNDLES:
        for node in ast.parse(pieces[bundle]).body:
            names = [node.name] if isinstance(node, ast.FunctionDef) else []
            names += [target.id for target in getattr(node, "targets", []) if isinstance(target, ast.Name)]
            names += [alias.asname or alias.name for alias in getattr(node, "names", [])]
            names += [
                n.asname or n.name
                for t in getattr(node, "body", [])
                for n in getattr(t, "names", [])
                if bundle == "*head*"
            ]
            bundled.update(dict.fromkeys(names, bundle))
    needed, waiting = set(), [function]
    while waiting:
        for node in ast.walk(ast.parse(pieces[waiting.pop()])):
            name = bundled.get(node.id, node.id) if isinstance(node, ast.Name) else None
            if name in pieces and name not in needed and name != function:
                needed.add(name)
                waiting.append(name)
    if bundled.get(function) in needed:
        needed.discard(function)
    return sorted(needed, key=lambda name: (name not in BUNDLES, order.index(name)))


def function_table(purposes):
    """The README's table of functions, for {function: purpose}."""
    lines = ["| Function | Purpose | Paste with it |", "| --- | --- | --- |"]
    for name, purpose in purposes.items():
        words = [w if w in BUNDLES else f"`{w}`" for w in companions(name)]
        lines.append(f"| `{name}()` | {purpose} | {', '.join(words) or 'nothing'} |")
    return "\n".join(lines)


IMG = [[0.1 * (row + column) for column in range(4)] for row in range(4)]
PATCHES = jepa.extract_patches(IMG)
ROWS = [[0.0, 1.0], [1.0, 0.5], [4.0, 4.0], [5.0, 4.5]]
CALLS = {  # each function once, on small arguments; M is a model
    "clean_image": "('checker')",
    "draw_image": "('checker', R(1))",
    "extract_patches": "(IMG)",
    "random_masks": "(4, R(1))",
    "check_masks": "([0, 1], [2], 4)",
    "linear": "(ROWS, ROWS, [1.0] * 4)",
    "matmul_t": "(ROWS, ROWS)",
    "transpose": "(ROWS)",
    "init_mlp": "(4, 3, 2, R(1))",
    "mlp_forward": "(M['context_encoder'], PATCHES)",
    "mlp_backward": "(M['context_encoder'], PATCHES, [[1.0] * 12] * 4, [[1.0] * 6] * 4)",
    "blend": "(0.5, M['context_encoder'], 2.0, M['context_encoder'])",
    "init_model": "(rng=R(1))",
    "sizes": "(M)",
    "image_patches": "(IMG)",
    "context_encode": "(PATCHES[0])",
    "target_encode": "(PATCHES[0])",
    "predictor_input": "([1.0], 1, 3)",
    "predict": "([0.1] * 6, 2)",
    "average": "(ROWS)",
    "mse": "(ROWS, ROWS[::-1])",
    "jepa_forward": "(IMG, [0, 1], [3])",
    "covariance": "(ROWS)",
    "variance_loss": "(ROWS[:2])",
    "covariance_loss": "(ROWS[:2])",
    "variance_covariance_gradient": "(ROWS, ROWS[:2], 1.0, 1.0)",
    "loss_and_gradients": "([(PATCHES, [0, 1], [3])], stop_gradient=False)",
    "ema_update": "()",
    "is_finite": "(M['predictor'])",
    "train": "([IMG] * 3, 2)",
    "embed_patches": "(IMG)",
    "embed": "(IMG)",
    "predict_patches": "(IMG)",
    "cosine_similarity": "(*ROWS[:2])",
    "spread": "(ROWS)",
    "effective_rank": "(ROWS)",
    "explained_share": "(ROWS, [0, 0, 1, 1])",
    "nearest_mean": "(ROWS, [0, 0, 1, 1], ROWS)",
    "linear_probe": "(ROWS, [0, 0, 1, 1], ROWS)",
    "few_label_accuracy": "(lambda known, labels, rest: [0] * len(rest), ROWS, [0, 0, 1, 1], 1, R(1))",
    "round_weights": "(M)",
}


class Pasting(unittest.TestCase):
    def test_every_public_function_stands_in_the_table_with_its_companions(self):
        _, public = parts()
        section_8 = public[public.index("round_weights") + 1 :]
        text = readme()
        for name in public:
            if name in section_8:
                self.assertIn(f"`{name}()`", text)
            else:
                row = re.search(rf"^\| `{name}\(\)` \| [^|]+ \| ([^|]+) \|$", text, re.MULTILINE)
                self.assertIsNotNone(row, name)
                words = [word.strip("` ") for word in row.group(1).split(",")]
                self.assertEqual([word for word in words if word != "nothing"], companions(name), name)
        self.assertEqual(
            set(re.findall(r"^\| `(\w+)\(\)` \|", text, re.MULTILINE)), set(public) - set(section_8)
        )

    def test_each_function_runs_in_an_empty_namespace_with_its_companions_alone(self):
        pieces, public = parts()
        self.assertEqual(set(CALLS), set(public[: public.index("round_weights") + 1]))
        for name, arguments in CALLS.items():
            with self.subTest(name):
                namespace = {}
                order = sorted(companions(name) + [name], key=list(pieces).index)
                exec("".join(pieces[part] for part in order), namespace)
                extra = {"IMG": IMG, "PATCHES": PATCHES, "ROWS": ROWS, "R": random.Random}
                here = dict(extra, M=jepa.init_model(), f=namespace[name])
                there = dict(extra, M=jepa.init_model(), f=getattr(jepa, name))
                before = {key: dict(net) for key, net in jepa.MODEL.items()}
                try:
                    self.assertEqual(eval("f" + arguments, here), eval("f" + arguments, there))
                finally:
                    for key, net in jepa.MODEL.items():
                        net.update(before[key])


if __name__ == "__main__":
    unittest.main()
