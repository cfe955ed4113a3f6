"""Long sound in pieces: the same answer, in constant memory."""

from __future__ import annotations

import pytest
import torch

from modules.audio2motion.chunked import answer_in_chunks
from modules.audio2motion.config import Audio2MotionConfig
from modules.audio2motion.model import Audio2Motion
from modules.audio2motion.take import Take
from modules.audio2motion.vae import FlowVAEConfig


def pieces(rows: torch.Tensor, sizes: list[int]):
    start = 0
    for size in sizes:
        yield rows[start : start + size]
        start += size


def smooth(rows: torch.Tensor, first_row: int) -> torch.Tensor:
    """Mean over ±3 rows, and the row number: what a member of reach 3 does."""
    padded = torch.cat([rows[:1].expand(3, -1), rows, rows[-1:].expand(3, -1)])
    mean = padded.unfold(0, 7, 1).mean(dim=-1)
    return torch.cat([mean, first_row + torch.arange(len(rows))[:, None]], dim=1)


@pytest.mark.parametrize("sizes", [[100], [1] * 100, [37, 0, 63], [8, 92], [99, 1]])
@pytest.mark.parametrize(("chunk", "context"), [(8, 4), (100, 4), (40, 60), (12, 3)])
def test_pieces_of_any_size_give_the_whole(sizes, chunk, context):
    rows = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    seen = []

    def answer(part, first_row):
        seen.append(len(part))
        return smooth(part, first_row)

    parts = list(answer_in_chunks(pieces(rows, sizes), answer, chunk_rows=chunk, context_rows=context))
    torch.testing.assert_close(torch.cat(parts), smooth(rows, 0))
    assert {len(part) for part in parts[:-1]} <= {chunk} and max(seen) <= chunk + 2 * context


def test_nothing_comes_of_nothing():
    assert list(answer_in_chunks([], smooth)) == []
    assert list(answer_in_chunks([torch.zeros(0, 2)], smooth)) == []
    with pytest.raises(ValueError, match="chunk_rows"):
        next(answer_in_chunks([torch.zeros(1, 2)], smooth, chunk_rows=0))


def test_memory_is_bounded():
    held = []

    def stream():
        for _ in range(200):
            yield torch.zeros(50, 2)

    def answer(part, first_row):
        held.append(part.untyped_storage().nbytes())
        return part

    total = sum(len(part) for part in answer_in_chunks(stream(), answer, chunk_rows=100, context_rows=20))
    assert total == 200 * 50 and max(held) <= 200 * 2 * 4


def test_every_kind_of_member_agrees_with_the_whole():
    torch.manual_seed(0)
    vae = FlowVAEConfig(hidden=8, latent=4, encoder_layers=1, decoder_layers=2, flow_hidden=6, flow_layers=1, n_flows=2)
    config = Audio2MotionConfig(
        block_width=6, bottleneck=4, units=("a", "b"), hidden=8, recurrent_hidden=6, variational=1, vae=vae
    )
    model = Audio2Motion(config, torch.tensor([0, 1]), 2).eval()
    for parameter in model.networks.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    rows = torch.randn(1803, config.n_components)
    take = Take.draw(model.n_members, 0.7, torch.Generator().manual_seed(0))

    @torch.no_grad()
    def answer(part, first_row):
        return model.unit_deviations(part[None], take, first_row)[0]

    whole = answer(rows, 0)
    parts = torch.cat(list(answer_in_chunks(rows.split(251), answer, chunk_rows=400, context_rows=200)))
    assert (parts - whole).abs().max() < 1e-4 * float(whole.abs().max())
