"""What is looked at inside the models of this ladder: MEASURED, {section of docs/results.json: function}.

Each function returns {name of the model: what was found, and the code it was found with}.
"""

import re
from itertools import pairwise

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


def distinct(pieces):
    """How many there are, and how many different ones."""
    return {'all': len(pieces), 'different': len(set(pieces))}


def rewarded(each=20):
    """What learning from the form of one's own poems changed: v20 before, and what v25 and v26 left in modern/, where it is there.

    {'trained', 'held_out': how many of `each` poems for every tune keep the form, of the tunes that were written for and of those that
    were not; of all these poems how many end, their mean length, how many different lines and neighbouring characters they
    have, and how many are copies; 'loss': on the whole poems of the validation part}
    """
    script, v20 = 'modern/babygpt_v26_grpo.py', module_of(LADDERS['modern']['v20'])
    grpo, forms, found = load(script), form.Forms(form.split(read(CORPUS)[:CUT])), {}
    poems = grpo.read_poems()
    groups = dict(zip(['trained', 'held_out'], grpo.split_tunes(poems[:int(grpo.train_ratio * len(poems))]), strict=True))
    for path in [NEW, *sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob('modern/model_v2[56].pth'))]:
        model, tokenizer, hyper_params = grpo.load_model(ROOT / path)
        full = v20.BabyGPT(tokenizer.vocab_size, **hyper_params)
        full.load_state_dict(model.state_dict())
        torch.manual_seed(1337)
        texts = {name: grpo.write(model, tokenizer, [f'{tune} ' for tune in tunes], each, form.LONGEST) for name, tunes in groups.items()}
        written = {name: [form.finished(text) for text in those] for name, those in texts.items()}
        bodies = [body for those in written.values() for _, body in those if body]
        lines = [line for body in bodies for line in body.split('\n')]
        clauses = [clause for line in lines for clause in re.split('[。，、！？；：]', line)]
        found[path] = made_of(script) | {'model': file_hash(path), 'loss': form.loss(full, tokenizer, read(CORPUS)[CUT:])} | {
            name: forms.share(those) for name, those in written.items()} | {
            'ended': len(bodies), 'length': sum(map(len, bodies)) / len(bodies), 'lines': distinct(lines),
            'bigrams': distinct([pair for clause in clauses for pair in pairwise(clause)]),
            'copies': form.copies(bodies, read(CORPUS)[:CUT])['copies']}
    return found


MEASURED = {'whole_poems': whole_poems, 'written': written, 'rewarded': rewarded}
