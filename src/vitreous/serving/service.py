"""What the server does with images, apart from HTTP: decode each by itself, then batch, then answer.

An image is decoded and judged before it joins a batch, so that a batch holds only arrays that fit.
"""

from __future__ import annotations

import asyncio
import io
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from vitreous.config.serve import ServeConfig
from vitreous.engines.onnxruntime import available_cores
from vitreous.errors import VitreousError
from vitreous.inputs import SERVER_FORMATS
from vitreous.runs import Prediction
from vitreous.serving.batching import BatchQueue, Place
from vitreous.serving.errors import DeadlineError, QueueFullError
from vitreous.serving.metrics import Metrics
from vitreous.serving.predictor import Predictor

if TYPE_CHECKING:
    from vitreous.explanation import Explanation

T = TypeVar("T")
logger = logging.getLogger("vitreous.serving")


@dataclass(frozen=True)
class Request:
    """What work needs to know of the request it is done for."""

    id: str
    deadline: float
    """On the clock of `time.monotonic`."""


class Service:
    """One predictor behind a bounded queue. Holds no event loop, so that it outlives any."""

    def __init__(self, predictor: Predictor, config: ServeConfig) -> None:
        self.predictor = predictor
        self.config = config
        self.name = predictor.run.name
        self.version = predictor.run.version
        self.draining = False
        self.active = 0
        """Requests being answered, health probes aside."""
        self._warm = False
        self._decoders: ThreadPoolExecutor | None = None
        self.queue = BatchQueue(
            lambda arrays: predictor.predict_arrays(np.stack(arrays)),
            max_batch=config.max_batch,
            max_queue=config.max_queue,
            delay=config.batch_delay / 1000,
            observe=lambda times: self.metrics.batch(times),
        )
        self.metrics = Metrics(self.name, lambda: self.queue.depth)

    async def ready(self) -> bool:
        """True once a synthetic image has passed through the model, until draining begins."""
        if self.draining:
            return False
        if not self._warm:
            try:
                await self.queue.call(self.predictor.self_test, time.monotonic() + self.config.timeout)
            except QueueFullError:
                return False
            self._warm = True
        return not self.draining

    async def predict(self, images: list[bytes], request: Request) -> list[Prediction | VitreousError]:
        """One answer or one error for each image, in order.

        Raises QueueFullError when they do not all find a place, DeadlineError when the time is up.
        """
        places = self.queue.places(len(images))
        work = [self._predict_one(image, place, request) for image, place in zip(images, places, strict=True)]
        try:
            async with asyncio.TaskGroup() as group:  # cancels what is left of a request whose client went away
                tasks = [group.create_task(one) for one in work]
        finally:
            for place in places:
                place.release()
        answers = [task.result() for task in tasks]
        for answer in answers:
            if isinstance(answer, DeadlineError):
                raise answer
        return answers

    async def explain(self, image: bytes, method: str, target: str | int | None, request: Request) -> Explanation:
        """A heat map for one image; runs by itself on the model's thread. Raises like `predict` and `Predictor.explain`."""
        with self.queue.place() as place:
            picture = await self._decode(lambda: self.predictor.open(image, **self._limits), request)
            return await place.call(lambda: self.predictor.explain(picture, method, target), request.deadline)

    async def encode_png(self, explanation: Explanation, request: Request) -> bytes:
        """The overlay of an explanation as PNG bytes."""

        def encode() -> bytes:
            buffer = io.BytesIO()
            explanation.overlay.save(buffer, format="PNG")
            return buffer.getvalue()

        return await self._decode(encode, request)

    async def drain(self, seconds: float, hurry: Callable[[], bool] = lambda: False) -> bool:
        """Refuse new work and wait for what is in flight; False when it did not finish in time, or in a hurry."""
        self.draining = True
        end = time.monotonic() + seconds
        while self.active > 0:
            if time.monotonic() >= end or hurry():
                return False
            await asyncio.sleep(0.02)
        return True

    def close(self) -> None:
        """End the threads; a later request would start them again."""
        self.queue.close()
        if self._decoders is not None:
            self._decoders.shutdown(wait=False, cancel_futures=True)
            self._decoders = None

    async def _predict_one(self, image: bytes, place: Place, request: Request) -> Prediction | VitreousError:
        try:
            array = await self._decode(lambda: self.predictor.decode(image, **self._limits), request)
            return await place.run(array, request.deadline)
        except VitreousError as error:
            return error
        except Exception as error:  # whatever a decoder or an engine threw is one image's failure, and ours
            logger.exception("request %s: an image failed", request.id)
            return VitreousError(type(error).__name__)

    @property
    def _limits(self) -> dict[str, Any]:
        return {"formats": SERVER_FORMATS, "max_pixels": self.config.max_pixels}

    async def _decode(self, work: Callable[[], T], request: Request) -> T:
        """Run on one of the few decoding threads, so that large images cannot take every core or all memory."""
        if self._decoders is None:
            self._decoders = ThreadPoolExecutor(min(4, available_cores()), thread_name_prefix="vitreous-decode")
        running = asyncio.get_running_loop().run_in_executor(self._decoders, work)
        try:
            async with asyncio.timeout(request.deadline - time.monotonic()):
                return await running
        except TimeoutError as error:
            if running.cancelled():
                raise DeadlineError from error
            raise
