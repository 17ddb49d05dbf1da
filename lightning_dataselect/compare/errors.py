"""What the user can mend."""

from lightning_dataselect.utils.errors import DataSelectError


class UserError(DataSelectError):
    """A wrong input: shown as one plain sentence, without a traceback."""
