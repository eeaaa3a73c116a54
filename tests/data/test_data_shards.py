from __future__ import annotations

import gc
import gzip
import http.server
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitreous.data import load_source
from vitreous.data.sources import shard_files, shard_index, spool
from vitreous.data.sources.locate import is_path, short_name
from vitreous.data.sources.shard_files import OpenFile
from vitreous.data.sources.shard_names import expand_braces
from vitreous.data.sources.shard_order import shard_order
from vitreous.data.sources.shards import read_shards, stream
from vitreous.data.sources.source import Listing
from vitreous.data.sources.spool import Spool
from vitreous.data.sources.tar_headers import Window, read_members
from vitreous.errors import DataError, ImageError, UsageError
from vitreous.inputs import open_image


def _png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 5), number, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def _tar(path: Path, members: dict[str, bytes | str | int], mode: str = "w", form: int = tarfile.PAX_FORMAT) -> Path:
    """A shard; a number among the members stands for a picture of that grey."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode, format=form) as tar:  # type: ignore[call-overload]
        for name, content in members.items():
            data = (
                _png(content) if isinstance(content, int) else content.encode() if isinstance(content, str) else content
            )
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def _samples(first: int, count: int) -> dict[str, bytes | str | int]:
    members: dict[str, bytes | str | int] = {}
    for number in range(first, first + count):
        members[f"{number:04d}.png"] = number
        members[f"{number:04d}.cls"] = str(number % 2)
    return members


def _values(source: Listing) -> list[int]:
    return [int(np.asarray(open_image(source.open(i)))[0, 0]) for i in range(len(source.samples))]


def _bad(source: Listing) -> dict[str, str]:
    return {entry.path: entry.reason for entry in source.unusable}


def test_a_folder_of_shards_gives_parts_classes_and_the_order_of_the_shards(tmp_path: Path) -> None:
    _tar(tmp_path / "train-000.tar", {"b.png": 7, "b.cls": "1", "a.cls": "0", "a.png": 3})
    _tar(tmp_path / "train-001.tar", {"c.jpg": 9, "c.cls": "0", "c.seg.png": 1})
    _tar(tmp_path / "val-000.tar", {"d.png": 5, "d.cls": "1\n"})
    (tmp_path / "classes.txt").write_text("zebra\nape\n")
    source = load_source(tmp_path)
    assert (source.kind, source.classes, source.shards) == ("shards", ["zebra", "ape"], (2, 1, 1))
    assert [(s.path, s.label, s.part) for s in source.samples] == [
        ("train-000.tar#b.png", "ape", "train"),
        ("train-000.tar#a.png", "zebra", "train"),
        ("train-001.tar#c.jpg", "zebra", "train"),
        ("val-000.tar#d.png", "ape", "val"),
    ]
    assert _values(source) == [7, 3, 9, 5]
    assert any("1 members were ignored (.seg.png 1)" in note for note in source.notes)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_offsets_and_long_names_are_those_of_the_standard_library(tmp_path: Path, form: int) -> None:
    names = ["a.png", "d" * 60 + "/" + "e" * 70 + "/b.png", "ü/ß.png"]
    if form != tarfile.USTAR_FORMAT:
        names.append("long" * 60 + ".png")
    path = _tar(tmp_path / "x.tar", {name: b"x" * (500 + index * 13) for index, name in enumerate(names)}, form=form)
    file = OpenFile(path)
    found = [(m.name, m.offset, m.size) for m in read_members(Window(file.read_at), file.length)]
    with tarfile.open(path) as tar:
        assert found == [(m.name, m.offset_data, m.size) for m in tar]


@pytest.mark.parametrize(
    ("members", "labels", "origin"),
    [
        ({"a.png": 1, "a.cls": "x", "b.png": 2, "b.cls": "y"}, ["x", "y"], ".cls"),
        ({"a.png": 1, "a.json": '{"label": "x"}', "b.png": 2, "b.json": '{"class": "y"}'}, ["x", "y"], ".json"),
        ({"a.png": 1, "a.json": '{"cls": 10}', "b.png": 2, "b.json": "9"}, ["10", "9"], ".json"),
        ({"cat/a.png": 1, "./dog/a.png": 2, "dog/a.txt": "a caption"}, ["cat", "dog"], "folders"),
        ({"a.png": 1, "a.txt": "x", "b.png": 2, "b.txt": "y "}, ["x", "y"], ".txt"),
        (
            {"t/a.png": 1, "t/a.cls": "x", "t/b.png": 2, "t/b.cls": "y", "t/b.json": '{"label": "z"}'},
            ["x", "y"],
            ".cls",
        ),
    ],
)
def test_labels_come_from_the_first_kind_of_member_that_has_any(
    tmp_path: Path, members: dict[str, Any], labels: list[str], origin: str
) -> None:
    source = load_source(_tar(tmp_path / "x.tar", members))
    assert [s.label for s in source.samples] == labels
    assert origin in source.notes[0]


def test_samples_without_the_kind_of_label_that_others_have_cannot_be_used(tmp_path: Path) -> None:
    members = {"t/a.png": 1, "t/a.cls": "x", "t/b.png": 2, "t/b.cls": "y", "t/c.png": 3, "t/d.cls": "x"}
    source = load_source(_tar(tmp_path / "x.tar", members))
    assert _bad(source) == {"x.tar#t/c.png": "has no label (no .cls)"}
    assert any("labels without an image 1" in note for note in source.notes)


def test_fields_of_json_are_metadata_groups_and_weights(tmp_path: Path) -> None:
    rows = [
        {"label": "a", "group": "g", "site": "n", "weight": 2},
        {"label": "b", "site": "s", "weight": "x"},
        {"label": "b", "age": 3},
    ]
    members: dict[str, Any] = {
        f"{i}.{e}": i if e == "png" else json.dumps(row) for i, row in enumerate(rows) for e in ("png", "json")
    }
    path = _tar(tmp_path / "x.tar", members)
    source = load_source(path)
    assert [(s.group, s.weight, dict(s.metadata)) for s in source.samples] == [
        ("g", 2.0, {"site": "n"}),
        (None, 1.0, {"age": "3"}),
    ]
    assert "weight" in _bad(source)["x.tar#1.png"]
    assert [s.group for s in load_source(path, group="site").samples] == ["n", None]


def test_lists_in_json_and_bars_in_cls_are_several_labels(tmp_path: Path) -> None:
    lists = {
        "a.png": 1,
        "a.json": '{"labels": ["y", "x"]}',
        "b.png": 2,
        "b.json": '{"labels": []}',
        "c.png": 3,
        "c.json": "{}",
    }
    source = load_source(_tar(tmp_path / "x.tar", lists))
    assert [s.labels for s in source.samples] == [("x", "y"), ()]
    assert _bad(source) == {"x.tar#c.png": "has no label (no .json)"}
    bars = load_source(_tar(tmp_path / "y.tar", {"a.png": 1, "a.cls": "1|0", "b.png": 2, "b.cls": "1"}))
    assert (bars.task, [s.label for s in bars.samples]) == ("multi_label", ["0|1", "1"])


def test_a_pattern_of_names_is_expanded_and_absent_shards_are_counted(tmp_path: Path) -> None:
    for number in range(9, 12):
        _tar(tmp_path / f"x-{number:03d}.tar", _samples(number * 10, 2))
    source = load_source(f"{tmp_path}/x-{{009..011}}.tar")
    assert (source.name, source.shards, len(source.samples)) == ("x", (2, 2, 2), 6)
    assert source.samples[0].path == "x-009.tar#0090.png"
    with pytest.raises(DataError, match=r"2 of the 5 shards .* do not exist; the first: .*x-012.tar"):
        load_source(f"{tmp_path}/x-{{009..013}}.tar")


def test_what_is_no_path_of_this_machine_is_told_apart(tmp_path: Path) -> None:
    assert not any(map(is_path, ("digits", "hf:owner/name", "https://host/x.tar", "x-{0..9}.tar")))
    assert all(map(is_path, ("photos", "x.tar", str(tmp_path), "odd{name}")))


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("digits", "digits"),
        ("hf:owner/flowers@main", "flowers"),
        ("hf:owner/flowers/small", "flowers"),
        ("hf:flowers", "flowers"),
        ("https://host/x/birds-{000..009}.tar?key=1", "birds"),
        ("data/birds-{000..009}.tar.gz", "birds"),
        ("list.csv", "list"),
        ("photos.v2", "photos.v2"),
        ("photos.v2/train", "photos.v2"),
    ],
)
def test_whatever_the_data_are_a_run_of_them_has_a_name(
    data: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos.v2" / "train").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert short_name(data) == name


def test_braces_multiply_and_keep_their_zeros() -> None:
    assert expand_braces("{a,b}-{8..10}.tar") == [f"{x}-{n}.tar" for x in "ab" for n in (8, 9, 10)]
    assert expand_braces("x-{08..10}.tar") == ["x-08.tar", "x-09.tar", "x-10.tar"]
    for pattern in ("x-{}.tar", "x-{1-3}.tar", "x-{0..99999999}.tar"):
        with pytest.raises(UsageError):
            expand_braces(pattern)


def test_a_shard_that_is_absent_names_the_nearest(tmp_path: Path) -> None:
    _tar(tmp_path / "train-000.tar", _samples(0, 2))
    with pytest.raises(DataError, match=r"Did you mean '.*train-000.tar'"):
        load_source(tmp_path / "train-00.tar")


def test_folders_named_after_parts_hold_shards(tmp_path: Path) -> None:
    _tar(tmp_path / "train" / "0.tar", _samples(0, 4))
    _tar(tmp_path / "test" / "0.tar", _samples(10, 2))
    source = load_source(tmp_path)
    assert {(s.path.split("#")[0], s.part) for s in source.samples} == {
        ("train/0.tar", "train"),
        ("test/0.tar", "test"),
    }


def test_an_archive_beside_its_unpacked_images_is_no_shard(tmp_path: Path) -> None:
    _tar(tmp_path / "all.tar", _samples(0, 4))
    for label in "ab":
        (tmp_path / label).mkdir()
        (tmp_path / label / "1.png").write_bytes(_png(1))
    source = load_source(tmp_path)
    assert source.kind == "folder"
    assert any(".tar 1" in note for note in source.notes)


def test_a_list_of_classes_that_is_too_short_or_has_gaps_is_refused(tmp_path: Path) -> None:
    _tar(tmp_path / "x.tar", {"a.png": 1, "a.cls": "0", "b.png": 2, "b.cls": "2"})
    (tmp_path / "classnames.txt").write_text("zebra\nape\n")
    with pytest.raises(DataError, match=r"has the label 2, but .* names only 2 classes"):
        load_source(tmp_path)
    (tmp_path / "classnames.txt").write_text("zebra\n\nape\n")
    with pytest.raises(DataError, match=r"Line 2 of .* is blank"):
        load_source(tmp_path)


# Hostile and damaged shards


def _hostile(path: Path) -> Path:
    _tar(path, {"a.png": 1, "a.cls": "0", "b.png": 2, "b.cls": "1", "/etc/c.png": 3, "../d.png": 4, "x/../../e.png": 5})
    with tarfile.open(path, "a") as tar:
        for name, kind in (
            ("f.png", tarfile.SYMTYPE),
            ("g.png", tarfile.LNKTYPE),
            ("h.png", tarfile.CHRTYPE),
            ("i.png", tarfile.FIFOTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        twice = tarfile.TarInfo("a.png")
        twice.size = 3
        tar.addfile(twice, io.BytesIO(b"xyz"))
        sparse = tarfile.TarInfo("j.png")
        sparse.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
        tar.addfile(sparse)
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        latin = tarfile.TarInfo("k\udcff.png")
        tar.addfile(latin)
    return path


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_hostile_members_are_listed_with_reasons_and_never_written(tmp_path: Path, suffix: str) -> None:
    plain = _hostile(tmp_path / "in" / "x.tar")
    if suffix == ".tar.gz":
        (tmp_path / "in" / "x.tar.gz").write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    before = sorted(tmp_path.rglob("*"))
    source = load_source(tmp_path / "in")
    assert _values(source) == [1, 2]
    shard = f"x{suffix}"
    assert _bad(source) == {
        f"{shard}#/etc/c.png": "has an absolute name",
        f"{shard}#../d.png": "has a name that leaves the shard (..)",
        f"{shard}#x/../../e.png": "has a name that leaves the shard (..)",
        f"{shard}#f.png": "is a link, not a file",
        f"{shard}#g.png": "is a link, not a file",
        f"{shard}#h.png": "is a device, not a file",
        f"{shard}#i.png": "is a device, not a file",
        f"{shard}#a.png": "has the name of a member before it",
        f"{shard}#j.png": "is a sparse file, which is not read from shards",
        f"{shard}#k\\xff.png": "has a name that is not valid UTF-8",
    }
    assert sorted(tmp_path.rglob("*")) == before


def test_every_truncation_of_a_shard_is_survived_and_said(tmp_path: Path) -> None:
    path = _tar(tmp_path / "whole" / "x.tar", _samples(0, 3))
    with tarfile.open(path) as tar:
        labels = [member for member in tar if member.name.endswith(".cls")]
    whole, path = path.read_bytes(), tmp_path / "x.tar"
    for length in range(0, 6 * 1024, 31):
        path.write_bytes(whole[:length])
        source = read_shards(path)
        complete = [member for member in labels if member.offset_data + member.size <= length]
        assert _values(source) == list(range(len(complete)))
        # Only an end just behind a whole sample cannot be told from the end of the shard.
        ends_well = complete and length <= complete[-1].offset_data + 512
        assert bool(source.unusable) != bool(ends_well), length
    path.write_bytes(whole[:520])
    assert _bad(read_shards(path)) == {"x.tar#0000.png": "is cut off: the shard ends before it does"}


def test_damage_ends_the_shard_but_not_the_others(tmp_path: Path) -> None:
    good = _tar(tmp_path / "a-0.tar", _samples(0, 4))
    data = bytearray(_tar(tmp_path / "a-1.tar", _samples(4, 4)).read_bytes())
    data[2048 + 10] ^= 1  # in the header of the third member
    (tmp_path / "a-1.tar").write_bytes(data)
    (tmp_path / "a-2.tar").write_bytes(b"no tar file at all" * 100)
    (tmp_path / "a-3.tar").write_bytes(b"")
    source = load_source(tmp_path)
    assert good.is_file()
    assert _values(source) == [0, 1, 2, 3, 4]
    assert source.shards == (4, 1)
    assert _bad(source) == {
        "a-1.tar": "is damaged at byte 2,048; what follows was not read",
        "a-2.tar": "is no tar file",
        "a-3.tar": "is empty (0 bytes)",
    }


def test_random_bytes_in_headers_never_crash(tmp_path: Path) -> None:
    whole = _hostile(tmp_path / "in" / "x.tar").read_bytes()
    random = np.random.default_rng(0)
    path = tmp_path / "x.tar"
    for _ in range(150):
        data = bytearray(whole)
        start = 512 * int(random.integers(0, len(data) // 512))
        for place in random.integers(0, 512, 3):
            data[start + int(place)] = int(random.integers(0, 256))
        header = data[start : start + 512]
        header[148:156] = b" " * 8
        data[start + 148 : start + 156] = b"%06o\0 " % sum(header)  # so that the checksum does not catch it
        path.write_bytes(data)
        source = read_shards(path)
        for index in range(len(source.samples)):
            assert isinstance(source.open(index), bytes)


def test_sizes_beyond_reason_are_refused_without_reading_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_index, "MAX_IMAGE_BYTES", 5000)
    monkeypatch.setattr(shard_index, "MAX_TEXT_BYTES", 10)
    huge = tarfile.TarInfo("z.png")
    huge.size = 10**15
    path = _tar(tmp_path / "x.tar", {**_samples(0, 2), "big.png": b"x" * 6000, "c.png": 1, "c.cls": "y" * 11})
    data = path.read_bytes().rstrip(b"\0")
    data += bytes(-len(data) % 512) + huge.tobuf(tarfile.GNU_FORMAT)
    path.write_bytes(data)
    assert _bad(load_source(path)) == {
        "x.tar#big.png": "has 6,000 bytes, more than 5,000",
        "x.tar#z.png": "is cut off: the shard ends before it does",
        "x.tar#c.png": "has a .cls of 11 bytes, more than 10",
    }


def test_json_that_cannot_be_read_is_the_fault_of_its_sample(tmp_path: Path) -> None:
    deep = "[" * 100_000
    members = {
        **_samples(0, 2),
        "c.png": 1,
        "c.json": "{",
        "d.png": 1,
        "d.json": deep,
        "e.png": 1,
        "e.cls": b"\xff\xfe",
    }
    assert set(_bad(load_source(_tar(tmp_path / "x.tar", members)))) == {f"x.tar#{name}.png" for name in "cde"}


def test_data_of_nothing_but_damage_says_so(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"\1" * 5000)
    with pytest.raises(DataError, match=r"holds no labelled image: x.tar is no tar file"):
        load_source(tmp_path)


def test_a_shard_that_goes_away_or_shrinks_is_an_error_of_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_files, "OPEN_FILES", 1)
    for number in range(2):
        _tar(tmp_path / f"x-{number}.tar", _samples(number * 10, 2))
    source = load_source(tmp_path)
    (tmp_path / "x-0.tar").unlink()
    with pytest.raises(ImageError, match="lies in a shard that cannot be read"):
        source.open(0)
    assert len(source.open(2)) == len(_png(10))


# Reading


def test_many_threads_read_many_shards_with_few_files_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_files, "OPEN_FILES", 2)
    for number in range(6):
        _tar(tmp_path / f"x-{number}.tar", _samples(number * 10, 10))
    source = load_source(tmp_path)
    wanted = np.random.default_rng(0).integers(0, 60, 600).tolist()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: int(np.asarray(open_image(source.open(i)))[0, 0]), wanted))
    assert found == wanted


@pytest.mark.parametrize(
    ("suffix", "mode"), [(".tar.gz", "w:gz"), (".tgz", "w:gz"), (".tar.bz2", "w:bz2"), (".tar.xz", "w:xz")]
)
def test_compressed_shards_are_unpacked_into_a_bounded_folder_that_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, mode: str
) -> None:
    monkeypatch.setattr(spool.tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(spool, "SPOOL_BYTES", 25_000)  # two of the four shards
    for number in range(4):
        _tar(tmp_path / "in" / f"x-{number}{suffix}", _samples(number * 10, 3), mode)
    source = load_source(tmp_path / "in")
    assert _values(source) == [number * 10 + i for number in range(4) for i in range(3)]
    assert _values(source.select([11, 0, 5])) == [32, 0, 12]
    spooled = [file for file in (tmp_path / "temporary").rglob("*") if file.is_file()]
    assert 0 < sum(file.stat().st_size for file in spooled) <= 25_000
    assert any("temporary folder of at most" in note for note in source.notes)
    del source
    gc.collect()
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_shard_that_unpacks_beyond_the_limit_or_is_cut_off_keeps_what_came_before(tmp_path: Path) -> None:
    path = _tar(tmp_path / "x.tar.gz", _samples(0, 8), "w:gz")
    small = read_shards(path, spool=Spool(5 * 1024))
    assert "unpacks to more than 5,120 bytes" in _bad(small)["x.tar.gz"]
    assert small.samples == []
    whole = _tar(tmp_path / "y.tar", _samples(0, 8)).read_bytes()
    (tmp_path / "y.tar.gz").write_bytes(gzip.compress(whole)[:-300])
    cut = read_shards(tmp_path / "y.tar.gz")
    assert "is damaged or cut off" in _bad(cut)["y.tar.gz"]
    assert _values(cut) == list(range(len(cut.samples)))


# Order


def test_the_order_is_a_permutation_and_a_pure_function_of_its_arguments() -> None:
    sizes = (5, 0, 100, 37, 1)
    for buffer in (1, 2, 10, 1000):
        order = shard_order(sizes, seed=3, epoch=2, buffer=buffer)
        assert sorted(order.tolist()) == list(range(143))
        np.testing.assert_array_equal(order, shard_order(sizes, seed=3, epoch=2, buffer=buffer))
    assert (
        shard_order(sizes, seed=3, epoch=3, buffer=10).tolist()
        != shard_order(sizes, seed=3, epoch=2, buffer=10).tolist()
    )
    assert (
        shard_order(sizes, seed=4, epoch=2, buffer=10).tolist()
        != shard_order(sizes, seed=3, epoch=2, buffer=10).tolist()
    )
    assert shard_order((), seed=0, epoch=0, buffer=5).tolist() == []


def test_a_buffer_of_one_only_shuffles_the_shards_and_a_small_one_stays_near() -> None:
    sizes = (100,) * 20
    shards = shard_order(sizes, seed=0, epoch=0, buffer=1).reshape(20, 100)
    assert sorted(shards[:, 0].tolist()) == list(range(0, 2000, 100)) and shards[:, 0].tolist() != list(
        range(0, 2000, 100)
    )
    assert (np.diff(shards, axis=1) == 1).all()
    order = shard_order(sizes, seed=0, epoch=0, buffer=50)
    open_at_once = [len(set((order[start : start + 50] // 100).tolist())) for start in range(0, 2000, 50)]
    assert max(open_at_once) <= 5
    place = np.empty(2000, int)
    place[shards.ravel()] = np.arange(2000)
    assert (place[order] - np.arange(2000)).max() < 50  # nothing leaves before it has come
    with pytest.raises(UsageError, match="at least 1 sample"):
        shard_order(sizes, seed=0, epoch=0, buffer=0)


def test_a_selection_counts_its_shards_anew(tmp_path: Path) -> None:
    for number in range(3):
        _tar(tmp_path / f"x-{number}.tar", _samples(number * 10, 4))
    source = load_source(tmp_path)
    assert source.select([0, 3, 4, 8, 9, 10]).shards == (2, 1, 3)
    assert source.select([0, 8, 1]).shards == (1, 1, 1)
    assert source.select([5, 6]).select([1]).shards == (1,)
    assert source.select([]).shards == ()


def test_a_stream_resumes_exactly_and_shuffles_anew_each_epoch(tmp_path: Path) -> None:
    for number in range(3):
        _tar(tmp_path / f"x-{number}.tar", _samples(number * 10, 5))
    whole = [(s.path, data) for s, data in stream(tmp_path, seed=1, buffer=4)]
    rest = [(s.path, data) for s, data in stream(load_source(tmp_path), seed=1, buffer=4, start=6)]
    assert rest == whole[6:]
    assert len({path for path, _ in whole}) == 15
    assert [s.path for s, _ in stream(tmp_path, seed=1, epoch=1, buffer=4)] != [path for path, _ in whole]
    with pytest.raises(UsageError, match="does not lie in tar shards"):
        next(stream(load_source("digits"), seed=0))


# The web


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """A web server on this machine: its address, the folder it serves, and the paths that were asked for."""
    folder, asked = tmp_path / "served", []
    folder.mkdir()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            file = folder / self.path.lstrip("/").split("?")[0]
            if not file.is_file():
                self.send_error(404)
                return
            data = file.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            broken = asked.count(self.path) == 1 and "flaky" in self.path
            self.wfile.write(data[: len(data) // 2] if broken else data)

        def log_message(self, format: str, *args: object) -> None: ...

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}", folder, asked
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_shards_at_web_addresses_are_read_once_and_again_when_half_came(server: tuple[str, Path, list[str]]) -> None:
    address, folder, asked = server
    _tar(folder / "train-flaky-0.tar", _samples(0, 3))
    _tar(folder / "train-flaky-1.tar.gz", _samples(3, 3), "w:gz")
    _tar(folder / "Up" / "0.tar", _samples(8, 1))
    _tar(folder / "down" / "0.tar", _samples(9, 1))
    assert [s.path for s in load_source(f"{address}/{{Up,down}}/0.tar").samples] == [
        "Up/0.tar#0008.png",
        "down/0.tar#0009.png",
    ]
    asked.clear()
    _tar(folder / "train-2.tar", _samples(6, 2))
    source = load_source(f"{address}/train-{{flaky-0,2}}.tar")
    assert _values(source) == [0, 1, 2, 6, 7]
    assert _values(load_source(f"{address}/train-flaky-1.tar.gz?key=1#x")) == [3, 4, 5]
    assert asked == ["/train-flaky-0.tar"] * 2 + ["/train-2.tar"] + ["/train-flaky-1.tar.gz?key=1"] * 2
    assert (source.samples[0].path, source.samples[0].part, source.root) == (
        "train-flaky-0.tar#0000.png",
        "train",
        address,
    )


def test_an_address_that_does_not_answer_is_an_error_with_the_reason(server: tuple[str, Path, list[str]]) -> None:
    address, _, asked = server
    with pytest.raises(DataError, match=r"x.tar' cannot be read: the server answers 404"):
        load_source(f"{address}/x.tar")
    assert len(asked) == 1


def test_offline_refuses_addresses_before_anything_is_asked(server: tuple[str, Path, list[str]]) -> None:
    address, _, asked = server
    with pytest.raises(UsageError, match="reading from the web was switched off"):
        load_source(f"{address}/x.tar", offline=True)
    with pytest.raises(UsageError, match="not of tar shards"):
        load_source(f"{address}/photos.zip")
    assert asked == []
