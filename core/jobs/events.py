"""What a running job says, one JSON object a line.

Every event has the key ``event``; the rest depends on it:

===========  ==========================================================================================
``hello``    ``protocol``, ``version`` (ours), ``python``, ``torch`` (its version), ``device``
``progress`` ``fraction`` 0..1 of the whole job, never falling; ``phase``, a short text
``log``      ``level`` (``info`` or ``warning``), ``text``
``result``   ``outputs``: key to path, number or text; the last line of a job that succeeded
``error``    ``message``, ``hint``, ``kind`` (the error's class), ``traceback`` (only for defects of ours)
``cancelled`` nothing more; the last line of a job that the user stopped
===========  ==========================================================================================
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any, TextIO

from core.errors import Cancelled

PROTOCOL = 1
"""Raised whenever an event changes its meaning; the plugin refuses a worker that speaks another one."""

Event = dict[str, Any]
Sink = Callable[[Event], None]


class JobContext:
    """A job's way to speak and to be stopped.

    Args:
        sink: receives every event; called from one thread at a time.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._lock = threading.Lock()
        self._stopping = threading.Lock()
        self._cancelled = False
        self._is_resumable = False
        self._is_committed = False
        self._fraction = 0.0

    def cancel(self, resumable: bool = False) -> None:
        """Asks the job to stop at its next step; comes too late after ``commit``. May be called from any thread.

        Args:
            resumable: the system ends the job and not the user: what lets the same job go on later is kept.
        """
        with self._stopping:
            if not self._is_committed:
                self._cancelled = True
                self._is_resumable = resumable

    def check_cancelled(self) -> None:
        """Raises:
        Cancelled: somebody called ``cancel``.
        """
        if self._cancelled:
            raise Cancelled()

    def commit(self) -> None:
        """Says that the outputs are whole and are put in place now: from here on nothing stops the job.

        Raises:
            Cancelled: somebody called ``cancel`` before.
        """
        with self._stopping:
            self.check_cancelled()
            self._is_committed = True

    @property
    def is_cancelled(self) -> bool:
        return self._cancelled

    @property
    def is_resumable(self) -> bool:
        """Whether a cancelled job keeps what lets it go on later."""
        return self._is_resumable

    def send(self, event: Event) -> None:
        with self._lock:
            self._sink(event)

    def progress(self, fraction: float, phase: str) -> None:
        """Reports how much of the whole job is done, and checks whether it was cancelled.

        Raises:
            Cancelled: somebody called ``cancel``.
        """
        self.check_cancelled()
        self._fraction = max(self._fraction, min(1.0, fraction))
        self.send({"event": "progress", "fraction": round(self._fraction, 4), "phase": phase})

    def part(self, start: float, stop: float) -> Callable[[float, str], None]:
        """A progress function for a part of the job that runs from ``start`` to ``stop`` of the whole."""

        def report(fraction: float, phase: str) -> None:
            self.progress(start + (stop - start) * fraction, phase)

        return report

    def info(self, text: str) -> None:
        self.send({"event": "log", "level": "info", "text": text})

    def warning(self, text: str) -> None:
        self.send({"event": "log", "level": "warning", "text": text})


def json_lines(stream: TextIO) -> Sink:
    """A sink that writes each event as one line of strict JSON."""

    def write(event: Event) -> None:
        stream.write(json.dumps(event, ensure_ascii=False, allow_nan=False) + "\n")
        stream.flush()

    return write


def errors_only(sink: Sink) -> Sink:
    """A sink that passes on nothing but errors."""

    def send(event: Event) -> None:
        if event["event"] == "error":
            sink(event)

    return send
