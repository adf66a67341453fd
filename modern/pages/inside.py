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


def whole_poems():
    """The loss of the two pretrained models on whole poems of the validation part, measured in the same way."""
    found = {}
    for path, rung in RUNGS.items():
        module, checkpoint = module_of(rung), torch.load(ROOT / path, weights_only=True)
        tokenizer = module.Tokenizer(checkpoint['vocabulary'])
        model = module.BabyGPT(tokenizer.vocab_size, **checkpoint['hyper_params'])
        model.load_state_dict(checkpoint['model'])
        found[path] = made_of(rung.path) | {
            'model': file_hash(path), 'parameters': sum(p.numel() for p in model.parameters()),
            'loss': form.loss(model, tokenizer, read(CORPUS)[CUT:]), 'train': form.loss(model, tokenizer, read(CORPUS)[:CUT // 10])}
    return found


def written(temperatures=(1.0, 0.8)):
    """How many poems of the pretrained v20 keep the form of their tune, and are copies; written with the cache."""
    sampler = load('modern/babygpt_sample.py')
    model, tokenizer = sampler.load_model(ROOT / NEW)

    def counted(temperature):
        def generate(idx, max_new_tokens):
            return torch.cat([idx, *type(model).generate(model, idx, max_new_tokens, temperature=temperature)], dim=1)
        model.generate = generate
        return form.measure(model, tokenizer, read(CORPUS)[:CUT], before='')

    return {f'{NEW} {temperature}': made_of('modern/babygpt_sample.py') | {'model': file_hash(NEW)} | counted(temperature)
            for temperature in temperatures}


MEASURED = {'whole_poems': whole_poems, 'written': written}
