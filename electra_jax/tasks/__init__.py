"""Fine-tuning but for the networks: tasks, their files, features, batches, decoding, scores.

NumPy only. The order of use:

    task = get_task("rte")
    data = load_task(task, data_dir)
    features = make_features(task, data.train.examples, tokenizer, data.space, training=True)
    batches = BucketedBatches(features, batch_size=32, seed=0)      # batches.batch_at(step)

    dev = data.dev["dev"]
    features = make_features(task, dev.examples, tokenizer, data.space)
    batches = EvaluationBatches(features, batch_size=32)
    outputs = batches.restore([predict(batches.batch_at(i)) for i in range(batches.num_batches)])
    predictions = decode(data.space, outputs, dev.examples, features)
    metrics = score(task, data.space, dev.examples, predictions)
"""

from electra_jax.tasks.batches import BucketedBatches, EvaluationBatches, choose_lengths
from electra_jax.tasks.examples import QuestionExample, Split, TaggedSentence, TextExample
from electra_jax.tasks.features import IGNORED, Features
from electra_jax.tasks.kinds import LabelSpace, decode, label_space, make_features, score
from electra_jax.tasks.loading import TaskData, load_task
from electra_jax.tasks.reading import has_split, read_file, read_split, split_off
from electra_jax.tasks.table import TASKS, Task, get_task, own_task

__all__ = [
    "IGNORED",
    "TASKS",
    "BucketedBatches",
    "EvaluationBatches",
    "Features",
    "LabelSpace",
    "QuestionExample",
    "Split",
    "TaggedSentence",
    "Task",
    "TaskData",
    "TextExample",
    "choose_lengths",
    "decode",
    "get_task",
    "has_split",
    "label_space",
    "load_task",
    "make_features",
    "own_task",
    "read_file",
    "read_split",
    "score",
    "split_off",
]
