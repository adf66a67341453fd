"""v1 to v4 run as a learner runs them: what they print and draw, that it is what their docstrings say, and bad input."""

import gzip
import re
import shutil
import signal

import numpy as np
import pytest
import torch
from matplotlib import image
from sklearn.datasets import load_digits

from kit.scripts import install, load, losses, run, start
from tests.prelude.points import ALL, DIGITS, FOUR, V1, V2, V3, V4

CHINESE = re.compile('[\u4e00-\u9fff]')


@pytest.fixture(scope='module')
def outputs(tmp_path_factory):
    """{rung: what it prints}, each run once as it is; its picture lies beside it."""
    folder, found = tmp_path_factory.mktemp('points'), {}
    for rung in FOUR:
        result = run(shutil.copy(rung.file, folder), '--plot', 'picture.png')
        assert result.returncode == 0 and not result.stderr, result.stderr
        (folder / 'picture.png').rename(folder / f'{rung}.png')
        found[rung] = result.stdout
    return found | {'folder': folder}


def shares(output):
    """What share of the digits was answered right, as they stand and moved."""
    return [float(share) for share in re.findall(r'答对 ([\d.]+)%', output)]


def size(output):
    return int(re.search(r'模型 ([\d,]+) 个参数', output)[1].replace(',', ''))


@ALL
def test_losses_are_printed_and_fall(rung, outputs):
    module, printed = load(rung.path), losses(outputs[rung])
    assert [step for step, _, _ in printed] == list(range(0, module.max_iters + 1, module.eval_interval))
    assert printed[-1][1] < 0.6 * printed[0][1] and printed[-1][2] < 0.6 * printed[0][2]


def test_the_line_is_printed_and_drawn_beside_the_true_one(outputs):
    (weight, bias), (mine, its) = ([float(number) for number in re.findall(r'[+-]?\d\.\d+', line)]
                                   for line in re.findall(r'^.*y = .*$', outputs[V1], flags=re.MULTILINE))
    assert (weight, bias) == (2, 1) and mine == pytest.approx(2, abs=0.15) and its == pytest.approx(1, abs=0.15)
    drawing = outputs[V1].rsplit('\n\n', 1)[1].rstrip('\n').split('\n')
    columns = [[i for i, mark in enumerate(row) if mark == '*'] for row in drawing]
    assert len(drawing) == 20 and len({i for row in columns for i in row}) >= 62  # one mark in all but every column
    means = [sum(row) / len(row) for row in columns if row]
    assert means == sorted(means, reverse=True) and means[0] > 50 and means[-1] < 12  # it rises from left to right
    assert sum(row.count('.') for row in drawing) > 80


def test_the_boundary_is_printed_and_drawn_between_yes_and_no(outputs):
    true, found = ([float(number) for number in re.findall(r'[+-]?\d\.\d+', line)]
                   for line in re.findall(r'^.*= 0$', outputs[V2], flags=re.MULTILINE))
    assert true == [1, 2, -0.5] and found == pytest.approx(true, abs=0.4)
    assert 80 < shares(outputs[V2])[0] < 95
    drawing = outputs[V2].rsplit('\n\n', 1)[1].rstrip('\n').split('\n')
    rows = {mark: [i for i, row in enumerate(drawing) for each in row if each == mark] for mark in '.+*'}
    assert len(drawing) == 20 and len(rows['*']) > 50
    assert np.mean(rows['+']) < np.mean(rows['*']) < np.mean(rows['.'])
    (_, left), *_, (_, right) = sorted((column, i) for i, row in enumerate(drawing) for column, mark in enumerate(row) if mark == '*')
    assert right - left > 8  # it falls from left to right


@DIGITS
def test_digits_are_drawn_with_the_answers_and_the_truth(rung, outputs):
    """The first four of the validation part, twice: as they are, and one column further to the right."""
    module = load(rung.path)
    torch.manual_seed(module.seed)
    _, (x, y) = module.read_data(None, module.train_ratio)
    blocks = outputs[rung].split('前四幅：\n')[1:]
    drawn = [block.split('\n')[:9] for block in blocks]
    assert len(drawn) == 2
    for given, images in zip(drawn, (x, module.shift(x)), strict=True):
        rows = [[line.ljust(70)[18 * i:18 * i + 16] for line in given[:8]] for i in range(4)]
        for row, picture in zip(rows, images, strict=False):
            dark = torch.tensor([[' .:+*#@'.index(mark) for mark in line[::2]] for line in row])
            assert (dark / 6 - picture).abs().max() < 0.1
        assert re.findall(r'是 (\d)', given[8]) == [str(answer) for answer in y[:4].tolist()]
        assert len(re.findall(r'答 (\d)', given[8])) == 4


def test_what_the_docstrings_of_the_digits_say_is_so(outputs):
    (_, train, val) = losses(outputs[V3])[-1]
    assert val > 3 * train and val > 0.8 * losses(outputs[V3])[5][2]  # it has stopped halfway
    (before, moved), (mine, its) = shares(outputs[V3]), shares(outputs[V4])
    assert before > 90 and moved < before - 30
    assert abs(mine - before) < 4 and moved + 20 < its < mine
    assert size(outputs[V4]) <= size(outputs[V3]) / 10


@ALL
def test_the_picture_is_one(rung, outputs):
    picture = image.imread(outputs['folder'] / f'{rung}.png')
    assert picture.shape == (480, 640, 4) and 0.5 < picture[..., :3].mean() < 0.99


def test_the_same_seed_gives_the_same(outputs):
    assert run(V1.file).stdout == outputs[V1]


# MNIST

def idx(values):
    """The bytes of an IDX file: two zeros, 8 for bytes, the number of dimensions, each of them, the values."""
    values = np.asarray(values, dtype=np.uint8)
    return bytes([0, 0, 8, values.ndim]) + b''.join(size.to_bytes(4, 'big') for size in values.shape) + values.tobytes()


def mnist(folder):
    """Four files of the form of MNIST, two of them compressed: our digits three times as large, with an edge of two."""
    digits = load_digits()
    images = np.pad((digits.images * 15).repeat(3, axis=1).repeat(3, axis=2), [(0, 0), (2, 2), (2, 2)]).astype(np.uint8)
    folder.mkdir()
    for name, part in (('train', slice(300)), ('t10k', slice(300, 350))):
        (folder / f'{name}-images-idx3-ubyte.gz').write_bytes(gzip.compress(idx(images[part])))
        (folder / f'{name}-labels-idx1-ubyte').write_bytes(idx(digits.target[part]))
    return images, digits.target


@DIGITS
def test_mnist_is_read_and_learned(rung, tmp_path):
    images, answers = mnist(tmp_path / 'mnist')
    train, val = load(rung.path).read_data(tmp_path / 'mnist', 0.8)
    assert torch.equal(torch.cat([train[0], val[0]]), torch.tensor(images[:350]) / 255)
    assert torch.cat([train[1], val[1]]).tolist() == answers[:350].tolist()
    script = install(rung.path, tmp_path, corpus='', max_iters=60, eval_interval=30)
    result = run(script, '--mnist', tmp_path / 'mnist')
    assert result.returncode == 0 and not result.stderr, result.stderr
    assert '训练集 300 个，验证集 50 个' in result.stdout and losses(result.stdout)[-1][1] < losses(result.stdout)[0][1]
    assert max(map(len, result.stdout.splitlines())) <= 80


IMAGES, LABELS = 'train-images-idx3-ubyte.gz', 't10k-labels-idx1-ubyte'
FAULTS = {
    'missing': (LABELS, None, LABELS), 'empty': (LABELS, b'', LABELS), 'cut off': (LABELS, lambda data: data[:-1], LABELS),
    'cut in its head': (LABELS, lambda data: data[:6], LABELS), 'a web page': (LABELS, b'<!DOCTYPE html>', LABELS),
    'too long': (LABELS, lambda data: data + b'\0', LABELS), 'of pictures': (LABELS, idx(np.zeros((2, 28, 28))), LABELS),
    'no pictures': (LABELS, idx(np.zeros(0)), LABELS), 'cut off, compressed': (IMAGES, lambda data: data[:-100], IMAGES),
    'not compressed': (IMAGES, gzip.decompress, IMAGES), 'broken': (IMAGES, lambda data: data[:40] + b'\xff' * 40 + data[80:], IMAGES),
    'too few answers': (LABELS, idx(np.zeros(49)), '49'), 'answers of letters': (LABELS, idx(np.full(50, 26)), '26'),
}


@pytest.mark.parametrize('fault', FAULTS)
def test_a_file_of_mnist_that_cannot_be_used_is_named(fault, tmp_path):
    file, change, named = FAULTS[fault]
    mnist(tmp_path / 'mnist')
    path = tmp_path / 'mnist' / file
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change(path.read_bytes()) if callable(change) else change)
    with pytest.raises(SystemExit) as stop:
        load(V3.path).read_data(tmp_path / 'mnist', 0.8)
    assert named in stop.value.code and CHINESE.search(stop.value.code) and '\n' not in stop.value.code


# Options

def refused(result):
    """What it says of a mistake: one line or two, in Chinese, and no more."""
    assert result.returncode not in (0, None) and 'Traceback' not in result.stderr
    assert len(result.stderr.splitlines()) <= 2
    return result.stderr


@ALL
@pytest.mark.parametrize('options, named', [
    (['--no_such_option'], '--no_such_option'), (['--plot'], '--plot'), (['--plot', 'no/such/folder/a.png'], 'no/such/folder'),
    (['a.png'], 'a.png'),
])
def test_wrong_options_are_refused_before_training(rung, options, named):
    result = run(rung.file, *options)
    assert named in refused(result) and not result.stdout


@pytest.mark.parametrize('rung', [V3])
def test_a_folder_without_mnist_is_refused(rung, tmp_path):
    result = run(rung.file, '--mnist', tmp_path / 'none')
    said = refused(result)
    assert CHINESE.search(said) and str(tmp_path / 'none') in said and not result.stdout


@ALL
def test_packages_that_are_missing_are_named(rung, monkeypatch, capsys):
    module = load(rung.path)
    monkeypatch.setattr(module, 'find_spec', lambda name: None)
    monkeypatch.setattr('sys.argv', [rung.path, '--plot', 'a.png'])
    with pytest.raises(SystemExit):
        module.parse_args()
    said = [capsys.readouterr().err]
    if rung in (V3, V4):
        with pytest.raises(SystemExit) as stop:
            module.read_data(None, 0.8)
        said.append(stop.value.code)
    for text, package in zip(said, ['matplotlib', 'scikit-learn'], strict=False):
        assert package in text and 'pip install -r prelude/requirements.txt' in text and CHINESE.search(text)


@pytest.mark.parametrize('rung', [V4])
def test_help_names_every_option(rung):
    result = run(rung.file, '--help')
    assert result.returncode == 0 and '--plot' in result.stdout and '--mnist' in result.stdout


@pytest.mark.skipif(not hasattr(signal, 'SIGKILL'), reason='needs the signals of POSIX')
@pytest.mark.parametrize('rung', [V4])
def test_ctrl_c_stops_it_in_one_line(rung, tmp_path):
    process = start(install(rung.path, tmp_path, corpus='', max_iters=10 ** 6))
    assert '训练集' in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode not in (0, None) and said.strip() == '已中断。'
