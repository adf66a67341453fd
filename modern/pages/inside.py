"""What is looked at inside the models of this ladder: MEASURED, {section of docs/results.json: function}.

Each function returns {name of the model: what was found, and the code it was found with}.
"""

import torch

from kit import form
from kit.experiments import made_of
from kit.files import CORPUS, ROOT, file_hash, read
from kit.ladders import LADDERS
from kit.scripts import load, module_of

OLD, NEW = 'pretrained/model.pth', 'pretrained/model_v20.pth'
RUNGS = {OLD: LADDERS['root']['v12'], NEW: LADDERS['modern']['v20']}
CUT = int(0.9 * len(read(CORPUS)))  # where the validation part begins


def opened(path):
    """A pretrained model as its rung builds it, and the tokenizer."""
    module, checkpoint = module_of(RUNGS[path]), torch.load(ROOT / path, weights_only=True)
    tokenizer = module.Tokenizer(checkpoint['vocabulary'])
    model = module.BabyGPT(tokenizer.vocab_size, **checkpoint['hyper_params'])
    model.load_state_dict(checkpoint['model'])
    return model, tokenizer


def whole_poems():
    """The loss of the two pretrained models on whole poems of the validation part, measured in the same way."""
    found = {}
    for path, rung in RUNGS.items():
        model, tokenizer = opened(path)
        found[path] = made_of(rung.path) | {
            'model': file_hash(path), 'parameters': sum(p.numel() for p in model.parameters()),
            'loss': form.loss(model, tokenizer, read(CORPUS)[CUT:]), 'train': form.loss(model, tokenizer, read(CORPUS)[:CUT // 10])}
    return found


def written(temperatures=(1.0, 0.8)):
    """How many poems of the pretrained v20 keep the form of their tune, and are copies; written with the cache.

    At each temperature, and at 1.0 with --constrain; `loss` is what v20 itself loses on them, per character.
    """
    sampler, training = load('modern/babygpt_sample.py'), read(CORPUS)[:CUT]
    (model, tokenizer), free = sampler.load_model(ROOT / NEW), opened(NEW)
    tunes = form.Forms(form.split(training)).common()[:form.TUNES]

    def at(temperature):
        def generate(idx, max_new_tokens):
            return torch.cat([idx, *type(model).generate(model, idx, max_new_tokens, temperature=temperature)], dim=1)
        model.generate = generate
        return form.written(model, tokenizer, tunes, form.EACH, before='')

    def constrained(tune):
        limits = sampler.Form('字名名名名\n', [sampler.commonest_form(tune)] * form.EACH, tokenizer, sampler.device)
        idx = torch.tensor([tokenizer.encode(f'{tune} ')] * form.EACH, device=sampler.device)
        ids = torch.cat([idx, *type(model).generate(model, idx, limits.longest, form=limits)], dim=1)
        return map(tokenizer.decode, ids.tolist())

    ways = {str(temperature): lambda temperature=temperature: at(temperature) for temperature in temperatures}
    ways['constrained'] = lambda: [text for tune in tunes for text in constrained(tune)]
    found = {}
    for way, texts_of in ways.items():
        torch.manual_seed(1337)
        texts = texts_of()
        whole = '\n\n'.join(['', *(text.partition('\n\n')[0] for text in texts if '\n\n' in text), ''])
        found[f'{NEW} {way}'] = (made_of('modern/babygpt_sample.py') | {'model': file_hash(NEW)} | form.counted(texts, training)
                                 | {'loss': form.loss(*free, whole)})
    return found


MEASURED = {'whole_poems': whole_poems, 'written': written}
