"""The former place of `parse_config`, until nothing imports it from here."""

from .families import parse_config

__all__ = ["parse_config"]
