"""Proposes points by Bayesian optimization; only this module imports Optuna, a package of the extra `sweep`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from jahp_pl.sweeping import SweepError
from jahp_pl.sweeping.parameters import Parameter, Value

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

_ATTEMPTS = 20


class ScoredPoint(NamedTuple):
    """Point that was proposed earlier, with its result."""

    values: Mapping[str, Value]
    """Values of the swept settings by dotted key."""
    score: float | None
    """Value of the metric; None if it is unknown or the point failed."""
    is_open: bool
    """Whether the point is waiting or running."""


def check_engine() -> None:
    """Check that Optuna is installed.

    Raises:
        SweepError: if Optuna is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise SweepError("method bayes needs Optuna, which is not installed; pip install 'jahp_pl[sweep]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def propose(
    parameters: Sequence[Parameter], history: Sequence[ScoredPoint], is_minimum: bool
) -> dict[str, Value] | None:
    """Propose values for the next point with a tree-structured Parzen estimator; equal arguments give equal values.

    Args:
        parameters: search space.
        history: all points proposed so far, in order; proposals also keep away from open points.
        is_minimum: whether a lower score is better.

    Returns:
        One value for each parameter, in a combination that is new; None if no new one is found.

    Raises:
        SweepError: if Optuna is not installed.
    """
    check_engine()
    import optuna

    space = {parameter.key: _distribution(parameter) for parameter in parameters}
    known = [dict(point.values) for point in history]
    for attempt in range(_ATTEMPTS):
        sampler = optuna.samplers.TPESampler(seed=len(history) + 1000 * attempt)
        study = optuna.create_study(direction="minimize" if is_minimum else "maximize", sampler=sampler)
        study.add_trials([_frozen(point, parameters, space) for point in history])
        drawn = study.ask(space).params
        values = {p.key: _value(p, drawn[p.key]) for p in parameters}
        if values not in known:
            return values
    return None


def _distribution(parameter: Parameter) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if parameter.kind == "choice":
        return CategoricalDistribution(range(len(parameter.choices)))  # indices, because Optuna does not support lists
    if parameter.kind == "integer":
        return IntDistribution(int(parameter.low), int(parameter.high))
    high, number = parameter.high, parameter.num_values
    if number is not None:
        high = float(str(parameter.nth(number - 1)))  # a whole number of steps, otherwise Optuna warns
    return FloatDistribution(parameter.low, high, log=parameter.is_log, step=parameter.step)


def _value(parameter: Parameter, drawn: int | float) -> Value:
    return parameter.choices[int(drawn)] if parameter.kind == "choice" else parameter.rounded(drawn)


def _frozen(point: ScoredPoint, parameters: Sequence[Parameter], space: dict[str, BaseDistribution]) -> FrozenTrial:
    from optuna.trial import TrialState, create_trial

    params = {p.key: _internal(p, point.values[p.key]) for p in parameters}
    state = TrialState.RUNNING if point.is_open else TrialState.FAIL if point.score is None else TrialState.COMPLETE
    value = point.score if state == TrialState.COMPLETE else None
    return create_trial(state=state, value=value, params=params, distributions=space)


def _internal(parameter: Parameter, value: Value) -> Value:
    """Return the number by which Optuna represents a value: the index of a choice, otherwise the value."""
    if parameter.kind != "choice":
        return value
    return next(index for index, choice in enumerate(parameter.choices) if choice == value)
