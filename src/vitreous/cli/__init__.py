"""The command line: a thin shell over the Python API. `main` is the entry point of the `vitreous` program."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from vitreous.cli.verbs import VERBS, load_verb, overview
from vitreous.errors import StoppedError, UsageError, VitreousError, unknown_name


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


def _let_threads_sleep() -> None:
    """Make OpenMP threads wait by spinning for a moment only, then sleeping.

    Spinning for long, the default, is the slowest way on a machine with other work on it; not at all is the slowest on a
    quiet one (benchmarks/RESULTS.md). Has effect because torch is not imported yet; a choice made by the user stands.
    """
    if "OMP_WAIT_POLICY" not in os.environ and "GOMP_SPINCOUNT" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ["GOMP_SPINCOUNT"] = "2000"
