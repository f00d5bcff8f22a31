"""The dev collector's connections: none left to accept with, too many, too slow ones."""

from __future__ import annotations

import json
import subprocess
import sys

_EXHAUSTED = """
import json, resource, socket, time, urllib.request
from otel_analytics.collector import DevCollector

with DevCollector() as collector:
    urllib.request.urlopen(collector.url + "/healthz").close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    clients = []
    try:
        while True:
            clients.append(socket.socket())
    except OSError:
        pass
    for client in clients:
        client.connect(("127.0.0.1", collector.port))
    began, used = time.monotonic(), time.process_time()
    time.sleep(3)
    cpu = (time.process_time() - used) / (time.monotonic() - began)
    for client in clients:
        client.close()
    status = urllib.request.urlopen(collector.url + "/healthz", timeout=10).status
print(json.dumps({"clients": len(clients), "cpu": cpu, "status": status}))
"""


def test_without_file_descriptors_it_waits_quietly_and_recovers() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _EXHAUSTED], capture_output=True, text=True, check=False, timeout=60
    )
    found = json.loads(done.stdout)
    assert found["clients"] > 10
    assert found["cpu"] < 0.2
    assert found["status"] == 204
    assert done.stderr == "the collector accepts no connections for the moment: Too many open files\n"
