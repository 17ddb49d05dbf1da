"""Run a step on single samples of its first batch, to settle how its loss on all of them is read."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from lightning_dataselect.capture import Answers, LossCapture, Shown
from lightning_dataselect.data.batch_tree import leaves_in
from lightning_dataselect.data.sample_sizes import unlike_samples
from lightning_dataselect.step.part_runs import NothingShownError, Part, PartRuns
from lightning_dataselect.utils.errors import UnsupportedLoaderError
from lightning_dataselect.utils.quiet import quietly

# Of three samples, two can be in their places by chance, but not all three; together they are just a small batch.
_N_SAMPLES = 3
_FEWER: Sequence[tuple[int, ...]] = ((0,), (1,), (2,), (0, 1), (1, 2), (2, 0))
# Of samples that may take another way than their batch; about as many as have been shown by then.
_N_OTHERS = 6
# Of samples that may be too few for what the step does with a batch.
_N_TOGETHER = 8
# Of draws that may all look like something else.
_MOST_DRAWN = 6
# Batches whose samples all have the same length do not reveal a step that sorts them by it.
_MOST_TRIED = 8


class Witness:
    """Let single samples show their losses, before a step's loss is read for the first time.

    The step is rehearsed, in eval mode, on three samples of the batch together, in both orders, and on each of them
    alone: a step that sorts them cannot leave both orders unchanged, unless they are all alike. Then on eight together,
    since three may be too few for what the step does with a batch. If the batch cannot be cut, the step shows nothing
    this way, and is read by algebra alone.

    Where nothing but time calls for it, and samples have left nothing open before, three of them together, and two in
    the other order, are enough as long as all is as it was.

    With several ranks, a step in which they communicate, such as one with a sharded layer or a metric that is summed,
    can only be rehearsed by all of them at once: in their first step, and when they have agreed to.

    Args:
        module: The LightningModule.
        capture: Reads its steps.
        n_ranks: The number of processes that train.
    """

    def __init__(self, module: pl.LightningModule, capture: LossCapture, n_ranks: int = 1) -> None:
        self._capture, self._testimony = capture, capture.testimony
        self._runs = PartRuns(module, capture, n_ranks)
        self._show = self._runs.show
        self.is_able = True
        """False once the step has shown nothing."""
        self.is_due = False
        """True if something is still open, so that it must be heard again as soon as all ranks are."""
        self._n_left = _MOST_TRIED
        self._is_agreed = True

    def hear(
        self, part: Part, size: int, batch: Any, counts: Sequence[int] | None = None, *, is_routine: bool = False
    ) -> None:
        """Settle how the terms of a step are read, as far as possible.

        Args:
            part: See `Part`.
            size: The number of samples in the batch.
            batch: The batch, from which samples are chosen so that no two are alike.
            counts: See `unlike_samples`.
            is_routine: True if nothing but the time that has passed calls for it.
        """
        if not (self.is_able and size > 1):
            return
        self._n_left -= 1
        # an error outside of the step is no reason to read it without a witness
        positions = unlike_samples(batch, size, [size - 1, 0, size // 2][: min(_N_SAMPLES, size)], counts)
        try:
            is_settled = (is_routine and self._is_as_before(part, positions)) or self._hear(part, positions, size)
        except (NothingShownError, UnsupportedLoaderError):
            is_settled, self.is_able = True, False
        self._is_agreed = False
        self.is_due = self._runs.needs_all_ranks and not is_settled
        if is_settled or not self._n_left or self._runs.needs_all_ranks:
            self._n_left = _MOST_TRIED

    def agree(self) -> None:
        """Let it be heard in the next step, on all ranks."""
        self.is_due, self._is_agreed = False, True
        self._capture.probe_next()

    @property
    def must_wait(self) -> bool:
        """True if it can only be heard on all ranks at once, and they have not agreed to that."""
        return self._runs.needs_all_ranks and not self._is_agreed

    @property
    def is_waiting(self) -> bool:
        """True if the batches so far have not shown what the step does."""
        return self._n_left < _MOST_TRIED

    def _is_as_before(self, part: Part, positions: list[int]) -> bool:
        """Tell if samples together, and two of them in the other order, show that nothing has changed."""
        if not self._testimony.remembers or len(positions) < _N_SAMPLES:
            return False
        whole = self._show(part, positions)
        return self._testimony.recognizes(whole, self._show(part, [positions[-1], positions[0]]))

    def _hear(self, part: Part, positions: list[int], size: int) -> bool:
        """Hear the step, and again with other draws if what it draws by itself may be the reason why it is refused.

        Mixup by a share that is next to 0, say, looks like another order of the samples.
        """
        known, refused, is_settled = self._testimony.findings, None, True
        for n_before in range(_MOST_DRAWN):
            self._testimony.findings = known
            with self._runs.after(n_before):
                is_settled = self._hear_once(part, positions, size)
            if self._testimony.findings.refuses_more_than(known):
                if refused is None and not self._runs.draw_by_themselves(part, positions, _MOST_DRAWN):
                    break
                refused = self._testimony.findings
            elif refused is None or self._testimony.findings.leaves_open(refused):
                break  # not where samples only happen to be drawn in their own order
        else:
            self._testimony.findings = self._testimony.findings if refused is None else refused
        return is_settled

    def _hear_once(self, part: Part, positions: list[int], size: int) -> bool:
        whole = self._show(part, positions)
        singles = [self._show(part, [position]) for position in positions]
        if self._testimony.tell_turns(whole, singles):
            whole, *singles = (self._show(part, some) for some in (positions, *([one] for one in positions)))
        if singles[-1].spec.tables != singles[0].spec.tables:  # a part has as many rows as there were samples
            whole = self._show(part, positions)
        is_settled, batch = self._testimony.decide(whole, singles), None
        self._testimony.refuse_mined(whole, range(whole.size), singles)
        if size > len(positions) and any(term.is_judged for term, _ in whole.terms.values()):
            with contextlib.suppress(UnsupportedLoaderError):  # of samples whose share in a number is unknown
                batch = self._look_for_mining(part, size, dict(zip(positions, singles, strict=True)))
        if singles[0].picks_by_outputs:
            with contextlib.suppress(NothingShownError):  # a step that skips a batch in which nothing is picked
                emptied = self._show(part, positions[:1], picks_nothing=True)
                self._testimony.refuse_fallback(singles[0], emptied)
        turned = self._show(part, positions[::-1])
        self._testimony.decide(turned, singles[::-1])
        if _hold_the_same_besides(part, positions):
            self._testimony.refuse_mixed(whole, turned, singles)
        batch = self._look_for_ways(part, size, whole, dict(zip(positions, singles, strict=True))) or batch
        self._look_beside(part, positions, size, whole, singles, batch)
        is_settled &= not whole.sorts or whole.reorders or turned.reorders
        self._testimony.remember(whole, singles, is_settled=is_settled)
        return is_settled

    def _look_for_ways(self, part: Part, size: int, whole: Shown, shown: dict[int, Shown]) -> Shown | None:
        """Look for answers by which the step decides for all samples at once what each of them loses.

        What all samples that are shown answer alike, the whole batch may not; it has to be run for that.
        """
        if self._runs.needs_all_ranks or not any(one.exits for one in shown.values()):
            return None  # how often the step runs depends on the samples, which are others on each rank
        positions, in_turn = list(shown), dict(enumerate(shown.values()))

        def led(position: int, answers: Answers) -> Tensor | None:
            try:
                with quietly():  # nothing has happened of what the step may say along this way
                    return self._show(part, [position], stand_ins=answers).loss
            except NothingShownError:
                return None

        def led_in_turn(turn: int, answers: Answers) -> Tensor | None:
            return led(positions[turn], answers)

        batch = None
        if self._testimony.refuse_ways(whole, in_turn, led_in_turn):
            return None
        self._testimony.warn_of_ways(whole, in_turn, led_in_turn)
        if size > len(shown):
            with contextlib.suppress(NothingShownError, UnsupportedLoaderError):
                batch = self._show(part, range(size), as_known=True)
                others = {*range(0, size, -(-size // _N_OTHERS))} - {*shown}
                more = {position: self._show(part, [position]) for position in sorted(others)}
                self._testimony.refuse_ways(batch, {**shown, **more}, led)
        return batch

    def _look_beside(
        self, part: Part, positions: list[int], size: int, whole: Shown, singles: Sequence[Shown], batch: Shown | None
    ) -> None:
        """Look for a reason why samples lose something else alone, if nothing has shown one, among fewer of them.

        What three samples do not show, more of them may, as where a step does something from four samples on.
        """
        if self._runs.needs_all_ranks or len(positions) < _N_SAMPLES:
            return
        alone = dict(enumerate(singles))
        if singles[0].exits:  # by which it may ask if a class, or an item, is there twice
            with contextlib.suppress(NothingShownError, UnsupportedLoaderError):
                self._testimony.refuse_additions(self._show(part, [positions[0]] * 2), {0: singles[0]})
        keys, fewer = self._testimony.unexplained(whole, alone), _FEWER
        if not keys and size > len(positions):
            if batch is None:
                others = [position for position in range(0, size, -(-size // _N_TOGETHER)) if position not in positions]
                positions = [*positions, *others][:_N_TOGETHER]
                with contextlib.suppress(NothingShownError, UnsupportedLoaderError):
                    batch = self._show(part, positions)
            else:
                alone, positions = dict(zip(positions, singles, strict=True)), list(range(size))
            if batch is None:
                return
            self._testimony.refuse_additions(batch, alone)
            keys, fewer = self._testimony.unexplained(batch, alone), [(turn,) for turn in alone]
        with contextlib.suppress(NothingShownError, UnsupportedLoaderError):
            if not keys or not _hold_the_same_besides(part, positions):
                return
            if self._runs.draw_by_themselves(part, positions, n_times=2):
                return  # what is drawn is part of a loss
            whole, *some = (
                self._show(part, [positions[i] for i in turns], with_slopes=True)
                for turns in (range(len(positions)), *fewer)
            )
            self._testimony.refuse_beside(keys, whole, list(zip(fewer, some, strict=True)), draws=self._runs.have_drawn)

    def _look_for_mining(self, part: Part, size: int, shown: dict[int, Shown]) -> Shown:
        """Compare the samples whose loss is 0 in the whole batch, if there are any, with the same samples alone."""
        batch = self._show(part, range(size))
        left_out = [] if batch.losses is None else (batch.losses == 0).nonzero().flatten().tolist()
        positions = list(dict.fromkeys([*left_out, *shown]))[:_N_SAMPLES]
        singles = [shown[position] if position in shown else self._show(part, [position]) for position in positions]
        self._testimony.refuse_mined(batch, positions, singles)
        return batch


def _hold_the_same_besides(part: Part, positions: Sequence[int]) -> bool:
    """Tell if samples get the same other inputs together and alone: a collate function may mix samples too.

    Example:
        >>> import functools
        >>> def step(batch): ...
        >>> def part(chosen):
        ...     n = len(chosen)
        ...     return functools.partial(step, {"x": torch.ones(n, 2), "scale": torch.tensor(1.0 / n)})
        >>> _hold_the_same_besides(part, [4, 0, 2]), _hold_the_same_besides(part, [4])
        (False, True)
    """
    together, n = _numbers_in(part(positions)), len(positions)
    some = positions[:_N_SAMPLES]  # of a whole batch, too: each of them may be collated anew
    return all(_are_same_but_for_rows(together, _numbers_in(part([position])), n) for position in some)


def _are_same_but_for_rows(together: Sequence[Tensor], alone: Sequence[Tensor], n: int) -> bool:
    rows = (torch.Size([n]), torch.Size([1]))
    return len(together) == len(alone) and all(
        (a.shape[:1], b.shape[:1]) == rows or torch.equal(a, b) for a, b in zip(together, alone, strict=True)
    )


def _numbers_in(step: Callable[[], Any]) -> list[Tensor]:
    given = getattr(step, "args", ()), getattr(step, "keywords", {})
    leaves = [leaf for _, leaf in leaves_in(given) if isinstance(leaf, Tensor | float | int)]
    return [leaf if isinstance(leaf, Tensor) else torch.tensor(leaf) for leaf in leaves]
