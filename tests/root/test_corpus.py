"""The rules of ci.txt, re-derived from the file alone, and its builder."""

import json
import re
import subprocess
import sys
import tarfile
from collections import Counter

import pytest

from kit.files import CORPUS, ROOT

HAN = '\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff'


def poems_in(text):
    return [poem.split('\n') for poem in text.removesuffix('\n').split('\n\n')]


def letters(lines):
    return re.sub(f'[^{HAN}]', '', ''.join(lines))


def test_bytes(corpus):
    raw = CORPUS.read_bytes()
    assert raw.decode('utf-8') == corpus
    assert b'\r' not in raw and not raw.startswith(b'\xef\xbb\xbf')
    assert corpus.endswith('\n') and not corpus.endswith('\n\n') and '\n\n\n' not in corpus


def test_size_is_what_the_design_expects(corpus):
    assert 18_000 < len(poems_in(corpus)) < 18_600
    assert 1.70e6 < len(corpus) < 1.78e6
    assert 4_400 < len(set(corpus)) < 4_600


def test_format(corpus):
    for title, *lines in poems_in(corpus):
        assert re.fullmatch(f'[{HAN}·]+ [{HAN}]+', title), title
        assert lines, title
        for line in lines:
            assert re.fullmatch('[^。？！ ]+[。？！]', line), line


def test_only_chinese_text_and_its_punctuation(corpus):
    assert not re.sub(f'[{HAN}，。、？！；：《》“”‘’· \n]', '', corpus)


def test_no_duplicates(corpus):
    bodies = [letters(lines) for _, *lines in poems_in(corpus)]
    assert all(bodies)
    assert len(set(bodies)) == len(bodies)


def test_no_rare_characters(corpus):
    assert min(Counter(corpus).values()) >= 3


def test_validation_part_is_a_fair_sample(corpus):
    """In the source, the poems are sorted by poet; shuffled, every prolific poet is in the last tenth as well."""
    authors = [title.split(' ')[1] for title, *_ in poems_in(corpus)]
    cut = len(authors) * 9 // 10
    for author, count in Counter(authors).most_common(10):
        assert 0.05 * count < authors[cut:].count(author) < 0.16 * count, author


# The builder, on a package made here: one poem for each rule.

def entry(*lines, tune='如梦令・春', author='某人'):
    return {'rhythmic': tune, 'author': author, 'paragraphs': list(lines)}


KEPT = ['春花秋月春花秋月。', '秋月。']
PACKAGE = {
    'songci/ci.song.0.json': [
        entry(*KEPT, author='某人2'),
        entry('春花秋月□。'),
        entry('（缺词文）'),
        entry('春花……秋月。'),
        entry('春花hello秋月。'),
        entry('春花け秋月。'),
        entry(),
        entry('春花、秋月春花秋月。', '秋月。'),  # the kept one but for punctuation
        entry('春花秋月稀。'),  # a character seen once
    ],
    'songci/ci.song.1000.json': [entry('如梦令某人。', '花月'), entry('人令如某梦。花月！花！月！')],
    'wudaishici/nantang/poetrys.json': [entry('某人如梦令花。')],
    'songci/other.json': [entry('不要读这个。')],
}


@pytest.fixture
def package(tmp_path):
    for name, poems in PACKAGE.items():
        path = tmp_path / 'package' / 'dist' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(poems, ensure_ascii=False), encoding='utf-8')
    return tmp_path / 'package'


def run_builder(*args):
    return subprocess.run([sys.executable, ROOT / 'tools' / 'build_ci.py', *map(str, args)],
                          capture_output=True, encoding='utf-8', check=False)


def test_builder_applies_each_rule_once(package, tmp_path):
    output = tmp_path / 'out.txt'
    result = run_builder(package, '--output', output)
    assert result.returncode == 0, result.stderr
    dropped = {name.strip(): int(count) for name, count in re.findall(r'dropped: (.+?) +(-?\d+)\n', result.stdout)}
    assert dropped == {'lacunae': -3, 'not Chinese text': -2, 'empty body': -1, 'duplicate body': -1,
                       'a character seen < 3 times': -1}
    poems = poems_in(output.read_text(encoding='utf-8'))
    title = '如梦令·春 某人'
    assert sorted(poems) == sorted([
        [title, *KEPT],
        [title, '如梦令某人。', '花月。'],
        [title, '人令如某梦。', '花月！', '花！', '月！'],
        [title, '某人如梦令花。'],
    ])


def test_builder_gives_the_same_bytes_from_folder_and_tarball(package, tmp_path):
    with tarfile.open(tmp_path / 'package.tgz', 'w:gz') as tar:
        tar.add(package, 'package')
    outputs = []
    for number, source in enumerate([package, package, tmp_path / 'package.tgz']):
        path = tmp_path / f'{number}.txt'
        assert run_builder(source, '--output', path).returncode == 0
        outputs.append(path.read_bytes())
    assert outputs[0] == outputs[1] == outputs[2] != b''


@pytest.mark.parametrize('argument', [[], ['/no/such/package'], ['EMPTY'], ['BROKEN']])
def test_builder_says_how_to_get_the_package(argument, tmp_path):
    (tmp_path / 'broken.tgz').write_bytes(b'not a tarball')
    names = {'EMPTY': tmp_path, 'BROKEN': tmp_path / 'broken.tgz'}
    output = tmp_path / 'out.txt'
    result = run_builder(*[names.get(word, word) for word in argument], '--output', output)
    assert result.returncode != 0
    assert len(result.stderr.strip().splitlines()) == 1 and 'Traceback' not in result.stderr
    assert argument or 'npm pack chinese-poetry@2.0.1' in result.stderr
    assert not output.exists()
