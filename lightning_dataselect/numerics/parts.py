"""The parts that very many samples are worked through in, one after the other."""

_CHUNK = 2**17  # samples; what is made of a part stays in the processor's cache


def parts(n: int) -> list[slice]:
    """Cut ``n`` samples into parts that are worked through one after the other.

    Example:
        >>> parts(3), len(parts(10_000_000))
        ([slice(0, 3, None)], 77)
    """
    return [slice(start, min(start + _CHUNK, n)) for start in range(0, n, _CHUNK)]
