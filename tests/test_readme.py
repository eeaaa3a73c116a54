"""What README.md and the pages under docs/ tell people to type.

Every `vitreous` command in a `sh` or `console` block, and in code between backticks, goes through the real parser. A
block under the comment `<!-- test: run -->` is also carried out, in an empty folder that holds what the pages speak of:
photos/ (class folders), new/*.jpg, a.jpg and, for Python, the finished run runs/photos. Training is shortened, and what
has tests of its own is only parsed: see `shortened`.
"""

from __future__ import annotations

import glob
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vitreous.cli.output import Console
from vitreous.cli.verbs import VERBS, load_verb

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MARK = "<!-- test: run -->"


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    page: str
    line: int
    language: str
    text: str
    marked: bool

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    lines = page.read_text(encoding="utf-8").splitlines()
    opened: int | None = None
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if opened is None:
            opened = number
            continue
        above = [text for text in lines[:opened] if text.strip()]
        marked = bool(above) and above[-1].strip() == MARK
        language = lines[opened].removeprefix("```").strip()
        yield Block(page.name, opened + 2, language, "\n".join(lines[opened + 1 : number]), marked)
        opened = None
    assert opened is None, f"{page.name}: the block opened in line {(opened or 0) + 1} is never closed"


BLOCKS = [block for page in PAGES for block in blocks(page)]


def commands(block: Block) -> Iterator[list[str]]:
    """The words of each command: continued lines joined, comments dropped, pipes and lists taken apart."""
    text = block.text.replace("\\\n", " ")
    for line in text.splitlines():
        if block.language == "console":
            if not line.startswith("$ "):
                continue
            line = line.removeprefix("$ ")
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split, lexer.commenters = True, "#"
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("|&;<>"):
                if words:
                    yield words
                words = []
            else:
                words.append(word)


def vitreous_commands() -> list[tuple[str, list[str]]]:
    found = []
    for block in BLOCKS:
        if block.language in ("sh", "console", "bash", "shell"):
            for words in commands(block):
                if words[0].rsplit("/", 1)[-1] == "vitreous":
                    found.append((str(block), words[1:]))
    for page in PAGES:  # `vitreous evaluate RUN [DATA]` in running text and tables
        prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for code in re.findall(r"`vitreous ([^`]+)`", prose):
            words = shlex.split(re.sub(r"\[(.*?)\]", r"\1", code).replace("...", ""))
            if not words[0].isupper():  # COMMAND and VERB stand for any
                found.append((page.name, words))
    return found


COMMANDS = vitreous_commands()


class Parsed(Exception):  # noqa: N818 - not an error: it ends the command once its flags are understood
    """The command line was understood."""


def check_parses(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise UsageError, or AssertionError for an unknown verb, where the program would not understand the words."""
    if words[0] in ("--help", "--version"):
        return
    verb, arguments = words[0], words[1:]
    assert verb in VERBS, f"there is no command {verb!r}"
    if "--help" in arguments:
        return
    module = import_module(f"vitreous.cli.{verb}")
    real = module.parse

    def parse(*given: Any, **named: Any) -> None:
        real(*given, **named)
        raise Parsed

    for flag, value in pairwise(arguments):
        if flag == "--config":
            Path(value).parent.mkdir(parents=True, exist_ok=True)
            Path(value).write_text("" if value.endswith(".toml") else "{}")
    with monkeypatch.context() as patch, pytest.raises(Parsed):
        patch.setattr(module, "parse", parse)
        load_verb(verb)(arguments, Console())


@pytest.mark.parametrize(("place", "words"), COMMANDS, ids=[f"{place} {' '.join(words)}" for place, words in COMMANDS])
def test_every_documented_command_is_understood(
    place: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    check_parses(words, monkeypatch)


def test_a_documented_command_with_a_wrong_verb_or_flag_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from vitreous.errors import UsageError

    with pytest.raises(AssertionError, match="no command 'tarin'"):
        check_parses(["tarin", "photos"], monkeypatch)
    for words in (["train", "photos", "--epoch", "3"], ["train", "photos", "--epochs", "few"], ["train"]):
        with pytest.raises(UsageError):
            check_parses(words, monkeypatch)


def test_the_readme_has_commands_and_marked_blocks_of_both_kinds() -> None:
    assert {words[0] for place, words in COMMANDS if place.startswith("README")} >= set(VERBS)
    assert {block.language for block in BLOCKS if block.marked and block.page == "README.md"} >= {"sh", "python"}


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_and_pictures_of_the_pages_are_there(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http://", "https://", "mailto:", "#")):
            assert (page.parent / target.split("#")[0]).exists(), f"{page.name} points to {target}"


def shortened(words: list[str], tiny_flags: list[str]) -> list[str] | None:
    """What is run for a documented command; None where a test of its own runs it."""
    verb = words[0]
    if verb in ("quickstart", "serve"):  # tests/workflows/test_workflows_quickstart.py, tests/serving
        return None
    if verb in ("train", "compare"):
        kept, skip = [], False
        for word in words:
            if not skip and word not in ("--time", "--epochs", "--steps"):
                kept.append(word)
            skip = not skip and word in ("--time", "--epochs", "--steps")
        return [*kept, *tiny_flags]
    return words


@pytest.fixture
def place(make_images: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder the pages are read in; the current one."""
    monkeypatch.chdir(tmp_path)
    data = make_images(tmp_path / "photos", 8)
    (tmp_path / "new").mkdir()
    for number, name in enumerate(("red", "green", "blue"), 1):
        with Image.open(data / name / "plain_00.png") as image:
            image.save(tmp_path / "new" / f"{number}.jpg")
    shutil.copy(tmp_path / "new" / "1.jpg", tmp_path / "a.jpg")
    return tmp_path


def marked(*languages: str) -> list[Any]:
    return [pytest.param(block, id=str(block)) for block in BLOCKS if block.marked and block.language in languages]


@pytest.mark.parametrize("block", marked("sh", "console"))
def test_marked_commands_run(block: Block, place: Path, call: Callable[..., Any], tiny_flags: list[str]) -> None:
    for words in commands(block):
        assert words[0].rsplit("/", 1)[-1] == "vitreous", f"{block}: only vitreous commands can be run here"
        arguments = shortened(words[1:], tiny_flags)
        if arguments is None:
            continue
        expanded = [found for word in arguments for found in (sorted(glob.glob(word)) or [word])]  # noqa: PTH207
        done = call(*expanded)
        assert done.returncode == 0, f"{block}: vitreous {' '.join(words[1:])}\n{done.stderr}"


@pytest.mark.parametrize("block", marked("python"))
def test_marked_python_runs(block: Block, place: Path, exported: Path) -> None:
    import torch

    shutil.copytree(exported, place / "runs" / "photos")
    exec(compile(block.text, str(block), "exec"), {"images": torch.zeros(1, 3, 224, 224)})
