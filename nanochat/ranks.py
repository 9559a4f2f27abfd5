"""What the ids of a byte-level BPE vocabulary say: the order of its tokens and the merges that make them.

A token's id is its rank: of all neighbours that could be merged, those that make the token of the lowest rank
are. So the merges need not be written down; other software writes them all the same, and `merge_pairs` finds
them. What it is not: an encoder (`tokenizer.py`) or a file format (`interchange.py`, `hf_tokenizer.py`).
How to look at it: `python -c "from nanochat.ranks import merge_pair; help(merge_pair)"`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

Pair = tuple[bytes, bytes]


def in_order(ranks: Mapping[bytes, int]) -> list[bytes]:
    """The tokens by rank. ValueError unless the ranks are 0, 1, 2, ... with none twice."""
    order = sorted(ranks, key=ranks.__getitem__)
    for expected, token in enumerate(order):
        if ranks[token] != expected:
            fault = f"two tokens have the id {ranks[token]}"
            if ranks[token] > expected:
                fault = f"no token has the id {expected}"
            raise ValueError(
                f"ids must be 0, 1, 2, ... up to the special tokens, but {fault} ({token!r:.80})"
            )
    return order


def specials_behind(tokens: Sequence[bytes], specials: Mapping[str, int]) -> list[str]:
    """The special tokens by id. ValueError unless their ids go on where those of `tokens` end."""
    order = sorted(specials, key=specials.__getitem__)
    if [specials[name] for name in order] != [*range(len(tokens), len(tokens) + len(order))]:
        raise ValueError(
            f"the ids of special tokens must go on behind the last token's, from {len(tokens)}; they are "
            + ", ".join(f"{name} {specials[name]}" for name in order[:20])
        )
    return order


def merge_pair(token: bytes, ranks: Mapping[bytes, int]) -> Pair | None:
    """The two tokens that BPE makes `token` of, or None if its bytes never come down to two.

    No other pair ever makes it. In a longer text, too, the bytes of what is to become one token are merged as
    they are alone, since a merge across their border would have kept them apart.
    """
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        found = [ranks.get(left + right, len(ranks)) for left, right in pairwise(parts)]
        lowest = min(found)
        if lowest == len(ranks):
            return None
        at = found.index(lowest)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts[0], parts[1]


def merge_pairs(tokens: Sequence[bytes]) -> dict[bytes, Pair | None]:
    """`merge_pair` of each token of more than one byte, in the order of the ids."""
    ranks = {token: rank for rank, token in enumerate(tokens)}
    return {token: merge_pair(token, ranks) for token in tokens if len(token) > 1}
