"""Makes the files beside it, with PyTorch and transformers of requirements-parity.txt.

python tests/golden/make.py

Two small random ELECTRAs, saved by transformers, and in expected.safetensors what they compute.
tests/test_golden.py compares, without either.
"""

from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.numpy import save_file

DIRECTORY = Path(__file__).parent
SIZES = dict(
    vocab_size=61,
    embedding_size=8,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=20,
    initializer_range=0.3,
)


def main() -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    ids, types, mask = rng.integers(5, 61, (3, 16)), np.zeros((3, 16), int), np.ones((3, 16), int)
    types[:, 9:], mask[1, 12:], mask[2, 5:] = 1, 0, 0
    arrays = {"input_ids": ids * mask, "token_type_ids": types * mask, "attention_mask": mask}
    expected = dict(arrays)
    half = dict(hidden_size=8, num_attention_heads=1, intermediate_size=12)
    embeddings = {}
    for part, model_class, sizes in (
        ("discriminator", transformers.ElectraForPreTraining, SIZES),
        ("generator", transformers.ElectraForMaskedLM, SIZES | half),
    ):
        model = model_class(transformers.ElectraConfig(**sizes)).eval()
        with torch.no_grad():
            for parameter in model.parameters():  # biases and scales count, too
                if parameter.ndim == 1:
                    parameter.add_(0.2 * torch.randn_like(parameter))
            # The generator has the discriminator's, as the original's.
            embeddings = embeddings or model.electra.embeddings.state_dict()
            model.electra.embeddings.load_state_dict(embeddings)
            tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
            outputs = model(**tensors, output_hidden_states=True)
        expected[f"{part}_logits"] = outputs.logits.numpy()
        expected[f"{part}_hidden"] = outputs.hidden_states[-1].numpy()
        model.save_pretrained(DIRECTORY / part)
        (DIRECTORY / part / "generation_config.json").unlink(missing_ok=True)
        tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        tokens += [f"word{number}" for number in range(SIZES["vocab_size"] - len(tokens))]
        (DIRECTORY / part / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    save_file(
        {name: np.ascontiguousarray(array) for name, array in expected.items()},
        DIRECTORY / "expected.safetensors",
        metadata={"transformers": transformers.__version__, "torch": torch.__version__},
    )


if __name__ == "__main__":
    main()
