"""Write the walkthrough, docs/index.html and its pages, from the scripts and from what docs/*.json keep.

    python tools/walkthrough.py            # write the pages of every ladder: a few seconds
    python tools/walkthrough.py examples   # compute the numbers of the worked examples, into docs/examples.json
    python tools/walkthrough.py samples    # run the scripts for what they write, into docs/samples.json (half an hour)

The texts of a ladder are in its pages/zh and pages/en, one file for a page: Jinja templates, in which every number is
a value that was measured or computed. A text that makes a claim about numbers states it with check(), and the build stops
when it is no longer so; it also stops when a margin note no longer finds its line or a named test is gone.
Needs requirements-dev.txt. tests/test_pages.py compares the committed pages with what is built.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from kit import examples, samples, site
from kit.files import write
from kit.results import Missing, Untrue


def write_pages():
    try:
        files = site.contents()
    except (Missing, Untrue) as problem:
        sys.exit(f'docs/: {problem}')
    for path, text in files.items():
        write(path, text)
    print(f'{len(files)} files, {sum(len(text.encode()) for text in files.values()) / 1e6:.1f} MB, in docs/')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', nargs='?', choices=['pages', 'examples', 'samples'], default='pages')
    {'pages': write_pages, 'examples': examples.collect, 'samples': samples.collect}[parser.parse_args().what]()


if __name__ == '__main__':
    main()
