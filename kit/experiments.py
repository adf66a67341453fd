"""The experiments of the ladders: which runs each is made of, what is kept of them, and their means and spreads."""

import ast
import statistics
from functools import cached_property
from itertools import product

from kit import results
from kit.ladders import LADDERS, by_name, by_path
from kit.results import Missing
from kit.source import code_hash, constants_of

NOT_IN_A_STEP = ('max_iters', 'eval_interval', 'learning_rate', 'decay')  # what the time of a step does not hang on


class Experiment:
    """What a ladder.toml says in one [[experiments]]: every rung with every seed and every change of its constants.

    A change called `edit` is one of the ladder's [edits] of the script.

    The number of steps is that of the script, or given, or follows from timings (tools/bench.py candidates), so that
    it is the same on every machine: what fits into `seconds` of training, or what takes as long as `steps` of the base.
    With `form`, the poems of the trained model are looked at, too, and its loss on whole poems (kit/form.py).
    """

    def __init__(self, ladder, name, rungs, seeds=(None,), constants=None, changes=({},), seconds=None, steps=None,
                 form=False):
        self.name = name if ladder.name == 'root' else f'{ladder.name}/{name}'
        self.rungs, self.seeds = [by_name(name, ladder) for name in rungs], seeds
        self.base, self.changes = constants or {}, changes
        self.seconds, self.steps = seconds, steps
        self.model = ladder.contract['model'] if form else ''

    def timed(self, rung, change):
        """(script, constants) of the step that a run's number of steps hangs on."""
        constants = {name: value for name, value in (self.base | change).items() if name not in NOT_IN_A_STEP}
        return rung.path, constants

    def timing(self, rung, change):
        job = self.timed(rung, change)
        timings = results.section('candidates')
        if results.key(*job) not in timings:
            raise Missing(f'nobody has timed {results.key(*job)}: run `python tools/bench.py candidates`')
        return timings[results.key(*job)]

    def constants(self, rung, change, seed=None):
        """What a run sets; Missing where its number of steps hangs on a timing that is not there."""
        constants = self.base | change | ({} if seed is None else {'seed': seed})
        if self.seconds:
            constants |= {'max_iters': round(1e3 * self.seconds / self.timing(rung, change)['milliseconds'])}
        elif self.steps:
            steps = round(self.steps / self.timing(rung, change)['ratio'])
            constants |= {'max_iters': steps, 'eval_interval': constants.get('eval_interval', -(-steps // 6))}
        return constants

    def jobs(self):
        """[(script, constants)] in the order in which an early stop leaves most."""
        return [(rung.path, self.constants(rung, change, seed))
                for change, seed, rung in product(self.changes, self.seeds, self.rungs)]

    def settings(self):
        return [Setting(self, rung, change) for change, rung in product(self.changes, self.rungs)]


class Setting:
    """A rung with some of its constants changed: a line of a table, made of one run for each seed."""

    def __init__(self, experiment, rung, change):
        self.experiment, self.rung, self.change = experiment, rung, change
        self.constants = [experiment.constants(rung, change, seed) for seed in experiment.seeds]

    def __getitem__(self, name):
        """The value of a constant: as the run sets it, or the script's own."""
        return self.values[name]

    @cached_property
    def values(self):
        return own_constants(self.rung, on_cpu=True, **self.constants[0])

    @cached_property
    def runs(self):
        """The results, in the order of the seeds; Missing if one is not there."""
        return self.rows('runs')

    @cached_property
    def form(self):
        """How many poems keep the form of their tune, in the order of the seeds; Missing if one was not looked at."""
        return self.rows('form')

    def rows(self, section):
        kept = results.load().get(section, {})
        keys = [results.key(self.rung.path, constants) for constants in self.constants]
        for key in keys:
            if key not in kept:
                command = f'python tools/measure.py {self.experiment.name}'
                raise Missing(f'docs/results.json has no {key} among its {section}: run `{command}`')
        return [kept[key] for key in keys]

    @property
    def train(self):
        """The training losses at the end, one for each seed."""
        return [run['curve'][-1][1] for run in self.runs]

    @property
    def val(self):
        """The validation losses at the end, one for each seed."""
        return [run['curve'][-1][2] for run in self.runs]

    def at(self, step):
        """The points (step, training loss, validation loss) at a step, one for each seed."""
        return [next(point for point in run['curve'] if point[0] == step) for run in self.runs]

    def val_at(self, step):
        """The validation losses at a step, one for each seed."""
        return [point[2] for point in self.at(step)]

    @property
    def lowest(self):
        """The points (step, training loss, validation loss) of the lowest validation loss, one for each seed."""
        return [min(run['curve'], key=lambda point: point[2]) for run in self.runs]


def own_constants(rung, **given):
    """{name: value} of a script's constants that are made of numbers, texts and each other; those given as they are."""
    values = {}
    for name, node in constants_of(rung.source).items():
        try:
            values[name] = given[name] if name in given else eval(ast.unparse(node.value), {'__builtins__': {}}, values)
        except NameError:
            pass  # a device, a path: not made of numbers
    return given | values


def change_name(change):
    """What a candidate changes, in the words of the command line."""
    if 'decay' in change:
        return 'decay'
    if 'edit' in change:
        return change['edit']
    return ', '.join(f'{name} {value:g}' for name, value in change.items()) or 'base'


def experiments():
    """{name: [Experiment]} of all ladders: a bare name in the root, modern/name elsewhere."""
    found = {}
    for ladder in LADDERS.values():
        for data in ladder.data.get('experiments', []):
            experiment = Experiment(ladder, **data)
            found.setdefault(experiment.name, []).append(experiment)
    return found


EXPERIMENTS = experiments()


def jobs_of(name):
    return [job for experiment in EXPERIMENTS[name] for job in experiment.jobs()]


def settings_of(name):
    """{(rung, change): Setting} of an experiment, by their names: 'v9', 'n_layer 6'. Nothing changed is called base."""
    return {(str(setting.rung), change_name(setting.change)): setting
            for experiment in EXPERIMENTS[name] for setting in experiment.settings()}


def source_of(script, constants):
    """The script, or what the edit makes of it that a run names besides constants."""
    rung = by_path(script)
    return rung.edited(constants['edit']) if 'edit' in constants else rung.source


def made_of(script, constants=()):
    """What a result hangs on: the code of the script with those constants given."""
    return {'code': code_hash(source_of(script, constants), constants)}


def is_kept(script, constants, section='runs'):
    """Whether the result of a run is there, and of the script as it is."""
    row = results.load().get(section, {}).get(results.key(script, constants), {})
    return row.get('code') == made_of(script, constants)['code']


def ladder_setting(rung):
    """The rung in the experiment `ladder` of its ladder, or None if it has no part in one."""
    name = 'ladder' if rung.ladder.name == 'root' else f'{rung.ladder.name}/ladder'
    return settings_of(name).get((str(rung), 'base')) if name in EXPERIMENTS else None


def seeds_of(rung):
    """The runs of a rung in that experiment, one for each seed; [] if one of them is missing."""
    try:
        setting = ladder_setting(rung)
        return setting.runs if setting else []
    except Missing:
        return []


def mean(values):
    return statistics.mean(values)


def deviation(values):
    """The sample standard deviation, 0 of a single value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def apart(high, low):
    """By how many standard errors of their difference one mean lies above another (Welch 1947); each is of two or more."""
    assert min(len(high), len(low)) > 1, 'one seed carries no conclusion'
    error = sum(deviation(values) ** 2 / len(values) for values in (high, low)) ** 0.5
    if not error:  # every run ended alike
        return float('inf') if mean(high) > mean(low) else 0.0
    return (mean(high) - mean(low)) / error


def clearly_below(low, high):
    """Whether it is hardly by accident: with three seeds each, 3 standard errors would still be one in ten or so."""
    return apart(high, low) > 5


def spread(values):
    """Mean, and sample standard deviation where there is more than one value."""
    return f'{mean(values):.3f}' + (f' ± {deviation(values):.3f}' if len(values) > 1 else '')
