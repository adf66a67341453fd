"""What is looked at inside the models of this ladder: MEASURED, {section of docs/results.json: function}.

Each function returns {name of the script: what was found, and the code it was found with}.
"""

import torch

from kit.experiments import made_of, mean
from kit.files import CORPUS, ROOT, file_hash, read
from kit.form import measure
from kit.ladders import LADDERS
from kit.scripts import load, module_of

LADDER = LADDERS['root']


def gradients(blocks=16, seeds=(1337, 1338, 1339)):
    """Root mean square of the loss gradient over the parameters of each block of v6 and v7, before any training."""
    found = {}
    for rung in (LADDER['v6'], LADDER['v7']):
        module, by_seed = module_of(rung), []
        text = module.read_text(module.data_path, module.train_ratio, module.block_size)
        tokenizer = module.Tokenizer(text)
        data = torch.tensor(tokenizer.encode(text[:100_000]))
        for seed in seeds:
            torch.manual_seed(seed)
            model = module.BabyGPT(tokenizer.vocab_size, module.block_size, module.n_embd, module.n_head, blocks)
            model(*module.get_batch(data, module.batch_size, module.block_size))[1].backward()
            by_seed.append([torch.cat([p.grad.flatten() for p in block.parameters()]).square().mean().sqrt().item()
                            for block in model.blocks])
        found[rung.stem] = made_of(rung.path) | {
            'rms_by_block': [float(f'{mean(block):.3g}') for block in zip(*by_seed, strict=True)]}
    return found


def trained(rung, **constants):
    """(module, model) of a rung trained with its own settings but for those constants."""
    module, models = load(rung.path), []  # one of our own: it is changed below
    vars(module).update(constants)

    class KeptBabyGPT(module.BabyGPT):
        def __init__(self, *sizes):
            super().__init__(*sizes)
            models.append(self)
    module.BabyGPT = KeptBabyGPT
    module.main()
    return module, models[0]


def neighbours(char='江', count=5):
    """The characters whose embeddings in a trained v1 make the smallest angle with that of a character."""
    rung = LADDER['v1']
    module, model = trained(rung)
    tokenizer = module.Tokenizer(read(CORPUS))
    table = torch.nn.functional.normalize(model.token_embedding_table.weight.detach(), dim=1)
    cosines = (table @ table[tokenizer.ids[char]]).topk(count + 1)
    nearest = [(tokenizer.chars[i], round(cosine, 3)) for cosine, i in zip(*map(torch.Tensor.tolist, cosines), strict=True)]
    return {rung.stem: made_of(rung.path) | {'char': char, 'nearest': nearest[1:]}}


def lengths(seeds=(1337, 1338, 1339)):
    """The mean length of the rows of v2's two tables before and after training, one for each seed."""
    rung, found = LADDER['v2'], {}
    for seed in seeds:
        module, model = trained(rung, seed=seed)
        torch.manual_seed(seed)
        fresh = module.BabyGPT(model.token_embedding_table.num_embeddings, module.block_size, module.n_embd)
        for name, each in (('before', fresh), ('after', model)):
            for part in ('token_embedding_table', 'position_embedding_table'):
                length = getattr(each, part).weight.detach().norm(dim=1).mean().item()
                found.setdefault(f'{part} {name}', []).append(round(length, 3))
    return {rung.stem: made_of(rung.path) | found}


def attention(length=24):
    """Train v4 with its own settings; the weights of its heads on the first poem of the validation text."""
    rung, weights = LADDER['v4'], []
    module, model = trained(rung)
    text = module.read_text(module.data_path, module.train_ratio, module.block_size)
    poem = text[text.index('\n\n', int(module.train_ratio * len(text))) + 2:][:length]
    softmax = module.F.softmax
    module.F.softmax = lambda *args, **options: weights.append(softmax(*args, **options)) or weights[-1]
    try:
        with torch.no_grad():
            model.eval()(torch.tensor([module.Tokenizer(text).encode(poem)]))
    finally:
        module.F.softmax = softmax
    return {rung.stem: made_of(rung.path) | {
        'poem': poem,
        'weights': [[[round(value, 3) for value in row] for row in head] for head in weights[0][0].tolist()]}}


def form(model='pretrained/model.pth'):
    """How many poems of the pretrained model keep the form of their tune, written with the cache."""
    sampler = load('babygpt_sample_with_kvcache.py')
    sampler.model_path = ROOT / model

    class WritingAll(sampler.BabyGPT):
        def generate(self, idx, max_new_tokens):
            return torch.cat([idx, *super().generate(idx, max_new_tokens)], dim=1)
    sampler.BabyGPT = WritingAll
    text = read(CORPUS)
    return {model: made_of('babygpt_sample_with_kvcache.py') | {'model': file_hash(model)}
            | measure(*sampler.load_model(), text[:int(module_of(LADDER['v12']).train_ratio * len(text))])}


MEASURED = {'gradients': gradients, 'attention': attention, 'neighbours': neighbours, 'lengths': lengths, 'form': form}
