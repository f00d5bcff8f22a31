"""`AnalyticsLogRecordExporter`: log-based events to the client.

OpenTelemetry moves from span events to events that are log records with a name (logs specification, "Events
API"). What names a business event becomes the same engagement, by the same tables, joined to its request by
its trace. `BatchLogRecordProcessor` does not ask whether a trace was sampled, so these are complete.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from opentelemetry.sdk._logs import export as sdk

from otel_analytics.delivery.logs import log_safely
from otel_analytics.mapping.engagements import Occurrence, log_event
from otel_analytics.sdk.intake import Adapter

# The SDK has renamed both, and the old names go: of each, one exists, and mypy knows neither.
_Exporter: Any = getattr(sdk, "LogRecordExporter", None) or sdk.LogExporter
_Result: Any = getattr(sdk, "LogRecordExportResult", None) or sdk.LogExportResult


class AnalyticsLogRecordExporter(Adapter, _Exporter):  # type: ignore[misc]
    """Turns log records that name a business event into engagements, and sends them.

    A record names one by its ``event_name`` or by an attribute ``event.name``. An event that is recorded as a
    span event too is counted once: on one span, the n-th log record and the n-th span event of a name are the
    same event. For records to be joined to their requests, share the client of the span processor or
    exporter; auto-configuration does. Takes what `Adapter` takes: an endpoint and options, or a client.
    """

    def export(self, batch: Sequence[Any]) -> Any:
        """Map log records and hand their events on.

        Args:
            batch: The SDK's log records, each with its ``log_record``.

        Returns:
            SUCCESS once the events are accepted for delivery, or wait for their server span; FAILURE after
            shutdown.
        """
        if self._closed:
            return _Result.FAILURE
        self._intake.happened(
            occurrence for each in batch if (occurrence := self._read(each)) is not None and occurrence.name
        )
        return _Result.SUCCESS

    def _read(self, data: Any) -> Occurrence | None:
        try:
            return log_event(data.log_record)
        except Exception:  # noqa: BLE001 - one record that cannot be read must not take its batch along
            log_safely(logging.DEBUG, "a log record could not be mapped", exc_info=True)
            self.client.refuse("invalid")
            return None
