"""Build ci.txt, the corpus, from the npm data package chinese-poetry 2.0.1 (MIT).

    npm pack chinese-poetry@2.0.1
    python tools/build_ci.py chinese-poetry-2.0.1.tgz

The argument is the tarball or a folder it was unpacked into. The same input gives the same bytes.
"""

import argparse
import json
import os
import random
import re
import sys
import tarfile
from collections import Counter
from pathlib import Path

SOURCES = re.compile(r'(^|/)(songci/ci\.song\.(\d+)\w*\.json|wudaishici/nantang/poetrys\.json)$')
OUTPUT = Path(__file__).resolve().parent.parent / 'ci.txt'
MIN_COUNT = 3  # a character seen twice can't be learned
SEED = 1115
HAN = '\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff'
CHINESE = re.compile(f'[{HAN}，。、？！；：《》“”‘’·]*')
LACUNA = re.compile('[□…（）]')  # a missing character, missing words, an editor's "（下缺）"


def source_key(name):
    """Song files by number, the Southern Tang after them: which of two duplicates is 'the first' depends on it."""
    number = SOURCES.search(name)[3]
    return (number is None, int(number or 0), name)


def read_sources(path):
    """Return the parsed JSON files of the package at `path` (folder or tarball), in a fixed order."""
    if path.is_dir():
        names = sorted((str(p) for p in path.rglob('*.json') if SOURCES.search(p.as_posix())), key=source_key)
        return [json.loads(Path(name).read_text(encoding='utf-8')) for name in names]
    with tarfile.open(path) as tar:
        names = sorted((name for name in tar.getnames() if SOURCES.search(name)), key=source_key)
        return [json.load(tar.extractfile(name)) for name in names]


def to_poem(entry):
    """Return (title line, body lines), one sentence a line, each closed by its own mark."""
    tune = entry['rhythmic'].replace('・', '·')  # the source uses the katakana dot
    author = re.sub(r'\d+$', '', entry['author'])  # '王炎2' is the second poet of that name
    lines = []
    for paragraph in entry['paragraphs']:
        for sentence in re.findall('[^。？！]+[。？！]?', paragraph):
            lines.append(sentence if sentence[-1] in '。？！' else sentence.rstrip('，、') + '。')
    return f'{tune} {author}', lines


def is_chinese(poem):
    title, lines = poem
    return all(CHINESE.fullmatch(part) for part in (*title.split(' '), *lines))


def letters(poem):
    """The body without punctuation: two poems with the same letters are one poem."""
    return re.sub(f'[^{HAN}]', '', ''.join(poem[1]))


def drop_duplicates(poems):
    first = {}
    for poem in poems:
        first.setdefault(letters(poem), poem)
    return list(first.values())


def drop_rare(poems):
    """Drop poems with a character seen fewer than MIN_COUNT times; repeat, since that makes others rare."""
    while True:
        counts = Counter(c for poem in poems for c in render(poem))
        kept = [poem for poem in poems if all(counts[c] >= MIN_COUNT for c in render(poem))]
        if len(kept) == len(poems):
            return kept
        poems = kept


def render(poem):
    return '\n'.join([poem[0], *poem[1]]) + '\n'


RULES = [
    ('lacunae', lambda poems: [p for p in poems if not LACUNA.search(render(p))]),
    ('not Chinese text', lambda poems: [p for p in poems if is_chinese(p)]),
    ('empty body', lambda poems: [p for p in poems if letters(p)]),
    ('duplicate body', drop_duplicates),
    (f'a character seen < {MIN_COUNT} times', drop_rare),
]


def build(sources):
    """Return the text of ci.txt and print how many poems each rule dropped."""
    poems = [to_poem(entry) for source in sources for entry in source]
    print(f'{"poems in the package":28}{len(poems):>10,}')
    for name, rule in RULES:
        kept = rule(poems)
        print(f'  dropped: {name:27}{len(kept) - len(poems):>8,}')
        poems = kept
    random.Random(SEED).shuffle(poems)  # so that the last 10 % is a fair validation set
    text = '\n'.join(render(poem) for poem in poems)
    print(f'{"poems":28}{len(poems):>10,}')
    print(f'{"characters":28}{len(text):>10,}')
    print(f'{"distinct characters":28}{len(set(text)):>10,}')
    print(f'{"bytes":28}{len(text.encode()):>10,}')
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('package', nargs='?', type=Path, help='chinese-poetry-2.0.1.tgz, or the folder it unpacks to')
    parser.add_argument('--output', type=Path, default=OUTPUT, help='default: ci.txt in the repository root')
    args = parser.parse_args()
    if args.package is None or not args.package.exists():
        sys.exit('build_ci.py: no data package; get it with "npm pack chinese-poetry@2.0.1" and pass its path')
    try:
        sources = read_sources(args.package)
    except (OSError, EOFError, tarfile.TarError, ValueError):
        sys.exit(f'build_ci.py: {args.package} cannot be read; get it again with "npm pack chinese-poetry@2.0.1"')
    if not sources:
        sys.exit(f'build_ci.py: {args.package} holds no songci/ci.song.*.json; is it chinese-poetry 2.0.1?')
    text = build(sources)
    temporary = args.output.with_name(args.output.name + '.tmp')
    temporary.write_text(text, encoding='utf-8', newline='\n')
    os.replace(temporary, args.output)
    print(f'wrote {args.output}')


if __name__ == '__main__':
    main()
