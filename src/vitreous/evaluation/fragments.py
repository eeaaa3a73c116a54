"""Pieces of HTML. Every function takes plain text and returns markup; escaping happens here and nowhere else."""

from __future__ import annotations

import base64
import html
import struct
from collections.abc import Iterable, Sequence

from vitreous.evaluation.figure import SCALE

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
TINY = 96
"""Images narrower than this, pixels, are enlarged without smoothing."""


def text(value: object) -> str:
    return html.escape(str(value), quote=True)


def paragraph(*sentences: str) -> str:
    return f"<p>{text(' '.join(sentence for sentence in sentences if sentence))}</p>"


def bullets(sentences: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{text(sentence)}</li>" for sentence in sentences) + "</ul>"


def section(name: str, title: str, *parts: str) -> str:
    """A titled section, or nothing where all its parts are empty."""
    body = "\n".join(part for part in parts if part)
    return f'<section id="{text(name)}">\n<h2>{text(title)}</h2>\n{body}\n</section>' if body else ""


def definitions(entries: Iterable[tuple[str, str]]) -> str:
    rows = [f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in entries if value]
    return f"<dl>{''.join(rows)}</dl>" if rows else ""


def table(header: Sequence[str], rows: Iterable[Sequence[str]], total: Sequence[str] = ()) -> str:
    """header and cells are markup: made by `cell`, or starting with `<td` or `<th` themselves."""
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    last = f'<tr class="total">{"".join(total)}</tr>' if total else ""
    return (
        f'<div class="scroll"><table><thead><tr>{"".join(header)}</tr></thead><tbody>{body}{last}</tbody></table></div>'
    )


def cell(value: object, *, number: bool = False, note: str = "", marked: bool = False, head: bool = False) -> str:
    """One cell of a table. note: a second, quieter line. marked: hatched, for numbers of a part used for choosing."""
    names = [name for name, wanted in (("num", number), ("marked", marked)) if wanted]
    attribute = f' class="{" ".join(names)}"' if names else ""
    below = f'<span class="note">{text(note)}</span>' if note else ""
    tag = "th" if head else "td"
    return f"<{tag}{attribute}>{text(value)}{below}</{tag}>"


def folded(title: str, body: str, fold: bool) -> str:
    """The body behind a click where it is long."""
    return f"<details><summary>{text(title)}</summary>{body}</details>" if fold and body else body


def command(line: str) -> str:
    return f"<pre><code>{text(line)}</code></pre>"


def tag(words: str) -> str:
    return f'<span class="tag">{text(words)}</span>'


def drawing(png: bytes | None, alternative: str, caption: str) -> str:
    """A figure of `plots`, at half its pixels, with a caption; nothing without one."""
    if png is None:
        return ""
    width, height = _png_size(png) or (0, 0)
    size = f'width="{width // SCALE}" height="{height // SCALE}"'
    return (
        f'<figure><img class="drawn" {size} alt="{text(alternative)}" src="{_data_uri(png)}">'
        f"<figcaption>{text(caption)}</figcaption></figure>"
    )


def photograph(image: bytes, alternative: str) -> str:
    size = _png_size(image)
    tiny = ' class="tiny"' if size and size[0] < TINY else ""
    return f'<img{tiny} alt="{text(alternative)}" src="{_data_uri(image)}">'


def card(images: Iterable[str], lead: str, notes: Iterable[str], path: str, below: str = "") -> str:
    """One entry of a gallery: images side by side, a bold line, quieter lines, the path. below: markup under all of it."""
    quieter = "".join(f"<span>{text(note)}</span>" for note in notes)
    where = f'<span class="path">{text(path)}</span>' if path else ""
    caption = f"<figcaption>{text(lead)}{quieter}{where}</figcaption>"
    return f'<figure><div class="frame">{"".join(images)}</div>{caption}{below}</figure>'


def strip(title: str, images: Iterable[tuple[bytes, str]]) -> str:
    """Small images in a row, each with a word under it; nothing without images."""
    shown = "".join(f"<span>{photograph(image, word)}{text(word)}</span>" for image, word in images)
    return f'<div class="strip"><em>{text(title)}</em>{shown}</div>' if shown else ""


def interval_bar(value: float | None, low: float | None, high: float | None) -> str:
    """A share in [0, 1] with its interval, drawn in a table cell."""
    if value is None or low is None or high is None:
        return "<td></td>"
    return (
        '<td><svg viewBox="0 0 106 14" preserveAspectRatio="none" aria-hidden="true">'
        '<line class="rail" x1="3" x2="103" y1="7" y2="7"/>'
        f'<line class="band" stroke-width="4" x1="{3 + 100 * low:.2f}" x2="{3 + 100 * high:.2f}" y1="7" y2="7"/>'
        f'<line class="dot" stroke-width="1.6" x1="{3 + 100 * value:.2f}" x2="{3 + 100 * value:.2f}" y1="2.5" y2="11.5"/>'
        "</svg></td>"
    )


def interval_scale(value: float, low: float, high: float, chance: float | None) -> str:
    """The headline's interval on a ruler from 0 to 100 %, with a mark where always naming the commonest class lies."""
    x = [6 + 588 * share for share in (value, low, high)]
    mark = "" if chance is None else _chance_mark(chance)
    return (
        f'<svg class="scale" viewBox="0 0 600 {46 if mark else 24}" role="img" aria-label="{100 * low:.1f} to {100 * high:.1f} percent">'
        '<line class="rail" x1="6" x2="594" y1="12" y2="12" stroke-width="2"/>'
        f'<line class="band" x1="{x[1]:.1f}" x2="{x[2]:.1f}" y1="12" y2="12" stroke-width="9"/>'
        f'<line class="dot" x1="{x[0]:.1f}" x2="{x[0]:.1f}" y1="3" y2="21" stroke-width="3"/>{mark}</svg>'
    )


def _chance_mark(chance: float) -> str:
    x = 6 + 588 * chance
    anchor = "start" if chance < 0.35 else "middle" if chance < 0.65 else "end"
    return (
        f'<line class="rail" x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="20" stroke-width="2"/>'
        f'<text x="{x:.1f}" y="36" text-anchor="{anchor}">always the commonest class: {100 * chance:.0f} %</text>'
    )


def _data_uri(image: bytes) -> str:
    kind = "png" if image.startswith(PNG_SIGNATURE) else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def _png_size(image: bytes) -> tuple[int, int] | None:
    return struct.unpack(">II", image[16:24]) if image.startswith(PNG_SIGNATURE) else None
