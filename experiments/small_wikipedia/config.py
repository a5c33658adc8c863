"""ELECTRA beside masked language modelling at equal cost and beside no pre-training at all.

python experiments/small_wikipedia/run.py --text FILES --data DIR

A sweep (configs/sweeps/objectives.py): ELECTRA, at the scale of a CPU in two ways, masked language
modelling, and the same encoder from fresh parameters; each is fine-tuned on eight tasks, three
trials each.
"""

from ml_collections import config_dict

from configs import finetune, small
from configs.sweeps import objectives
from experiments.small_wikipedia import model

# Examples to learn from at the scale of a CPU, of tasks that have more; at the paper's all.
TRAIN_ROWS = {"sst2": 10_000}
# The paper's numbers of epochs but for this one (10), to save time.
NUM_EPOCHS = {"rte": 3.0}
# From fresh parameters a narrow discriminator learns from easy replacements first.
EASY_FIRST = {"start_temperature": 3.0, "temperature_steps": 4000}
TASKS = ("chunking", "stsb", "sst2", "mrpc", "qnli", "cola", "rte", "squad")
SCALES = ("cpu", "paper")


def get_config(scale: str = ""):
    """The sweep.

    Args:
      scale: cpu (also without an argument): a model of three narrow layers, for about two and
        a half hours of two CPU cores; or paper: ELECTRA-Small for 62,500 steps, 6.25 % of the
        paper's training, after which Clark et al. 2020 (Table 1) have a GLUE score of 74.1.
    """
    if scale and scale not in SCALES:
        raise ValueError(f"config argument {scale!r} is unknown: use one of {', '.join(SCALES)}")
    config = objectives.get_config()
    config.name = "small_wikipedia"
    config.runs = config_dict.create(electra={}, mlm={"objective": {"name": "mlm"}})
    if scale != "paper":
        config.runs.electra.objective = EASY_FIRST
        config.runs.electra_after_mlm = {}
        config.beginnings.electra_after_mlm = ("mlm", 0.3)
    config.scratch = True
    config.seeds = (0,)
    base = config.base = small.get_config() if scale == "paper" else model.get_config()
    base.logging.tensorboard = False
    config.probes = config_dict.ConfigDict()
    for task in TASKS:
        probe = config.probes[task] = finetune.get_config(task)
        probe.num_trials = 3
        probe.train.predict_test = False
        probe.logging.tensorboard = False
        if scale == "paper":
            continue
        probe.data.train_rows = TRAIN_ROWS.get(task)
        probe.data.double_unordered = False
        probe.num_epochs = NUM_EPOCHS.get(task)
        probe.select = "last"
        probe.learning_rate = 1e-3  # for narrow layers; of all rows
        probe.optimizer.layer_decay = 1.0
        if task == "squad":
            probe.data.max_length, probe.data.stride = 192, 64
        probe.evals_per_epoch = 0.1  # no training is so long: only at its end
    if scale == "paper":
        base.train.num_train_steps = 62_500
    return config
