"""Prints what an update of each objective costs, for ELECTRA-Small at 128 x 128."""

from electra_jax.config import ElectraConfig
from electra_jax.objectives import OBJECTIVES
from electra_jax.special_ids import SpecialIds


def costs(batch_size: int = 128, seq_len: int = 128) -> dict[str, float]:
    """Matrix-product operations of an update of ELECTRA-Small, by objective."""
    found = {}
    for name, objective in OBJECTIVES.items():
        config = ElectraConfig.small(**{k: v[0] for k, v in objective.model.items()})
        this = objective(config.vocab_size, SpecialIds(0, 1, 2, 3, 4))
        found[name] = this.flops(config, batch_size=batch_size, seq_len=seq_len) or 0.0
    return found


if __name__ == "__main__":
    operations = costs()
    for name, count in operations.items():
        print(f"{name:16} {count / 1e12:6.2f} TFLOP  {count / operations['electra']:.2f}")
