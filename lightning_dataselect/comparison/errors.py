"""What the user can mend."""


class UserError(Exception):
    """A wrong input: shown as one plain sentence, without a traceback."""


def one_line(error: BaseException) -> str:
    r"""An error as one line of text; what the user can mend goes without its type.

    Example:
        >>> one_line(ValueError("two\nlines"))
        'ValueError: two lines'
    """
    text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())
