"""The application: chooses the parts and joins them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import lru_cache

from flask import Flask

from mes import logs, structured
from mes.api import (
    health,
    inference,
    models,
    problems,
    request_log,
    schema_validation,
    security_headers,
)
from mes.api.key_throttle import KeyThrottle
from mes.api.openai import chat, completions, embeddings, error_format
from mes.api.openapi import docs_page
from mes.api.services import Services
from mes.config.api_keys import ApiKeys, ApiKeysFile
from mes.config.catalog import Catalog, CatalogFile
from mes.config.settings import Settings, load
from mes.domain import Runtime
from mes.event_loop import EventLoop
from mes.metrics.collector import MetricsCollector
from mes.metrics.counters import RequestCounters
from mes.ollama.client import OllamaRuntime
from mes.scheduling.board import Board
from mes.scheduling.copy import Copy
from mes.scheduling.document import ERA
from mes.scheduling.duties import Duties
from mes.scheduling.errands import Errands
from mes.scheduling.keeper import Keeper
from mes.scheduling.limits import Limits
from mes.scheduling.loader import Loader
from mes.scheduling.ownership import Ownership
from mes.scheduling.scheduler import Scheduler
from mes.scheduling.sight import SharedSight
from mes.scheduling.store import Store
from mes.scheduling.worker import Worker
from mes.shared import Shared
from mes.streams import StreamPump

_LOOKS_AT_FILES_EVERY_SECONDS = 0.5
# Threads of each worker that never wait for a model.
_THREADS_HELD_BACK = 8

_BLUEPRINTS = (
    health.bp,
    models.bp,
    models.pull_bp,
    health.queue_bp,
    inference.checks_bp,
    schema_validation.bp,
    health.metrics_bp,
    docs_page.bp,
    inference.bp,
    chat.bp,
    completions.bp,
    embeddings.bp,
)


def create_app(
    settings: Settings | None = None,
    *,
    runtime: Runtime | None = None,
    shared: Shared | None = None,
) -> Flask:
    """The service as a WSGI application, ready to serve; made once in each worker process.

    What the workers of a service agree on is in `shared`, which they inherit from gunicorn's
    master; without it, in files of STATE_DIR.
    Raises SettingsError, CatalogError and KeysError.
    """
    settings = settings or load()
    logs.configure(settings.log_level)
    app = Flask("mes", static_folder=None)
    shared = shared or Shared.at(settings.state_dir, ERA)
    app.extensions["mes"] = _services(settings, runtime, shared)
    request_log.install_request_log(app)
    problems.install_error_handlers(app)
    error_format.install_openai_errors(app)
    security_headers.install_security(app, settings)
    for blueprint in _BLUEPRINTS:
        app.register_blueprint(blueprint)
    return app


def _services(settings: Settings, runtime: Runtime | None, shared: Shared) -> Services:
    catalog = CatalogFile(
        settings.models_config_path,
        settings.default_timeout_seconds,
        check_interval_seconds=_LOOKS_AT_FILES_EVERY_SECONDS,
        last_good_path=settings.state_dir / "catalog.json",
    )
    threads = settings.threads_for(catalog.current().capacity)
    event_loop = EventLoop()
    stream_pump = StreamPump()
    runtime = runtime or OllamaRuntime(
        host=settings.ollama_host, event_loop=event_loop, stream_pump=stream_pump, pool_size=threads
    )
    worker = Worker(settings.state_dir, event_loop)
    copy = Copy(settings.state_dir)
    store = Store(shared.registry, copy, max_loaded=settings.max_loaded_models)
    board = Board(store, worker, _limits(settings, catalog))
    loader = _loader(settings, runtime, store)
    scheduler = _scheduler(settings, board, worker, loader)
    sight = SharedSight(shared.sight)
    errands = Errands(
        runtime=runtime,
        board=board,
        worker=worker,
        scheduler=scheduler,
        loader=loader,
        sight=sight,
        # All workers of one gunicorn have the same parent: one start, one preloading.
        instance=str(os.getppid()),
        idle_unload_seconds=settings.idle_unload_seconds,
    )
    keeper = Keeper(
        settings.state_dir,
        board=board,
        worker=worker,
        errands=errands,
        sight=sight,
        ownership=Ownership(settings.state_dir, master=os.getppid(), address=settings.bind),
    )
    keeper.start()
    return Services(
        settings=settings,
        keys=_keys(settings),
        key_throttle=KeyThrottle(),
        catalog=catalog,
        schema_limits=_schema_limits(settings),
        second_validator=structured.SecondValidator(),
        runtime=runtime,
        scheduler=scheduler,
        board=board,
        sight=sight,
        event_loop=event_loop,
        stream_pump=stream_pump,
        keeper=keeper,
        metrics=MetricsCollector(
            request_counters=RequestCounters(settings.state_dir, catalog.current),
            board=board,
            sight=sight,
            worker=worker,
            catalog=catalog.current,
        ),
        shared=shared,
        wait_slots=threading.BoundedSemaphore(max(1, threads - _THREADS_HELD_BACK)),
    )


def _keys(settings: Settings) -> ApiKeys:
    if settings.api_keys_file is None:
        return ApiKeys(settings.api_key)
    file = ApiKeysFile(
        settings.api_keys_file,
        check_interval_seconds=_LOOKS_AT_FILES_EVERY_SECONDS,
        last_good_path=settings.state_dir / "keys.json",
    )
    file.current()  # raises now and not at the first request
    return ApiKeys(settings.api_key, file.current)


def _limits(settings: Settings, catalog: CatalogFile) -> Callable[[], Limits]:
    @lru_cache(maxsize=1)
    def limits_of(current: Catalog) -> Limits:
        return Limits(
            max_loaded=settings.max_loaded_models,
            patience_seconds=settings.swap_patience_seconds,
            patience_bounds=(
                settings.swap_patience_min_seconds,
                settings.swap_patience_max_seconds,
            ),
            memory_bytes=int(settings.max_model_memory_gb * 1e9) or None,
            models={spec.tag: spec for spec in current.enabled},
        )

    return lambda: limits_of(catalog.current())


def _schema_limits(settings: Settings) -> structured.SchemaLimits:
    return structured.SchemaLimits(
        text_bytes=settings.schema_max_bytes,
        depth=settings.schema_max_depth,
        subschemas=settings.schema_max_subschemas,
        properties=settings.schema_max_properties,
        enum_values=settings.schema_max_enum_values,
        patterns=settings.schema_max_patterns,
        pattern_characters=settings.schema_max_pattern_length,
        fan_out=settings.schema_max_fan_out,
    )


def _loader(settings: Settings, runtime: Runtime, store: Store) -> Loader:
    return Loader(
        runtime,
        store,
        load_timeout_seconds=settings.load_timeout_seconds,
        unload_timeout_seconds=settings.unload_timeout_seconds,
        retry_pause_seconds=settings.load_retry_pause_seconds,
    )


def _scheduler(settings: Settings, board: Board, worker: Worker, loader: Loader) -> Scheduler:
    duties = Duties(
        board,
        loader,
        cooldown_seconds=settings.cooldown_seconds,
        cooldown_max_seconds=settings.cooldown_max_seconds,
    )
    return Scheduler(
        board=board,
        worker=worker,
        duties=duties,
        queue_timeout_seconds=settings.queue_timeout_seconds,
        drain_timeout_seconds=settings.unload_timeout_seconds,
    )
