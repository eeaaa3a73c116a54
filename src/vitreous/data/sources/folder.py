"""A folder of images: `ROOT/CLASS/*` or `ROOT/{train,val,test}/CLASS/*`, at any depth below the class."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vitreous.data.sources.groups import GROUPS_FILE, find_group_table
from vitreous.data.sources.source import PART_NAMES, PARTS, BadFile, Listing, Sample, folder_name, natural_order
from vitreous.errors import DataError

IMAGE_SUFFIXES = tuple(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "mpo", "png", "apng", "webp", "tif", "tiff", "btf", "bmp", "dib", "gif"),
        *("avif", "dcm", "dicom", "ppm", "pgm", "pbm", "pnm", "pfm", "jp2", "j2k", "j2c", "jpc", "jpf", "jpx"),
        *(
            "tga",
            "ico",
            "pcx",
            "dcx",
            "sgi",
            "rgb",
            "rgba",
            "psd",
            "qoi",
            "dds",
            "icns",
            "cur",
            "xbm",
            "xpm",
            "fli",
            "flc",
            "ras",
            "blp",
            "msp",
            "pxr",
            "bw",
            "icb",
            "vda",
            "vst",
            "avifs",
            "ftc",
            "ftu",
            "gbr",
        ),
    )
)
"""Suffixes, in lower case, of the formats that `open_image` reads; the usual ones first. DICOM files often have none."""

LAYOUT = "Expected DATA/CLASS/image.jpg, or DATA/train/CLASS/image.jpg with val and test beside train."


@dataclass
class _Found:
    """What a walk through the folder met."""

    images: list[str] = field(default_factory=list)
    """Paths relative to the root, forward slashes."""
    ignored: Counter[str] = field(default_factory=Counter)
    """Files that are no images, counted by suffix (or by name where they have none)."""
    unusable: list[BadFile] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    """Folders directly below the root, or below a part, without any image."""


def read_folder(
    root: Path, *, group: str | None = None, exclude: Sequence[Path] = (), labelled: bool = True
) -> Listing:
    """The images below a folder, labelled by the names of their class folders.

    group: column of `groups.csv` that names the groups; its column `group` when None.
    exclude: folders below the root to leave out, because they were given as another part.
    labelled: when False, a folder that is not one of class folders throughout is taken too: all its images, without labels
    and classes.
    Raises DataError for a folder that is empty, unreadable or of another layout.
    """
    found = _walk(root, {os.path.realpath(path) for path in exclude})
    if not found.images:
        raise DataError(f"{str(root)!r} holds no images{_ignored(found.ignored)}.", LAYOUT)
    if not labelled and _lacks_classes(found.images, root):
        return _unlabelled(found, root, group)
    parts = _part_folders(found.images, root)
    samples, loose, elsewhere = _label(found.images, parts)
    if not samples:
        raise DataError(
            f"{str(root)!r} holds {len(found.images):,} images but no class folders: {found.images[0]!r} lies in none.",
            LAYOUT,
        )
    notes = [_layout_note(samples, parts)]
    if loose:
        notes.append(f"{loose:,} images lie outside any class folder and were left out.")
    if elsewhere:
        notes.append(f"Folders that are no part were left out: {', '.join(elsewhere)}.")
    if found.empty:
        notes.append(f"Folders without images: {', '.join(found.empty[:10])}.")
    if found.ignored:
        notes.append(f"{found.ignored.total():,} files were ignored{_ignored(found.ignored)}.")
    return _listed(found, root, group, samples, natural_order({sample.label for sample in samples}), notes)


def _lacks_classes(images: list[str], root: Path) -> bool:
    """Whether some image lies in no class folder, or all lie in one."""
    try:
        samples, loose, elsewhere = _label(images, _part_folders(images, root))
    except DataError:  # parts that hold images directly
        return True
    return bool(loose or elsewhere) or len({sample.label for sample in samples}) < 2


def _unlabelled(found: _Found, root: Path, group: str | None) -> Listing:
    """Every image without a label; train, val and test directly below the root are parts where nothing lies beside them."""
    tops = {path.split("/")[0].lower() if "/" in path else "" for path in found.images}
    divided = tops <= PART_NAMES.keys()
    samples = [
        Sample(path, "", None, PART_NAMES[path.split("/")[0].lower()] if divided else None) for path in found.images
    ]
    notes = [f"A folder of images without class folders: {len(samples):,} images, taken without labels."]
    if found.ignored:
        notes.append(f"{found.ignored.total():,} files were ignored{_ignored(found.ignored)}.")
    return _listed(found, root, group, samples, [], notes)


def _listed(
    found: _Found, root: Path, group: str | None, samples: list[Sample], classes: list[str], notes: list[str]
) -> Listing:
    samples, columns, note = _grouped(root, samples, group)
    base = str(root)
    return Listing(
        name=folder_name(root),
        kind="folder",
        root=base,
        samples=samples,
        classes=classes,
        notes=notes + note,
        reader=lambda index: f"{base}/{samples[index].path}",
        unusable=found.unusable,
        columns=columns,
    )


def _walk(root: Path, exclude: set[str]) -> _Found:
    found = _Found()

    def visit(folder: str, prefix: str, above: tuple[str, ...]) -> Iterator[str]:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(f"The folder {folder!r} cannot be read ({error.strerror}).") from error
        for entry in entries:
            hidden = entry.name.startswith(".") or entry.name == "__MACOSX"
            if _is_folder(entry):
                real = os.path.realpath(entry.path)
                # A link to a folder above would be walked for ever.
                if not hidden and real not in above and real not in exclude:
                    yield from visit(entry.path, f"{prefix}{entry.name}/", (*above, real))
                continue
            suffix = Path(entry.name).suffix.lower()
            if hidden or not (suffix in IMAGE_SUFFIXES or is_bare_dicom(entry.path, suffix)):
                if entry.name != GROUPS_FILE:
                    found.ignored[suffix or entry.name] += 1
                continue
            try:
                entry.name.encode()
            except UnicodeEncodeError:
                printable = f"{prefix}{entry.name}".encode(errors="backslashreplace").decode()
                found.unusable.append(BadFile(printable, "has a name that is not valid UTF-8; rename it"))
                continue
            yield f"{prefix}{entry.name}"

    found.images.extend(visit(str(root), "", (os.path.realpath(root),)))
    bearing = {path.rsplit("/", depth)[0] for path in found.images for depth in range(1, path.count("/") + 1)}
    for entry in sorted(os.scandir(root), key=lambda entry: entry.name):
        if _is_folder(entry) and not entry.name.startswith((".", "__")) and os.path.realpath(entry.path) not in exclude:
            if entry.name not in bearing:
                found.empty.append(entry.name)
            elif entry.name.lower() in PART_NAMES:
                inner = sorted(sub.name for sub in os.scandir(entry.path) if _is_folder(sub))
                found.empty += [f"{entry.name}/{name}" for name in inner if f"{entry.name}/{name}" not in bearing]
    return found


def is_bare_dicom(path: str, suffix: str) -> bool:
    """Scanners name files "IM000001" or by a dotted number; "DICM" behind 128 bytes tells them from anything else.

    DICOMDIR is a table of contents, not an image.
    """
    if (suffix and not suffix[1:].isdigit()) or Path(path).name.upper() == "DICOMDIR":
        return False
    try:
        with Path(path).open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """False also for a link that leads round in a circle, which is then tried, and listed, as an image."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _part_folders(images: list[str], root: Path) -> dict[str, str]:
    """{folder: part} for a set divided into parts, {} for class folders directly below the root.

    A class may itself be called "train" (beside "car" and "bus"), so the name alone does not decide: a part has class
    folders inside.
    """
    direct: Counter[str] = Counter()
    inner: defaultdict[str, set[str]] = defaultdict(set)
    for path in images:
        top, *rest = path.split("/")
        if len(rest) == 1:
            direct[top] += 1
        elif rest:
            inner[top].add(rest[0])
    tops = {*direct, *inner}
    named = {top for top in tops if top.lower() in PART_NAMES}
    parts = {top: PART_NAMES[top.lower()] for top in named if len(inner[top]) > 1 or (inner[top] and not direct[top])}
    if tops and named == tops and not parts:
        raise DataError(
            f"{str(root)!r} is divided into {', '.join(sorted(tops))}, but these hold images directly and no class folders.",
            LAYOUT,
        )
    if named == tops:
        return parts
    return parts if "train" in parts.values() and len(parts) > 1 else {}


def _label(images: list[str], parts: dict[str, str]) -> tuple[list[Sample], int, list[str]]:
    """Samples, the number of images outside class folders, and top folders that belong to no part."""
    samples, loose, elsewhere = [], 0, set()
    for path in images:
        pieces = path.split("/")
        if parts and len(pieces) > 1 and pieces[0] not in parts:
            elsewhere.add(pieces[0])
        elif len(pieces) < (3 if parts else 2):
            loose += 1
        elif parts:
            samples.append(Sample(path, pieces[1], None, parts[pieces[0]]))
        else:
            samples.append(Sample(path, pieces[0], None, None))
    return samples, loose, sorted(elsewhere)


def _grouped(root: Path, samples: list[Sample], group: str | None) -> tuple[list[Sample], tuple[str, ...], list[str]]:
    """Samples with the groups and metadata of a `groups.csv`, the columns it offers, and what to say about it."""
    paths = [sample.path for sample in samples]
    table = find_group_table(root, paths)
    if table is None:
        return samples, (), []
    column = group if group in table.columns else "group" if group is None and "group" in table.columns else None
    described = table.described(samples, column)
    if column is None:
        return described, table.columns, []
    groups = table.column(paths, column)
    note = f"Groups come from the column {column!r} of {GROUPS_FILE}: {len(set(groups) - {None}):,} groups."
    alone = groups.count(None)
    if alone:
        note += f" {alone:,} images have none and stand alone."
    return described, table.columns, [note]


def _layout_note(samples: list[Sample], parts: dict[str, str]) -> str:
    if not parts:
        return f"A folder of class folders: {len(samples):,} images."
    counts = Counter(sample.part for sample in samples)
    named = ", ".join(f"{part} {counts[part]:,}" for part in PARTS if counts[part])
    return f"Folders of class folders for each part: {named} images."


def _ignored(ignored: Counter[str]) -> str:
    if not ignored:
        return ""
    kinds = ", ".join(f"{name} {count:,}" for name, count in ignored.most_common(5))
    return f" (not images: {kinds})"
