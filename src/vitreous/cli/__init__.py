"""The command line: a thin shell over the Python API. `main` is the entry point of the `vitreous` program."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence

from vitreous.cli.verbs import VERBS, load_verb, overview
from vitreous.errors import StoppedError, UsageError, VitreousError, unknown_name

_DECODERS = ("PIL", "pydicom", "tifffile", "rasterio", "imagecodecs")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. Nothing heavy is imported before the verb is known."""
    _let_threads_sleep()
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if arguments[0] in ("-V", "--version", "version"):
        from vitreous import __version__

        print(f"vitreous {__version__}")
        return 0
    from vitreous.cli.output import Console

    _quieten_decoders()
    console = Console.from_arguments(arguments)
    try:
        if arguments[0] not in VERBS:
            error = unknown_name("command", arguments[0], VERBS)
            raise UsageError(error.message, f"{error.hint} `vitreous --help` lists them.")
        return load_verb(arguments[0])(arguments[1:], console)
    except VitreousError as error:
        return console.fail(error)
    except KeyboardInterrupt:
        return console.fail(StoppedError("Stopped by the keyboard.", "Nothing more was written."))
    except BrokenPipeError:
        # The reader of our output went away, as `head` does. Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return console.crash(error)


def _quieten_decoders() -> None:
    """Keep what decoders remark about odd files off the screen: it names no file, and may quote what is in one.

    Files that cannot be used are listed with their names by every command. `python -W` still shows warnings.
    """
    import logging

    for name in _DECODERS:
        logger = logging.getLogger(name)
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())
    if not sys.warnoptions:
        named = "|".join((*_DECODERS, r"vitreous\.inputs"))  # the latter where a library blames its caller
        warnings.filterwarnings("ignore", module=rf"({named})(\.|$)")


def _let_threads_sleep() -> None:
    """Make OpenMP threads wait by spinning for a moment only, then sleeping.

    Spinning for long, the default, is the slowest way on a machine with other work on it; not at all is the slowest on a
    quiet one (benchmarks/RESULTS.md). Has effect because torch is not imported yet; a choice made by the user stands.
    """
    if "OMP_WAIT_POLICY" not in os.environ and "GOMP_SPINCOUNT" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ["GOMP_SPINCOUNT"] = "2000"
