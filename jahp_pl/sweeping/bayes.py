"""Proposes the next run by Bayesian optimization; only this module imports Optuna, a package of the extra `sweep`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from jahp_pl.sweeping import SweepError
from jahp_pl.sweeping.parameters import Choice, IntegerRange, Parameter, Range, RealRange, SteppedRange, Value

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

_ATTEMPTS = 20


class ScoredRun(NamedTuple):
    """Run that was proposed earlier, with its result."""

    values: Mapping[str, Value]
    """Values of the swept settings by dotted key."""
    score: float | None
    """Value of the metric; None if it is unknown or the run failed."""
    is_open: bool
    """Whether the run is waiting or running."""


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


def propose(parameters: Sequence[Parameter], history: Sequence[ScoredRun], is_minimum: bool) -> dict[str, Value] | None:
    """Propose values for the next run with a tree-structured Parzen estimator; equal arguments give equal values.

    Args:
        parameters: search space.
        history: all runs proposed so far, in order; proposals also keep away from open runs.
        is_minimum: whether a lower score is better.

    Returns:
        One value for each parameter, in a combination that is new; None if no new one is found.

    Raises:
        SweepError: if Optuna is not installed.
    """
    check_engine()
    import optuna

    space = {parameter.key: _distribution(parameter) for parameter in parameters}
    known = [dict(run.values) for run in history]
    for attempt in range(_ATTEMPTS):
        sampler = optuna.samplers.TPESampler(seed=len(history) + 1000 * attempt)
        study = optuna.create_study(direction="minimize" if is_minimum else "maximize", sampler=sampler)
        study.add_trials([_trial(run, parameters, space) for run in history])
        drawn = study.ask(space).params
        values = {parameter.key: _value(parameter, drawn[parameter.key]) for parameter in parameters}
        if values not in known:
            return values
    return None


def _distribution(parameter: Parameter) -> BaseDistribution:
    """Describe a parameter to Optuna."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    match parameter:
        case Choice():  # by index, because Optuna does not support lists
            return CategoricalDistribution(range(len(parameter.values)))
        case IntegerRange():
            return IntDistribution(int(parameter.low), int(parameter.high))
        case SteppedRange():
            high = float(str(parameter.nth(parameter.num_values - 1)))  # a whole number of steps, or Optuna warns
            return FloatDistribution(parameter.low, high, step=parameter.step)
        case RealRange():
            return FloatDistribution(parameter.low, parameter.high, log=parameter.is_log)
    raise AssertionError(parameter)


def _trial(run: ScoredRun, parameters: Sequence[Parameter], space: dict[str, BaseDistribution]) -> FrozenTrial:
    """Convert a run to Optuna's form."""
    from optuna.trial import TrialState, create_trial

    params = {parameter.key: _internal(parameter, run.values[parameter.key]) for parameter in parameters}
    state = TrialState.RUNNING if run.is_open else TrialState.FAIL if run.score is None else TrialState.COMPLETE
    value = run.score if state == TrialState.COMPLETE else None
    return create_trial(state=state, value=value, params=params, distributions=space)


def _value(parameter: Parameter, internal: int | float) -> Value:
    """Return the value that Optuna represents by a number, the inverse of `_internal`."""
    return parameter.rounded(internal) if isinstance(parameter, Range) else parameter.nth(int(internal))


def _internal(parameter: Parameter, value: Value) -> Value:
    """Return the number by which Optuna represents a value: the index of a choice, otherwise the value."""
    return parameter.values.index(value) if isinstance(parameter, Choice) else value
