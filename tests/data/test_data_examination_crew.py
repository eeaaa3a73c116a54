"""Workers that crash, hang, talk nonsense or do not start. Their decoder is played by a script that does as names tell."""

from __future__ import annotations

import io
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitreous.config.decode import DecodeConfig
from vitreous.data.examination import crew as crew_module
from vitreous.data.examination.crew import COMMAND, Answer, Crew, CrewClosedError, Item
from vitreous.data.examination.finding import Bad, Finding
from vitreous.data.examination.process import WorkerProcess
from vitreous.errors import VitreousError

PLAYER = """
import json, os, struct, sys, time
from pathlib import Path
lengths = struct.Struct(">IQ")
def send(header):
    text = json.dumps(header).encode()
    sys.stdout.buffer.write(lengths.pack(len(text), 0) + text)
    sys.stdout.buffer.flush()
with open(os.environ["STARTS"], "a") as file:
    file.write("x")
send({"ready": True})
while True:
    start = sys.stdin.buffer.read(lengths.size)
    if len(start) < lengths.size:
        break
    length, more = lengths.unpack(start)
    items = json.loads(sys.stdin.buffer.read(length))["items"]
    sys.stdin.buffer.read(more)
    for item in items:
        name = item["name"]
        if name.startswith("crash"):
            os._exit(77)
        if name.startswith("killed"):
            os.kill(os.getpid(), 9)
        if name.startswith("hang"):
            time.sleep(1000)
        if name.startswith("nonsense"):
            print("decoder says hello " * 100, flush=True)
            time.sleep(1000)
        if name.startswith("once") and not Path(os.environ["STARTS"] + name).exists():
            Path(os.environ["STARTS"] + name).touch()
            os._exit(77)
        send({"item": item["item"], "record": {"reason": "saw " + name, "lasting": True}, "key": "", "used": None})
"""

Play = Callable[..., Crew]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    script = tmp_path / "player.py"
    script.write_text(PLAYER)
    monkeypatch.setenv("STARTS", str(tmp_path / "starts"))

    def crew(size: int = 1, seconds: float = 60.0) -> Crew:
        command = [sys.executable, "-S", str(script)]
        return Crew(size, decode=DecodeConfig(), max_pixels=10**6, seconds=seconds, command=command)

    return crew


def _reasons(answers: list[Answer]) -> list[str]:
    return [answer.entry.reason for answer in answers if isinstance(answer.entry, Bad)]


def _items(*names: str) -> list[Item]:
    return [Item(name.encode(), name) for name in names]


def test_a_file_that_crashes_the_decoder_is_named_and_the_others_are_looked_at(play: Play, tmp_path: Path) -> None:
    with play() as crew:
        found = _reasons(crew.examine(_items("a", "crash", "b", "crash too", "c")))
    bad = "crashes the decoder (exit code 77)"
    assert found == ["saw a", bad, "saw b", bad, "saw c"]
    assert len((tmp_path / "starts").read_text()) == 5, "each crash is tried twice"


def test_a_single_crash_may_come_from_outside_and_blames_no_file(play: Play) -> None:
    with play() as crew:
        assert _reasons(crew.examine(_items("a", "once", "b", "once more"))) == [
            "saw a",
            "saw once",
            "saw b",
            "saw once more",
        ]


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_worker_that_the_system_kills_may_have_wanted_memory(play: Play) -> None:
    with play() as crew:
        found = _reasons(crew.examine(_items("killed", "a")))
    assert found == ["crashes the decoder (SIGKILL: the system may have run out of memory)", "saw a"]


def test_a_file_that_takes_too_long_is_named_and_the_others_are_looked_at(play: Play) -> None:
    with play(seconds=0.4) as crew:
        found = _reasons(crew.examine(_items("a", "hang", "b")))
    assert found == ["saw a", "was not decoded within 0.4 seconds", "saw b"]


def test_a_worker_that_talks_nonsense_is_replaced(play: Play) -> None:
    with play() as crew:
        found = _reasons(crew.examine(_items("a", "nonsense", "b")))
    assert found[0::2] == ["saw a", "saw b"]
    assert found[1].startswith("crashes the decoder")


def test_what_depends_on_this_machine_is_never_kept(play: Play) -> None:
    with play(seconds=0.4) as crew:
        answers = crew.examine(_items("crash", "hang"))
    assert [answer.key for answer in answers] == [b"", b""]
    assert not any(answer.entry.lasting for answer in answers if isinstance(answer.entry, Bad))


def test_workers_are_kept_for_the_next_items(play: Play, tmp_path: Path) -> None:
    with play() as crew:
        for number in range(5):
            assert _reasons(crew.examine(_items(f"n{number}"))) == [f"saw n{number}"]
        assert crew.examine([]) == []
    assert (tmp_path / "starts").read_text() == "x"


def test_more_threads_than_workers_wait_for_their_turn(play: Play, tmp_path: Path) -> None:
    found: dict[int, list[str]] = {}
    with play(size=2) as crew:

        def work(number: int) -> None:
            found[number] = _reasons(crew.examine(_items(*(f"{number}-{item}" for item in range(20)))))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == {number: [f"saw {number}-{item}" for item in range(20)] for number in range(6)}
    assert len((tmp_path / "starts").read_text()) == 2


def test_closing_ends_workers_that_are_busy_and_threads_that_wait(play: Play) -> None:
    failures: list[str] = []
    crew = play(size=1)
    with crew:

        def work() -> None:
            try:
                crew.examine(_items("hang"))
            except CrewClosedError:
                failures.append("closed")

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        crew.close()
        for thread in threads:
            thread.join(20)
    assert failures == ["closed"] * 3


def test_a_worker_that_cannot_start_is_an_error_that_says_why(tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    script.write_text("raise RuntimeError('no decoder here')")
    options: dict[str, Any] = {"decode": DecodeConfig(), "max_pixels": 10**6}
    with (
        Crew(1, command=[sys.executable, str(script)], **options) as crew,
        pytest.raises(VitreousError, match=r"ended before it was ready \(exit code 1, RuntimeError: no decoder here\)"),
    ):
        crew.examine(_items("a"))
    with (
        Crew(1, command=[str(tmp_path / "absent")], **options) as crew,
        pytest.raises(VitreousError, match="cannot be started"),
    ):
        crew.examine(_items("a"))


def _png(side: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.zeros((side, side, 3), np.uint8)).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps to the limit")
def test_the_memory_of_a_worker_is_bounded_and_it_works_on_afterwards() -> None:
    with Crew(1, decode=DecodeConfig(), max_pixels=10**9, memory=60 * 2**20) as crew:
        items = [Item(_png(8), "a.png"), Item(_png(6000), "huge.png"), Item(_png(9), "b.png")]
        small, huge, other = (answer.entry for answer in crew.examine(items))
    assert isinstance(small, Finding)
    assert isinstance(other, Finding)
    assert huge == Bad("needs too much memory to be decoded", lasting=False)


def test_large_images_are_not_handed_over_together(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[int] = []
    ask = WorkerProcess.ask

    def noting(self: WorkerProcess, items: Any, payload: bytes) -> Any:
        handed.append(len(payload))
        return ask(self, items, payload)

    monkeypatch.setattr(WorkerProcess, "ask", noting)
    monkeypatch.setattr(crew_module, "MOST_TOGETHER", 8)
    with play() as crew:
        answers = crew.examine(_items("aaaa", "bbbb", "crash", "large as two", "e", "f"))
    assert _reasons(answers)[:2] == ["saw aaaa", "saw bbbb"]
    assert "crashes the decoder" in _reasons(answers)[2]
    assert _reasons(answers)[3:] == ["saw large as two", "saw e", "saw f"]
    assert handed == [8, 5, 5, 12, 2]


def test_a_worker_ends_with_its_parent_and_loads_no_torch(in_process: Any, tmp_path: Path) -> None:
    """The parent's end closes the worker's standard input."""
    code = (
        "import subprocess, sys, json; from vitreous.data.examination.crew import COMMAND, Crew;"
        "from vitreous.config.decode import DecodeConfig;"
        "command = Crew(1, decode=DecodeConfig(), max_pixels=10)._command;"
        "done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60);"
        "assert done.returncode == 0, done.stderr; assert b'ready' in done.stdout;"
        "import vitreous.data.examination.worker; assert 'torch' not in sys.modules"
    )
    done = in_process(code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert COMMAND[0] == sys.executable


def test_stray_prints_of_a_library_do_not_reach_the_messages(in_process: Any) -> None:
    code = (
        "import os; from vitreous.data.examination.worker import take_pipes; requests, answers = take_pipes();"
        "print('stray', flush=True); os.system('echo stray'); answers.write(b'proper'); answers.flush()"
    )
    done = in_process(code)
    assert (done.returncode, done.stdout) == (0, "proper")
