"""The web page: offline, without inline code, and deaf to markup in class names."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from serving_fakes import SIDE, MeanEngine, asked, write_run

from vitreous.runs import RunFolder
from vitreous.serving import Predictor
from vitreous.serving.pages import load_shell


def page_of(predictor: Predictor, path: str) -> httpx.Response:
    async def ask(client: httpx.AsyncClient) -> httpx.Response:
        return await client.get(path)

    return asked(predictor, ask)


def test_the_shell_is_the_page_and_its_parts() -> None:
    assert sorted(load_shell()) == ["/", "/web/app.js", "/web/icon.svg", "/web/style.css"]


@pytest.mark.parametrize("path", ["/", "/web/app.js", "/web/style.css", "/web/icon.svg", "/docs"])
def test_no_part_names_another_site(predictor: Predictor, path: str) -> None:
    text = page_of(predictor, path).text.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"https?://|src=\"//|@import|url\(", text)


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_hold_no_inline_code_or_style_and_only_existing_parts(predictor: Predictor, path: str) -> None:
    text = page_of(predictor, path).text
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", text)
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", text))
    linked = set(re.findall(r"(?:src|href)=\"(/[^\"]*)\"", text))
    assert linked <= {*load_shell(), "/docs", "/openapi.json"}
    assert 'lang="en"' in text


def test_the_script_never_writes_markup() -> None:
    script = load_shell()["/web/app.js"][0].decode()
    assert "textContent" in script
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", script)


def test_every_element_the_script_asks_for_is_on_the_page() -> None:
    shell = load_shell()
    wanted = set(re.findall(r"\$\(\"([\w-]+)\"\)", shell["/web/app.js"][0].decode()))
    assert len(wanted) > 20
    assert wanted <= set(re.findall(r"id=\"([\w-]+)\"", shell["/"][0].decode()))


def test_markup_in_a_models_name_is_shown_as_text_in_the_api_table(tmp_path: Path) -> None:
    fields = {"height": SIDE, "width": SIDE, "classes": ["<script>", "b", "c"]}
    run = RunFolder.open(write_run(tmp_path / "<script>alert(1)<b>", input=fields))
    reply = page_of(Predictor(run, MeanEngine()), "/docs")
    assert "<script>" not in reply.text
    assert "&lt;script&gt;" in reply.text
