"""The version, said once: the package, its wheel and the User-Agent header read it here."""

__version__ = "0.1.0"
