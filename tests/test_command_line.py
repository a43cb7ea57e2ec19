"""The command line: the real program, run as a subprocess, in every kind of surroundings."""

import os, random, re, signal, subprocess, sys, threading, unittest
from unittest import mock

import jepa
from tests.support import PROGRAM, ROOT, STUBS, printed, run, start_demo, start_surroundings


def setUpModule():
    start_demo()
    start_surroundings()  # test_learning looks at what they print


class Importing(unittest.TestCase):
    def test_importing_it_prints_nothing_and_leaves_the_global_generator_alone(self):
        code = ("import random; random.seed(1); state = random.getstate(); import jepa; "
                "assert random.getstate() == state")
        result = run(command=(sys.executable, "-B", "-c", code), cwd=ROOT)
        self.assertEqual((result.returncode, result.stdout, result.stderr), (0, "", ""))


class Options(unittest.TestCase):
    def test_help_names_each_option(self):
        result = run("--help")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertRegex(result.stdout, r"(?s)\A[\0-\x7f]*--seed [^\0]*--epochs [^\0]*--collapse ")

    def test_wrong_options_are_refused_with_exit_code_2(self):
        for arguments in (["--speed"], ["--seed"], ["--seed", "x"], ["--epochs", "-1"], ["3"],
                          ["--epochs", "0"], ["--collapse", "--epochs", "0"]):
            with self.subTest(arguments):
                result = run(*arguments)
                self.assertEqual((result.returncode, result.stdout), (2, ""))
                self.assertRegex(result.stderr, r"(?s)\Ausage: .*\njepa\.py: error: [^\n]*\n\Z")

    def test_a_setting_at_which_training_diverges_ends_the_demo_in_one_line(self):
        code = "import sys, jepa; sys.argv = ['jepa.py', '--epochs', '3']; jepa.LEARNING_RATE = 9.0; jepa.main()"
        result = run(command=(sys.executable, "-c", code), cwd=ROOT)
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr, r"\Atraining diverged in epoch \d+: pixels [^\n]*smaller lr than 9\n\Z")

    def test_options_and_their_defaults_reach_the_demo_and_collapse(self):
        for line, told in (("", ("demo", 0, jepa.EPOCHS)), ("--seed 7 --epochs 3", ("demo", 7, 3)),
                           ("--collapse", ("collapse", 0, jepa.COLLAPSE_EPOCHS)),
                           ("--collapse --epochs 3 --seed 2", ("collapse", 2, 3))):
            calls, notes = [], {name: lambda *args, name=name: calls.append((name, *args))
                                for name in ("demo", "collapse")}
            with mock.patch.multiple(jepa, **notes), mock.patch("signal.signal"):
                with mock.patch("sys.argv", ["jepa.py", *line.split()]):
                    jepa.main()
            self.assertEqual(calls, [told])

    def test_collapse_prints_a_row_for_each_variant_with_its_verdict(self):
        with mock.patch.multiple(jepa, NUM_IMAGES=20, **STUBS):
            text = printed(jepa.collapse, 0, 2)
        self.assertTrue(text.isascii())
        self.assertNotRegex(text, ".{101}")
        self.assertIn(f"{jepa.EMBED_DIM / 2:g} of {jepa.EMBED_DIM}", text)
        for name, row in zip(jepa.VARIANTS, text.splitlines()[-len(jepa.VARIANTS):]):
            found = re.match(rf"{re.escape(name)} +[\d.]+ +([\d.]+) +([\d.]+) +50\.0%  (.*)$", row)
            self.assertTrue(found or re.match(rf"{re.escape(name)} +diverged$", row), row)
            if found:
                self.assertEqual(found[3], jepa.verdict(float(found[1]), float(found[2])))


@unittest.skipIf(os.name == "nt", "POSIX signals and pipes")
class Endings(unittest.TestCase):
    def start(self, *arguments):
        process = subprocess.Popen([sys.executable, PROGRAM, *arguments], bufsize=0,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.stdout.close)
        self.assertTrue(process.stdout.read(1))  # it has begun
        return process

    def test_a_closed_pipe_ends_it_quietly(self):
        for arguments in (["--epochs", "30"], ["--collapse", "--epochs", "1"]):
            process = self.start(*arguments)
            process.stdout.close()
            self.assertEqual(process.stderr.read().decode(), "")
            self.assertIn(process.wait(60), (-signal.SIGPIPE, 141))

    def test_ctrl_c_ends_it_quietly_at_any_moment(self):
        rng = random.Random(1)
        for arguments in ([], ["--collapse", "--epochs", "1"], ["--epochs", "1"]):
            process = self.start(*arguments)
            timer = threading.Timer(rng.uniform(0.0, 0.4), process.send_signal, [signal.SIGINT])
            timer.start()
            errors = process.stderr.read().decode()
            self.assertIn(process.wait(60), (-signal.SIGINT, 130))
            timer.join()
            self.assertEqual(errors, "", arguments)
