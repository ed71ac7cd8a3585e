"""A planning service: many robots, one batch."""

from planet_rssm.serve.service import RefusedError, Service
from planet_rssm.serve.web import asgi_app

__all__ = ["RefusedError", "Service", "asgi_app"]
