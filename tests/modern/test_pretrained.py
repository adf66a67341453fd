"""The model that v20 trained for the repository: small, readable by the sampler, and as good as its text file says."""

import re

import pytest
import torch

from kit.files import ROOT
from kit.ladders import LADDERS
from kit.scripts import losses, module_of

PATH = ROOT / 'pretrained' / 'model_v20.pth'
RECORD = PATH.with_suffix('.txt').read_text(encoding='utf-8')
v20 = module_of(LADDERS['modern']['v20'])


@pytest.fixture(scope='module')
def checkpoint():
    return torch.load(PATH, weights_only=True)


def test_it_is_small_and_says_which_rung_wrote_it(checkpoint):
    assert PATH.stat().st_size < 20_000_000
    assert checkpoint['rung'] == LADDERS['modern']['v20'].stem


def test_its_vocabulary_is_the_corpus(checkpoint, corpus):
    assert checkpoint['vocabulary'] == ''.join(sorted(set(corpus)))


def test_it_was_made_by_the_command_beside_it(checkpoint):
    command = re.search(r'babygpt_v20_tied_embedding.py (--.*)', RECORD)[1]
    options = dict(re.findall(r'--(\w+) ([\d.e-]+)', command))
    for name, value in checkpoint['hyper_params'].items():
        assert float(options[name]) == value, name


def test_it_has_the_loss_that_is_written_beside_it(checkpoint, corpus):
    """The lowest validation loss of the record, found again on a few of the poems that it was measured on."""
    tokenizer = v20.Tokenizer(checkpoint['vocabulary'])
    model = v20.BabyGPT(tokenizer.vocab_size, **checkpoint['hyper_params'])
    model.load_state_dict(checkpoint['model'])
    poems = v20.split_poems(corpus, model.block_size)
    val = v20.pad([poem[:model.block_size + 1] for poem in poems[int(0.9 * len(poems)):]], tokenizer)
    found = v20.estimate_loss(model, val[-8:], val, eval_iters=10, batch_size=16)['val']
    assert found == pytest.approx(min(val for _, _, val in losses(RECORD)), abs=0.06)
