"""The errors that a user can cause or has to know of.

Every message says what was wrong and where (the file, the field, the value); ``hint`` says what to do about it.
Anything else that is raised is a defect of ours and is shown with its traceback.
"""


class RsfusionError(Exception):
    """Base of the tree.

    Args:
        message: what was wrong, and where.
        hint: what the user can do about it.
    """

    exit_code = 1

    @property
    def kind(self) -> str:
        """The name that is told to whoever asked for the job: that of the class right below the base. What stands below it is
        told apart inside the program alone."""
        names = [cls.__name__ for cls in type(self).__mro__ if issubclass(cls, RsfusionError)]
        return names[-2] if len(names) > 1 else names[0]

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class UsageError(RsfusionError):
    """The request itself is wrong: an unknown key, a value out of range, options that exclude each other."""

    exit_code = 2


class WorkersError(RsfusionError):
    """Processes or machines that take part are not there, or are lost: the same job may succeed later."""


class RasterError(RsfusionError):
    """A raster cannot be read, has no place on the ground, or holds nothing that can be used."""


class ReadError(RasterError):
    """Pixels that cannot be read now: a damaged file, or a disk or network that fails for a while."""


class GridError(RsfusionError):
    """Grids, extents or coordinate reference systems that do not fit together."""


class SensorError(RsfusionError):
    """No sensor, several sensors, or missing bands for a raster."""


class LabelError(RsfusionError):
    """Labels that cannot be used: a missing field, one class only, nothing inside the scene."""


class NothingInsideError(LabelError):
    """Shapes that all lie elsewhere."""


class ModelFileError(RsfusionError):
    """A model file that cannot be read, or a model that does not fit the rasters given."""


class TrainingError(RsfusionError):
    """A training that came to nothing: features that collapsed, losses that are no numbers."""


class OutputError(RsfusionError):
    """An output that cannot be written: a missing or read-only folder, a full disk, a path that is also an input."""


class DeviceError(RsfusionError):
    """A device that was asked for and is not there."""


class Cancelled(RsfusionError):  # noqa: N818 - the user's wish, no error
    """The user stopped the job."""

    exit_code = 130

    def __init__(self, message: str = "The job was cancelled.") -> None:
        super().__init__(message)
