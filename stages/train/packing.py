"""What packed rows need besides the attention mask of the library: short convolutions that end where a row ends."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import schema

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

ROW_BY_ROW = "row_by_row"


def teach_short_convolutions(model: PreTrainedModel) -> None:
    """LFM2 mixes each token with the two before it, across rows: its torch code knows of no rows.

    The CUDA kernel of causal_conv1d does know; this does the same in plain torch, and stays silent for other models.
    """
    module = sys.modules[type(model).__module__]
    known = getattr(module, "causal_conv1d_fn", None)
    if known is None or _has_kernel():
        return
    module.causal_conv1d_fn = short_convolution  # type: ignore[attr-defined]
    schema.log("train: the short convolutions of packed rows are computed in torch, row by row")


def _has_kernel() -> bool:
    from importlib.util import find_spec

    return find_spec("causal_conv1d") is not None


def short_convolution(
    hidden_states: Tensor, weight: Tensor, bias: Tensor | None = None, seq_idx: Tensor | None = None, **_: Any
) -> Tensor:
    """A causal convolution for each channel; what stands in another row counts as nothing."""
    from torch.nn.functional import pad

    width, length = weight.shape[-1], hidden_states.shape[-1]
    result = hidden_states * weight[None, :, -1, None]
    for back in range(1, min(width, length)):
        shifted = pad(hidden_states, (back, 0))[..., :length]
        if seq_idx is not None:
            same_row = pad(seq_idx, (back, 0), value=-1)[:, :length] == seq_idx
            shifted = shifted * same_row[:, None].to(shifted.dtype)
        result = result + shifted * weight[None, :, width - 1 - back, None]
    return result if bias is None else result + bias[None, :, None]


def attend_row_by_row() -> str:
    """Teach the library an attention that computes only what lies within rows; give the name that it goes by.

    On a CPU its own fills a square of the whole sequence and throws most of it away; a GPU has kernels for this.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(ROW_BY_ROW, _attention)
    return ROW_BY_ROW


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    cu_seq_lens_q: Tensor,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    import torch
    from torch.nn.functional import scaled_dot_product_attention as attend

    shared = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(shared, 1), value.repeat_interleave(shared, 1)
    told: dict[str, Any] = {"dropout_p": dropout if module.training else 0.0, "scale": scaling}
    sizes = cu_seq_lens_q.diff().tolist()
    rows = zip(*(part.split(sizes, dim=2) for part in (query, key, value)), strict=True)
    parts = []
    for size, row in zip(sizes, rows, strict=True):
        band = None
        if sliding_window and size > sliding_window:
            band = torch.ones(size, size, dtype=torch.bool, device=query.device).tril().triu(1 - sliding_window)
        parts.append(attend(row[0], row[1], row[2], attn_mask=band, is_causal=band is None, **told))
    return torch.cat(parts, dim=2).transpose(1, 2).contiguous(), None
