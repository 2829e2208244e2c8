"""Messages to the logger "ufbert": quiet unless a program asks for them."""

import sys

__all__ = ["debug"]


def debug(message: str, *arguments: object) -> None:
    """Log, where somebody may be listening: who has not imported ``logging`` cannot be, and pays nothing for it."""
    if (logging := sys.modules.get("logging")) is not None:
        logging.getLogger("ufbert").debug(message, *arguments)
