"""A planning service: many robots, one batch."""

from planet_rssm.serve.service import RefusedError, Service
from planet_rssm.serve.web import WebServer

__all__ = ["RefusedError", "Service", "WebServer"]
