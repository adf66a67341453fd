"""The pictures of the service that its page shows are of the page as it is."""

import re

import pytest

from kit.files import DOCS, file_hash
from kit.pictures import drawn_from

FOLDER = DOCS / 'screenshots' / 'scratch'
SHOWN = sorted(set(re.findall(r'screenshots/scratch/([\w.]+)', (DOCS / 'scratch' / 'v9.html').read_text(encoding='utf-8'))))


def test_the_page_shows_every_picture():
    assert len(SHOWN) > 1 and SHOWN == sorted(path.name for path in FOLDER.iterdir())


@pytest.mark.parametrize('name', SHOWN)
def test_a_picture_is_of_the_page_as_it_is(name):
    assert drawn_from(FOLDER / name) == file_hash('scratch/scratch_v9_serve.html'), 'run python tools/screenshots.py'
    assert (FOLDER / name).stat().st_size < 100_000
