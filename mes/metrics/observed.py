"""Observed: what the requests were like, counted from the facts of their log lines."""

from __future__ import annotations

import hashlib
import logging
from array import array
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import orjson

from mes.config.catalog import Catalog
from mes.errors import ModelNotFound
from mes.metrics.ledger import Ledger
from mes.metrics.measures import MEASURES, WIDTH, Facts, Kind, amounts

log = logging.getLogger(__name__)

# Whatever callers may make up: a model, a path, a method.
OTHER = "other"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Observed:
    """Counts the requests of all workers, in `STATE_DIR/metrics-<layout>.counts`."""

    def __init__(self, directory: Path, catalog: Callable[[], Catalog]) -> None:
        # During a reload into another version both count, each in rows of its own layout.
        layout = repr((Kind._fields, [(measure.name, measure.bounds) for measure in MEASURES]))
        digest = hashlib.sha256(layout.encode()).hexdigest()[:8]
        self._ledger = Ledger(directory / f"metrics-{digest}.counts", width=WIDTH)
        self._catalog = catalog
        self._well = True

    def note(self, facts: Facts, *, route: str | None) -> None:
        """Count one request. Raises nothing: the request is worth more than its count."""
        try:
            self._ledger.add(_key(self._kind(facts, route)), amounts(facts))
            self._well = True
        except OSError as exc:
            self._complain(exc)

    def rows(self) -> dict[Kind, array[float]]:
        """What has been counted, by the kind of request."""
        try:
            kept = self._ledger.read()
        except OSError as exc:
            self._complain(exc)
            return {}
        read = {_kind_in(key): numbers for key, numbers in kept.items()}
        return {kind: numbers for kind, numbers in read.items() if kind is not None}

    def close(self) -> None:
        """Let go of the file."""
        self._ledger.close()

    def _kind(self, facts: Facts, route: str | None) -> Kind:
        verdict = facts.get("verdict") or ""
        return Kind(
            method=facts["method"] if facts["method"] in _METHODS else OTHER,
            route=route or OTHER,
            operation=facts.get("operation") or "text_completion",
            status=str(facts["status"]),
            code=facts["code"] or "",
            model=self._model(facts.get("model")),
            first_verdict=facts.get("first_verdict") or verdict,
            verdict=verdict,
        )

    def _model(self, name: str | None) -> str:
        if not name:
            return ""
        try:
            return self._catalog().get(name).id
        except ModelNotFound:
            return OTHER

    def _complain(self, error: OSError) -> None:
        if self._well:
            log.warning("metrics_not_kept", extra={"reason": str(error)})
        self._well = False


@lru_cache(maxsize=1024)
def _key(kind: Kind) -> bytes:
    return orjson.dumps(list(kind))


def _kind_in(key: bytes) -> Kind | None:
    try:
        return Kind(*orjson.loads(key))
    except (ValueError, TypeError):
        return None  # somebody else has written into the file
