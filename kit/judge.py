"""Judge a learner's own rung with the tests that judge ours, and answer in Chinese.

    python -m pytest tests --rung 3 --mine my_v3.py

The learner's file takes the place of our rung 3, the tests that are marked with an idea and are about rung 3 run, and
what they say when they fail is printed instead of a traceback: what is wrong in terms of the idea, and where to look.
They run from the parts to the whole, so that what fails first is the nearest to the cause; what a test has words for is
said before what only broke, and that an idea of the next rung is there already, last. With -x nothing runs behind the
first failure that has words.
"""

import _thread
import dis
import inspect
import linecache
import re
import sys
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
    config.pluginmanager.register(Judge(rung, path.resolve(), mine, config.option.time_limit, config.option.maxfail == 1))
    config.option.maxfail = 0
    config.option.tbstyle = 'no'  # the judge says what an error means: pytest need not look at the source for that


def files_of(ladder):
    """Where the ideas are tested, in the order in which a learner should hear of them: each builds on those before."""
    own = ladder.data.get('judged', ['test_concepts.py', 'test_skeleton.py'])
    return [ROOT / 'tests' / 'test_contract.py', *(ROOT / 'tests' / ladder.name / name for name in own)]


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


MEANT = {  # {what torch says: what it means}; the groups of the one are named in the other
    r'mat1 and mat2 shapes cannot be multiplied \(\d+x(\d+) and (\d+)x\d+\)':
        '线性层要的宽度和给它的不一样：给它的最后一维是 {0}，nn.Linear 的第一个参数却是 {1}。',
    r'(?:Expected size for first two dimensions of batch2 tensor to be: \[\d+, (\d+)\] but got: \[\d+, (\d+)\]'
    r'|batch1 and batch2)': '矩阵相乘对不上：左边的最后一维（{0}）应等于右边的倒数第二维（{1}），看看该不该转置。',
    r'The size of tensor a \((\d+)\) must match the size of tensor b \((\d+)\) at non-singleton dimension (\d+)':
        '两个张量的形状对不上：从 0 数第 {2} 维，一个是 {0}，一个是 {1}。',
    r'Expected target size \[(.*)\], got \[(.*)\]|Expected input batch_size|[Mm]ulti-target not supported':
        'F.cross_entropy 的形状不对：它把第 1 维当作词表。得分先摊平成 (B*T, V)，targets 摊平成 (B*T,)：'
        'logits.flatten(0, 1) 和 targets.flatten()。',
    r'index out of range in self': 'nn.Embedding 里没有这一行：编号超出了表的行数。表的第一个参数是行数，第二个是宽度，编号从 0 数起。',
    r'view size is not compatible': '张量在内存里不连续，不能 view：用 flatten 或 reshape，或者先 .contiguous()。'
        '经过 transpose，或者是从更长的张量里切下来的一段（get_batch 里切出的 x 和 y），就不连续。',
    r'"log_softmax\w*" not implemented|expected scalar type Long but found Float':
        'F.cross_entropy 的第一个参数是得分（小数），第二个是 targets（整数的编号）：看看是不是给反了。',
    r'Given normalized_shape=\[(.*?)\]': 'nn.LayerNorm 的大小是 {0}，和给它的最后一维对不上：它在最后一维上做，应是 nn.LayerNorm(n_embd)。',
    r'running_mean should contain': '用的是 BatchNorm：它在一批文本之间做平均，这里应是 nn.LayerNorm(n_embd)，只看一个位置自己。',
    r'probability tensor contains': 'torch.multinomial 要的是概率，不能有负数和 NaN：得分要先在词表那一维上做 softmax。',
    r'Sizes of tensors must match except in dimension (\d+)':
        'torch.cat 的各个张量，除了接在一起的那一维（这里是第 {0} 维），别的维要一样：新的字接在后面是 dim=1，不是 dim=0。',
    r"shape '\[(.*)\]' is invalid for input of size (\d+)": '数的个数对不上：一共 {1} 个数，不能排成 ({0})。',
    r"invalid for input of size|doesn't multiply up to the size": '数的个数对不上，不能拆成这样的形状。',
    r"Expected tensor for argument #1 'indices'": 'nn.Embedding 要的是整数的编号（int64），给它的却是小数。',
    r'embed_dim|must be divisible': '宽度不能平分成这么多个头。',
    r'modified by an inplace operation': '求导要用的数被原地改掉了：x += ……、masked_fill_ 之类改的是原来的张量，写成 x = x + ……。',
    r'does not require grad': '损失和参数之间断开了：求导走不到任何一个参数。看看有没有 detach、.data、no_grad，或者该优化的不是模型。',
}


def reads_globals(module, names):
    """[(function, name)] of what classes of a module read from its top though they should be given it."""
    return [(f'{owner.__name__}.{function.__name__}', name)
            for owner in vars(module).values() if inspect.isclass(owner) and owner.__module__ == module.__name__
            for function in vars(owner).values() if inspect.isfunction(function)
            for name in sorted({step.argval for step in instructions(function.__code__) if step.opname == 'LOAD_GLOBAL'}
                               & {*names}) if isinstance(getattr(module, name, None), (int, float))]


def instructions(code):
    """Those of a function, and of all that is defined in it."""
    yield from dis.get_instructions(code)
    for const in code.co_consts:
        if inspect.iscode(const):
            yield from instructions(const)


class Judge:
    """A pytest plugin: puts the learner's file in place, chooses the tests, and reports in Chinese."""

    def __init__(self, rung, path, name, seconds, first):
        self.rung, self.path, self.name, self.seconds, self.first = rung, path, name, seconds, first
        self.files = files_of(rung.ladder)
        self.verdicts = {}  # {title: None if the idea holds, or else (what it is for the cause, the first hint that came)}

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
        items[:] = sorted(filter(self.is_judged, items), key=lambda item: (is_of_the_next(item), self.files.index(item.path)))

    def pytest_collection_finish(self, session):
        self.titles = list(dict.fromkeys(map(title, session.items)))

    def pytest_collectreport(self, report):
        if report.failed:  # our own tests are broken: what is left of them judges nothing
            raise pytest.UsageError(str(report.longrepr))

    def is_judged(self, item):
        """Whether a test is about an idea of this rung: by its parameter `rung`, or by the mark itself."""
        mark = item.get_closest_marker('idea')
        if mark is None:
            return False
        return parameters(item)['rung'] is self.rung if 'rung' in parameters(item) else mark.kwargs['rung'] == f'v{self.rung.version}'

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self):
        with time_limit(self.seconds):
            return (yield)

    def pytest_runtest_makereport(self, item, call):
        verdict = self.verdicts.setdefault(title(item), None)
        if call.excinfo and not verdict:
            error = call.excinfo.value
            far = 3 if is_of_the_next(item) else far_from_the_cause(error)
            self.verdicts[title(item)] = far, self.explain(error)
            broke = far == 2 and any(frame.name == 'forward' for frame in traceback.extract_tb(error.__traceback__))
            if item.path == self.files[0] and not broke or isinstance(error, TimeUp) or self.first and not far:
                item.session.shouldfail = 'nothing that follows would tell more'

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item, nextitem):
        result = yield
        if nextitem is None or title(nextitem) != title(item) or item.session.shouldfail:
            print('不成立' if self.verdicts[title(item)] else '  成立', f' {title(item)}', flush=True)
        return result

    def pytest_sessionfinish(self):
        failed = sorted(((*verdict, title) for title, verdict in self.verdicts.items() if verdict), key=lambda verdict: verdict[0])
        for i, (_, hint, title) in enumerate(failed):
            print('\n先看这一项，后面的常常是它带出来的：' if i == 0 and len(failed) > 1 else '')
            print(f'  {title}')
            hint = f'{self.globals_read()}{hint}' if i == 0 else hint
            print('\n'.join(f'    {line}' for line in hint.splitlines()))
        held, left = len(self.verdicts) - len(failed), len(self.titles) - len(self.verdicts)
        print(f'\n{len(self.titles)} 项性质，成立 {held} 项，不成立 {len(failed)} 项'
              + (f'，还有 {left} 项要等改好之后再检查。' if left else '。'))
        if not failed and not left:
            print(f'再和我们的写法对照：git diff --no-index {self.name} {self.rung.path}')
        if 'not_judged' in (self.rung.practice or {}):
            print(self.rung.practice['not_judged'].format(self.name))

    def sizes(self):
        """The sizes that the model is built with, in words."""
        sizes = self.rung.contract.get('sizes', {})
        return '、'.join(f'{name} 是 {size}' for name, size in sizes.items() if name in self.rung.arguments)

    def globals_read(self):
        """That classes read the sizes at the top of the file, which are not those that the model is built with."""
        module = sys.modules.get(scripts.module_name(self.path))
        found = reads_globals(module, self.rung.arguments) if module else []
        where = '，'.join(f'{function} 里的 {name}' for function, name in found)
        return found and (f'类里用了文件顶部的全局变量：{where}。类只用传给它的参数，这些也要从参数传进来。\n'
                          f'检查时故意用别的大小（{self.sizes()}），和顶部的不同，这样的错才看得出来。\n') or ''

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
        for said, meant in MEANT.items():
            if found := re.search(said, str(error)):
                sizes = f'检查时 {self.sizes()}，和你的不同是故意的。\n' if self.sizes() else ''
                return f'{where}\n{meant.format(*found.groups())}\n{sizes}{type(error).__name__}: {first}'
        return f'{where}\n{type(error).__name__}: {first}'

    def line(self, error):
        """The line of the learner's file that an error came from, if it came from there."""
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(self.path)]
        if isinstance(error, SyntaxError) and error.filename == str(self.path):
            lines.append(error.lineno)
        return f'第 {lines[-1]} 行：{linecache.getline(str(self.path), lines[-1]).strip()}' if lines else None


def far_from_the_cause(error):
    """0 for a failure with words of its own, 1 for one with words for what broke, 2 for what only broke."""
    return 2 if not isinstance(error, (AssertionError, TimeUp)) else 1 if isinstance(error.__cause__, Exception) else 0


def is_of_the_next(item):
    """Whether it tests that an idea of the next rung is not there yet."""
    return not parameters(item).get('expected', True)


def title(item):
    """What a test is about, in Chinese; one that is false on this rung is the idea of the next."""
    idea = item.get_closest_marker('idea').args[0]
    return f'还没有下一级的「{idea}」' if is_of_the_next(item) else idea


def parameters(item):
    return item.callspec.params if hasattr(item, 'callspec') else {}
