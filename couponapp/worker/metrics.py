"""The worker's metrics: the sum over its parts, which are separate processes, on one port."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import REGISTRY, CollectorRegistry, multiprocess, start_http_server

from couponapp.config import settings
from couponapp.config.settings import Settings
from couponapp.errors import ConfigurationError


class WorkerMetrics:
    """The metrics port, and the directory through which the parts share their values."""

    def __init__(self, config: Settings) -> None:
        """Open the port, if one is set.

        Raises:
            ConfigurationError: the port or the directory cannot be used.
        """
        self._directory: Path | None = None
        if not config.worker_metrics_port:
            return
        # A directory of its own: the web processes empty theirs when they start.
        parent = settings.make_directory(config, "metrics_dir")
        self._directory = (parent / f"worker-{config.worker_metrics_port}").resolve()
        self._directory.mkdir(exist_ok=True)
        for left_over in self._directory.glob("*.db"):
            left_over.unlink()
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry, path=str(self._directory))  # type: ignore[no-untyped-call]  # brings no types
        _serve(config, registry)

    def environ(self) -> dict[str, str]:
        """Return the environment of a part. Prometheus reads the directory when it is imported."""
        shared = {"PROMETHEUS_MULTIPROC_DIR": str(self._directory)} if self._directory else {}
        return settings.environ_with(**shared)

    def forget(self, pid: int) -> None:
        """Remove the gauges of a part that has died."""
        if self._directory:
            multiprocess.mark_process_dead(pid, path=str(self._directory))  # type: ignore[no-untyped-call]  # brings no types


def serve_own(config: Settings) -> None:
    """Export this process's own metrics, if a port is set. For a part that runs alone.

    Raises:
        ConfigurationError: the port cannot be used.
    """
    if config.worker_metrics_port:
        _serve(config, REGISTRY)


def _serve(config: Settings, registry: CollectorRegistry) -> None:
    try:
        start_http_server(config.worker_metrics_port, config.host, registry)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigurationError(
            f"COUPON_WORKER_METRICS_PORT {config.worker_metrics_port} on {config.host} cannot be used: {reason}"
        ) from error
