"""The README.md that goes with an exported model: what it is, from what, and how well it did."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

_PIPELINES = {
    "ElectraForMaskedLM": "fill-mask",
    "ModernBertForMaskedLM": "fill-mask",
    "ElectraForSequenceClassification": "text-classification",
    "ElectraForTokenClassification": "token-classification",
    "ElectraForQuestionAnswering": "question-answering",
}
# Metrics of pre-training worth showing: the last row's, in this order.
_METRICS = {
    "mlm_loss": "generator: masked-language-model loss (nats)",
    "mlm_accuracy": "generator: share of masked positions guessed right",
    "disc_loss": "discriminator: replaced-token loss (nats)",
    "disc_auc": "discriminator: area under the ROC curve",
}
_USES = {
    "ElectraForPreTraining": """import torch
from transformers import AutoTokenizer, ElectraForPreTraining

tokenizer = AutoTokenizer.from_pretrained("{name}")
model = ElectraForPreTraining.from_pretrained("{name}")
inputs = tokenizer("The quick brown fox fake over the lazy dog", return_tensors="pt")
replaced = torch.sigmoid(model(**inputs).logits)  # of each token""",
    "ModernBertForTokenClassification": """import torch
from transformers import AutoModelForTokenClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{name}")
model = AutoModelForTokenClassification.from_pretrained("{name}")
inputs = tokenizer("The quick brown fox fake over the lazy dog", return_tensors="pt")
inputs.pop("token_type_ids", None)
replaced = torch.sigmoid(model(**inputs).logits[..., 0])  # of each token""",
    **dict.fromkeys(
        ("ElectraForMaskedLM", "ModernBertForMaskedLM"),
        """from transformers import pipeline

pipeline("fill-mask", model="{name}")("The capital of France is [MASK].")""",
    ),
    "ElectraForSequenceClassification": """from transformers import pipeline

pipeline("text-classification", model="{name}")("Some text.")""",
    "ElectraForTokenClassification": """from transformers import pipeline

pipeline("token-classification", model="{name}", aggregation_strategy="simple")("Some text.")""",
    "ElectraForQuestionAnswering": """from transformers import pipeline

pipeline("question-answering", model="{name}")(question="Who?", context="Some text.")""",
}
_PARTS = {
    "ElectraForPreTraining": "discriminator: it says of each token whether it was replaced, and is "
    "the encoder to fine-tune",
    **dict.fromkeys(
        ("ElectraForMaskedLM", "ModernBertForMaskedLM"),
        "generator: a masked language model that proposes the replacements",
    ),
    "ModernBertForTokenClassification": "discriminator on an encoder of ModernBERT's kind: it says "
    "of each token whether it was replaced, and is the encoder to fine-tune",
    "ElectraForSequenceClassification": "model fine-tuned to label texts",
    "ElectraForTokenClassification": "model fine-tuned to tag words",
    "ElectraForQuestionAnswering": "model fine-tuned to find answers in texts",
}


def model_card(
    architecture: str,
    config: Mapping[str, Any],
    *,
    name: str,
    metadata: Mapping[str, Any],
    tokenizer_settings: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]] = (),
    results: Mapping[str, Any] | None = None,
    has_curves: bool = False,
) -> str:
    """A model card in Markdown, with the hub's YAML header.

    Args:
      architecture: their class.
      config: their config.json.
      name: what code examples call the model.
      metadata: what is kept with a checkpoint of ours.
      tokenizer_settings: `Tokenizer.settings`.
      rows: of the run's `metrics.jsonl`.
      results: the run's `results.json`, of a fine-tuned model.
      has_curves: whether `curves.png` lies beside it.
    """
    header = ["library_name: transformers", "tags:", "- electra", "- electra_jax"]
    if architecture in _PIPELINES:
        header.insert(1, f"pipeline_tag: {_PIPELINES[architecture]}")
    sizes = (
        f"{config['num_hidden_layers']} layers of width {config['hidden_size']}, "
        f"{config['num_attention_heads']} heads, embeddings of width "
        f"{config.get('embedding_size', config['hidden_size'])}, "
        f"{config['vocab_size']:,} pieces, {config['max_position_embeddings']} positions"
    )
    parts = [
        "---",
        *header,
        "---",
        "",
        f"# {name}",
        "",
        f"An ELECTRA {_PARTS[architecture]}.",
        "Trained with electra_jax (Clark et al. 2020, https://arxiv.org/abs/2003.10555).",
        "",
        "```python",
        _USES[architecture].format(name=name),
        "```",
        "",
        "## Model",
        "",
        f"{sizes}. Tokenizer: {_tokenizer(tokenizer_settings)}.",
        "",
        *_training(metadata, rows, results),
    ]
    if has_curves:
        parts += ["", "![curves](curves.png)"]
    parts += [
        "",
        "## Limits",
        "",
        "It knows no more than its training text, and repeats that text's errors and prejudices. "
        "Nothing was measured beyond what is listed here.",
    ]
    return "\n".join(parts) + "\n"


def _tokenizer(settings: Mapping[str, Any]) -> str:
    case = {True: "lower-cased", False: "cased", None: "normalised as the model says"}
    return f"{settings['kind']}, {case[settings.get('lowercase')]}"


def _training(metadata, rows, results) -> list[str]:
    config = metadata.get("config", {})
    if results:
        lines = [f"## Results on dev: {results['task']}", "", "| metric | median of trials |"]
        lines += ["|---|---|"]
        lines += [f"| {name} | {value:.2f} |" for name, value in results["median"].items()]
        trials = len(results["trials"])
        return [*lines, "", f"{trials} trials; setting: `{json.dumps(results['setting'])}`."]
    lines = ["## Training", ""]
    train, data = config.get("train"), config.get("data")
    evaluated = [row for row in rows if row.get("split") == "eval"]
    if train and data:
        step = evaluated[-1]["step"] if evaluated else train["num_train_steps"]
        tokens = step * train["batch_size"] * data["seq_len"]
        lines += [
            f"{step:,} steps of {train['batch_size']} x {data['seq_len']} tokens = {tokens:,} "
            f"tokens; masks {config['objective']['mask_prob']:.0%}, learning rate "
            f"{config['optimizer']['learning_rate']:g}, seed {config['seed']}. Corpus: fingerprint "
            f"`{metadata.get('corpus', {}).get('fingerprint', 'unknown')}`.",
        ]
    else:
        lines += ["Not recorded: the parameters come from elsewhere."]
    if evaluated:
        lines += ["", "| held out | |", "|---|---|"]
        last = evaluated[-1]
        known = {name: last[name] for name in _METRICS if last.get(name) is not None}
        lines += [f"| {_METRICS[name]} | {value:.3f} |" for name, value in known.items()]
    return lines
