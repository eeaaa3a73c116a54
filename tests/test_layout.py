"""Which room may import which, and other promises about the layout (docs/decisions.md gives the reasons)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import vitreous

SOURCE = Path(vitreous.__file__).parent

FOUNDATION = {"errors", "config"}
LIGHT = FOUNDATION | {"inputs", "runs", "engines"}
LEARNED = LIGHT | {"data", "models"}
MEASURED = LEARNED | {"training", "evaluation", "explanation"}

ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "config": {"errors"},
    "recipes": {"config"},
    "inputs": FOUNDATION,
    "runs": FOUNDATION | {"inputs"},
    "engines": FOUNDATION | {"inputs", "runs"},
    "data": LIGHT,
    "models": LIGHT,
    "training": LEARNED,
    "evaluation": LEARNED,
    "explanation": LEARNED,
    "export": MEASURED,
    "serving": LIGHT,
    # Where rooms meet. `predict` and `Classifier` share the server's `Predictor`.
    "workflows": MEASURED | {"export", "recipes", "serving"},
    "cli": MEASURED | {"export", "recipes", "serving", "workflows"},
    # The package itself: names resolved when first used, and `python -m vitreous`.
    "__init__": {"config", "explanation", "models", "runs", "workflows"},
    "__main__": {"cli"},
}
"""{room: rooms it may import}. A room that is not listed here is not in the layout."""

LAZY: dict[tuple[str, str], str] = {
    ("engines/select.py", "models"): "the eager engine builds the module, and only when torch is wanted",
    ("serving/*", "explanation"): "heat maps, where torch is installed",
}
"""{(file, room): why}: exceptions, allowed inside functions and for types only."""

TORCH_FREE = ("errors", "config", "recipes", "inputs", "runs", "engines", "serving", "__init__", "__main__")
"""What runs a finished model, and what help needs: nothing here imports torch at module level."""


@dataclass(frozen=True)
class Import:
    """One import statement."""

    file: str
    line: int
    target: str
    deferred: bool
    """Inside a function, or under `if TYPE_CHECKING:`: importing the file does not carry it out."""

    @property
    def room(self) -> str:
        return self.file.split("/")[0].removesuffix(".py")


def imports() -> Iterator[Import]:
    """Every import in the package, wherever it stands; one under TYPE_CHECKING is a dependency like any other."""
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        deferred = {
            id(inner) for node in ast.walk(tree) if _defers(node) for inner in ast.walk(node) if inner is not node
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{name}:{node.lineno} imports relatively"
                module = node.module or ""
                # `from vitreous import models` imports the room as much as `import vitreous.models`.
                targets = [f"vitreous.{alias.name}" for alias in node.names] if module == "vitreous" else [module]
            elif isinstance(node, ast.Call) and _names_a_module(node):
                argument = node.args[0]
                assert isinstance(argument, ast.Constant)
                targets = [str(argument.value)]
            else:
                continue
            for target in targets:
                yield Import(name, node.lineno, target, id(node) in deferred)


def _defers(node: ast.AST) -> bool:
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" and not node.orelse
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def _names_a_module(node: ast.Call) -> bool:
    function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return function in ("import_module", "__import__") and bool(node.args) and isinstance(node.args[0], ast.Constant)


EVERY = list(imports())


def room_of(target: str) -> str | None:
    """The room that an import reaches, or None for the world outside and for plain names of the package."""
    parts = target.split(".")
    if parts[0] != "vitreous" or len(parts) == 1:
        return None
    return parts[1] if parts[1] in ALLOWED else None


def is_exception(found: Import, room: str) -> bool:
    files = (found.file, f"{found.room}/*")
    return found.deferred and any((file, room) in LAZY for file in files)


def test_the_walk_sees_the_package() -> None:
    assert len(EVERY) > 300
    assert any(found.deferred for found in EVERY)
    assert {found.room for found in EVERY} >= {"cli", "data", "engines", "models", "serving", "training", "workflows"}


def test_every_room_is_in_the_layout() -> None:
    rooms = {path.relative_to(SOURCE).parts[0].removesuffix(".py") for path in SOURCE.rglob("*.py")}
    assert rooms - set(ALLOWED) == set()


def test_rooms_import_only_what_lies_before_them() -> None:
    wrong = [
        f"{found.file}:{found.line} imports {found.target}"
        for found in EVERY
        if (room := room_of(found.target)) is not None
        and room not in ALLOWED[found.room] | {found.room}
        and not is_exception(found, room)
    ]
    assert wrong == []


def test_the_direction_has_no_way_round() -> None:
    """Following what is allowed from any room never leads back to it; the lazy exceptions are the only circles."""
    for room in ALLOWED:
        reached, edge = set[str](), set(ALLOWED[room])
        while edge:
            reached |= edge
            edge = set[str]().union(*(ALLOWED[each] for each in edge)) - reached
        assert room not in reached


@pytest.mark.parametrize("torch_package", ["torch", "torchvision", "timm", "safetensors", "einops"])
def test_what_runs_a_finished_model_needs_no_torch_to_be_imported(torch_package: str) -> None:
    light = [
        found
        for found in EVERY
        if not found.deferred
        and (found.room in TORCH_FREE or found.file in ("cli/verbs.py", "cli/__init__.py", "cli/parse.py"))
    ]
    wrong = [f"{found.file}:{found.line}" for found in light if found.target.split(".")[0] == torch_package]
    assert wrong == []


def test_the_exceptions_are_still_needed() -> None:
    used = {
        key
        for found in EVERY
        for key in ((found.file, room_of(found.target)), (f"{found.room}/*", room_of(found.target)))
        if found.deferred
    }
    assert set(LAZY) - used == set()


def test_there_is_no_room_for_odds_and_ends() -> None:
    banned = {"utils", "util", "helpers", "helper", "misc", "common"}
    assert [path.name for path in SOURCE.rglob("*") if path.stem.lower() in banned] == []


def test_the_public_surface_is_what_it_says() -> None:
    assert vitreous.__all__ == sorted(vitreous.__all__)
    assert dir(vitreous) == sorted(vitreous.__all__)
    for name in vitreous.__all__:
        assert getattr(vitreous, name) is not None
    for name in ("train", "load", "create_model", "Classifier", "VisionTransformer", "PatchEmbedding"):
        assert name in vitreous.__all__
    with pytest.raises(AttributeError, match="no attribute 'classifier_'"):
        _ = vitreous.classifier_
    with pytest.raises(ImportError):
        from vitreous import nothing  # type: ignore[attr-defined]  # noqa: F401


def test_annotations_are_shipped() -> None:
    assert (SOURCE / "py.typed").is_file()
