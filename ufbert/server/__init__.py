"""The HTTP service ``ufbert serve`` (extra ``server``): the routes of TEI, OpenAI, Cohere, Ollama and the hub.

``queue`` holds the texts of all requests and computes them by token budget; ``service`` has the models and the calls;
``inference`` is what all routes ask of them; ``tei``, ``openai``, ``cohere``, ``hub`` and ``ollama`` are the routes in
the words of their clients; ``endpoint`` is the door of each: limits, keys, errors, one log line.
"""

from .settings import Settings

__all__ = ["Settings"]
