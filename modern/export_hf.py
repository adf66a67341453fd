"""把 v20 的 model.pth 变成 Hugging Face 能打开的文件夹

v20 的结构就是 Qwen3，所以不用改一个数：参数换个名字，写成 safetensors；超参数写成 config.json；
分词器写成 tokenizer.json，一个字一个 token，词表里没有的字会报错，不会悄悄换成别的。
文件夹里没有 pickle，打开它不会运行任何代码。

运行（用训练好的模型）：python modern/export_hf.py my_ci_model
用自己训练的：python modern/export_hf.py --model modern/model.pth my_ci_model
"""

import argparse
import io
import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

pretrained_path = Path(__file__).parent.with_name('pretrained') / 'model_v20.pth'

# 我们的名字和 Qwen3 的名字：Block 之外的，和每个 Block 里的
NAMES = {'token_embedding_table': 'model.embed_tokens', 'ln_f': 'model.norm'}
NAMES_IN_BLOCK = {
    'ln1': 'input_layernorm',
    'ln2': 'post_attention_layernorm',
    'sa.query': 'self_attn.q_proj',
    'sa.key': 'self_attn.k_proj',
    'sa.value': 'self_attn.v_proj',
    'sa.proj': 'self_attn.o_proj',
    'sa.q_norm': 'self_attn.q_norm',
    'sa.k_norm': 'self_attn.k_norm',
    'ffwd.gate': 'mlp.gate_proj',
    'ffwd.up': 'mlp.up_proj',
    'ffwd.down': 'mlp.down_proj',
}


def load_checkpoint(path):
    """读出 v20 存下的参数、超参数和词表；读不出来，或者是别的结构的模型，就说明原因并退出。"""
    retrain = '请重新运行 python modern/babygpt_v20_tied_embedding.py。'
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        sys.exit(f'找不到 {path}：运行 python modern/babygpt_v20_tied_embedding.py 训练一个，或者用 git checkout pretrained 找回。')
    except OSError as error:
        sys.exit(f'读不了 {path}（{error.strerror}）。')
    try:
        checkpoint = torch.load(io.BytesIO(content), map_location='cpu', weights_only=True)
    except Exception as error:  # 坏在不同的地方，torch 报的错就不同
        raise SystemExit(f'{path} 残缺，或者根本不是模型：{retrain}') from error
    if not isinstance(checkpoint, dict) or 'model' not in checkpoint:
        sys.exit(f'{path} 里没有模型的参数，不是 v20 存的：{retrain}')
    rung = checkpoint.get('rung', '根目录的 v12')
    if not re.fullmatch(r'babygpt_v2\d_\w+', rung):
        sys.exit(f'{path} 是 {rung} 存的，结构或者词表和 v20 不同，这里读不了：{retrain}')
    if len(checkpoint.get('vocabulary', '')) != len(checkpoint['model'].get('lm_head.weight', [])):
        sys.exit(f'{path} 里的词表和 lm_head 的行数对不上，不是 v20 存的完整的模型：{retrain}')
    return checkpoint


def rename(weights):
    """参数换成 Qwen3 的名字。lm_head 和嵌入是同一个矩阵，只存一份。"""
    renamed = {}
    for name, weight in weights.items():
        part = name.removesuffix('.weight')
        if part in NAMES:
            renamed[f'{NAMES[part]}.weight'] = weight
        elif part != 'lm_head':
            _, number, inside = part.split('.', 2)
            renamed[f'model.layers.{number}.{NAMES_IN_BLOCK[inside]}.weight'] = weight
    return renamed


def make_config(hyper_params, weights, vocab_size):
    """Qwen3 的 config.json：大小取自超参数和矩阵的形状，其余是我们的模型里固定的。"""
    n_embd, n_head = hyper_params['n_embd'], hyper_params['n_head']
    return {
        'architectures': ['Qwen3ForCausalLM'],
        'model_type': 'qwen3',
        'vocab_size': vocab_size,
        'max_position_embeddings': hyper_params['block_size'],
        'hidden_size': n_embd,
        'intermediate_size': len(weights['blocks.0.ffwd.gate.weight']),
        'num_hidden_layers': hyper_params['n_layer'],
        'num_attention_heads': n_head,
        'num_key_value_heads': hyper_params['n_kv_head'],
        'head_dim': n_embd // n_head,
        'hidden_act': 'silu',
        'rms_norm_eps': 1e-6,
        'rope_theta': 10000.0,
        'attention_bias': False,
        'attention_dropout': 0.0,
        'tie_word_embeddings': True,
        'use_sliding_window': False,
        'bos_token_id': None,
        'eos_token_id': None,
        'dtype': 'float32',
    }


def make_tokenizer(vocabulary):
    """一个字一个 token，编号是它在词表里的次序。没有给「不认识的字」留编号，所以遇到了就报错。"""
    tokenizer = Tokenizer(models.WordLevel({char: i for i, char in enumerate(vocabulary)}))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r'[\s\S]'), 'isolated')
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def write_folder(folder, checkpoint):
    """把四样东西写进一个文件夹：config.json、generation_config.json、tokenizer、model.safetensors。"""
    weights, vocabulary = checkpoint['model'], checkpoint['vocabulary']
    settings = {
        'config.json': make_config(checkpoint['hyper_params'], weights, len(vocabulary)),
        # 默认的 top_k 是 50，这里写明什么也不筛，和 babygpt_sample.py 一样
        'generation_config.json': {'do_sample': True, 'temperature': 1.0, 'top_k': 0, 'top_p': 1.0, 'max_new_tokens': 300},
        'tokenizer_config.json': {'tokenizer_class': 'PreTrainedTokenizerFast', 'clean_up_tokenization_spaces': False,
                                  'model_max_length': checkpoint['hyper_params']['block_size']},
    }
    for name, content in settings.items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False, indent=2) + '\n', encoding='utf-8')
    make_tokenizer(vocabulary).save(str(folder / 'tokenizer.json'))
    (folder / 'model.safetensors').write_bytes(save(rename(weights), metadata={'format': 'pt'}))


def main():
    parser = argparse.ArgumentParser(
        usage='%(prog)s [--model 文件] 文件夹', description='把 v20 的模型变成 Hugging Face 的文件夹。', add_help=False)
    group = parser.add_argument_group('选项')
    group.add_argument('folder', type=Path, metavar='文件夹', help='写到这里；要是新的，或者是空的')
    group.add_argument('--model', type=Path, default=pretrained_path, metavar='文件',
                       help='v20 存的模型（默认 pretrained/model_v20.pth）')
    group.add_argument('-h', '--help', action='help', help='显示这段说明')
    args = parser.parse_args()
    if args.folder.exists() and (not args.folder.is_dir() or any(args.folder.iterdir())):
        sys.exit(f'{args.folder} 已经有了，里面不是空的：换一个名字，或者先把它移走。')
    checkpoint = load_checkpoint(args.model)
    try:
        # 先写在旁边的临时文件夹里，写完再改名：中途停下，不会留下半个模型
        args.folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=args.folder.parent, suffix='.tmp'))
        try:
            write_folder(temporary, checkpoint)
            temporary.chmod(0o755)
            if args.folder.exists():
                args.folder.rmdir()
            os.replace(temporary, args.folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        sys.exit(f'写不了 {args.folder}（{error.strerror}）：请腾出空间或改好权限再运行。')
    except KeyError as part:
        sys.exit(f'{args.model} 里没有 {part}，不是 v20 存的完整的模型。')
    print(f'写好了 {args.folder}。在 Python 里打开：\n\n'
          'from transformers import AutoModelForCausalLM, AutoTokenizer\n'
          f"tokenizer = AutoTokenizer.from_pretrained('{args.folder}')\n"
          f"model = AutoModelForCausalLM.from_pretrained('{args.folder}')\n"
          "ids = tokenizer('浣溪沙 ', return_tensors='pt').input_ids\n"
          "print(tokenizer.decode(model.generate(ids)[0]).split('\\n\\n')[0])")


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        sys.exit('\n已中断。')
