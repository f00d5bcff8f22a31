"""``python -m otel_analytics`` is the command ``otel-analytics``."""

import sys

from otel_analytics.cli import main

sys.exit(main())
