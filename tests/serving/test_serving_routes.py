"""The routes, their replies and the status of every failure, called in process."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import math
import struct
import zlib
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from serving_fakes import CLASSES, SIDE, MeanEngine, asked, picture

from vitreous.engines import Outputs
from vitreous.errors import MissingExtraError, RunError
from vitreous.serving import Predictor

PNG = {"Content-Type": "image/png"}


def posted(predictor: Predictor, body: Any, path: str = "/predict", headers: Any = PNG, **settings: Any) -> Any:
    """The reply to one raw body."""

    async def ask(client: httpx.AsyncClient) -> httpx.Response:
        return await client.post(path, content=body, headers=headers)

    return asked(predictor, ask, **settings)


def got(predictor: Predictor, path: str, method: str = "GET", **settings: Any) -> httpx.Response:
    async def ask(client: httpx.AsyncClient) -> httpx.Response:
        return await client.request(method, path)

    return asked(predictor, ask, **settings)


def error_of(reply: httpx.Response) -> dict[str, str]:
    """The error of a reply, once its shape was checked."""
    assert list(reply.json()) == ["error"]
    error = reply.json()["error"]
    assert sorted(error) == ["code", "id", "message"]
    assert error["id"] == reply.headers["X-Request-Id"]
    assert "Traceback" not in reply.text
    assert ".py" not in reply.text
    return error


# --- predictions ---


def test_a_raw_image_is_classified(predictor: Predictor) -> None:
    reply = posted(predictor, picture((0, 255, 0)))
    assert reply.status_code == 200
    answer = reply.json()
    assert sorted(answer) == ["id", "model", "predictions", "version"]
    assert (answer["model"], answer["version"]) == ("photos", predictor.run.version)
    (entry,) = answer["predictions"]
    assert sorted(entry) == ["abstain", "label", "ood", "score", "top"]
    assert entry["label"] == "green"
    assert entry["top"][0] == {"label": "green", "score": entry["score"]}
    assert [top["label"] for top in entry["top"]] == ["green", "red", "blue"]
    assert (entry["abstain"], entry["ood"]) == (False, 0.0)


@pytest.mark.parametrize("kind", ["image/jpeg", "IMAGE/PNG; x=y", "application/octet-stream", None])
def test_any_image_type_and_no_type_at_all_are_read_as_an_image(predictor: Predictor, kind: str | None) -> None:
    reply = posted(predictor, picture(), headers={} if kind is None else {"Content-Type": kind})
    assert reply.json()["predictions"][0]["label"] == "red"


def test_files_of_a_form_are_answered_in_order_and_a_bad_one_fails_alone(predictor: Predictor) -> None:
    files = [("file", picture((0, 0, 255))), ("file", b"not an image"), ("other", picture((0, 255, 0)))]

    async def ask(client: httpx.AsyncClient) -> httpx.Response:
        return await client.post("/predict", files=[(name, ("x.png", data)) for name, data in files])

    reply = asked(predictor, ask)
    assert reply.status_code == 200
    blue, bad, green = reply.json()["predictions"]
    assert (blue["label"], green["label"]) == ("blue", "green")
    assert bad == {
        "error": {"code": "bad_image", "message": "The file is not an image.", "id": reply.headers["X-Request-Id"]}
    }


def test_large_files_of_a_form_arrive_whole(predictor: Predictor) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (900, 900, 3), dtype=np.uint8)
    noise[..., 1] = 255
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "BMP")

    async def ask(client: httpx.AsyncClient) -> httpx.Response:
        return await client.post("/predict", files={"file": buffer.getvalue()})

    assert asked(predictor, ask).json()["predictions"][0]["label"] == "green"


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_torchserves_address_and_reply_are_kept(predictor: Predictor, method: str) -> None:
    async def ask(client: httpx.AsyncClient) -> list[httpx.Response]:
        return [
            await client.request(method, "/predictions/photos", content=picture()),
            await client.request(method, "/predictions/photos", files={"data": picture()}),
        ]

    for reply in asked(predictor, ask):
        scores = reply.json()
        assert list(scores) == ["red", "green", "blue"]
        assert sum(scores.values()) == pytest.approx(1)


def test_the_server_answers_like_the_predictor(predictor: Predictor) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG")
    direct = predictor.predict(buffer.getvalue())[0].to_dict()
    del direct["path"]
    assert posted(predictor, buffer.getvalue()).json()["predictions"] == [direct]


def pixels_of(mode: str, size: tuple[int, int] = (6, 5)) -> Image.Image:
    image = Image.new("RGB", size, (255, 0, 0))
    return Image.new("I;16", size, 40000) if mode == "I;16" else image.convert(mode)


@pytest.mark.parametrize(
    ("mode", "format"),
    [
        *(("CMYK", "JPEG"), ("L", "PNG"), ("P", "PNG"), ("RGBA", "PNG"), ("LA", "PNG"), ("I;16", "PNG")),
        *(("1", "TIFF"), ("RGB", "WEBP"), ("P", "GIF"), ("RGB", "BMP"), ("RGB", "TIFF")),
    ],
)
def test_every_usual_kind_of_image_is_answered(predictor: Predictor, mode: str, format: str) -> None:
    buffer = io.BytesIO()
    pixels_of(mode).save(buffer, format)
    reply = posted(predictor, buffer.getvalue())
    assert reply.status_code == 200
    if mode in ("CMYK", "P", "RGBA", "RGB"):
        assert reply.json()["predictions"][0]["label"] == "red"


def test_one_pixel_an_animation_and_a_turned_photograph_are_answered(predictor: Predictor) -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ((0, 255, 0), (255, 0, 0))]
    animated, turned = io.BytesIO(), io.BytesIO()
    frames[0].save(animated, "GIF", save_all=True, append_images=frames[1:])
    exif = Image.Exif()
    exif[0x0112] = 6
    frames[0].save(turned, "JPEG", exif=exif)
    for body, label in ((picture(size=(1, 1)), "red"), (animated.getvalue(), "green"), (turned.getvalue(), "green")):
        assert posted(predictor, body).json()["predictions"][0]["label"] == label


# --- bad images ---


def bomb(width: int, height: int) -> bytes:
    """A PNG of one color with a handful of bytes, its pixels never in memory here."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    row = b"\0" * (width // 8 + 1)
    rows = b"".join(packer.compress(row * 1000) for _ in range(height // 1000)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [8000, 10_000, 20_000])
def test_a_decompression_bomb_is_refused_by_its_header(predictor: Predictor, side: int) -> None:
    body = bomb(side, side)
    assert len(body) < 60_000
    reply = posted(predictor, body)
    assert reply.status_code == 413
    assert error_of(reply)["code"] == "too_large"


def test_the_pixel_limit_is_the_servers_own(predictor: Predictor) -> None:
    assert posted(predictor, picture(size=(10, 10)), max_pixels=99).status_code == 413
    assert posted(predictor, picture(size=(10, 10)), max_pixels=100).status_code == 200


def test_a_png_with_a_huge_compressed_text_is_refused_or_answered_but_no_failure_of_ours(predictor: Predictor) -> None:
    plain = picture()
    text = b"zTXt" + b"k\0\0" + zlib.compress(b"a" * 50_000_000, 9)
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    reply = posted(predictor, plain[:33] + chunk + plain[33:])
    assert reply.status_code in (200, 400)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"])
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_a_truncated_image_is_called_truncated(predictor: Predictor, format: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, format)
    for share in (0.1, 0.5, 0.9):
        reply = posted(predictor, buffer.getvalue()[: int(share * len(buffer.getvalue()))])
        assert reply.status_code == 400
        assert error_of(reply)["code"] == "truncated_image"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "bad_image"),
        (b"hello", 400, "bad_image"),
        (b"\0" * 5000, 400, "bad_image"),
        (b"%PDF-1.7 ...", 415, "unsupported_format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "unsupported_format"),
        (b"<html><script>alert(1)</script>", 415, "unsupported_format"),
        (b"PK\x03\x04" + b"\0" * 50, 415, "unsupported_format"),
        (b"\x80\x04\x95cos\nsystem\n(S'true'\ntR.", 400, "bad_image"),
    ],
)
def test_what_is_no_image_is_the_clients_fault(predictor: Predictor, body: bytes, status: int, code: str) -> None:
    reply = posted(predictor, body)
    assert (reply.status_code, error_of(reply)["code"]) == (status, code)


def test_a_format_outside_the_list_is_refused_though_pillow_reads_it(predictor: Predictor) -> None:
    for format in ("TGA", "PPM", "ICO"):
        assert posted(predictor, picture(format=format)).status_code in (400, 415)


def test_a_picture_with_something_else_behind_it_is_just_a_picture(predictor: Predictor) -> None:
    polyglot = picture(format="GIF", color=0, mode="P") + b"PK\x03\x04<script>alert(1)</script>"
    assert posted(predictor, polyglot).status_code == 200


def test_an_image_of_floats_is_readable_but_unfit(predictor: Predictor) -> None:
    reply = posted(predictor, picture(0.5, format="TIFF", mode="F"))
    assert (reply.status_code, error_of(reply)["code"]) == (422, "unfit_image")


def test_random_damage_never_makes_a_failure_of_ours(predictor: Predictor) -> None:
    random = np.random.default_rng(3)
    whole = [picture(size=(30, 20), format=format) for format in ("JPEG", "PNG", "GIF", "BMP", "WEBP")]

    async def ask(client: httpx.AsyncClient) -> set[int]:
        seen = set()
        for body in whole:
            for _ in range(25):
                damaged = np.frombuffer(body, np.uint8).copy()
                damaged[random.integers(0, len(damaged), 4)] = random.integers(0, 256, 4)
                seen.add((await client.post("/predict", content=damaged.tobytes(), headers=PNG)).status_code)
        return seen

    assert asked(predictor, ask) <= {200, 400, 413, 415, 422}


# --- bad requests ---


@pytest.mark.parametrize(
    "kind",
    [
        *("application/json", "application/x-www-form-urlencoded", "text/plain", "application/python-pickle"),
        *("application/x-pickle", "application/zip", "multipart/mixed", "video/mp4", "image", "*/*", "\x7f"),
    ],
)
def test_a_body_of_another_type_is_refused_unread(predictor: Predictor, kind: str) -> None:
    async def never() -> Any:
        raise AssertionError("the body was read")
        yield b""

    reply = posted(predictor, never(), headers={"Content-Type": kind})
    assert (reply.status_code, error_of(reply)["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("kind", "body", "code"),
    [
        ("multipart/form-data", b"x", "bad_form"),
        ("multipart/form-data; boundary=b", b"garbage", "bad_form"),
        ("multipart/form-data; boundary=b", b"--b--\r\n", "no_file"),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\ntext\r\n--b--\r\n',
            "no_file",
        ),
        ("multipart/form-data; boundary=b", b"--b\r\nX: y\r\n\r\ntext\r\n--b--\r\n", "bad_form"),
    ],
)
def test_a_broken_or_empty_form_is_said_to_be_so(predictor: Predictor, kind: str, body: bytes, code: str) -> None:
    reply = posted(predictor, body, headers={"Content-Type": kind})
    assert (reply.status_code, error_of(reply)["code"]) == (400, code)


def test_more_images_than_the_queue_has_places_are_refused(predictor: Predictor) -> None:
    async def ask(client: httpx.AsyncClient) -> list[int]:
        files = [("file", picture())] * 4
        return [(await client.post("/predict", files=files[:count])).status_code for count in (3, 4)]

    assert asked(predictor, ask, max_queue=3) == [200, 413]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/web/../app.py", 404, "not_found"),
        ("GET", "/web/%2e%2e%2fapp.py", 404, "not_found"),
        ("POST", "/models", 404, "not_found"),
        ("POST", "/predictions/other", 404, "unknown_model"),
        ("GET", "/predict", 405, "method_not_allowed"),
        ("OPTIONS", "/predict", 405, "method_not_allowed"),
        ("DELETE", "/predictions/photos", 405, "method_not_allowed"),
        ("POST", "/explain?format=svg", 422, "invalid_request"),
    ],
)
def test_wrong_addresses_methods_and_parameters_keep_the_error_form(
    predictor: Predictor, method: str, path: str, status: int, code: str
) -> None:
    reply = got(predictor, path, method)
    assert (reply.status_code, error_of(reply)["code"]) == (status, code)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v2/models/other", 404), ("GET", "/v2/nowhere", 404), ("DELETE", "/v2/models/photos", 405)],
)
def test_under_v2_errors_have_the_form_of_the_protocol(
    predictor: Predictor, method: str, path: str, status: int
) -> None:
    reply = got(predictor, path, method)
    assert reply.status_code == status
    assert list(reply.json()) == ["error"]
    assert isinstance(reply.json()["error"], str)


# --- failures of ours ---


def failing(predictor: Predictor, error: Exception) -> Predictor:
    class Failing(MeanEngine):
        def predict(self, batch: np.ndarray) -> Outputs:
            if batch[0, 0].mean() > 0.9:
                raise error
            return super().predict(batch)

    return dataclasses.replace(predictor, engine=Failing())


@pytest.mark.parametrize("error", [RuntimeError("/secret/model.bin"), RunError("/secret/run is damaged", "Type: rm")])
def test_a_failure_inside_says_nothing_but_its_id_and_the_log_has_the_rest(
    predictor: Predictor, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    reply = posted(failing(predictor, error), picture())
    assert reply.status_code == 500
    found = error_of(reply)
    assert found["code"] == "internal"
    assert "secret" not in reply.text
    assert type(error).__name__ not in reply.text
    assert found["id"] in caplog.text
    assert "secret" in caplog.text


def test_numbers_that_are_not_finite_are_a_failure_not_json(
    predictor: Predictor, caplog: pytest.LogCaptureFixture
) -> None:
    class Overflowing(MeanEngine):
        def predict(self, batch: np.ndarray) -> Outputs:
            outputs = super().predict(batch)
            logits = np.where(outputs.logits > 9, np.float32(math.nan), outputs.logits)
            return Outputs(logits, outputs.features)

    reply = posted(dataclasses.replace(predictor, engine=Overflowing()), picture())
    assert reply.status_code == 500
    assert "NaN" not in reply.text
    assert "not finite" in caplog.text


def test_one_image_that_breaks_the_model_fails_alone_in_its_batch(
    predictor: Predictor, caplog: pytest.LogCaptureFixture
) -> None:
    engine = MeanEngine(poison=100 / 255)

    async def ask(client: httpx.AsyncClient) -> list[httpx.Response]:
        bodies = [picture((0, 255, 0)), picture((100, 0, 0)), picture((0, 0, 255)), picture((255, 0, 0))]
        return await asyncio.gather(*(client.post("/predict", content=body, headers=PNG) for body in bodies))

    replies = asked(dataclasses.replace(predictor, engine=engine), ask, batch_delay=200.0, max_batch=4)
    assert [reply.status_code for reply in replies] == [200, 500, 200, 200]
    assert [replies[i].json()["predictions"][0]["label"] for i in (0, 2, 3)] == ["green", "blue", "red"]
    assert max(engine.batches) > 1
    assert "poisoned" in caplog.text


# --- explanations, metadata, operators ---


def test_an_explanation_is_an_overlay_or_a_heat_map(predictor: Predictor) -> None:
    overlay = posted(predictor, picture(), "/explain?method=occlusion&target=green")
    assert overlay.headers["Content-Type"] == "image/png"
    assert overlay.headers["X-Explanation-Target"] == "green"
    assert Image.open(io.BytesIO(overlay.content)).format == "PNG"
    body = posted(predictor, picture(), "/explain?method=occlusion&format=json").json()
    assert (body["model"], body["target"], body["method"]) == ("photos", "red", "occlusion")
    heatmap = np.array(body["heatmap"])
    assert heatmap.shape == (body["height"], body["width"])
    assert heatmap.min() >= 0
    assert heatmap.max() <= 1


def test_the_heat_map_of_a_photograph_is_no_larger_than_a_screen_needs(predictor: Predictor) -> None:
    body = posted(predictor, picture(size=(1500, 1000)), "/explain?method=occlusion&format=json").json()
    assert (body["width"], body["height"]) == (256, 171)


def test_a_class_is_named_or_numbered(predictor: Predictor) -> None:
    body = posted(predictor, picture(), "/explain?method=occlusion&format=json&target=2").json()
    assert body["target"] == "blue"


@pytest.mark.parametrize(
    ("query", "words"), [("target=gren", "green"), ("method=oclusion", "occlusion"), ("target=7", "7")]
)
def test_unknown_classes_and_methods_are_refused_with_the_nearest(predictor: Predictor, query: str, words: str) -> None:
    reply = posted(predictor, picture(), f"/explain?method=occlusion&{query}")
    assert reply.status_code == 400
    assert words in error_of(reply)["message"]


def test_bad_images_fail_alike_when_explained(predictor: Predictor) -> None:
    assert posted(predictor, b"hello", "/explain").status_code == 400
    assert posted(predictor, bomb(8000, 8000), "/explain").status_code == 413


def test_a_method_without_its_packages_is_501_with_the_install_line(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explain(*_: object, **__: object) -> None:
        raise MissingExtraError("The explanation method 'relevance'", "train", "torch")

    monkeypatch.setattr(Predictor, "explain", explain)
    reply = posted(predictor, picture(), "/explain?method=relevance")
    assert reply.status_code == 501
    assert "vitreous[train]" in error_of(reply)["message"]


def test_the_model_is_described_as_the_protocol_has_it(predictor: Predictor) -> None:
    about = got(predictor, "/v2/models/photos").json()
    assert about["name"] == "photos"
    assert about["versions"] == [predictor.run.version]
    assert about["inputs"] == [{"name": "images", "datatype": "FP32", "shape": [-1, 3, SIDE, SIDE]}]
    assert about["outputs"] == [{"name": "logits", "datatype": "FP32", "shape": [-1, 3]}]
    assert about["parameters"]["classes"] == CLASSES
    assert about["parameters"]["explain_methods"][0] == "auto"


def test_health_is_told_in_both_tongues(predictor: Predictor) -> None:
    assert got(predictor, "/v2/health/live").json() == {"live": True}
    assert got(predictor, "/v2/health/ready").json() == {"ready": True}
    assert got(predictor, "/ping").json() == {"status": "Healthy"}


def test_metrics_count_answers_refusals_and_batches(predictor: Predictor) -> None:
    async def ask(client: httpx.AsyncClient) -> str:
        await client.post("/predict", content=picture(), headers=PNG)
        await client.post("/predict", content=b"{}", headers={"Content-Type": "application/json"})
        await client.get("/v2/health/live")
        return (await client.get("/metrics")).text

    text = asked(predictor, ask)
    assert 'vitreous_requests_total{code="200",model="photos"} 1.0' in text
    assert 'vitreous_requests_total{code="415",model="photos"} 1.0' in text
    assert 'vitreous_rejected_total{reason="unsupported_media_type"} 1.0' in text
    assert "vitreous_request_seconds_count 2.0" in text
    assert "vitreous_queue_depth 0.0" in text
    for name in ("vitreous_queue_seconds", "vitreous_compute_seconds", "vitreous_batch_size"):
        assert f"{name}_count 1.0" in text


def test_two_servers_in_one_process_keep_their_metrics_apart(predictor: Predictor) -> None:
    async def ask(client: httpx.AsyncClient) -> str:
        await client.post("/predict", content=picture(), headers=PNG)
        return (await client.get("/metrics")).text

    for _ in range(2):
        assert 'vitreous_requests_total{code="200",model="photos"} 1.0' in asked(predictor, ask)


def test_the_schema_describes_every_route_and_its_reply(predictor: Predictor) -> None:
    schema = got(predictor, "/openapi.json").json()
    assert sorted(schema["paths"]) == [
        "/explain",
        "/metrics",
        "/ping",
        "/predict",
        "/predictions/{model}",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/{model}",
    ]
    predict = schema["paths"]["/predict"]["post"]
    assert predict["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/PredictReply")
    assert {"400", "401", "408", "413", "415", "422", "503", "504"} <= set(predict["responses"])
    assert "multipart/form-data" in predict["requestBody"]["content"]
    json.dumps(schema, allow_nan=False)
