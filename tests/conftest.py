import os

os.environ['OMP_NUM_THREADS'] = '1'  # here and in every script run: the tests themselves run in parallel

import judge
import pytest
from ladder import CORPUS


def pytest_addoption(parser):
    group = parser.getgroup('judge', 'judge a rung of your own')
    group.addoption('--rung', metavar='N', help='which rung --mine is')
    group.addoption('--mine', metavar='FILE', help='judge this file in place of that rung')
    group.addoption('--time-limit', metavar='SECONDS', type=float, default=30, help='for each test of --mine')


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    if config.option.mine:  # one process: it answers in order, and at once
        config.option.numprocesses = 0


@pytest.hookimpl(trylast=True)
def pytest_configure(config):
    if config.option.rung or config.option.mine:
        judge.start(config)


@pytest.fixture(scope='session')
def corpus():
    return CORPUS.read_text(encoding='utf-8')


@pytest.fixture(scope='session')
def small_corpus(corpus):
    """About 20,000 characters of whole poems that contain both default prompts."""
    text = corpus[:corpus.index('\n\n', 20_000) + 1]
    assert set('春江往事') <= set(text)
    return text
