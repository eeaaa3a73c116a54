"""Finding one's way: help, versions, misspelt verbs and flags, without loading anything heavy."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from vitreous.cli.verbs import VERBS, load_verb

DESIGNED = (
    "quickstart",
    "audit",
    "train",
    "evaluate",
    "predict",
    "explain",
    "compare",
    "profile",
    "export",
    "serve",
    "models",
    "doctor",
)
HEAVY = "torch torchvision timm onnxruntime onnx scipy sklearn matplotlib fastapi uvicorn pyarrow"


def test_the_verbs_are_those_of_the_design_and_each_has_its_file() -> None:
    assert tuple(VERBS) == DESIGNED
    for verb in VERBS:
        assert callable(load_verb(verb))


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_the_overview_names_every_verb(words: list[str], call: Callable[..., Any]) -> None:
    done = call(*words)
    assert done.returncode == 0 and done.stderr == ""
    for verb, (_, purpose) in VERBS.items():
        assert re.search(rf"^  {verb}\b.*{re.escape(purpose)}$", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("verb", DESIGNED)
def test_each_verb_tells_its_flags_with_a_sentence_for_each(verb: str, call: Callable[..., Any]) -> None:
    done = call(verb, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: vitreous {verb} {VERBS[verb][0]}".strip())
    assert "--json" in done.stdout and "--debug" in done.stdout
    assert "None" not in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_help_and_version_load_nothing_heavy(in_process: Callable[..., Any]) -> None:
    code = """
import contextlib, io, sys
from vitreous.cli import main
from vitreous.cli.verbs import VERBS
for words in [["--help"], ["--version"], ["trian"], *([verb, "--help"] for verb in VERBS), ["train", "--modl", "x"]]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            main(words)
        except SystemExit as leaving:
            assert not leaving.code, words
    loaded = set(sys.argv[1].split()) & set(sys.modules)
    assert not loaded, (words, loaded)
"""
    done = in_process(code, HEAVY)
    assert done.returncode == 0, done.stderr


def test_python_dash_m_is_the_same_program(in_process: Callable[..., Any]) -> None:
    code = "import runpy, sys; sys.argv = ['vitreous', '--version']; runpy.run_module('vitreous', run_name='__main__')"
    done = in_process(code)
    from vitreous import __version__

    assert (done.returncode, done.stdout) == (0, f"vitreous {__version__}\n")


def test_a_misspelt_verb_names_the_nearest(call: Callable[..., Any]) -> None:
    done = call("predcit", "x")
    assert done.returncode == 2
    assert done.stderr == "vitreous: Unknown command 'predcit'. Did you mean 'predict'? `vitreous --help` lists them.\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train", "x", "--modell", "vit_tiny"), "Unknown flag --modell. Did you mean --model or --method?"),
        (("train", "x", "--lr", "0.1"), "Unknown flag --lr. Did you mean --optim.lr?"),
        (("train", "x", "--optim.learning-rat", "1"), "Unknown flag --optim.learning-rat."),
        (("train", "x", "--batch_sise=3"), "Did you mean --batch-size"),
        (("train", "x", "epochs=3"), "'epochs=3' is not a flag. Write --epochs 3"),
        (("train", "x", "--epochs", "many"), "--epochs got 'many', which is not a whole number."),
        (("train", "x", "--optim.lr", "fast"), "--optim.lr got 'fast', which is not a number."),
        (("train", "x", "--preset", "medcal"), "Did you mean 'medical'?"),
        (("train", "x", "y"), "Did not expect 'y'."),
        (("train", "x", "--time", "soon"), "--time 'soon' is not a duration. Write a number and a unit: 90s, 10m, 2h."),
        (("train", "x", "--time", "9s", "--epochs", "3"), "Both --epochs 3 and --time 9s were given."),
        (("train", "x", "--resume"), "--resume needs the run folder to continue."),
        (("train", "x", "--config"), "--config needs a value."),
        (("train", "x", "--config", "gone.json"), "The settings file 'gone.json' does not exist."),
        (("train",), "Something is missing. Write: vitreous train DATA"),
        (("predict",), "Something is missing. Write: vitreous predict RUN INPUT..."),
        (("predict", "run", "a.png", "--fromat", "csv"), "Unknown flag --fromat."),
        (("export", "run", "--fromat", "onnx"), "Did you mean --format"),
        (("explain", "run", "a.png", "--traget", "cat"), "Did you mean --target?"),
        (("serve", "run", "--prot", "80"), "Did you mean --port"),
        (("explain", "run", "a.png", "--images", "b.png"), "Unknown flag --images."),
        (("serve", "run", "--host", "0.0.0.0"), "Add --token-file FILE"),
        (("compare", "digits", "--model", "a,b", "--epoch", "3"), "Unknown flag --epoch. Did you mean --epochs"),
        (("models", "--filtre", "vit"), "Did you mean --filter?"),
        (("models", "--filter", "vit_tinny"), "Unknown model 'vit_tinny'. Did you mean 'vit_tiny'"),
        (("doctor", "--jsn"), "Did you mean --json?"),
    ],
)
def test_what_is_wrong_with_a_command_line_is_said_in_one_paragraph(
    words: tuple[str, ...], said: str, call: Callable[..., Any], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = call(*words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert said in done.stderr
    assert done.stderr.startswith("vitreous: ") and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_flags_are_understood_with_underscores_and_with_equal_signs(call: Callable[..., Any]) -> None:
    for flags in (["--batch-size", "0"], ["--batch_size", "0"], ["--batch-size=0"]):
        assert "--batch-size must be at least 1, got 0." in call("train", "digits", *flags).stderr
