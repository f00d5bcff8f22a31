"""``python -m otel_analytics.cli`` is the command ``otel-analytics``."""

import sys

from otel_analytics.cli.main import main

sys.exit(main())
