"""The development sets beside the project, as a user would first meet them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vitreous.config.input import InputSpec
from vitreous.data import PixelStore, Source, Split, load_source, make_split
from vitreous.data.examination.scan import check, scan
from vitreous.data.splitting.leaks import Leak

pytestmark = pytest.mark.shared
Shared = Callable[[str], Path]

IMAGES = {
    "rsscn7": (980, 420, 7),
    "chest_xray_nih": (759, 240, 2),
    "magnetic_tile": (582, 198, 6),
    "clothing": (900, 350, 10),
    "document_pages": (450, 200, 5),
}


def _split(source: Source) -> Split:
    result = scan(source, threads=2)
    assert result.bad == []
    check(result, source, max_bad=0.0)
    return make_split(source.samples, result.hashes, seed=0, val_fraction=0.15, test_fraction=0.2)


def _groups(split: Split, part: str) -> set[str]:
    return {split.groups[index] for index in split.indices(part)}


@pytest.mark.parametrize("name", IMAGES)
def test_no_group_is_in_two_parts_and_every_class_is_in_each(shared_data: Shared, name: str) -> None:
    source = load_source(shared_data(name))
    train, test, classes = IMAGES[name]
    assert Counter(sample.part for sample in source.samples) == {"train": train, "test": test}
    assert len(source.classes) == classes
    split = _split(source)
    assert split.leaks == []
    assert not _groups(split, "train") & _groups(split, "val")
    assert not _groups(split, "test") & (_groups(split, "train") | _groups(split, "val"))
    assert len(split.indices("val")) == pytest.approx(0.15 * train, rel=0.2)
    for part in ("train", "val", "test"):
        assert {split.labels[index] for index in split.indices(part)} == set(source.classes)


def test_no_patient_is_in_two_parts_even_where_nothing_was_divided(shared_data: Shared) -> None:
    source = load_source(shared_data("chest_xray_nih") / "train", group=r"(\d{8})_\d+\.jpg")
    assert {sample.part for sample in source.samples} == {None}
    split = _split(source)
    patients = [{split.paths[i].split("/")[-1][:8] for i in split.indices(part)} for part in ("train", "val", "test")]
    assert not (patients[0] & patients[1] or patients[0] & patients[2] or patients[1] & patients[2])
    assert sum(map(len, patients)) == 518


def test_a_forged_copy_across_parts_is_reported(shared_data: Shared) -> None:
    source = load_source(shared_data("magnetic_tile"))
    hashes = [str(index) for index in range(len(source.samples))]
    parts = [sample.part for sample in source.samples]
    one, other = parts.index("train"), parts.index("test")
    hashes[other] = hashes[one]
    split = make_split(source.samples, hashes, seed=0, val_fraction=0.15, test_fraction=0.2)
    assert split.leaks == [Leak(source.samples[one].path, source.samples[other].path, "identical pixels")]


def test_cifar10_is_read_from_parquet_without_its_bytes_being_copied_into_lists(shared_data: Shared) -> None:
    source = load_source(shared_data("cifar10"))
    assert Counter(sample.part for sample in source.samples) == {"train": 50_000, "test": 10_000}
    assert source.classes == "airplane automobile bird cat deer dog frog horse ship truck".split()  # noqa: SIM905
    some = np.linspace(0, 59_999, 50).astype(int)
    store = PixelStore(source, some, InputSpec(height=32, width=32), threads=1, max_bytes=10**9)
    mean, _ = store.mean_std()
    assert mean == pytest.approx((0.49, 0.48, 0.45), abs=0.1)
