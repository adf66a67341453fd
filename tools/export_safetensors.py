"""Turn the model.pth that v12 saves into a safetensors file: the same weights, the vocabulary and the sizes in its metadata.

    python tools/export_safetensors.py                            # pretrained/model.pth -> pretrained/model.safetensors
    python tools/export_safetensors.py model.pth model.safetensors

scratch/ reads such files, which need no PyTorch.
"""

import argparse
import io
import json
import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save

PRETRAINED = Path(__file__).resolve().parent.parent / 'pretrained'


def as_safetensors(checkpoint):
    """What v12 saves, as the bytes of a safetensors file."""
    metadata = {'vocabulary': checkpoint['vocabulary'], 'hyper_params': json.dumps(checkpoint['hyper_params'])}
    return save({name: tensor.contiguous() for name, tensor in checkpoint['model'].items()}, metadata)


def main():
    parser = argparse.ArgumentParser(description='把 v12 存的 model.pth 转成 safetensors：参数一样，词表和超参数写在元数据里。')
    parser.add_argument('source', nargs='?', type=Path, default=PRETRAINED / 'model.pth', help='默认 pretrained/model.pth')
    parser.add_argument('target', nargs='?', type=Path, default=PRETRAINED / 'model.safetensors',
                        help='默认 pretrained/model.safetensors')
    args = parser.parse_args()
    temporary = args.target.with_name(f'{args.target.name}.{os.getpid()}.tmp')
    try:
        content = args.source.read_bytes()
    except OSError as error:
        sys.exit(f'读不了 {args.source}（{error.strerror}）。')
    try:
        converted = as_safetensors(torch.load(io.BytesIO(content), map_location='cpu', weights_only=True))
    except Exception as error:  # torch reports each kind of damage in its own way
        raise SystemExit(f'{args.source} 残缺，或者不是 v12 存的模型：请重新运行 python babygpt_v12_wandb.py。') from error
    try:
        temporary.write_bytes(converted)
        os.replace(temporary, args.target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        sys.exit(f'写不了 {args.target}（{error.strerror}）。')
    print(f'写好了 {args.target}：{len(converted):,} 字节。')


if __name__ == '__main__':
    main()
