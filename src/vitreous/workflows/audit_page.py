"""`audit.html`: what was found, with pictures, on one page that opens offline."""

from __future__ import annotations

import io
import shlex
from collections.abc import Callable, Mapping, Sequence

from vitreous.config.audit import AuditConfig
from vitreous.data.sources.source import PARTS
from vitreous.errors import ImageError
from vitreous.evaluation import words
from vitreous.evaluation.fragments import (
    bullets,
    card,
    cell,
    command,
    definitions,
    folded,
    interval_bar,
    paragraph,
    photograph,
    section,
    table,
    text,
)
from vitreous.evaluation.page import page, warnings
from vitreous.inputs import as_picture, open_image
from vitreous.workflows.audit_facts import Audit
from vitreous.workflows.inspection import Inspection

_STATISTICS = {
    "width": "width, px (least, median, greatest)",
    "height": "height, px",
    "bytes": "size of a file, bytes",
    "brightness": "brightness, 0 to 1",
    "modes": "pixel formats",
    "formats": "file formats",
    "bits": "bits a sample",
    "several_frames": "files of several pictures",
    "class_brightness": "mean brightness by class",
    "brightness_effect": "share of brightness explained by class",
}
PICTURE_SIDE = 160
"""Pixels of the longer side of a picture on the page."""
LONG = 30
"""Tables with more rows than this are folded."""
MOST_COPIES = 4
"""Pictures of one set of identical images."""


class _Album:
    """Pictures by path, each read and encoded once."""

    def __init__(self, found: Inspection, most: int, progress: Callable[[int, int], None]) -> None:
        self.found = found
        self.most = most
        self.progress = progress
        self.rows = {sample.path: row for row, sample in enumerate(found.source.samples)}
        self.made: dict[str, str] = {}

    def picture(self, path: str) -> str:
        if path not in self.made:
            self.made[path] = self._draw(path)
            self.progress(len(self.made), len(self.made))
        return self.made[path]

    def _draw(self, path: str) -> str:
        row, found = self.rows[path], self.found
        try:
            image = as_picture(open_image(found.source.open(row), target=PICTURE_SIDE, decode=found.decode))
        except (ImageError, OSError):  # gone since it was looked at
            return ""
        image = image.convert("RGB")
        image.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
        buffer = io.BytesIO()
        if max(image.size) < 64:
            image.save(buffer, format="PNG")
        else:
            image.save(buffer, format="JPEG", quality=82)
        return photograph(buffer.getvalue(), self.label(path))

    def label(self, path: str) -> str:
        return self.found.source.samples[self.rows[path]].label

    def place(self, path: str) -> str:
        """The label and, where parts were given, the part."""
        sample = self.found.source.samples[self.rows[path]]
        return f"{sample.label} in {sample.part}" if sample.part else sample.label

    def gallery(self, cards: Sequence[str], whole: int, wide: bool = False) -> str:
        if not cards:
            return ""
        rest = whole - len(cards)
        below = paragraph(f"{rest:,} more are listed in audit.json.") if rest > 0 else ""
        return f'<div class="gallery{" pairs" if wide else ""}">{"".join(cards)}</div>{below}'

    def pair(self, first: str, second: str, lead: str) -> str:
        notes = [self.place(first), first, self.place(second)]
        return card([self.picture(first), self.picture(second)], lead, notes, second)


def render_audit(
    audit: Audit,
    found: Inspection,
    config: AuditConfig,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> str:
    """The page as one string of HTML."""
    album = _Album(found, config.examples, progress)
    sections = {
        "Images": _images(audit),
        "Leaks": _leaks(audit, album),
        "Copies": _copies(audit, album),
        "Labels": _labels(audit, album),
        "Shortcuts": _shortcuts(audit),
        "Unusual": _unusual(audit, album),
        "Bad files": _bad_files(audit),
        "Next": _next(audit, config),
    }
    acted = audit.warnings()
    calm = "" if acted else paragraph("Nothing to act on was found.")
    head = f"""<header>
<div class="kicker">vitreous audit</div>
<h1>{text(audit.name)}</h1>
{paragraph(_summary(audit))}
</header>"""
    return page(
        f"{audit.name}: audit",
        head + warnings("Before you train on these data", acted) + calm,
        sections,
        "The same facts, for programs: audit.json; proposed corrections: fixes.csv.",
    )


def _summary(audit: Audit) -> str:
    sentence = f"{words.counted(audit.readable, 'readable image')} of {words.counted(len(audit.classes), 'class')}"
    parts = [part for part in audit.counts if part in PARTS]
    if parts:
        sentence += f", divided into {', '.join(parts)} as they were given"
    return f"{sentence}. Looked at in {words.duration(audit.seconds)}."


def _images(audit: Audit) -> str:
    parts = list(audit.counts)
    whole = {name: sum(audit.counts[part].get(name, 0) for part in parts) for name in audit.classes}
    everything = max(1, sum(audit.sizes.values()))
    header = [cell("Class", head=True), *(cell(part, head=True, number=True) for part in parts)]
    header += [cell("share", head=True, number=True), "<th></th>"]
    rows = []
    for name, count in whole.items():
        share = count / everything
        numbers = [cell(f"{audit.counts[part].get(name, 0):,}", number=True) for part in parts]
        rows.append([cell(name), *numbers, cell(words.percent(share), number=True), interval_bar(share, 0.0, share)])
    last = [cell("all"), *(cell(f"{audit.sizes[part]:,}", number=True) for part in parts), "<td></td>", "<td></td>"]
    counts = [count for count in whole.values() if count]
    ratio = max(counts) / min(counts) if counts else 1.0
    balance = (
        f"The largest class has {ratio:.1f} times the images of the smallest: look at balanced accuracy, not accuracy."
        if ratio > 1.5
        else "The classes are about equally large."
    )
    return section(
        "images",
        "Images",
        paragraph(balance) if len(counts) > 1 else "",
        folded(f"All {len(rows)} classes", table(header, rows, last), fold=len(rows) > LONG),
        definitions(
            (_STATISTICS[name], _plainly(value)) for name, value in audit.statistics.items() if name in _STATISTICS
        ),
        bullets(audit.notes) if audit.notes else "",
    )


def _plainly(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plainly(entry)}" for name, entry in value.items())
    if isinstance(value, float):
        return f"{value:,.3g}" if abs(value) < 100 else f"{value:,.0f}"
    if isinstance(value, int):
        return f"{value:,}"
    return ", ".join(map(_plainly, value)) if isinstance(value, list | tuple) else str(value)


def _leaks(audit: Audit, album: _Album) -> str:
    cards = [album.pair(leak.first, leak.second, leak.reason) for leak in audit.leaks[: album.most]]
    explained = (
        "The same picture, or the same group, in two parts: a model is measured on what it has seen. "
        "The parts were given, so nothing was moved."
    )
    return (
        section("leaks", "Leaks", paragraph(explained), album.gallery(cards, audit.leak_count, wide=True))
        if cards
        else ""
    )


def _copies(audit: Audit, album: _Album) -> str:
    conflicts = [_set(paths, album) for paths in audit.conflicts[: album.most]]
    exact = [_set(paths, album) for paths in audit.exact_sets[: album.most]]
    near = [album.pair(a, b, pair.how) for a, b, pair in audit.near[: album.most]]
    return section(
        "copies",
        "Copies",
        f"<h3>One picture, several labels ({len(audit.conflicts):,})</h3>" if conflicts else "",
        album.gallery(conflicts, len(audit.conflicts), wide=True),
        f"<h3>Identical pixels ({words.counted(len(audit.exact_sets), 'set')})</h3>" if exact else "",
        album.gallery(exact, len(audit.exact_sets), wide=True),
        f"<h3>Near-duplicates ({words.counted(len(audit.near), 'pair')})</h3>" if near else "",
        album.gallery(near, len(audit.near), wide=True),
    )


def _set(paths: Sequence[str], album: _Album) -> str:
    shown = list(paths[:MOST_COPIES])
    more = f" and {len(paths) - len(shown):,} more" if len(paths) > len(shown) else ""
    places = list(dict.fromkeys(album.place(path) for path in paths))
    notes = [*shown[:-1], f"{shown[-1]}{more}"]
    return card([album.picture(path) for path in shown[:2]], " / ".join(places[:4]), notes, "")


def _labels(audit: Audit, album: _Album) -> str:
    found = audit.labels
    if found is None:
        return ""
    cards = [
        card(
            [album.picture(entry.path)],
            entry.label,
            [f"looks like {entry.suggested} ({entry.confidence:.0%})"],
            entry.path,
        )
        for entry in found.doubtful[: album.most]
    ]
    told = (
        f"A quick probe ({found.probe}) predicted each label from folds that did not hold the image; confident learning "
        "(arXiv:1911.00068) counts where it contradicts the label."
    )
    return section(
        "labels", "Labels", paragraph(told), paragraph(found.verdict), album.gallery(cards, len(found.doubtful))
    )


def _shortcuts(audit: Audit) -> str:
    if not audit.shortcuts:
        return ""
    header = [
        cell("What the probe saw", head=True),
        cell("Balanced accuracy", head=True, number=True),
        "<th></th>",
        cell("95 % interval", head=True, number=True),
        cell("chance", head=True, number=True),
    ]
    rows = [
        [
            cell(probe.what, note="suspicious" if probe.suspicious else ""),
            cell(words.percent(probe.balanced_accuracy), number=True),
            interval_bar(probe.balanced_accuracy, probe.low, probe.high),
            cell(f"{100 * probe.low:.1f} to {100 * probe.high:.1f}{words.SPACE}%", number=True),
            cell(words.percent(probe.chance), number=True),
        ]
        for probe in audit.shortcuts
    ]
    return section(
        "shortcuts",
        "Shortcuts",
        paragraph(
            "How well the label can be predicted without looking at the picture as a whole. Where that works well, a model may "
            "learn where an image comes from instead of what it shows."
        ),
        table(header, rows),
        bullets(probe.verdict for probe in audit.shortcuts),
    )


def _unusual(audit: Audit, album: _Album) -> str:
    pieces = []
    for name, paths in audit.outliers.items():
        if not paths:
            continue
        shown = max(1, album.most // 4) if album.most else 0
        cards = [card([album.picture(path)], album.label(path), [], path) for path in paths[:shown]]
        pieces += [f"<h3>{text(name.capitalize())} ({len(paths):,})</h3>", album.gallery(cards, len(paths))]
    return section("unusual", "Unusual images", *pieces)


def _bad_files(audit: Audit) -> str:
    lines = [f"{bad.path} {bad.reason}" for bad in audit.bad_files[:200]]
    if len(audit.bad_files) > len(lines):
        lines.append(f"and {len(audit.bad_files) - len(lines):,} more, in bad_files.csv")
    body = folded(words.counted(len(audit.bad_files), "file"), bullets(lines), fold=len(lines) > LONG) if lines else ""
    return section("bad-files", "Bad files", body)


def _next(audit: Audit, config: AuditConfig) -> str:
    data = shlex.join([audit.data, *config.data_flags()])
    lines = [
        ("Look through the proposed corrections: remove, relabel, keep; review changes nothing.", "fixes.csv"),
        ("Train on the corrected data.", f"vitreous train {data} --fixes fixes.csv"),
        ("Or write a manifest of them.", f"vitreous audit {data} --apply fixes.csv --out corrected.csv"),
    ]
    if not audit.fixes:
        lines = [("Train.", f"vitreous train {data}")]
    return section("next", "Next", *(paragraph(purpose) + command(line) for purpose, line in lines))
