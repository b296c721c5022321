"""What can go wrong with the worker process itself."""


class WorkerError(Exception):
    """The worker could not be found, started or understood, or it reported an error.

    Args:
        message: what was wrong, and where.
        hint: what the user can do about it.
        details: further lines for the log, such as the end of the worker's own output.
    """

    def __init__(self, message, hint="", details=""):
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details

    def __str__(self):
        return " ".join(part for part in (self.message, self.hint) if part)


class WorkerCancelledError(Exception):
    """The user stopped the job."""
