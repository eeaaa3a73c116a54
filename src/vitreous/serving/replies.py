"""The shapes of the server's JSON replies, typed so that /openapi.json describes them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from vitreous.runs import Prediction

Finite = Annotated[float, Field(allow_inf_nan=False)]


class LabelScore(BaseModel):
    label: str
    score: Finite = Field(description="Calibrated probability, 0 to 1.")


class PredictionReply(BaseModel):
    """The answer for one image."""

    label: str = Field(description="The likeliest class.")
    score: Finite = Field(description="Its calibrated probability, 0 to 1.")
    top: list[LabelScore] = Field(description="The likeliest classes, best first.")
    abstain: bool = Field(description="True where the model should not be trusted with this image.")
    ood: Finite = Field(description="Strangeness, 0 to 1: the share of validation images that were less strange.")
    labels: list[LabelScore] | None = Field(
        default=None,
        description="Where images may have several labels or none: those whose score reaches the label's threshold, best first.",
        exclude_if=lambda labels: labels is None,
    )

    set: list[str] | None = Field(
        default=None,
        description="Classes among which the true one is as often as was promised in training (nine times in ten by default), likeliest first.",
        exclude_if=lambda classes: classes is None,
    )

    @classmethod
    def of(cls, prediction: Prediction) -> PredictionReply:
        return cls(
            label=prediction.label,
            score=prediction.score,
            top=[LabelScore(label=label, score=score) for label, score in prediction.top],
            abstain=prediction.abstain,
            ood=prediction.ood,
            labels=None
            if prediction.labels is None
            else [LabelScore(label=label, score=score) for label, score in prediction.labels],
            set=prediction.set,
        )


class ErrorInfo(BaseModel):
    code: str = Field(description="Stable name of the reason.")
    message: str
    id: str = Field(description="The id of the request, also in the X-Request-Id header and the server's log.")


class ErrorReply(BaseModel):
    """Every failure outside /v2/."""

    error: ErrorInfo


class ProtocolError(BaseModel):
    """Every failure under /v2/, as the Open Inference Protocol has it."""

    error: str


class PredictReply(BaseModel):
    """One entry for each image sent, in order; an image that could not be used has `error` instead."""

    model: str
    version: str = Field(description="Twelve hexadecimal digits that name exactly these weights.")
    predictions: list[PredictionReply | ErrorReply]
    id: str


class HeatmapReply(BaseModel):
    """How much each part of the upright image speaks for the target class; it is to be stretched over the whole image."""

    model: str
    version: str
    id: str
    target: str = Field(description="The class that is explained.")
    method: str
    height: int
    width: int
    heatmap: list[list[Finite]] = Field(description="Rows of values from 0 to 1, top to bottom.")


class Live(BaseModel):
    live: bool


class Ready(BaseModel):
    ready: bool


class Ping(BaseModel):
    status: str


class TensorMetadata(BaseModel):
    name: str
    datatype: str
    shape: list[int] = Field(description="-1 stands for any size.")


class ModelParameters(BaseModel):
    """What vitreous adds to the protocol's metadata."""

    classes: list[str]
    explain_methods: list[str]
    formats: list[str]
    strangeness: bool = Field(description="Whether this model can tell unusual images; `ood` is 0 where it cannot.")


class ModelMetadata(BaseModel):
    """Open Inference Protocol v2, "Model Metadata"."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    parameters: ModelParameters
