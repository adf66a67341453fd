"""What is looked at inside the models of this ladder: MEASURED, {section of docs/results.json: function}.

Each function returns {name of the model: what was found, and the code it was found with}.
"""

import io
import re
import shutil
import tempfile
import time
from collections import Counter
from functools import cache
from itertools import pairwise
from pathlib import Path

import torch

from kit import form
from kit.experiments import made_of
from kit.files import CORPUS, ROOT, file_hash, read
from kit.ladders import LADDERS
from kit.scripts import install, load, module_of, run

OLD, NEW = 'pretrained/model.pth', 'pretrained/model_v20.pth'
RUNGS = {OLD: LADDERS['root']['v12'], NEW: LADDERS['modern']['v20']}
CUT = int(0.9 * len(read(CORPUS)))  # where the validation part begins
TRAINING, VALIDATION = read(CORPUS)[:CUT], read(CORPUS)[CUT:]


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
            'loss': form.loss(model, tokenizer, VALIDATION), 'train': form.loss(model, tokenizer, TRAINING[:CUT // 10])}
    return found


def written(temperatures=(1.0, 0.8)):
    """How many poems of the pretrained v20 keep the form of their tune, and are copies; written with the cache.

    At each temperature, and at 1.0 with --constrain; `loss` is what v20 itself loses on them, per character.
    """
    sampler = load('modern/babygpt_sample.py')
    (model, tokenizer), free = sampler.load_model(ROOT / NEW), opened(NEW)
    tunes = form.Forms(form.split(TRAINING)).common()[:form.TUNES]

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
        found[f'{NEW} {way}'] = (made_of('modern/babygpt_sample.py') | {'model': file_hash(NEW)} | form.counted(texts, TRAINING)
                                 | {'loss': form.loss(*free, whole)})
    return found


def tokens(training=TRAINING, validation=VALIDATION, n_merges=4000, shown=40):
    """What merges learned from the training part make of the validation part; SentencePiece's BPE with as many tokens beside them.

    `words` are the tokens of two characters or more: how many there are, and which occur most often in the training part.
    """
    path = 'modern/babygpt_bpe.py'
    script = module_of(LADDERS['modern']['babygpt_bpe'])
    started = time.perf_counter()
    tokenizer = script.Tokenizer(script.train_merges(training, n_merges))
    seconds = time.perf_counter() - started
    texts = [tokenizer.decode([i]) for i in range(tokenizer.vocab_size)]
    ways = {'babygpt_bpe': (tokenizer.encode, texts, seconds), 'SentencePiece': sentencepiece(training, tokenizer.vocab_size)}
    found = {}
    for name, (encode, texts, seconds) in ways.items():
        words = [len(text) > 1 and '�' not in text for text in texts]
        counts = Counter(i for i in encode(training) if words[i])
        found[name] = made_of(path) | {
            'vocabulary': len(texts), 'seconds': round(seconds, 1), 'per_character': round(len(encode(validation)) / len(validation), 4),
            'words': sum(words), 'most': [texts[i] for i, _ in counts.most_common(shown)]}
    return found


def sentencepiece(text, vocab_size, coverage=0.98):
    """SentencePiece's BPE, told to change no character and to write those it does not know as bytes, like ours.

    The characters that make up `coverage` of the text are tokens of their own, and merges get what is left of vocab_size: with
    ci.txt and 4,256 tokens, of which three control tokens are its own, nothing would be left at the default, 0.9995; 0.98 is the
    lowest that it takes. It learns line by line, so line ends are a token that it is told of.
    Returns what encodes a text, the text of each token, and the seconds that it learned for.
    """
    import sentencepiece as spm
    model, started = io.BytesIO(), time.perf_counter()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(line for line in text.split('\n') if line), model_writer=model, model_type='bpe', vocab_size=vocab_size,
        byte_fallback=True, character_coverage=coverage, normalization_rule_name='identity', add_dummy_prefix=False, remove_extra_whitespaces=False,
        user_defined_symbols=['\n'], minloglevel=2)
    seconds = time.perf_counter() - started
    processor = spm.SentencePieceProcessor(model_proto=model.getvalue())
    texts = ['�' if processor.is_byte(i) or processor.is_control(i) else processor.id_to_piece(i).replace('\u2581', ' ')
             for i in range(len(processor))]
    return processor.encode, texts, seconds


def distinct(pieces):
    """How many there are, and how many different ones."""
    return {'all': len(pieces), 'different': len(set(pieces))}


LEARNED = re.compile(r'第 +(\d+) 轮  奖励 ([\d.]+)  合句式 +([\d.]+)%，没练的词牌 +([\d.]+)%  验证损失 ([\d.]+)  离出发 ([\d.]+) .*\n'
                     r'([\s\S]*?)\n\n')


def learned(script):
    """A run of v25 or v26 with its defaults, from the pretrained v20: (the bytes of the model that it leaves, what it told).

    'curve' is [round, reward, form on the tunes that it practises and on the others, loss, distance] as printed, 'poems' what it wrote
    for one and the same tune at the first evaluation, in the middle and at the last; 'seconds' are those of all rounds, by the pace of the
    first 'timed' of them.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = install(script, folder)
        shutil.copytree(ROOT / 'pretrained', Path(folder, 'pretrained'))
        started = time.perf_counter()
        result = run(path, timeout=7200, fresh=True)
        if result.returncode:
            raise SystemExit(result.stderr)
        seconds, told = time.perf_counter() - started, LEARNED.findall(result.stdout)
        curve = [[int(step), *map(float, rest)] for step, *rest, _ in told]
        poems = [[int(told[i][0]), told[i][-1]] for i in (0, len(told) // 2, len(told) - 1)]
        return next(path.parent.glob('model_v*.pth')).read_bytes(), {
            'curve': curve, 'poems': poems, 'seconds': round(seconds), 'timed': curve[-1][0], 'threads': torch.get_num_threads()}


def places_of_rhyme(forms, bodies):
    """{tune: (its commonest form, [(a, b), ...])}: clause b ends on the rhyme of clause a in more than six of ten of these poems [(tune, body)].

    a is the nearest such clause before b. Rhyme is taken from modern readings, an approximation: see rhyme.
    """
    of_form, found = {}, {}
    for tune, body in bodies:
        of_form.setdefault((tune, form.form(body)), []).append([rhyme(clause[-1]) for clause in clauses_of(body)])
    for tune in {tune for tune, _ in of_form}:
        common = forms.counts[tune].most_common(1)[0][0]
        ends = of_form.get((tune, common), [])
        pairs = []
        for b in range(len(common)):
            near = [a for a in range(b) if len(ends) >= 10 and sum(row[a] == row[b] for row in ends) > 0.6 * len(ends)]
            pairs += [(near[-1], b)] if near else []
        found[tune] = common, pairs
    return found


def clauses_of(body):
    return [clause for clause in re.split('[。，、！？；：\n]', body) if clause]


@cache
def rhyme(char):
    """The final of a character's modern reading without its medial: 天 and 欢 both -an, 春 and 人 both -en. An approximation.

    Readings have changed since the Song: what rhymed then need not now, the entering tone least of all.
    """
    from pypinyin import Style, lazy_pinyin
    final = lazy_pinyin(char, style=Style.FINALS, strict=True)[0]
    final = {'in': 'en', 'vn': 'en', 'uen': 'en', 'ing': 'eng', 'ueng': 'eng', 'iong': 'ong', 'iou': 'ou', 'uei': 'ei', 'ie': 'ê', 've': 'ê',
             'uo': 'o', 'e': 'o'}.get(final, final)
    return final[1:] if final[:1] in 'iuv' and final[1:] else final


def rhyming(poems, places):
    """How many pairs of places that rhyme in the tunes' commonest forms there are in the poems that have these forms, how many rhyme."""
    pairs = [(clauses[a][-1], clauses[b][-1]) for tune, body in poems if body and tune in places and form.form(body) == places[tune][0]
             for clauses in [clauses_of(body)] for a, b in places[tune][1]]
    return {'pairs': len(pairs), 'rhyme': sum(rhyme(a) == rhyme(b) for a, b in pairs)}


def rewarded(each=20, sizes=(1, 2, 4, 10, 20)):
    """What learning from the form of one's own poems changed: v20 before, v25 and v26 with their defaults after.

    {'trained', 'held_out': how many of `each` poems for every tune keep the form, of the tunes that were written for and of those that
    were not; 'best': of the same poems, taken n at a time, how many times at least one does; of all these poems how many end, their
    mean length, how many different lines and neighbouring characters they have, how many are copies, how many of the places that
    rhyme in their tunes do; 'short': the same tunes and as many poems as in `written`; 'loss': on the whole poems of the validation part}
    """
    first, scripts = 'modern/babygpt_v25_expert_iteration.py', ['modern/babygpt_v25_expert_iteration.py', 'modern/babygpt_v26_grpo.py']
    v20, base, forms, found = module_of(LADDERS['modern']['v20']), load(first), form.Forms(form.split(TRAINING)), {}
    poems = base.read_poems()
    groups = dict(zip(['trained', 'held_out'], base.split_tunes(poems[:int(base.train_ratio * len(poems))]), strict=True))
    places = places_of_rhyme(forms, [poem for poem in form.split(TRAINING) if poem[0] in {*groups['trained'], *groups['held_out']}])
    real = [poem for poem in form.split(VALIDATION) if poem[0] in places]
    found['real'] = made_of(first) | {'rhymes': rhyming(real, places)}
    for script in [None, *scripts]:
        content, told = learned(script) if script else ((ROOT / NEW).read_bytes(), {})
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, 'model.pth')
            path.write_bytes(content)
            model, tokenizer, hyper_params = base.load_model(path)
        full = v20.BabyGPT(tokenizer.vocab_size, **hyper_params)
        full.load_state_dict(model.state_dict())
        torch.manual_seed(1337)
        texts = {name: base.write(model, tokenizer, [f'{tune} ' for tune in tunes], each, form.LONGEST) for name, tunes in groups.items()}
        short = base.write(model, tokenizer, [f'{tune} ' for tune in forms.common()[:form.TUNES]], form.EACH, form.LONGEST)
        written = {name: [form.finished(text) for text in those] for name, those in texts.items()}
        kept = torch.tensor([[forms.keeps(*poem) for poem in those[i:i + each]] for those in written.values() for i in range(0, len(those), each)])
        bodies = [body for those in written.values() for _, body in those if body]
        lines = [line for body in bodies for line in body.split('\n')]
        clauses = [clause for line in lines for clause in re.split('[。，、！？；：]', line)]
        found[Path(script or 'babygpt_v20').stem] = made_of(script or first) | {'loss': form.loss(full, tokenizer, VALIDATION)} | told | {
            name: forms.share(those) for name, those in written.items()} | {
            'best': {n: kept.view(-1, n).any(dim=1).float().mean().item() for n in sizes},
            'ended': len(bodies), 'length': sum(map(len, bodies)) / len(bodies), 'lines': distinct(lines),
            'bigrams': distinct([pair for clause in clauses for pair in pairwise(clause)]),
            'copies': form.copies(bodies, TRAINING)['copies'], 'rhymes': rhyming([poem for those in written.values() for poem in those], places),
            'short': form.counted(short, TRAINING)}
    return found


MEASURED = {'whole_poems': whole_poems, 'written': written, 'tokens': tokens, 'rewarded': rewarded}
