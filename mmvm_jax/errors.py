"""The one exception that the entry points turn into one line and an exit code."""


class UserError(Exception):
    """A request that cannot be met, with a message for the person who made it.

    Attributes:
      exit_code: 2 for a wrong request (configuration, flags, files), 1 for a failure while working.
    """

    def __init__(self, message: str, exit_code: int = 2):
        super().__init__(message)
        self.exit_code = exit_code


def unknown_name(what: str, name: object, allowed) -> UserError:
    """The error for a name that is in no table, listing the names that are."""
    return UserError(f"{what} is {name!r}; allowed: {', '.join(sorted(allowed))}")
