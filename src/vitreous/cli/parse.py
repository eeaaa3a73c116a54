"""Parsing a verb's flags with tyro, and turning what is wrong with them into one sentence."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import sys
import typing
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import tyro

from vitreous.cli.verbs import VERBS
from vitreous.errors import UsageError, nearest, unknown_name

T = TypeVar("T")
_POSITIONAL = typing.get_args(tyro.conf.Positional[str])[1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Common:
    """Flags every verb has."""

    json: bool = False
    """Print one JSON object on stdout; progress goes to stderr."""
    debug: bool = False
    """Add the traceback to an error."""


def parse(kind: type[T], arguments: Sequence[str], verb: str, description: str, default: T | None = None) -> T:
    """The settings a command line means. Prints help and exits 0 for --help; raises UsageError for what is wrong."""
    _check_flags(kind, arguments)
    captured, helped = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stderr(captured), contextlib.redirect_stdout(helped):
            program, given = f"vitreous {verb}", list(arguments)
            if default is None:
                return tyro.cli(kind, args=given, prog=program, description=description)
            return tyro.cli(kind, args=given, prog=program, description=description, default=default)
    except SystemExit as error:
        if not error.code:
            sys.stdout.write(_readable(helped.getvalue(), verb))
            raise SystemExit(0) from None
        raise _sentence(captured.getvalue(), verb) from None


def _check_flags(kind: type, arguments: Sequence[str]) -> None:
    """Unknown flags by their nearest known one, before tyro sees them."""
    known = sorted(set(_flags(kind, "")))
    for argument in arguments:
        if argument == "--":
            return
        if argument.startswith("--"):
            name = argument.split("=", 1)[0].replace("_", "-")
            if name not in known:
                # What a field is called in Python finds its dotted flag: --lr means --optim.lr.
                inner = [flag for flag in known if flag.rsplit(".", 1)[-1] == name[2:]]
                offered = known if name.startswith("--no-") else [flag for flag in known if "--no-" not in flag]
                close = inner or nearest(name, offered)
                hint = "Did you mean " + " or ".join(close) + "?" if close else "See --help for all flags."
                raise UsageError(f"Unknown flag {argument.split('=', 1)[0]}.", hint)
        elif (match := re.fullmatch(r"([a-z_.]+)=(.*)", argument)) and f"--{match[1].replace('_', '-')}" in known:
            raise UsageError(f"{argument!r} is not a flag.", f"Write --{match[1].replace('_', '-')} {match[2]}")


def _flags(kind: type, prefix: str) -> Iterator[str]:
    yield "--help"
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        hint, name = hints[field.name], f"{prefix}{field.name.replace('_', '-')}"
        if _POSITIONAL in getattr(hint, "__metadata__", ()):
            continue
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            yield from _flags(hint, f"{name}.")
            continue
        yield f"--{name}"
        if hint is bool:
            yield f"--{prefix}no-{field.name.replace('_', '-')}"


def _readable(text: str, verb: str) -> str:
    """Help as people read it: an open setting shows no default, not Python's None; what is left out moves no column."""
    text = re.sub(r"\Ausage: .*?\n\n", f"usage: vitreous {verb} {VERBS[verb][0]} [flags]\n\n", text, flags=re.DOTALL)
    lines = []
    for line in text.splitlines():
        short = line.replace("{None}|", "").replace("{None,", "{")
        short = re.sub(r"(--[\w.-]+), --(?:[\w.]*\.)?no-[\w-]+", r"\1", short)
        lost = " " * (len(line) - len(short))
        lines.append(re.sub(r"(\S {2,})(?=\S)", rf"\1{lost}", short, count=1) if lost else line)
    return re.sub(r"\s*\(default:\s+None\)", "", "\n".join(map(str.rstrip, lines)) + "\n")


def _sentence(text: str, verb: str) -> UsageError:
    """tyro's framed message as one UsageError."""
    plain = " ".join(re.sub(r"[─-╿│╭╮╰╯-]{4,}|[│╭╮╰╯]", " ", text).split())
    if match := re.search(r"invalid choice '(.*?)' for argument '(--\S+)'.*?\((.*?)\)", plain):
        allowed = re.findall(r"'(.*?)'", match[3])
        return unknown_name(f"value for {match[2]}:", match[1], sorted(allowed))
    if match := re.search(r"Error parsing (--[\w.-]+):.*?\['(.*?)'\]", plain):
        wanted = (
            "a whole number" if "int()" in plain else "a number" if "float" in plain else "one of the values in --help"
        )
        return UsageError(f"{match[1]} got {match[2]!r}, which is not {wanted}.", f"See: vitreous {verb} --help")
    if match := re.search(r"Error parsing (--[\w.-]+): could not convert string to float: '(.*?)'", plain):
        return UsageError(f"{match[1]} got {match[2]!r}, which is not a number.", f"See: vitreous {verb} --help")
    if match := re.search(r"Missing (?:argument|value).*?argument '(--[\w.-]+)'", plain):
        return UsageError(
            f"{match[1]} needs a value, such as a number, or True or False.", f"See: vitreous {verb} --help"
        )
    if match := re.search(r"Unrecognized options: (.*?) For full", plain):
        return UsageError(f"Did not expect {match[1]!r}.", f"See: vitreous {verb} --help")
    if "Missing from" in plain or "Required options" in plain:
        usage = f"vitreous {verb} {VERBS[verb][0]}"
        return UsageError(f"Something is missing. Write: {usage}", f"See: vitreous {verb} --help")
    plain = re.sub(r"For full helptext.*", "", plain).strip()
    return UsageError(plain or "The command line could not be understood.", f"See: vitreous {verb} --help")


def listed(value: Any) -> list[str]:
    """Names separated by commas, as `--models A,B` takes them."""
    return [name.strip() for name in str(value).split(",") if name.strip()]
