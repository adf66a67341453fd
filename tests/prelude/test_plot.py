"""--plot of v1 to v7: the picture shows what is printed, what cannot be one is refused before training, and nothing is lost."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from kit.ladders import LADDERS
from kit.scripts import load
from tests.prelude.test_points import mnist

LADDER = LADDERS['prelude']
V1, V2, V3, V4, V5, V6, V7 = SEVEN = [LADDER[f'v{number}'] for number in range(1, 8)]
EACH = pytest.mark.parametrize('rung', SEVEN)
CHINESE = re.compile('[\u4e00-\u9fff]')
SMALL = {'max_iters': 6, 'eval_interval': 3, 'eval_iters': 1, 'max_new_tokens': 10}
ENDS_WITH = {V1: '找到的线', V2: '验证集答对', V3: '右移之后', V4: '右移之后', V5: '\n往事', V6: '\n往事', V7: '\n往事'}
KINDS = {'a.png': b'\x89PNG', 'a.jpg': b'\xff\xd8\xff', 'a.svg': b'<?xml', 'a.pdf': b'%PDF', 'A.PNG': b'\x89PNG'}
LONG = 'x' * 300


@pytest.fixture
def prepared(monkeypatch, tmp_path, small_corpus):
    """The module of a rung, small, and set to be run with these options."""
    (tmp_path / 'ci.txt').write_text(small_corpus, encoding='utf-8')

    def prepare(rung, *options):
        module = load(rung.path)
        for name, value in (SMALL | {'data_path': tmp_path / 'ci.txt', 'device': 'cpu'}).items():
            if hasattr(module, name):
                setattr(module, name, value)
        monkeypatch.setattr('sys.argv', [rung.path, *map(str, options)])
        return module

    return prepare


@pytest.fixture
def drawn(prepared, monkeypatch, tmp_path, capsys):
    """What main of a rung prints, with the figure that it saves."""
    def draw(rung):
        figures = []
        monkeypatch.setattr('matplotlib.figure.Figure', lambda **options: figures.append(Figure(**options)) or figures[-1])
        prepared(rung, '--plot', tmp_path / 'a.png').main()
        [figure] = figures
        assert (tmp_path / 'a.png').read_bytes().startswith(b'\x89PNG')
        return SimpleNamespace(axes=figure.axes, printed=capsys.readouterr().out)

    return draw


# What the picture shows

def numbers(line):
    return [float(number) for number in re.findall(r'[+-]?\d+\.\d+', line)]


def test_the_points_and_both_lines(drawn):
    run = drawn(V1)
    [axes] = run.axes
    data, true, found = axes.lines
    assert [line.get_label() for line in axes.lines] == ['data', 'true line', 'found line']
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ['data', 'true line', 'found line']
    said = [numbers(line) for line in re.findall(r'^.*y = .*$', run.printed, flags=re.MULTILINE)]
    for line, (weight, bias) in zip((true, found), said, strict=True):
        x = np.asarray(line.get_xdata())
        assert x.min() == -3 and x.max() == 3
        np.testing.assert_allclose(line.get_ydata(), weight * x + bias, atol=4e-3)
    torch.manual_seed(1337)
    module = load(V1.path)
    _, (x, y) = module.make_data(module.true_weight, module.true_bias, module.n_points, module.train_ratio)
    np.testing.assert_array_equal(data.get_xdata(), x[:, 0])
    np.testing.assert_array_equal(data.get_ydata(), y)
    assert len({line.get_marker() for line in axes.lines}) == 3 and all(line.get_linestyle() == 'None' for line in axes.lines)


def test_yes_and_no_and_both_boundaries(drawn):
    run = drawn(V2)
    [axes] = run.axes
    names = ['no', 'yes', 'true boundary', 'found boundary']
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [line.get_label() for line in axes.lines] == names
    torch.manual_seed(1337)
    module = load(V2.path)
    _, (x, y) = module.make_data(module.true_weight, module.true_bias, module.n_points, module.train_ratio)
    for line, answer in zip(axes.lines, (0, 1), strict=False):
        np.testing.assert_array_equal(np.column_stack(line.get_data()), x[y == answer])
    said = [numbers(line) for line in re.findall(r'^.*= 0$', run.printed, flags=re.MULTILINE)]
    for line, (w1, w2, bias) in zip(axes.lines[2:], said, strict=True):
        x1, x2 = map(np.asarray, line.get_data())
        assert x1.min() == -3 and x1.max() == 3
        np.testing.assert_allclose(w1 * x1 + w2 * x2 + bias, 0, atol=6e-4 * (3 + abs(x2).max()))
    assert len({line.get_marker() for line in axes.lines}) == 4


@pytest.mark.parametrize('rung', [V3, V4])
def test_the_digits_with_their_answers_as_they_are_printed(rung, drawn):
    """Four as they are, four moved; dark on white, and a wrong answer is red."""
    run = drawn(rung)
    module = load(rung.path)
    torch.manual_seed(module.seed)
    _, (x, y) = module.read_data(None, module.train_ratio)
    shown = [*x[:4], *module.shift(x)[:4]]
    said = re.findall(r'答 (\d) 是 (\d)', run.printed)
    titles = [axes.get_title() for axes in run.axes]
    assert titles == [f'{answer} ({truth})' for answer, truth in said] and len(titles) == 8
    assert [truth for _, truth in said] == 2 * [str(truth) for truth in y[:4].tolist()]
    assert any(answer != truth for answer, truth in said)  # after six steps; else nothing would be red
    for axes, image, (answer, truth) in zip(run.axes, shown, said, strict=True):
        [drawing] = axes.images
        np.testing.assert_array_equal(drawing.get_array(), image)
        assert sum(drawing.cmap(0.0)[:3]) > 2.9 and sum(drawing.cmap(1.0)[:3]) < 0.1
        assert to_rgb(axes.title.get_color()) == ((0, 0, 0) if answer == truth else (1, 0, 0))
        assert not len(axes.get_xticks()) and not len(axes.get_yticks())
    places = [axes.get_subplotspec().get_gridspec().get_geometry() for axes in run.axes]
    assert set(places) == {(2, 4)}


@pytest.mark.parametrize('rung', [V5, V6])
def test_the_gradients_that_are_printed_from_near_to_far(rung, drawn):
    run = drawn(rung)
    [axes] = run.axes
    [line] = axes.lines
    distances = list(line.get_xdata())
    assert distances == list(range(1, 33)) and axes.get_yscale() == 'log' and axes.get_xscale() == 'linear'
    said = re.findall(r'^往前数第 +(\d+) 个字  (\S+)$', run.printed, flags=re.MULTILINE)
    assert [int(distance) for distance, _ in said] == [1, 2, 4, 8, 16, 32]
    for distance, length in said:
        assert line.get_ydata()[int(distance) - 1] == pytest.approx(float(length), abs=6e-7)
    near, _, *_, far = line.get_ydata()
    assert near > far > 0
    assert axes.get_xlabel() == 'characters back' and axes.get_ylabel() == 'gradient norm'


# The losses of v7 are in test_ngram.py.


@pytest.mark.parametrize('name', KINDS)
def test_each_kind_of_picture_is_written(name, prepared, tmp_path, capsys):
    prepared(V1, '--plot', tmp_path / name).main()
    assert (tmp_path / name).read_bytes().startswith(KINDS[name])


# What cannot be written

BAD = {'another kind': 'a.gif', 'no kind': 'a', 'only an ending': '.png', 'a text': 'a.txt', 'a folder': 'folder.png', 'no folder': 'none/a.png',
       'a file for a folder': 'ci.txt/a.png', 'a long name': f'{LONG}.png', 'a long folder': f'{LONG}/a.png', 'nothing': ''}


@EACH
@pytest.mark.parametrize('bad', BAD)
def test_a_path_that_cannot_be_a_picture_is_refused_before_training(rung, bad, prepared, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'folder.png').mkdir()
    module, there = prepared(rung, '--plot', BAD[bad]), sorted(tmp_path.iterdir())
    with pytest.raises(SystemExit) as stop:
        module.main()
    said = capsys.readouterr()
    assert stop.value.code == 2 and not said.out and sorted(tmp_path.iterdir()) == there
    _, line = said.err.splitlines()
    assert BAD[bad].split('/')[0] in line and '--plot' in line and CHINESE.search(line)
    assert bad != 'no folder' or '文件夹 none 不存在' in line


@EACH
@pytest.mark.parametrize('there', [False, True])
def test_a_file_that_may_not_be_written_is_refused(rung, there, prepared, tmp_path, capsys, monkeypatch):
    """Whoever runs the tests may be allowed everything: the system's refusal is played."""
    path = tmp_path / 'a.png'
    if there:
        path.write_bytes(b'mine')

    def refuse(self, mode='r', *args, **kwargs):
        if self == path and mode != 'r':
            raise PermissionError(13, 'Permission denied', str(self))
        return original(self, mode, *args, **kwargs)

    original = type(path).open
    monkeypatch.setattr(type(path), 'open', refuse)
    with pytest.raises(SystemExit) as stop:
        prepared(rung, '--plot', path).main()
    said = capsys.readouterr()
    assert stop.value.code == 2 and not said.out and str(path) in said.err and 'Permission denied' in said.err
    assert path.exists() == there and len(said.err.splitlines()) == 2


@EACH
@pytest.mark.parametrize('name', ['a.png', 'A.PDF', 'sub/a.svg', 'there.jpg'])
def test_looking_whether_a_path_can_be_written_changes_nothing(rung, name, prepared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'sub').mkdir()
    (tmp_path / 'there.jpg').write_bytes(b'mine')
    module = prepared(rung, '--plot', name)
    args, there = module.parse_args(), {path.name for path in tmp_path.rglob('*')}
    assert str(args.plot) == name and there == {'ci.txt', 'sub', 'there.jpg'}
    assert (tmp_path / 'there.jpg').read_bytes() == b'mine'
    prepared(rung)
    assert module.parse_args().plot is None


@EACH
def test_a_picture_that_fails_at_the_end_costs_nothing_else(rung, prepared, tmp_path, capsys, monkeypatch):
    def full(self, path):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(Figure, 'savefig', full)
    module = prepared(rung, '--plot', tmp_path / 'a.png')
    with pytest.raises(SystemExit) as stop:
        module.main()
    assert str(tmp_path / 'a.png') in stop.value.code and 'No space left' in stop.value.code and CHINESE.search(stop.value.code)
    printed = capsys.readouterr().out
    assert ENDS_WITH[rung] in printed
    prepared(rung).main()  # it prints what it prints without a picture
    assert without_times(capsys.readouterr().out) == without_times(printed)


def without_times(printed):
    return re.sub(r'  (每秒|用时) .*', '', printed)


@EACH
def test_matplotlib_is_named_where_it_is_missing(rung, prepared, tmp_path, capsys, monkeypatch):
    module = prepared(rung, '--plot', tmp_path / 'a.png')
    monkeypatch.setattr(module, 'find_spec', lambda name: None if name == 'matplotlib' else True)
    with pytest.raises(SystemExit):
        module.main()
    said = capsys.readouterr()
    assert 'matplotlib' in said.err and 'pip install -r prelude/requirements.txt' in said.err and not said.out


# --mnist

@pytest.mark.parametrize('rung', [V3, V4])
@pytest.mark.parametrize('folder', ['none', 'file', LONG, f'{LONG}/sub', 'folders', ''])
def test_a_folder_that_holds_no_mnist_is_named_before_training(rung, folder, prepared, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'file').write_bytes(b'')
    mnist(tmp_path / 'folders')
    (tmp_path / 'folders' / 'train-images-idx3-ubyte.gz').unlink()
    (tmp_path / 'folders' / 'train-images-idx3-ubyte.gz').mkdir()
    with pytest.raises(SystemExit) as stop:
        prepared(rung, '--mnist', folder).main()
    said = stop.value.code
    assert folder in said and 'train-images-idx3-ubyte' in said and CHINESE.search(said) and '\n' not in said
    assert folder not in ('none', 'file', '') or '四个文件都要在' in said
    assert not capsys.readouterr().out


@pytest.mark.parametrize('rung', [V3, V4])
def test_a_file_of_mnist_that_may_not_be_read_is_named(rung, prepared, tmp_path, monkeypatch):
    mnist(tmp_path / 'mnist')
    path = tmp_path / 'mnist' / 't10k-labels-idx1-ubyte'

    def refuse(self):
        if self == path:
            raise PermissionError(13, 'Permission denied', str(self))
        return original(self)

    original = type(path).read_bytes
    monkeypatch.setattr(type(path), 'read_bytes', refuse)
    with pytest.raises(SystemExit) as stop:
        prepared(rung, '--mnist', tmp_path / 'mnist').main()
    assert path.name in stop.value.code and 'Permission denied' in stop.value.code and CHINESE.search(stop.value.code)


@pytest.mark.parametrize('rung', [V3, V4])
def test_a_whole_file_is_preferred_to_a_compressed_one(rung, prepared, tmp_path):
    """Both may lie there: unpacking keeps the other."""
    mnist(tmp_path / 'mnist')
    (tmp_path / 'mnist' / 't10k-labels-idx1-ubyte.gz').write_bytes(b'not compressed')
    assert len(prepared(rung).read_data(tmp_path / 'mnist', 0.8)[1][1]) == 50
