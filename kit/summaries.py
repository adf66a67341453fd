"""The losses of a rung over its seeds: at the end of training, and along the way."""

import statistics

from kit.experiments import clearly_below, ladder_setting, seeds_of


def is_measured(rung):
    """Whether a run of the rung is kept, or of the one that was measured for it."""
    return bool(seeds_of(rung.measured))


def measured_runs(rung):
    """The runs of a rung, one for each seed. A page that asks for them needs them."""
    runs = seeds_of(rung.measured)
    if not runs:
        raise SystemExit(f'docs/results.json has no run of {rung.measured.path}.')
    return runs


def step_time(rung):
    """Milliseconds of a quiet step where the runs of the rung were given a time, or None."""
    setting = ladder_setting(rung.measured)
    return setting.experiment.timing(setting.rung, setting.change)['milliseconds'] if setting.experiment.seconds else None


def forms(rung):
    """What was found of the poems of the rung's models, a row for each seed; [] where they were not looked at."""
    setting = ladder_setting(rung.measured)
    return setting.form if setting.experiment.model else []


def training(rung):
    """[training loss at the end, for each seed]"""
    return [run['curve'][-1][1] for run in measured_runs(rung)]


def validation(rung):
    """[validation loss at the end, for each seed]"""
    return [run['curve'][-1][2] for run in measured_runs(rung)]


def mean_validation(rung):
    """The validation loss at the end, averaged over the seeds."""
    return statistics.mean(validation(rung))


def compared(rung):
    """The rung below where it has numbers of its own, and its loss means the same as that of this one; or None."""
    below = rung.below
    return below if below and rung.measured != below and not rung.data.get('own_loss') and is_measured(below) else None


def clearly_worse(rung):
    """Whether its loss is above that of the rung below by more than seeds explain; one seed shows nothing."""
    if not (is_measured(rung) and compared(rung)):
        return False
    low, high = validation(rung.below), validation(rung)
    return min(len(low), len(high)) > 1 and clearly_below(low, high)


def mean_curve(rung):
    """[(step, validation loss averaged over the seeds)], without the untrained start."""
    curves = [run['curve'] for run in measured_runs(rung)]
    assert len({tuple(step for step, *_ in curve) for curve in curves}) == 1
    return [(points[0][0], statistics.mean(point[2] for point in points)) for points in zip(*curves, strict=True)][1:]
