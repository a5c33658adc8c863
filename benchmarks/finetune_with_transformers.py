"""Fine-tunes a classifier with Hugging Face transformers, by the recipe of `finetune.py`.

python benchmarks/finetune_with_transformers.py PRETRAINED DATA_DIR --task mrpc --num-trials 3 \
  --learning-rate 5e-5 --num-epochs 2

To set beside it (no pair in both orders, the same head, one rate for all layers, the last state):

python finetune.py --config=configs/finetune.py:mrpc --config.pretrained=PRETRAINED \
  --config.data_dir=DATA_DIR --config.num_trials=3 --config.learning_rate=5e-5 \
  --config.num_epochs=2 --config.optimizer.layer_decay=1.0 --config.model.head_hidden_layer=True \
  --config.select=last --config.data.double_unordered=False

Features, batches and metrics are this project's; model, dropout and gradients are theirs. The
optimiser is the original's, written again for PyTorch: without bias correction. (With it the rate
would be a fraction, a third after 100 steps.) The head starts from a Glorot uniform draw of theirs.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import torch
from transformers_side import Theirs, argument_parser, electra_directory

from electra_jax.optimizer import learning_rate_schedule
from electra_jax.pretrained import load_pretrained
from electra_jax.tasks import (
    BucketedBatches,
    EvaluationBatches,
    decode,
    get_task,
    load_task,
    make_features,
    score,
)


def main() -> None:
    parser = argument_parser(__doc__.splitlines()[0])
    parser.add_argument("--num-trials", type=int, default=3)
    parser.add_argument("--num-epochs", type=float, default=3.0)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    arguments = parser.parse_args()

    task = get_task(arguments.task)
    pretrained = load_pretrained(arguments.pretrained)
    data = load_task(task, arguments.data_dir)
    examples = next(iter(data.dev.values())).examples
    tokenizer, space = pretrained.tokenizer, data.space
    train = make_features(task, data.train.examples, tokenizer, space, double_unordered=False)
    dev = make_features(task, examples, tokenizer, space)
    evaluation = EvaluationBatches(dev, batch_size=arguments.batch_size)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    directory = electra_directory(Path(arguments.pretrained), pretrained, space.num_outputs)

    trials = []
    for seed in range(arguments.num_trials):
        torch.manual_seed(seed)
        batches = BucketedBatches(train, batch_size=arguments.batch_size, seed=seed)
        num_steps = round(batches.num_batches * arguments.num_epochs)
        model = Theirs(
            directory,
            tokenizer.special_ids,
            device,
            learning_rate=arguments.learning_rate,
            schedule=learning_rate_schedule(1.0, round(num_steps * 0.1), num_steps),
            bias_correction=False,
        )
        model.draw_head()
        model.train(batches.batch_at(step) for step in range(num_steps))
        outputs = model.predict(evaluation.batch_at(i) for i in range(evaluation.num_batches))
        restored = evaluation.restore([{"logits": logits} for logits in outputs])
        trials.append(score(task, space, examples, decode(space, restored, examples, dev)))
        print(json.dumps({"seed": seed, "metrics": trials[-1]}), flush=True)
    print(json.dumps({"median": {n: statistics.median(t[n] for t in trials) for n in trials[0]}}))


if __name__ == "__main__":
    main()
