"""The shapes of models of the Llama family: which tensors a file of them has, how large and of which type.

Source: the configurations that their makers publish; the choice of types in llama-quant.cpp of llama.cpp (`Q4_K_M`).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Final, Literal

from naila.inference.gguf import BLOCKS

# ggml's numbers of the types.
F32: Final = 0
Q5_0: Final = 6
Q8_0: Final = 8
Q4_K: Final = 12
Q6_K: Final = 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What decides the speed of a model of the Llama family.

    Attributes:
        name: of the model whose shape it is.
        n_embd: width.
        n_layers: blocks.
        n_heads: attention heads.
        n_kv_heads: key/value heads.
        n_ff: width of the feed-forward part.
        n_vocab: vocabulary size.
        n_ctx: context that the model was trained with.
        rope_base: base of the position encoding.
        has_output: whether the output has weights of its own or uses the embedding's.
        marks: which control tokens, Llama 3's last in the vocabulary or ChatML's first.
    """

    name: str
    n_embd: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    n_ff: int
    n_vocab: int = 128_256
    n_ctx: int = 131_072
    rope_base: float = 500_000.0
    has_output: bool = False
    marks: Literal["llama-3", "chatml"] = "llama-3"

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.n_embd // self.n_heads


_KNOWN: Final = (
    Shape(name="llama-3.1-8b", n_embd=4096, n_layers=32, n_heads=32, n_kv_heads=8, n_ff=14_336, has_output=True),
    Shape(name="llama-3.2-3b", n_embd=3072, n_layers=28, n_heads=24, n_kv_heads=8, n_ff=8192),
    Shape(name="llama-3.2-1b", n_embd=2048, n_layers=16, n_heads=32, n_kv_heads=8, n_ff=8192),
    Shape(name="smollm2-135m", n_embd=576, n_layers=30, n_heads=9, n_kv_heads=3, n_ff=1536, n_vocab=49_152, n_ctx=8192,
          rope_base=100_000.0, marks="chatml"),
    Shape(name="tiny", n_embd=256, n_layers=2, n_heads=4, n_kv_heads=2, n_ff=512, n_vocab=1024, n_ctx=4096),
)  # fmt: skip
SHAPES: Final = {shape.name: shape for shape in _KNOWN}


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of the file.

    Attributes:
        name: as llama.cpp looks for it.
        dims: fastest first.
        kind: ggml's number of the type.
    """

    name: str
    dims: tuple[int, ...]
    kind: int

    @property
    def size(self) -> int:
        """Bytes of its blocks."""
        per_block, block_bytes = BLOCKS[self.kind]
        return prod(self.dims) // per_block * block_bytes


def tensors(shape: Shape) -> list[Tensor]:
    """Return the tensors of a shape, in the order of the file."""
    wide, kv, ff = shape.n_embd, shape.n_kv_heads * shape.head_dim, shape.n_ff
    embedding = (wide, shape.n_vocab)
    found = [_quantized("token_embd.weight", embedding, is_better=not shape.has_output)]
    if shape.has_output:
        found.append(_quantized("output.weight", embedding, is_better=True))
    found.append(Tensor("output_norm.weight", (wide,), F32))
    if shape.marks == "llama-3":
        found.append(Tensor("rope_freqs.weight", (shape.head_dim // 2,), F32))
    for layer in range(shape.n_layers):
        is_better = _has_more_bits(layer, shape.n_layers)
        found += [
            Tensor(f"blk.{layer}.attn_norm.weight", (wide,), F32),
            _quantized(f"blk.{layer}.attn_q.weight", (wide, wide)),
            _quantized(f"blk.{layer}.attn_k.weight", (wide, kv)),
            _quantized(f"blk.{layer}.attn_v.weight", (wide, kv), is_better=is_better),
            _quantized(f"blk.{layer}.attn_output.weight", (wide, wide)),
            Tensor(f"blk.{layer}.ffn_norm.weight", (wide,), F32),
            _quantized(f"blk.{layer}.ffn_gate.weight", (wide, ff)),
            _quantized(f"blk.{layer}.ffn_up.weight", (wide, ff)),
            _quantized(f"blk.{layer}.ffn_down.weight", (ff, wide), is_better=is_better),
        ]
    return found


def _quantized(name: str, dims: tuple[int, ...], *, is_better: bool = False) -> Tensor:
    # Rows that are no multiple of a large block take the next better small one.
    small = dims[0] % 256 != 0
    return Tensor(name, dims, (Q8_0 if small else Q6_K) if is_better else (Q5_0 if small else Q4_K))


def _has_more_bits(layer: int, n_layers: int) -> bool:
    """Tell which half of the layers `Q4_K_M` spends more on: the first and last eighth and every third between."""
    eighth = n_layers // 8
    return layer < eighth or layer >= 7 * n_layers // 8 or (layer - eighth) % 3 == 2
