"""Errors a user can act on, and the exit code each one ends a job with.

Raise these at the border, where files and configurations become arrays. The message is one line: which file or
field, what is wrong with it, and what to do.
"""


class UkbobError(Exception):
    """Base of all expected failures; `exit_code` is what the command line returns."""

    exit_code = 1


class ConfigError(UkbobError, ValueError):
    """A flag, configuration field or workdir cannot be used as given."""

    exit_code = 2


class InputError(UkbobError, ValueError):
    """A file or array of the user's cannot be used."""

    exit_code = 3


class FileError(InputError):
    """The file cannot be read as what it claims to be: missing, truncated, corrupt, another format."""


class EmptyError(FileError):
    """A list or folder that should name data names none: the operator meant another one."""

    exit_code = 2


class GeometryError(InputError):
    """Dimensions, spacing or affine cannot be used."""


class ValuesError(InputError):
    """The voxel values cannot be used for this purpose."""


class MismatchError(InputError):
    """Two inputs that must belong together do not."""


class SomeFailed(UkbobError):
    """The job finished, but some subjects failed; they are listed in `failures.jsonl`."""

    exit_code = 4


class Preempted(UkbobError):
    """The job was asked to stop and saved its state; the same command resumes it."""

    exit_code = 75
