"""What can be raised, and only at construction: once running, failures are values and counts.

::

    AnalyticsError
    ├── ConfigError    an option has a value it cannot have; names the option, the value and the remedy
    └── EventError     an event cannot be built from what was given; names the field
"""

from __future__ import annotations


class AnalyticsError(Exception):
    """Base of every error this package raises."""


class ConfigError(AnalyticsError, ValueError):
    """An option has a value it cannot have. The message names option, value and remedy, never a secret."""


class EventError(AnalyticsError, ValueError):
    """An event cannot be built from what was given. The message names the field."""


FOREIGN_ERRORS = (Exception, SystemExit)
"""What somebody else's code may raise without consequence: all that stops no program. An interrupt does."""
