"""How a running job is stopped: asked first, then interrupted, and in the end abandoned with its process.

A job asks its context between two steps whether it shall go on. A step that takes longer, such as the fit of a forest,
is interrupted as by a second Ctrl-C, and what is half written goes as the exception passes. A step inside a library that
hears nothing, such as GDAL's translation of a large raster, is abandoned; its half-written files are removed by name.
"""

from __future__ import annotations

import _thread
import os
import signal
import threading
from types import FrameType
from typing import Any

from core.errors import Cancelled
from core.jobs.events import JobContext
from core.jobs.outputs import remove_half_done
from core.jobs.schemas import AnyJob

PATIENCE_SECONDS = 1.0
"""How long a job may take to notice that it is cancelled before it is interrupted."""

GRACE_SECONDS = 5.0
"""How long it may take after that; together less than the ten seconds after which the plugin kills the worker."""


class Stopper:
    """While entered, Ctrl-C and SIGTERM stop the job. Enter it on the main thread, around the whole life of a job.

    Ctrl-C is the user's wish, and nothing is left behind. SIGTERM is the system's, as at a shutdown or the end of a
    batch job's time: half-written outputs go too, but a training keeps its checkpoint.

    Args:
        context: of the job.

    Attributes:
        job: the job, once it is known.
    """

    def __init__(self, context: JobContext) -> None:
        self.job: AnyJob | None = None
        self._context = context
        self._begun = threading.Lock()
        self._ended = threading.Event()
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Stopper:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def stop(self, resumable: bool = False) -> bool:
        """Begins to stop the job, and returns at once. May be called from any thread, and from a signal handler.

        Args:
            resumable: see ``JobContext.cancel``.

        Returns:
            Whether this was the first call.
        """
        if not self._begun.acquire(blocking=False):
            return False
        # A thread of its own: a signal handler runs in the middle of whatever holds the context's locks.
        threading.Thread(target=self._insist, args=(resumable,), daemon=True).start()
        return True

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self.stop(resumable=number == signal.SIGTERM) and self._context.is_cancelled:
            raise KeyboardInterrupt

    def _insist(self, resumable: bool) -> None:
        self._context.cancel(resumable)
        if self._ended.wait(PATIENCE_SECONDS) or not self._context.is_cancelled:
            return
        _interrupt_main_thread()
        if self._ended.wait(GRACE_SECONDS):
            return
        if self.job is not None:
            remove_half_done(self.job, keep_checkpoint=resumable)
        os._exit(Cancelled.exit_code)


def _interrupt_main_thread() -> None:
    main = threading.main_thread().ident
    if main is not None and hasattr(signal, "pthread_kill"):
        # A real signal, which also ends a wait inside the system.
        signal.pthread_kill(main, signal.SIGINT)
    else:
        _thread.interrupt_main()
