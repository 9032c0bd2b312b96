"""The description of the paths, by OpenAPI 3.1."""

from importlib.metadata import version
from typing import Any

from sagitta.serving.refusal import Limits

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["status", "code", "message", "request"],
            "properties": {
                "status": {"type": "integer"},
                "code": {"type": "string", "description": "one word for programs"},
                "message": {"type": "string", "description": "one line for people"},
                "request": {"type": "string", "description": "by which the server's log names this request"},
            },
        }
    },
}
_CLASS = {
    "type": "object",
    "required": ["class", "probability"],
    "properties": {"class": {"type": "string"}, "probability": {"type": "number", "minimum": 0, "maximum": 1}},
}
_PREDICTION = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "description": "of the image, as it was sent"},
        "class": {"type": "string", "description": "the most probable class, of one label an image"},
        "probability": {"type": "number", "description": "of it, calibrated"},
        "classes": {"type": "array", "items": {"type": "string"}, "description": "of several labels: those given"},
        "probabilities": {"type": "array", "items": {"type": "number"}, "description": "of each of them"},
        "top": {"type": "array", "items": {"$ref": "#/components/schemas/Class"}},
        "abstain": {"type": "boolean", "description": "too uncertain for the accuracy that the server promises"},
        "set": {"type": "array", "items": {"type": "string"}, "description": "holds the class in the share promised"},
        "unfamiliar": {"type": "number", "description": "share of known images that look less unusual"},
        "error": {"type": "string", "description": "why this image, of several, could not be read"},
    },
}
_PREDICTIONS = {
    "type": "object",
    "required": ["model", "predictions"],
    "properties": {
        "model": {"type": "string"},
        "predictions": {"type": "array", "items": {"$ref": "#/components/schemas/Prediction"}},
    },
}
_IMAGE = {
    "oneOf": [
        {"type": "string", "contentEncoding": "base64"},
        {
            "type": "object",
            "required": ["data"],
            "properties": {"name": {"type": "string"}, "data": {"type": "string", "contentEncoding": "base64"}},
        },
    ]
}
_REASONS = {
    "400": "malformed",
    "401": "no or another token",
    "404": "no such model",
    "408": "the body came too slowly",
    "413": "too many bytes or images",
    "415": "of a kind that is not taken",
    "422": "no image could be read",
    "429": "busy: ask again after Retry-After seconds",
    "503": "not ready, or too slow",
}


def document(limits: Limits, *, token: bool) -> dict[str, Any]:
    """Return the description.

    Args:
        limits: that are told.
        token: whether clients must bear one.
    """
    errors = {status: _response(text, {"$ref": "#/components/schemas/Error"}) for status, text in _REASONS.items()}
    picture = {"description": "a PNG", "content": {"image/png": {}}}
    model, top_k = (
        _parameter("model", "by name; else the first", "string"),
        _parameter("top_k", "classes told", "integer"),
    )
    predict = {
        "summary": "classify one or many images",
        "parameters": [model, top_k, _parameter("name", "of the image that is the body", "string")],
        "requestBody": _body(limits),
        "responses": {
            "200": _response("one prediction an image", {"$ref": "#/components/schemas/Predictions"}),
            **errors,
        },
    }
    explain = {
        "summary": "where in an image the model sees a class; of runs that are served by torch",
        "parameters": [model, _parameter("class", "that is explained; else the most probable", "string")],
        "requestBody": _body(limits),
        "responses": {
            "200": picture,
            **errors,
            "501": _response("the model has none", {"$ref": "#/components/schemas/Error"}),
        },
    }
    schemes = {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}} if token else {}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Sagitta", "version": version("sagitta"), "summary": "image classification"},
        "paths": {
            "/v1/predict": {"post": predict},
            "/v1/explain": {"post": explain},
            "/v1/models": {
                "get": {"summary": "what is served, and its limits", "responses": {"200": _response("models", {})}}
            },
            "/health": {"get": _probe("whether the process lives")},
            "/ready": {"get": _probe("whether it takes requests")},
            "/metrics": {"get": {"summary": "for Prometheus", "responses": {"200": {"description": "text"}}}},
        },
        "components": {
            "schemas": {"Error": _ERROR, "Class": _CLASS, "Prediction": _PREDICTION, "Predictions": _PREDICTIONS},
            **schemes,
        },
        **({"security": [{"token": []}]} if token else {}),
    }


def _body(limits: Limits) -> dict[str, Any]:
    listed = {"type": "array", "items": _IMAGE, "maxItems": limits.images}
    beside = {"model": {"type": "string"}, "top_k": {"type": "integer", "minimum": 1}}
    form = {"type": "object", "additionalProperties": {"type": "string", "format": "binary"}}
    return {
        "required": True,
        "description": f"at most {limits.body:,} bytes, {limits.images} images, {limits.pixels:,} pixels an image",
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "application/json": {
                "schema": {"type": "object", "properties": {"images": listed, "image": _IMAGE, **beside}}
            },
            "multipart/form-data": {"schema": form},
        },
    }


def _parameter(name: str, text: str, kind: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "description": text, "schema": {"type": kind}}


def _response(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _probe(text: str) -> dict[str, Any]:
    return {"summary": text, "security": [], "responses": {"200": {"description": "yes"}, "503": {"description": "no"}}}
