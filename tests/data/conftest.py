"""Small data sets made on the spot, and the development sets beside the project where they are present."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MakeImages = Callable[..., Path]


@pytest.fixture
def make_images(tmp_path: Path) -> MakeImages:
    """make_images({"cat/1.png": 1, ...}, root="photos") writes a distinct picture for each number."""

    def make(files: dict[str, int], root: str = "photos", size: tuple[int, int] = (12, 10)) -> Path:
        folder = tmp_path / root
        for name, number in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
        return folder

    return make


@pytest.fixture
def shared_data() -> Callable[[str], Path]:
    """The folder of a development set; skips aloud where it is absent."""

    def find(name: str) -> Path:
        path = Path(__file__).parents[2] / ".." / "shared" / "data" / name
        if not path.is_dir():
            pytest.skip(f"the development set {name!r} is not beside the project (../shared/data/{name})")
        return path

    return find
