"""Zero code, a tenth sampled, half of the callers unsampled: calls are complete, payments have payers."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from applications import Application, gunicorn, uvicorn
from observing import served

from otel_analytics.collector import DevCollector

SAMPLED = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.1"}
APPS: Mapping[str, Application] = {
    "fastapi": Application(uvicorn("payers_fastapi:app"), frozenset({"fastapi"}), env=SAMPLED),
    "flask": Application(
        gunicorn("payers_flask:app", "--workers", "2", "--threads", "4"), frozenset({"flask"}), env=SAMPLED
    ),
    "django": Application(
        gunicorn("django.core.wsgi:get_wsgi_application()", "--threads", "4"),
        frozenset({"django"}),
        env={**SAMPLED, "DJANGO_SETTINGS_MODULE": "payers_django"},
    ),
}
CLIENTS = 4


def pay(url: str, count: int) -> None:
    """Have each of so many users pay one order; every second one comes with an unsampled parent."""

    def share(first: int) -> None:
        with httpx.Client(timeout=10) as client:
            for number in range(first, count, CLIENTS):
                headers = {"X-User": f"user-{number}"}
                if number % 2:
                    headers["traceparent"] = f"00-{number + 1:032x}-{number + 1:016x}-00"
                client.post(f"{url}/pay/order-{number}", headers=headers).raise_for_status()

    with ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(share, range(CLIENTS)))


@pytest.mark.parametrize("count", [200, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", APPS)
def test_every_call_is_counted_and_every_payment_has_its_payer(name: str, count: int, tmp_path: Path) -> None:
    with DevCollector() as collector, served(APPS[name], "unset", collector, tmp_path) as running:
        pay(running.url, count)
        running.stop()
        views = collector.events("view")
        payments = collector.events("engagement")
    assert sorted(view["userId"] for view in views) == sorted(f"user-{number}" for number in range(count))
    payers = {payment["metadata"]["order"]: payment["userId"] for payment in payments}
    assert payers == {f"order-{number}": f"user-{number}" for number in range(count)}
    assert len(payments) == count
