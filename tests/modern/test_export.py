"""The exported folder is Qwen3 to Hugging Face: same logits, same greedy text, one token a character, nothing pickled."""

import json
import subprocess
import sys

import pytest
import torch
import transformers

from kit.files import ROOT
from kit.ladders import LADDERS
from kit.scripts import clean_environment, load, module_of, run
from tests.root.models import random_ids

EXPORT = ROOT / 'modern' / 'export_hf.py'
v20 = module_of(LADDERS['modern']['v20'])
TEXT = '浣溪沙 甲\n一曲新词酒一杯。\n去年天气旧亭台。\n\n' * 3
VOCABULARY = ''.join(sorted(set(TEXT)))
SIZES = {'block_size': 40, 'n_embd': 24, 'n_head': 4, 'n_kv_head': 2, 'n_layer': 12, 'dropout': 0.1}


def make_model(**sizes):
    torch.manual_seed(0)
    model = v20.BabyGPT(len(VOCABULARY), **SIZES | sizes).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return model


def checkpoint_of(model, **sizes):
    return {'rung': 'babygpt_v20_tied_embedding', 'model': model.state_dict(), 'hyper_params': SIZES | sizes,
            'vocabulary': VOCABULARY}


@pytest.fixture(scope='module', params=[{}, {'n_kv_head': 4, 'n_layer': 1}, {'n_kv_head': 1, 'n_embd': 48, 'n_layer': 2}], ids=str)
def exported(request, tmp_path_factory):
    """Our model, and the folder that the command made of it."""
    folder = tmp_path_factory.mktemp('export')
    model = make_model(**request.param)
    torch.save(checkpoint_of(model, **request.param), folder / 'model.pth')
    result = run(EXPORT, '--model', folder / 'model.pth', folder / 'new' / 'hf')
    assert result.returncode == 0 and not result.stderr, result.stderr
    return model, folder / 'new' / 'hf', result.stdout


@pytest.fixture(scope='module')
def opened(exported):
    model, info = transformers.AutoModelForCausalLM.from_pretrained(exported[1], output_loading_info=True)
    assert not any(info.values()), info  # no key is missing, unexpected or of another shape
    return model.eval(), transformers.AutoTokenizer.from_pretrained(exported[1])


@torch.no_grad()
def test_hugging_face_computes_the_same_logits(exported, opened):
    ours, (theirs, _) = exported[0], opened
    assert type(theirs).__name__ == 'Qwen3ForCausalLM'
    idx = random_ids(3, SIZES['block_size'], vocab_size=len(VOCABULARY))
    assert torch.allclose(ours(idx)[0], theirs(idx).logits, atol=1e-4)
    assert theirs.num_parameters() == sum(p.numel() for p in ours.parameters())


@torch.no_grad()
def test_hugging_face_writes_the_same_greedy_text(exported, opened):
    ours, (theirs, tokenizer) = exported[0], opened
    idx = tokenizer('浣溪沙 甲\n', return_tensors='pt').input_ids
    expected = idx
    while expected.size(1) < SIZES['block_size']:
        expected = torch.cat([expected, ours(expected)[0][:, -1:].argmax(-1)], dim=1)
    written = theirs.generate(idx, do_sample=False, max_new_tokens=SIZES['block_size'] - idx.size(1))
    assert written.tolist() == expected.tolist()


def test_a_character_is_a_token_there_and_back(opened):
    _, tokenizer = opened
    expected = v20.Tokenizer(VOCABULARY)
    for text in (TEXT, '\n\n', ' ', '酒 一\n 杯', '。。'):
        assert tokenizer(text).input_ids == expected.encode(text)
        assert tokenizer.decode(expected.encode(text)) == text
    assert len(tokenizer) == len(VOCABULARY)
    assert tokenizer('').input_ids == []


def test_an_unknown_character_is_refused_and_never_dropped(opened):
    _, tokenizer = opened
    for text in ('酒Z', '鵝', '一\t杯'):
        with pytest.raises(Exception, match='UNK'):
            tokenizer(text)


def test_it_draws_as_our_sampler_does_by_default(exported, opened):
    """Nothing is filtered: top_k would be 50 otherwise."""
    settings = opened[0].generation_config
    assert settings.do_sample and settings.top_k == 0 and settings.top_p == 1 and settings.temperature == 1


def test_the_folder_holds_no_pickle(exported):
    assert {file.name for file in exported[1].iterdir()} == {
        'config.json', 'generation_config.json', 'model.safetensors', 'tokenizer.json', 'tokenizer_config.json'}
    assert json.loads((exported[1] / 'config.json').read_text())['tie_word_embeddings'] is True
    assert [file.name for file in exported[1].parent.iterdir()] == ['hf']  # the temporary folder is gone


@pytest.mark.parametrize('exported', [{}], indirect=True)
def test_the_lines_that_it_prints_run(exported):
    lines = exported[2].split('\n\n', 1)[1].replace('浣溪沙 ', '浣溪沙 甲')
    result = subprocess.run([sys.executable, '-c', lines], capture_output=True, encoding='utf-8', check=False,
                            env=clean_environment(HF_HUB_OFFLINE='1'))
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith('浣溪沙 甲')


# Bad input

@pytest.mark.parametrize('change, says', [
    (lambda c: c | {'rung': 'babygpt_v19_qk_norm'}, 'babygpt_v19_qk_norm'),
    (lambda c: {name: value for name, value in c.items() if name != 'rung'}, 'v12'),
    (lambda c: [c], '没有模型的参数'),
    (lambda c: c['model'], '没有模型的参数'),
    (lambda c: {name: value for name, value in c.items() if name != 'vocabulary'}, '词表'),
    (lambda c: c | {'vocabulary': VOCABULARY[1:]}, '词表'),
    (lambda c: c | {'hyper_params': {}}, 'n_embd'),
], ids=['v19', 'v12', 'list', 'weights', 'no vocabulary', 'short vocabulary', 'no sizes'])
def test_a_checkpoint_of_another_kind_is_one_line_and_leaves_nothing(change, says, tmp_path, refused):
    torch.save(change(checkpoint_of(make_model(n_layer=1), n_layer=1)), tmp_path / 'model.pth')
    refused('--model', tmp_path / 'model.pth', tmp_path / 'hf', says=[says])
    assert [file.name for file in tmp_path.iterdir()] == ['model.pth']


@pytest.fixture
def refused(monkeypatch, capsys):
    """Run main() with those arguments: it must leave with one line that has these words, and print nothing else."""
    def run(*arguments, says):
        monkeypatch.setattr(sys, 'argv', ['export_hf.py', *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            load('modern/export_hf.py').main()
        said = str(left.value)  # a text goes to stderr, with exit code 1
        assert len(said.splitlines()) == 1 and all(word in said for word in says), said
        assert not ''.join(capsys.readouterr())
    return run


@pytest.mark.parametrize('content', [b'', b'not a model', None], ids=['empty', 'text', 'missing'])
def test_what_is_no_model_is_one_line(content, tmp_path, refused):
    if content is not None:
        (tmp_path / 'model.pth').write_bytes(content)
    refused('--model', tmp_path / 'model.pth', tmp_path / 'hf', says=['model.pth'])
    assert not (tmp_path / 'hf').exists()


def test_a_cut_off_model_is_one_line(tmp_path, refused):
    torch.save(checkpoint_of(make_model(n_layer=1), n_layer=1), tmp_path / 'model.pth')
    whole = (tmp_path / 'model.pth').read_bytes()
    (tmp_path / 'model.pth').write_bytes(whole[:len(whole) // 2])
    refused('--model', tmp_path / 'model.pth', tmp_path / 'hf', says=['残缺'])


def test_a_folder_that_is_not_empty_stays_as_it_is(tmp_path, refused):
    torch.save(checkpoint_of(make_model(n_layer=1), n_layer=1), tmp_path / 'model.pth')
    (tmp_path / 'hf').mkdir()
    (tmp_path / 'hf' / 'mine.txt').write_text('mine')
    refused('--model', tmp_path / 'model.pth', tmp_path / 'hf', says=['hf'])
    assert [file.name for file in (tmp_path / 'hf').iterdir()] == ['mine.txt']
    (tmp_path / 'hf' / 'mine.txt').unlink()
    assert run(EXPORT, '--model', tmp_path / 'model.pth', tmp_path / 'hf').returncode == 0  # an empty one is taken
    (tmp_path / 'file').write_text('a file')
    refused('--model', tmp_path / 'model.pth', tmp_path / 'file', says=['file'])


def test_the_sampler_and_the_exporter_read_the_same_checkpoints(tmp_path):
    model = make_model()
    torch.save(checkpoint_of(model), tmp_path / 'model.pth')
    cached, tokenizer = load('modern/babygpt_sample.py').load_model(tmp_path / 'model.pth')
    assert tokenizer.chars == list(VOCABULARY)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), cached.state_dict().values(), strict=True))
