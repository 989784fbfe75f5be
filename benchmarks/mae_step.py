"""One training step of the ECG masked autoencoder: the reference's arithmetic against ours, interleaved.

    python benchmarks/mae_step.py [--preset tiny] [--batch 32] [--repeats 5] [--bf16] [--views 2]

The reference side is written from its description: every patch embedded by a convolution before most are thrown away,
attention in separate steps with the scale applied to the scores, float32. Both sides hold the same weights and masks;
the script first shows that loss and gradients agree, then times them in turn. A ratio counts only when both sides ran
in one run. `--views 2` gives the reference the second encoder pass of its later versions. To measure with an allocator
that keeps freed memory, set MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=4000000000 MALLOC_TOP_PAD_=268435456.
"""

import argparse
import contextlib
import json
import math
import statistics
import time
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from ecgcmr.models import EcgMae, create_ecg_encoder
from ecgcmr.models.blocks import Block
from ecgcmr.models.config import EcgDecoderConfig
from ecgcmr.models.ecg_mae import Masking, draw_masking, len_keep
from ecgcmr.objectives.masked import cross_correlation

LENGTHS = {"nano": 500, "tiny": 2500, "small": 2500, "base": 2500}
NCC_WEIGHT = 0.1


def reference_block(x: Tensor, block: Block) -> Tensor:
    """A pre-norm block step by step, with the weights of one of ours."""
    batch, tokens, width = x.shape
    heads = block.attn.heads
    qkv = block.attn.qkv(block.norm1(x)).reshape(batch, tokens, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    q, k, v = qkv[0], qkv[1], qkv[2]
    scores = (q @ k.transpose(-2, -1)) * (width // heads) ** -0.5
    x = x + block.attn.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, tokens, width))
    return x + block.mlp.fc2(nn.functional.gelu(block.mlp.fc1(block.norm2(x))))


def reference_encode(mae: EcgMae, ecg: Tensor, masking: Masking) -> Tensor:
    """Embed all patches, drop the hidden ones, run the encoder."""
    encoder = mae.encoder
    x = encoder.patch_embed.proj(ecg[:, None]).flatten(2).transpose(1, 2) + encoder.pos_embed[:, 1:]
    x = torch.gather(x, 1, masking.keep[..., None].repeat(1, 1, x.shape[-1]))
    x = torch.cat([(encoder.cls_token + encoder.pos_embed[:, :1]).expand(len(x), -1, -1), x], dim=1)
    for block in cast(list[Block], encoder.blocks):
        x = reference_block(x, block)
    return encoder.norm(x)


def reference_step(mae: EcgMae, ecg: Tensor, maskings: list[Masking]) -> Tensor:
    """Loss of the reference; a second masking costs an encoder pass whose output counts nothing here."""
    latent = reference_encode(mae, ecg, maskings[0])
    decoder, restore = mae.decoder, maskings[0].restore
    x = decoder.embed(latent)
    tokens = decoder.mask_token.repeat(len(x), restore.shape[1] + 1 - x.shape[1], 1)
    patches = torch.gather(torch.cat([x[:, 1:], tokens], 1), 1, restore[..., None].repeat(1, 1, x.shape[2]))
    x = torch.cat([x[:, :1], patches], 1) + decoder.pos_embed
    for block in cast(list[Block], decoder.blocks):
        x = reference_block(x, block)
    predicted = decoder.pred(decoder.norm(x))[:, 1:].reshape(ecg.shape)
    loss = (1 - NCC_WEIGHT) * ((predicted - ecg) ** 2).mean() + NCC_WEIGHT * (1 - reference_ncc(ecg, predicted))
    if len(maskings) > 1:
        loss = loss + 0.0 * reference_encode(mae, ecg, maskings[1]).mean()
    return loss


def reference_ncc(x: Tensor, y: Tensor) -> Tensor:
    """Mean correlation of all leads."""

    def standardized(z: Tensor) -> Tensor:
        return (z - z.mean(-1, keepdim=True)) / (z.var(-1, keepdim=True) + 1e-12).sqrt()

    return ((standardized(x) * standardized(y)).sum(-1) / (x.shape[-1] - 1)).mean()


def our_step(mae: EcgMae, ecg: Tensor, masking: Masking) -> Tensor:
    """The same loss through the toolkit's modules."""
    patches = mae(ecg, masking).patches.float()
    predicted = mae.unpatchify(patches)
    mse = (patches - mae.patchify(ecg)).square().mean()
    return (1 - NCC_WEIGHT) * mse + NCC_WEIGHT * (1 - cross_correlation(ecg, predicted).mean())


def gradients(mae: EcgMae, step: Callable[[], Tensor]) -> tuple[float, Tensor]:
    mae.zero_grad()
    loss = step()
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in mae.parameters() if p.grad is not None])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="tiny", choices=LENGTHS)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--views", type=int, default=1, choices=(1, 2))
    parser.add_argument("--bf16", action="store_true", help="run our side under bfloat16 autocast")
    args = parser.parse_args()
    torch.manual_seed(0)
    n_samples = LENGTHS[args.preset]
    mae = EcgMae(create_ecg_encoder(args.preset, n_samples), EcgDecoderConfig(preset=args.preset))
    tokens = 12 * mae.encoder.windows
    ecg = torch.randn(args.batch, 12, n_samples)
    random = torch.Generator().manual_seed(0)
    keep = len_keep(tokens, 0.8, legacy=True)
    maskings = [draw_masking((args.batch, tokens), keep, random) for _ in range(args.views)]
    optimizer = torch.optim.AdamW([p for p in mae.parameters() if p.requires_grad], 1e-4)

    def ours() -> Tensor:
        precision = torch.autocast("cpu", torch.bfloat16) if args.bf16 else contextlib.nullcontext()
        with precision:
            return our_step(mae, ecg, maskings[0])

    sides = {"reference": lambda: reference_step(mae, ecg, maskings), "ours": ours}
    (loss_a, grad_a), (loss_b, grad_b) = (gradients(mae, step) for step in sides.values())
    agreement = {
        "loss_relative_difference": abs(loss_a - loss_b) / loss_a,
        "gradient_relative_difference": ((grad_a - grad_b).norm() / grad_a.norm()).item(),
    }
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for repeat in range(args.repeats + 1):
        for side, step in sides.items():
            start = time.perf_counter()
            optimizer.zero_grad()
            step().backward()
            optimizer.step()
            if repeat:  # the first round warms up
                seconds[side].append(time.perf_counter() - start)
    ratios = [a / b for a, b in zip(seconds["reference"], seconds["ours"], strict=True)]
    rates = {side: [round(args.batch / s, 1) for s in values] for side, values in seconds.items()}
    report = {
        "settings": {**vars(args), "threads": torch.get_num_threads(), "tokens": tokens, "kept": keep},
        "agreement": agreement,
        "samples_per_second": {side: {"median": statistics.median(r), "all": r} for side, r in rates.items()},
        "ratio": {"median": round(statistics.median(ratios), 2), "min": min(ratios), "max": max(ratios)},
    }
    assert math.isfinite(loss_a)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
