"""An installation without some packages: which line to type, before any work; and prediction that needs no torch."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from vitreous.serving.run import PACKAGES
from vitreous.workflows.environment import EXTRAS

EVERYTHING = ",".join(package for packages in EXTRAS.values() for package in packages)

WITHOUT = """
import importlib.abc, importlib.util, sys
hidden, words = set(sys.argv[1].split(",")), sys.argv[2:]

class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

real = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name.split(".")[0] in hidden else real(name, package)
sys.meta_path.insert(0, Hide())
from vitreous.cli import main
sys.exit(main(words))
"""
"""Runs a command in a process where these packages cannot be found or imported."""


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """missing("torch") makes that package look uninstalled."""

    def hide(hidden: str) -> None:
        real = importlib.util.find_spec

        def find(name: str, package: str | None = None) -> ModuleSpec | None:
            return None if name == hidden else real(name, package)

        monkeypatch.setattr(importlib.util, "find_spec", find)

    return hide


@pytest.mark.parametrize(
    ("package", "words", "extra"),
    [
        ("torch", ("train", "digits"), "train"),
        ("timm", ("compare", "digits", "--models", "vit_micro,resnet18"), "train"),
        ("scipy", ("evaluate", "RUN"), "train"),
        ("torch", ("models",), "train"),
        ("fastapi", ("quickstart",), "serve"),
        ("onnxscript", ("quickstart",), "export"),
        ("uvicorn", ("serve", "RUN"), "serve"),
        ("onnx", ("export", "RUN"), "export"),
    ],
)
def test_a_missing_package_names_the_line_to_type_before_any_work(
    package: str,
    words: tuple[str, ...],
    extra: str,
    missing: Callable[[str], None],
    call: Callable[..., Any],
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    missing(package)
    done = call(*(str(trained) if word == "RUN" else word for word in words))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("vitreous: ") and done.stderr.count("\n") == 1
    assert f"needs the package {package!r}" in done.stderr
    assert f"Type: pip install 'vitreous[{extra}]'" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("verb", ["train", "evaluate", "compare", "quickstart", "models", "export", "serve"])
def test_with_only_the_core_installed_the_verb_asks_for_its_extra(
    verb: str, in_process: Callable[..., Any], trained: Path, tmp_path: Path
) -> None:
    words = {"train": ["digits"], "compare": ["digits"], "quickstart": [], "models": []}.get(verb, [str(trained)])
    done = in_process(WITHOUT, EVERYTHING, verb, *words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "Type: pip install 'vitreous[" in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_with_only_the_core_installed_an_exported_run_predicts_and_explains(
    in_process: Callable[..., Any], exported: Path, colors: Path, tmp_path: Path
) -> None:
    image = colors / "red" / "plain_00.png"
    done = in_process(WITHOUT, EVERYTHING, "predict", exported, image, colors / "blue", "--out", tmp_path / "a.parquet")
    assert done.returncode == 0, done.stderr
    assert "31 images labelled" in done.stdout
    done = in_process(WITHOUT, EVERYTHING, "explain", exported, image, "--out", tmp_path / "maps")
    assert done.returncode == 0, done.stderr
    done = in_process(WITHOUT, EVERYTHING, "explain", exported, image, "--method", "relevance")
    assert done.returncode == 2
    assert "Type: pip install 'vitreous[train]'" in done.stderr
    assert in_process(WITHOUT, EVERYTHING, "doctor").returncode == 0


def test_prediction_with_the_exported_model_imports_no_torch_though_it_is_there(
    in_process: Callable[..., Any], exported: Path, colors: Path
) -> None:
    code = """
import importlib.util, sys
from vitreous.cli import main
assert main(["predict", *sys.argv[1:], "--engine", "onnxruntime"]) == 0
assert importlib.util.find_spec("torch") is not None
assert "torch" not in sys.modules, "torch was imported"
"""
    done = in_process(code, exported, colors / "red")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 30


def test_the_packages_of_the_server_are_listed_in_one_place() -> None:
    assert EXTRAS["serve"] is PACKAGES


def test_in_python_a_missing_package_is_the_same_error(missing: Callable[[str], None], colors: Path) -> None:
    import vitreous
    from vitreous.errors import MissingExtraError

    missing("torch")
    for work in (lambda: vitreous.train(colors), lambda: vitreous.create_model("vit_tiny")):
        with pytest.raises(MissingExtraError, match=r"vitreous\[train\]"):
            work()
