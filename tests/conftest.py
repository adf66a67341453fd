import os
import random
import shutil

os.environ['OMP_NUM_THREADS'] = '1'  # here and in every script run: the tests themselves run in parallel

import numpy as np
import pytest
import torch

from kit import judge
from kit.files import CORPUS
from kit.ladders import Rung

CHROMIUM = shutil.which('chromium') or shutil.which('google-chrome')
DRIVER = shutil.which('chromedriver')


def pytest_addoption(parser):
    group = parser.getgroup('judge', 'judge a rung of your own')
    group.addoption('--rung', metavar='N', help='which rung --mine is: 3, modern/16')
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


@pytest.fixture(autouse=True)
def seeded():
    """What a test draws is the same in every run."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope='session')
def corpus():
    return CORPUS.read_text(encoding='utf-8')


@pytest.fixture(scope='session')
def small_corpus(corpus):
    """About 20,000 characters of whole poems that contain both default prompts."""
    text = corpus[:corpus.index('\n\n', 20_000) + 1]
    assert set('春江往事') <= set(text)
    return text


@pytest.fixture(scope='module')
def browser():
    """A headless Chromium; without one the test is skipped, or fails where REQUIRE_BROWSER is set."""
    if not (CHROMIUM and DRIVER):
        (pytest.fail if os.environ.get('REQUIRE_BROWSER') else pytest.skip)('needs Chromium: apt-get install chromium chromium-driver')
    from selenium import webdriver
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ('headless=new', 'no-sandbox', 'disable-gpu', 'disable-quic', 'no-first-run',
                     'disable-background-networking', 'disable-component-update', 'disable-sync'):
        options.add_argument(f'--{argument}')
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL', 'performance': 'ALL'})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_page_load_timeout(120)
    yield driver
    driver.quit()


def pytest_make_parametrize_id(val):
    """A rung is called v7 or modern/v16 in the name of a test."""
    return repr(val) if isinstance(val, Rung) else None
