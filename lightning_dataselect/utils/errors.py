"""Every error that this package raises on purpose, so that a caller can tell them from a slip.

Each kind also derives from the builtin that fits it, so that ``except ValueError`` goes on to work. A method of one's
own raises these, too; the command line then prints the message alone, without a traceback.
"""


class DataSelectError(Exception):
    """Base class of the errors that this package raises on purpose; the message names the fix.

    Example:
        >>> from lightning_dataselect import InfoBatch
        >>> try:
        ...     InfoBatch(prune_ratio=1.5)
        ... except DataSelectError as error:
        ...     print(error)
        prune_ratio=1.5 is outside [0, 1): give the share of samples that is dropped, say 0.3.
    """

    def __str__(self) -> str:
        # KeyError, the base of one kind, would print the repr of its message
        return Exception.__str__(self)


class InvalidArgumentError(DataSelectError, ValueError):
    """An argument has a value that cannot be used."""


class ArgumentTypeError(DataSelectError, TypeError):
    """An argument is of the wrong type."""


class UnexpectedArgumentError(DataSelectError, TypeError):
    """A class was given an argument that it does not take, or has no use for."""


class UnknownMethodError(InvalidArgumentError):
    """No selection method has the given name."""


class MissingFileError(DataSelectError, FileNotFoundError):
    """An argument names a file that does not exist."""


class UnwritableFileError(DataSelectError, OSError):
    """A file cannot be written, as on a full disk; one that was there before stays as it was."""


class UnsupportedLoaderError(DataSelectError, TypeError):
    """No samples can be selected from a train loader, data set, sampler or batch of this type."""


class InvalidLoaderError(DataSelectError, ValueError):
    """The train loader or its data set has a setting under which samples cannot be selected."""


class UnsupportedStepError(DataSelectError, TypeError):
    """The method cannot work with a training step of this kind."""


class UnreadableStepError(DataSelectError, ValueError):
    """The training step does not show what the method has to know of each sample."""


class MissingOutputError(DataSelectError, KeyError):
    """The training step's output lacks the key that ``sample_loss`` names."""


class SideEffectError(DataSelectError, RuntimeError):
    """Scoring samples changed the model in a way that cannot be taken back."""


class TrainerSettingsError(DataSelectError, ValueError):
    """The Trainer has a setting or a callback with which the selector cannot work."""


class ClassGivenError(DataSelectError, TypeError, AttributeError):
    """A class stands where a selector made of it is meant; ``hasattr`` of the class answers False."""


class UnsupportedTrainerError(DataSelectError, RuntimeError):
    """The Trainer lacks, or does not do, what a selector relies on."""


class CaptureError(DataSelectError, ValueError):
    """No sound per-sample loss was found; the message says what was, and what to do."""


class NoLossError(CaptureError):
    """The step returned None before it computed a loss, as Lightning lets it do for a batch that it cannot use."""


class InvalidSelectionError(DataSelectError, ValueError):
    """A method selected samples that do not exist, none at all, or one twice."""


class SelectionTypeError(DataSelectError, TypeError):
    """A method's decision is not of the type that was asked for."""


class MethodDefinitionError(DataSelectError, TypeError):
    """The class of a method lacks what every method must have."""


class UnknownColumnError(DataSelectError, KeyError):
    """A method asked for a column that it does not keep."""


class CheckpointMismatchError(DataSelectError, ValueError):
    """A checkpoint belongs to another method, data set or network than this fit."""


class UnreadableCheckpointError(DataSelectError, RuntimeError):
    """The file that a fit should go on from is cut short, damaged, or no checkpoint of a Trainer."""


class NoFitYetError(DataSelectError, RuntimeError, AttributeError):
    """Something was asked of a selector that is known only once a fit has begun; ``hasattr`` answers False."""


class AssistantError(DataSelectError, RuntimeError):
    """The network that AutoAssist trains alongside has failed."""


class MissingExtraError(DataSelectError, ImportError):
    """A package of the extra ``report`` is needed, which a machine that only trains may lack."""


class UserInputError(DataSelectError):
    """A command line or a config is wrong: shown as one plain sentence, without a traceback."""


def one_line(error: BaseException) -> str:
    r"""Return an error as one line of text; one that the user can mend goes without its type.

    Example:
        >>> one_line(ValueError("two\nlines")), one_line(UserInputError("two\nlines"))
        ('ValueError: two lines', 'two lines')
    """
    name, text = type(error).__name__, str(error)
    if isinstance(error, DataSelectError):
        # a worker process of a DataLoader sends its traceback as the message, with our own at its end
        return " ".join(text.rpartition(f"{name}: ")[2].split())
    return " ".join(f"{name}: {text}".split())
