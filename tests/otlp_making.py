"""Spans of the SDK as OTLP: protobuf by the SDK's own exporter, JSON as the specification has it."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from google.protobuf import json_format
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan

from otel_analytics.bridge.otlp import Encoding

_IDS = ("traceId", "spanId", "parentSpanId")


def otlp(spans: Sequence[ReadableSpan], encoding: Encoding = Encoding.PROTO) -> bytes:
    """Return an ``ExportTraceServiceRequest``."""
    message = encode_spans(spans)
    if encoding is Encoding.PROTO:
        return bytes(message.SerializeToString())
    return json.dumps(with_hex_ids(json_format.MessageToDict(message))).encode()


def with_hex_ids(value: Any) -> Any:
    """Return protobuf's JSON as OTLP's: ids in hex, enumerations as numbers are taken either way."""
    if isinstance(value, list):
        return [with_hex_ids(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        key: base64.b64decode(each).hex() if key in _IDS else with_hex_ids(each)
        for key, each in value.items()
    }
