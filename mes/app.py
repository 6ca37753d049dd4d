"""The application: the one place that chooses the parts of the service and joins them."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flask import Flask

from mes import logs, structured
from mes.api import (
    cors,
    health,
    inference,
    middleware,
    models,
    problems,
    schema_validation,
    settings_in_use,
    stream_keepalive,
)
from mes.api.openai import chat, completions, embeddings, error_format
from mes.api.openapi import browser_paths, docs_page
from mes.api.services import Services
from mes.config.api_keys import ApiKeys, ApiKeysFile, KeyThrottle
from mes.config.catalog import CatalogFile
from mes.config.reloading_file import ReloadingFile
from mes.config.settings import Settings, load
from mes.domain import Runtime
from mes.event_loop import EventLoop
from mes.metrics.collector import MetricsCollector
from mes.metrics.counters import RequestCounters
from mes.ollama.client import OllamaRuntime
from mes.scheduling.answer_versions import AnswerVersions
from mes.scheduling.cooldown import Cooldown
from mes.scheduling.coordinator import Coordinator
from mes.scheduling.deletion import ModelDeleter
from mes.scheduling.fairness import Limits, current_limits
from mes.scheduling.file_lock import InstanceLock
from mes.scheduling.leader import Leader
from mes.scheduling.load_tasks import LoadTasks
from mes.scheduling.model_loader import ModelLoader
from mes.scheduling.reconciler import Reconciler
from mes.scheduling.runtime_status import RuntimeStatusFile
from mes.scheduling.scheduler import Scheduler
from mes.scheduling.shared_resources import SharedResources
from mes.scheduling.store import Store
from mes.scheduling.workers import WorkerProcess
from mes.streams import StreamPump

_FILE_CHECK_INTERVAL_SECONDS = 0.5
# Threads of each worker that never wait for a model.
_RESERVED_THREADS = 8

_BLUEPRINTS = (
    health.bp,
    models.bp,
    models.pull_bp,
    health.queue_bp,
    settings_in_use.bp,
    schema_validation.checks_bp,
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
    shared: SharedResources | None = None,
) -> Flask:
    """Return the service as a WSGI application. Each worker process creates one.

    Args:
        settings: the settings; by default those of the environment.
        runtime: the runtime; by default Ollama.
        shared: the files that gunicorn's master has opened; by default this process opens them.

    Raises:
        SettingsError: a setting is invalid.
        CatalogError: the catalog is invalid or cannot be read.
        ApiKeysError: the file of API keys is invalid or cannot be read.
        OSError: STATE_DIR cannot be used.
    """
    settings = settings or load()
    logs.configure(settings.log_level)
    app = Flask("mes", static_folder=None)
    app.extensions["mes"] = _services(settings, runtime, shared)
    middleware.install_request_log(app)
    problems.install_error_handlers(app)
    error_format.install_openai_errors(app)
    middleware.install_security(app, settings)
    cors.install_cors(app)
    stream_keepalive.install_response_start(app)
    for blueprint in _BLUEPRINTS:
        app.register_blueprint(blueprint)
    browser_paths.install_browser_paths(app)
    return app


def _services(
    settings: Settings, runtime: Runtime | None, shared: SharedResources | None
) -> Services:
    """Join the parts, and start the leader's thread."""
    # A worker with an invalid configuration ends here, before it takes part in anything.
    catalog, keys_file = _catalog_file(settings), _api_keys_file(settings)
    threads = settings.threads_for(catalog.current().capacity)
    shared = shared or _shared_resources(settings, catalog)
    event_loop, stream_pump = EventLoop(), StreamPump()
    runtime = runtime or OllamaRuntime(
        host=settings.ollama_host, event_loop=event_loop, stream_pump=stream_pump, pool_size=threads
    )
    worker = WorkerProcess(settings.state_dir, event_loop)
    configuration = [file for file in (catalog, keys_file) if file is not None]
    scheduling = _scheduling(settings, catalog, runtime, worker, shared, configuration)
    scheduling.leader.start()
    return Services(
        settings=settings,
        keys=ApiKeys(settings.api_key, *([keys_file.current] if keys_file else [])),
        key_throttle=KeyThrottle(),
        catalog=catalog,
        schema_limits=_schema_limits(settings),
        second_validator=structured.SecondValidator(),
        runtime=runtime,
        scheduler=scheduling.scheduler,
        model_deleter=ModelDeleter(
            coordinator=scheduling.coordinator, scheduler=scheduling.scheduler, runtime=runtime
        ),
        coordinator=scheduling.coordinator,
        runtime_status=scheduling.runtime_status,
        versions=AnswerVersions(runtime, scheduling.coordinator, scheduling.runtime_status),
        event_loop=event_loop,
        stream_pump=stream_pump,
        leader=scheduling.leader,
        metrics=_metrics(settings, catalog, worker, scheduling),
        shared=shared,
        wait_slots=threading.BoundedSemaphore(max(1, threads - _RESERVED_THREADS)),
    )


# Configuration.


def _catalog_file(settings: Settings) -> CatalogFile:
    return CatalogFile(
        settings.models_config_path,
        settings.default_timeout_seconds,
        check_interval_seconds=_FILE_CHECK_INTERVAL_SECONDS,
        last_good_path=settings.state_dir / "catalog.json",
    )


def _api_keys_file(settings: Settings) -> ApiKeysFile | None:
    if settings.api_keys_file is None:
        return None
    file = ApiKeysFile(
        settings.api_keys_file,
        check_interval_seconds=_FILE_CHECK_INTERVAL_SECONDS,
        last_good_path=settings.state_dir / "keys.json",
    )
    file.current()  # raises an error now and not at the first request
    return file


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


# Scheduling.


@dataclass(frozen=True, slots=True)
class _Scheduling:
    """The parts of scheduling that the rest of the service uses."""

    coordinator: Coordinator
    scheduler: Scheduler
    runtime_status: RuntimeStatusFile
    leader: Leader


def _scheduling(
    settings: Settings,
    catalog: CatalogFile,
    runtime: Runtime,
    worker: WorkerProcess,
    shared: SharedResources,
    configuration: Sequence[ReloadingFile[Any]],
) -> _Scheduling:
    store = Store(
        shared.registry,
        max_loaded=settings.max_loaded_models,
        lock_timeout_seconds=settings.lock_timeout_seconds,
    )
    runtime_status = RuntimeStatusFile(shared.runtime_status)
    limits = current_limits(
        _limits(settings), catalog.current, lambda: runtime_status.current().slots
    )
    coordinator = Coordinator(store, worker, limits)
    model_loader = _model_loader(settings, runtime, store)
    scheduler = _scheduler(settings, coordinator, worker, model_loader)
    reconciler = Reconciler(
        runtime=runtime,
        coordinator=coordinator,
        worker=worker,
        scheduler=scheduler,
        model_loader=model_loader,
        runtime_status=runtime_status,
        # All workers of one gunicorn have the same parent, so that each start preloads once.
        instance=str(os.getppid()),
        idle_unload_seconds=settings.idle_unload_seconds,
    )
    leader = Leader(
        settings.state_dir,
        coordinator=coordinator,
        worker=worker,
        reconciler=reconciler,
        runtime_status=runtime_status,
        instance_lock=InstanceLock(settings.state_dir, master=os.getppid(), address=settings.bind),
        configuration=configuration,
    )
    return _Scheduling(coordinator, scheduler, runtime_status, leader)


def _shared_resources(settings: Settings, catalog: CatalogFile) -> SharedResources:
    return SharedResources.open(
        settings.state_dir,
        requests=catalog.current().capacity,
        models=len(catalog.current().models),
    )


def _limits(settings: Settings) -> Limits:
    return Limits(
        max_loaded=settings.max_loaded_models,
        patience_seconds=settings.swap_patience_seconds,
        patience_bounds=(settings.swap_patience_min_seconds, settings.swap_patience_max_seconds),
        memory_bytes=int(settings.max_model_memory_gb * 1e9) or None,
    )


def _model_loader(settings: Settings, runtime: Runtime, store: Store) -> ModelLoader:
    return ModelLoader(
        runtime,
        store,
        load_timeout_seconds=settings.load_timeout_seconds,
        unload_timeout_seconds=settings.unload_timeout_seconds,
        retry_pause_seconds=settings.load_retry_pause_seconds,
        cooldown=Cooldown(settings.cooldown_seconds, settings.cooldown_max_seconds),
    )


def _scheduler(
    settings: Settings, coordinator: Coordinator, worker: WorkerProcess, model_loader: ModelLoader
) -> Scheduler:
    load_tasks = LoadTasks(coordinator, model_loader)
    return Scheduler(
        coordinator=coordinator,
        worker=worker,
        load_tasks=load_tasks,
        queue_timeout_seconds=settings.queue_timeout_seconds,
        drain_timeout_seconds=settings.unload_timeout_seconds,
    )


# Metrics.


def _metrics(
    settings: Settings, catalog: CatalogFile, worker: WorkerProcess, scheduling: _Scheduling
) -> MetricsCollector:
    return MetricsCollector(
        request_counters=RequestCounters(settings.state_dir, catalog.current),
        coordinator=scheduling.coordinator,
        runtime_status=scheduling.runtime_status,
        worker=worker,
        catalog=catalog.current,
    )
