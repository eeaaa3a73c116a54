"""One tiny data set, one tiny trained run and two ways to call the program, shared by tests of workflows and of the
command line. Everything made here for a whole session is read only; what a test changes, it copies.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported; see vitreous.cli.main


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing is left in, or taken from, the cache of whoever runs the tests."""
    os.environ["VITREOUS_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def one_torch_thread() -> None:
    """One thread, so that results repeat exactly and tests run side by side do not fight for the cores."""
    torch = sys.modules.get("torch")  # rooms that work without torch are tested without it
    if torch is not None:
        torch.set_num_threads(1)


Call = Callable[..., "subprocess.CompletedProcess[str]"]

COLORS = {"red": (205, 45, 45), "green": (45, 205, 45), "blue": (45, 45, 205)}
KINDS = ("plain", "rotated", "palette", "alpha", "cmyk", "deep")
TINY: dict[str, Any] = {
    "epochs": 12,
    "image_size": 16,
    "threads": 1,
    "offline": True,
    "net": {"depth": 2, "embed_dim": 48, "num_heads": 2},
    "optim": {"lr": 3e-3, "ema_decay": 0.5, "label_smoothing": 0.0},
}
"""Settings that train in a second and still learn three colours."""


def save_image(path: Path, color: tuple[int, int, int], kind: str, generator: np.random.Generator) -> None:
    """One image of 20 x 16 pixels of a class, bright at the top and dark at the bottom, stored in one of the `KINDS`."""
    shade = np.linspace(1.25, 0.0, 16)[:, None, None]
    cast = generator.normal(0, 35, 3)  # of the whole image, so that no two are equally easy
    pixels = np.clip((np.array(color) + cast) * shade + generator.normal(0, 20, (16, 20, 3)), 0, 255).astype(np.uint8)
    image = Image.fromarray(pixels)
    if kind == "rotated":  # stored lying on its side; orientation 6 says to turn it back
        exif = Image.Exif()
        exif[274] = 6
        image.transpose(Image.Transpose.ROTATE_90).save(path.with_suffix(".jpg"), quality=95, exif=exif)
    elif kind == "palette":
        image.quantize(32).save(path.with_suffix(".png"))
    elif kind == "alpha":
        alpha = np.full((16, 20, 1), 255, np.uint8)
        alpha[:, :4] = 0
        Image.fromarray(np.concatenate([pixels, alpha], axis=2)).save(path.with_suffix(".png"))
    elif kind == "cmyk":
        image.convert("CMYK").save(path.with_suffix(".jpg"), quality=95)
    elif kind == "deep":
        Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(path.with_suffix(".png"))
    else:
        image.save(path.with_suffix(".png"))


@pytest.fixture(scope="session")
def make_images() -> Callable[..., Path]:
    """make_images(folder, count=12, kinds=("plain",), seed=0, colors=(...)) -> folder with one folder a colour."""

    def make(
        folder: Path,
        count: int = 12,
        kinds: tuple[str, ...] = ("plain",),
        seed: int = 0,
        colors: tuple[str, ...] = tuple(COLORS),
    ) -> Path:
        generator = np.random.default_rng(seed)
        for name in colors:
            (folder / name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                kind = kinds[number % len(kinds)]
                save_image(folder / name / f"{kind}_{number:02d}", COLORS[name], kind, generator)
        return folder

    return make


@pytest.fixture(scope="session")
def colors(tmp_path_factory: pytest.TempPathFactory, make_images: Callable[..., Path]) -> Path:
    """90 images of three easy classes, stored in six ways. Read only."""
    return make_images(tmp_path_factory.mktemp("data") / "colors", 30, KINDS)


@pytest.fixture(scope="session")
def tiny() -> dict[str, Any]:
    """Keyword settings of a training run of a second."""
    return dict(TINY)


@pytest.fixture(scope="session")
def tiny_flags() -> list[str]:
    """The same as `tiny`, as flags of `vitreous train`."""
    flags: list[str] = []
    for name, value in TINY.items():
        if isinstance(value, dict):
            for inner, number in value.items():
                flags += [f"--{name}.{inner.replace('_', '-')}", str(number)]
        else:
            flags += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return flags


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, colors: Path, tiny: dict[str, Any]) -> Path:
    """A finished run on `colors`, as training left it. Read only."""
    import vitreous

    return vitreous.train(colors, out=tmp_path_factory.mktemp("runs") / "colors", **tiny).path


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, trained: Path) -> Path:
    """The same run with its ONNX export. Read only."""
    import vitreous

    path = tmp_path_factory.mktemp("exported") / "colors"
    shutil.copytree(trained, path, ignore=shutil.ignore_patterns("checkpoints"))
    vitreous.load(path).export("onnx")
    return path


@pytest.fixture
def run_copy(trained: Path, tmp_path: Path) -> Path:
    """The run for a test to change."""
    return Path(shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints")))


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """call("train", path, ...): the program in this process; its exit code, stdout and stderr."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        from vitreous.cli import main

        capsys.readouterr()
        words = [str(argument) for argument in arguments]
        try:
            code = main(words)
        except SystemExit as leaving:  # --help
            code = int(leaving.code or 0)
        shown = capsys.readouterr()
        return subprocess.CompletedProcess(words, code, shown.out, shown.err)

    return run


@pytest.fixture(scope="session")
def in_process() -> Call:
    """in_process(code, *arguments, cwd=None): a Python program in a process of its own."""

    def run(code: str, *arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-W", "error", "-c", code, *(str(argument) for argument in arguments)]
        return subprocess.run(words, capture_output=True, text=True, timeout=120, check=False, cwd=cwd)

    return run
