"""SIGINT and SIGTERM during training: the step ends and the state is saved first."""

import signal
from typing import Any

from tagger.base.log import notice
from tagger.train.distribution import Distribution


class StopSignals:
    """Collects SIGINT and SIGTERM instead of dying of them.

    A second one ends the process as usual. Within another thread than the main one nothing is
    collected: whoever runs us there handles signals.

    Parameters
    ----------
    distribution : Distribution
        Who trains together. To stop or to save is what machines do together: one that alone has
        noticed a signal or the time tells the others with the step.
    """

    def __init__(self, distribution: Distribution) -> None:
        self._distribution = distribution
        self._has_come = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        try:
            for caught in (signal.SIGINT, signal.SIGTERM):
                self._previous[caught] = signal.signal(caught, self._note)
        except ValueError:
            self._previous.clear()
        return self

    def __exit__(self, *raised: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @property
    def stop_now(self) -> bool:
        """Whether to stop where machines that train together cannot agree on it."""
        return self._has_come and self._distribution.n_workers == 1

    def wishes(self, *, save: bool) -> list[bool]:
        """Whether this machine wants to stop and, as `save` says, to save."""
        return [self._has_come, save and self._distribution.is_chief]

    def agreed(self, wishes: list[float]) -> tuple[bool, bool]:
        """Whether to stop and to save, by the sum of all machines' wishes."""
        stop, save = (wish > 0 for wish in wishes)
        # With nobody to agree with, what came during the step counts at once.
        return stop or self.stop_now, save

    def _note(self, number: int, frame: Any) -> None:
        del frame
        self._has_come = True
        name = signal.Signals(number).name
        notice(f"{name}: finishing this step and saving the state; once more to quit at once")
        signal.signal(number, self._previous[number])
