"""The ladders as data: which there are, their rungs in order, and what is below each."""

import re
import tomllib
from functools import cached_property

from kit.files import ROOT, read


class Rung:
    """One script of a ladder. `version` is the N of its _vN, and `number`, too, unless it says that it stands beside the numbered rungs."""

    def __init__(self, ladder, data):
        self.ladder, self.data, self.path = ladder, data, data['path']
        found = re.search(r'_v(\d+)(?:_\w+)?\.py$', self.path)
        self.version = int(found[1]) if found else None
        self.number = None if data.get('beside') else self.version
        self.page = data.get('page', f'v{found[1]}' if found else None)
        self.title, self.line, self.short = data.get('title', {}), data.get('line', {}), data.get('short', {})
        self.practice, self.tests = data.get('practice'), data.get('tests', [])

    def __str__(self):
        """What it is called among the rungs of its ladder: v7, or the name of its script."""
        return f'v{self.number}' if self.number is not None else self.stem

    def __repr__(self):
        return str(self) if self.ladder.name == 'root' else f'{self.ladder.name}/{self}'

    @property
    def address(self):
        """What a learner types for it: 7 in the root, modern/16 elsewhere."""
        return f'{self.version}' if self.ladder.name == 'root' else f'{self.ladder.name}/{self.version}'

    @property
    def file(self):
        return ROOT / self.path

    @property
    def stem(self):
        return self.file.stem

    @property
    def source(self):
        return read(self.path)

    def edited(self, name):
        """The source with one of the ladder's edits made: [[what stands there, what takes its place]]."""
        source = self.source
        for old, new in self.ladder.data['edits'][name]:
            assert old in source, f'{self.path} has no {old!r} for the edit {name!r}'
            source = source.replace(old, new)
        return source

    @cached_property
    def below(self):
        """The rung that this one is compared with, or None."""
        return by_path(self.data['below']) if 'below' in self.data else None

    @cached_property
    def measured(self):
        """The rung whose numbers and poems are this one's: another one where ladder.toml says that they are the same."""
        return by_path(self.data.get('same_as', self.path))

    @property
    def contract(self):
        """What its functions, its model and the parts of that are called: what it says itself, then what its ladder says of those on it."""
        return ({} if self.data.get('beside') else self.ladder.contract or {}) | self.data.get('contract', {})

    @property
    def arguments(self):
        """The names of what the model's constructor takes on this rung, in order: all the sizes, if no more is said."""
        sizes = self.contract.get('sizes', {})
        return [name for name, since in self.contract.get('arguments', dict.fromkeys(sizes, str(self))).items() if self.reached(since)]

    @property
    def parts(self):
        """[(path, what it is)] of the parts that the model has on this rung."""
        return [(part['path'], part['what']) for part in self.contract.get('parts', [])
                if self.reached(part.get('since', str(self))) and not ('until' in part and self.reached(part['until']))]

    @property
    def shapes(self):
        """The run that its shape comments are checked in, or None if main() alone does not do."""
        return self.data.get('shapes')

    def reached(self, name):
        """Whether this rung is the one of its ladder with that name, or a later one."""
        return self.number >= self.ladder[name].number


class Ladder:
    """What a ladder.toml says. Rungs are found by their names: ladder['v7']."""

    def __init__(self, file):
        self.data = tomllib.loads(file.read_text(encoding='utf-8'))
        self.folder, self.pages = file.parent.relative_to(ROOT), file.parent / 'pages'
        self.name = self.data['name']
        self.contract = self.data.get('contract')
        self.rungs = [Rung(self, data) for data in self.data['rungs']]
        self.numbered = [rung for rung in self.rungs if rung.number is not None]
        self.judged = [rung for rung in self.rungs if rung in self.numbered or rung.practice]  # what --rung can be

    def __getitem__(self, name):
        return next(rung for rung in self.rungs if str(rung) == name)

    def since(self, name):
        """The numbered rungs from that one on."""
        return [rung for rung in self.numbered if rung.reached(name)]


def ladders():
    """{name: ladder}: the root, and every folder in it that has a ladder.toml."""
    found = map(Ladder, [ROOT / 'ladder.toml', *sorted(ROOT.glob('*/ladder.toml'))])
    return {ladder.name: ladder for ladder in found}


LADDERS = ladders()
RUNGS = [rung for ladder in LADDERS.values() for rung in ladder.rungs]


def by_path(path):
    """The rung whose script has that path from the root of the repository."""
    return next(rung for rung in RUNGS if rung.path == path)


def by_name(name, ladder):
    """The rung that a ladder calls by that name: v7 for one of its own, root/v7 for one of another."""
    *folder, own = name.split('/')
    return LADDERS[folder[0]][own] if folder else ladder[own]


def by_address(address):
    """The rung that a learner means by 7 or modern/16; LookupError says in Chinese what there is."""
    *folder, number = address.split('/')
    name = folder[0] if len(folder) == 1 else 'root' if not folder else None
    if name not in LADDERS:
        raise LookupError(f'没有 {address} 这架梯子：有的是 {"、".join(LADDERS)}')
    rungs = {str(rung.version): rung for rung in LADDERS[name].judged}
    if number not in rungs:
        numbers = [rung.version for rung in rungs.values()]
        raise LookupError(f'应是 {min(numbers)} 到 {max(numbers)} 的整数，不能是 {number}')
    return rungs[number]
