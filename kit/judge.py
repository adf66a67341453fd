"""Judge a learner's own rung with the tests that judge ours, and answer in Chinese.

    python -m pytest tests --rung 3 --mine my_v3.py

The learner's file takes the place of our rung 3, the tests that are marked with an idea and are about rung 3 run, and
what they say when they fail is printed instead of a traceback: what is wrong in terms of the idea, and where to look.
"""

import _thread
import inspect
import linecache
import threading
import time
import traceback
from contextlib import contextmanager

import pytest

from kit import scripts
from kit.files import ROOT
from kit.ladders import by_address
from kit.source import docstring


def start(config):
    """Check the options, and let a Judge take the place of pytest's own reporter."""
    address, mine = config.option.rung, config.option.mine
    if not (address and mine):
        raise pytest.UsageError('--rung 和 --mine 要一起用，例如：python -m pytest tests --rung 3 --mine my_v3.py')
    try:
        rung = by_address(address)
    except LookupError as error:
        raise pytest.UsageError(f'--rung {error.args[0]}') from None
    path = config.invocation_params.dir / mine
    if not path.is_file() or path.suffix != '.py':
        raise pytest.UsageError(f'找不到 {mine}：--mine 后面应是一个 .py 文件，相对于当前目录')
    config.pluginmanager.unregister(name='terminalreporter')
    config.pluginmanager.register(Judge(rung, path.resolve(), mine, config.option.time_limit))


def files_of(ladder):
    """Where the ideas are tested, in the order in which a learner should hear of them: each builds on those before."""
    return [ROOT / 'tests' / name for name in
            ('test_contract.py', f'{ladder.name}/test_concepts.py', f'{ladder.name}/test_skeleton.py')]


@contextmanager
def hint(say):
    """Whatever breaks inside is what `say` speaks of: a text, or a function that finds one when it is needed."""
    try:
        yield
    except Exception as error:
        raise AssertionError(say if isinstance(say, str) else say()) from error


class TimeUp(Exception):
    """A property took longer than its time limit."""


@contextmanager
def time_limit(seconds):
    """Interrupt the main thread when the time is up, as Ctrl-C would, and again until it listens: on every platform.

    What counts is time on the processor, so that a busy machine is no fault; who only waits has ten times as long.
    """
    done, lock, fired = threading.Event(), threading.Lock(), []

    def watch():
        busy, started = time.process_time(), time.monotonic()
        while not done.wait(1 if fired else 0.1):
            if time.process_time() - busy > seconds or time.monotonic() - started > 10 * seconds:
                with lock:
                    if not done.is_set():
                        fired.append(True)
                        _thread.interrupt_main()

    threading.Thread(target=watch, daemon=True).start()
    try:
        try:
            yield
        finally:
            with lock:
                done.set()
    except BaseException as error:  # a script may have made its own of the interrupt
        if not fired:
            raise
        raise TimeUp from error


class Judge:
    """A pytest plugin: puts the learner's file in place, chooses the tests, and reports in Chinese."""

    def __init__(self, rung, path, name, seconds):
        self.rung, self.path, self.name, self.seconds = rung, path, name, seconds
        self.files = files_of(rung.ladder)
        self.verdicts = {}  # {title: None if the idea holds, or else the first hint that came}

    def pytest_sessionstart(self):
        scripts.MINE[self.rung] = self.path
        scripts.module_of.cache_clear()
        linecache.checkcache()
        print(f'检查 {self.name}（{docstring(self.rung.source).splitlines()[0]}）\n')

    def pytest_unconfigure(self):
        scripts.MINE.clear()
        scripts.module_of.cache_clear()

    def pytest_ignore_collect(self, collection_path):
        return True if collection_path.suffix == '.py' and collection_path not in self.files else None

    def pytest_collection_modifyitems(self, items):
        items[:] = sorted(filter(self.is_judged, items), key=lambda item: self.files.index(item.path))

    def pytest_collection_finish(self, session):
        self.titles = list(dict.fromkeys(map(title, session.items)))

    def is_judged(self, item):
        """Whether a test is about an idea of this rung: by its parameter `rung`, or by the mark itself."""
        mark = item.get_closest_marker('idea')
        if mark is None:
            return False
        return parameters(item)['rung'] is self.rung if 'rung' in parameters(item) else mark.kwargs['rung'] == str(self.rung)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self):
        with time_limit(self.seconds):
            return (yield)

    def pytest_runtest_makereport(self, item, call):
        verdict = self.verdicts.setdefault(title(item), None)
        if call.excinfo and not verdict:
            self.verdicts[title(item)] = self.explain(call.excinfo.value)
            if item.path == self.files[0] or isinstance(call.excinfo.value, TimeUp):
                item.session.shouldfail = 'nothing that follows would tell more'

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item, nextitem):
        result = yield
        if nextitem is None or title(nextitem) != title(item) or item.session.shouldfail:
            print('不成立' if self.verdicts[title(item)] else '  成立', f' {title(item)}', flush=True)
        return result

    def pytest_sessionfinish(self):
        failed = {title: hint for title, hint in self.verdicts.items() if hint}
        for i, (title, hint) in enumerate(failed.items()):
            print('\n先看这一项，后面的常常是它带出来的：' if i == 0 and len(failed) > 1 else '')
            print(f'  {title}')
            print('\n'.join(f'    {line}' for line in hint.splitlines()))
        held, left = len(self.verdicts) - len(failed), len(self.titles) - len(self.verdicts)
        print(f'\n{len(self.titles)} 项性质，成立 {held} 项，不成立 {len(failed)} 项'
              + (f'，还有 {left} 项要等改好之后再检查。' if left else '。'))
        if not failed and not left:
            print(f'再和我们的写法对照：git diff --no-index {self.name} {self.rung.path}')
        if 'not_judged' in self.rung.practice:
            print(self.rung.practice['not_judged'].format(self.name))

    def explain(self, error):
        """What a failure means to the learner."""
        if isinstance(error, TimeUp):
            stopped = error.__cause__
            while stopped.__context__ is not None and not isinstance(stopped, KeyboardInterrupt):
                stopped = stopped.__context__
            where = f'，停在{self.line(stopped)}' if self.line(stopped) else ''
            return f'{self.seconds:g} 秒还没有结束{where}\n检查那里的循环会不会停下来，循环的次数对不对。'
        frame = traceback.extract_tb(error.__traceback__)[-1]
        if not isinstance(error, AssertionError) or frame.filename == str(self.path):
            return self.python_says(error)
        text = '\n'.join(line.strip() for line in str(error).split('\nassert ')[0].splitlines())
        return text if error.__cause__ is None else f'{text}\n{self.python_says(error.__cause__)}'

    def python_says(self, error):
        """The error that the learner's code raised, and the line that raised it."""
        if isinstance(error, AttributeError) and not self.line(error):
            owner = error.obj if inspect.isclass(error.obj) else type(error.obj)
            if owner.__module__ == scripts.module_name(self.path):
                return f'{owner.__name__} 里没有 {error.name}：这一级应有它，名字不能改。'
        where = self.line(error) or f'调用 {self.name} 里的东西时出错。'
        first, *_ = str(getattr(error, 'msg', error)).strip().splitlines() or ['']
        return f'{where}\n{type(error).__name__}: {first}'

    def line(self, error):
        """The line of the learner's file that an error came from, if it came from there."""
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(self.path)]
        if isinstance(error, SyntaxError) and error.filename == str(self.path):
            lines.append(error.lineno)
        return f'第 {lines[-1]} 行：{linecache.getline(str(self.path), lines[-1]).strip()}' if lines else None


def title(item):
    """What a test is about, in Chinese; one that is false on this rung is the idea of the next."""
    idea = item.get_closest_marker('idea').args[0]
    return idea if parameters(item).get('expected', True) else f'还没有下一级的「{idea}」'


def parameters(item):
    return item.callspec.params if hasattr(item, 'callspec') else {}
