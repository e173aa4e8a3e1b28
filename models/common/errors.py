"""Everything that Ratchet refuses, each with the exit code that the command line ends with.

A message says what, where, what is allowed and what to do next, in one line; no stack trace is shown for it.
"""


class RatchetError(Exception):
    """A step could not be done; nothing was lost."""

    exit_code = 1


class OutOfMemoryError(RatchetError):
    """Training needs more memory than there is, on the GPU or on this machine."""


class UserError(RatchetError):
    """What was asked for cannot be: unknown model, bad params, unreadable source, dirty state."""

    exit_code = 2


class DataBlockedError(RatchetError):
    """Data was refused: too many bad rows in a source, or a validation check of severity `block` failed."""

    exit_code = 3


class RegistryError(RatchetError):
    """The registry (git tags, DVC remote) cannot be read or written. Never the same as 'no champion yet'."""

    exit_code = 4


class LostRaceError(RegistryError):
    """Someone else promoted or judged first, so this was not recorded; trying the same once more cannot help."""


class PublishError(RatchetError):
    """Done here, but a remote refused or could not be reached; what to run to publish is in the message."""

    exit_code = 5


class BadExampleError(ValueError):
    """One example cannot be used; the message is the reason shown in the quarantine report."""
