import os

os.environ['OMP_NUM_THREADS'] = '1'  # here and in every script run: the tests themselves run in parallel

import pytest
from ladder import CORPUS


@pytest.fixture(scope='session')
def corpus():
    return CORPUS.read_text(encoding='utf-8')


@pytest.fixture(scope='session')
def small_corpus(corpus):
    """About 20,000 characters of whole poems that contain both default prompts."""
    text = corpus[:corpus.index('\n\n', 20_000) + 1]
    assert set('春江往事') <= set(text)
    return text
