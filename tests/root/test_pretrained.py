"""The model that comes with the repository: small, loadable by the sampler, and as good as its text file says."""

import re

import pytest
import torch

from kit.files import ROOT
from kit.scripts import load, losses

FOLDER = ROOT / 'pretrained'
RECORD = (FOLDER / 'model.txt').read_text(encoding='utf-8')


@pytest.fixture(scope='module')
def checkpoint():
    return torch.load(FOLDER / 'model.pth', weights_only=True)


def test_it_is_small():
    assert (FOLDER / 'model.pth').stat().st_size < 20_000_000


def test_its_vocabulary_is_the_corpus(checkpoint, corpus):
    assert checkpoint['vocabulary'] == ''.join(sorted(set(corpus)))


def test_it_was_made_by_the_command_beside_it(checkpoint):
    command = re.search(r'babygpt_v12_wandb.py (--.*)', RECORD)[1]
    options = dict(re.findall(r'--(\w+) ([\d.e-]+)', command))
    for name, value in checkpoint['hyper_params'].items():
        assert float(options[name]) == value, name


def test_it_has_the_loss_that_is_written_beside_it(checkpoint, corpus):
    """The lowest validation loss of the record, found again on a quarter of the batches that v12 evaluates on."""
    module = load('babygpt_v12_wandb.py')
    tokenizer = module.Tokenizer(checkpoint['vocabulary'])
    model = module.BabyGPT(tokenizer.vocab_size, **checkpoint['hyper_params']).eval()
    model.load_state_dict(checkpoint['model'])
    data = torch.tensor(tokenizer.encode(corpus))[int(module.train_ratio * len(corpus)):]
    batch_size = int(re.search(r'--batch_size (\d+)', RECORD)[1])
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        found = [model(*module.get_batch(data, batch_size, model.block_size, generator))[1].item() for _ in range(25)]
    lowest = min(val for _, _, val in losses(RECORD))
    assert sum(found) / len(found) == pytest.approx(lowest, abs=0.03)
