"""What runs a function on AWS Lambda: imports it by its name, and calls it for one event after another."""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from types import SimpleNamespace

CONTEXT = SimpleNamespace(
    function_name=os.environ["AWS_LAMBDA_FUNCTION_NAME"],
    invoked_function_arn="arn:aws:lambda:eu-central-1:123456789012:function:shop",
    aws_request_id="11111111-2222-3333-4444-555555555555",
)


def main() -> None:
    """Print the status of each event's answer."""
    module, _, name = os.environ["_HANDLER"].rpartition(".")
    function = getattr(import_module(module), name)
    for line in sys.stdin:
        try:
            answer = function(json.loads(line), CONTEXT)
        except Exception:  # noqa: BLE001 - the runtime says that it failed, and takes the next
            answer = {"statusCode": 500}
        print((answer or {}).get("statusCode"), flush=True)


if __name__ == "__main__":
    main()
