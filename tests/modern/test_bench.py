"""What tools/bench.py compares v21 with is the same work, and the memory that it computes is what training keeps."""

import pytest
import torch

from kit.scripts import module_of
from tests.modern.models import LADDER
from tests.modern.test_concepts import kept_for_backward
from tools import bench

SHAPE = {'batch_size': 3, 'block_size': 16, 'n_embd': 24, 'n_head': 4, 'n_kv_head': 2, 'n_layer': 2, 'dropout': 0.0}


@pytest.fixture(autouse=True)
def small_vocabulary(monkeypatch):
    monkeypatch.setattr(bench, 'VOCAB_SIZE', 29)


def test_qwen3_has_the_loss_of_v21_on_the_same_rows():
    """With the same weights, padding and all: so what is timed beside v21 is the same step."""
    ours = bench.built(module_of(LADDER['v21']), SHAPE)
    theirs, forward = bench.qwen3(SHAPE)
    theirs.load_state_dict(module_of(LADDER['export_hf']).rename(ours.state_dict()), strict=False)
    theirs.tie_weights()
    rows = torch.randint(29, (3, 17))
    x, y = rows[:, :-1], rows[:, 1:].clone()
    y[0, 9:] = y[1, 3:] = module_of(LADDER['v21']).padding
    assert torch.allclose(ours(x, y)[1], forward(x, y)[1], atol=1e-5)


@pytest.mark.parametrize('precision', ['float32', 'bfloat16'])
@pytest.mark.parametrize('rung', [LADDER['v20'], LADDER['v21']])
def test_the_memory_computed_is_what_a_real_step_keeps(rung, precision):
    model = bench.built(module_of(rung), SHAPE)
    ids = torch.randint(29, (3, 16))
    with torch.autocast('cpu', torch.bfloat16, enabled=precision == 'bfloat16'):
        kept, logits = kept_for_backward(model, ids), model(ids)[0].nbytes
    found = bench.needed(rung, SHAPE, precision)
    assert found['activations'] == kept + 2 * logits
    assert found['states'] == 4 * sum(p.nbytes for p in model.parameters()) and found['parameters'] * 16 == found['states']


def test_a_mask_of_dropout_is_counted_for_each_sublayer():
    rung, dropped = LADDER['v21'], SHAPE | {'dropout': 0.2}
    without, with_masks = bench.needed(rung, SHAPE), bench.needed(rung, dropped)
    assert without['masks'] == 0 and with_masks == without | {'masks': 2 * SHAPE['n_layer'] * 3 * 16 * 24}


def test_a_preset_is_what_the_script_sets():
    """What `auto` may choose counts as the larger; only the laptop is a CPU, and trains without dropout."""
    shapes = {name: bench.preset(name) for name in module_of(bench.FAST).presets}
    assert shapes['laptop'] == (bench.shape_of(bench.FAST), 'float32')
    assert shapes['gpu24'][0]['n_embd'] == 512 and shapes['gpu24'][1] == 'bfloat16'
    assert [name for name, (shape, _) in shapes.items() if not shape['dropout']] == ['laptop']


@pytest.mark.parametrize('precision', ['float32', 'bfloat16'])
def test_a_step_is_taken_in_its_precision_and_changes_the_weights(precision):
    seen, rung = [], bench.FAST
    model, ids = bench.built(module_of(rung), SHAPE), torch.randint(29, (3, 16))
    model.lm_head.register_forward_hook(lambda *_: seen.append(torch.is_autocast_enabled('cpu')))
    before = model.lm_head.weight.clone()
    bench.step_of(module_of(rung), model, model, lambda: (ids, ids), precision)()
    assert seen == [precision == 'bfloat16'] and not torch.equal(before, model.lm_head.weight)
