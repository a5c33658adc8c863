"""Every objective at the cost of ELECTRA's steps, from several seeds, and what the encoders are
worth on tasks.

python sweep.py --config=configs/sweeps/objectives.py --config.base.data.path=DIR \\
  --config.probes.chunking.data_dir=DIR --config.probes.mrpc.data_dir=DIR

The number of ELECTRA's steps is --config.base.train.num_train_steps; any field of pre-training
stands under base, any of fine-tuning under probes.TASK. For another comparison, copy this file:
runs hold what differs from base.
"""

from ml_collections import config_dict

from configs import finetune, small, tiny

BASES = {"tiny": tiny, "small": small}


def get_config(base: str = ""):
    """The sweep.

    Args:
      base: what is trained: tiny (also without an argument) or small.
    """
    if base and base not in BASES:
        raise ValueError(f"config argument {base!r} is unknown: use one of {', '.join(BASES)}")
    config = config_dict.ConfigDict()
    config.name = "objectives"
    config.base = BASES[base or "tiny"].get_config()
    config.reference = "electra"  # whose steps are base's; the others have as many as cost the same
    config.seeds = (0, 1, 2)
    config.scratch = False  # whether the probes are also trained without pre-training
    config.only = ()  # names of runs; (): all
    # {run: (another, share)}: the share of the cost is spent on the other one first, and the run
    # starts from its parameters.
    config.beginnings = config_dict.ConfigDict()
    config.runs = config_dict.create(
        electra={},
        mlm={"objective": {"name": "mlm"}},
        uniform={"objective": {"name": "uniform"}},
        two_tower={"objective": {"name": "two_tower"}},
        electric={"objective": {"name": "electric"}},
        electra_15={"objective": {"name": "electra_15"}},
        replace_mlm={"objective": {"name": "replace_mlm"}},
        all_tokens_mlm={"objective": {"name": "all_tokens_mlm"}},
        adversarial={"objective": {"name": "adversarial"}},
        disentangled={"model": {"sharing": "disentangled"}},
        words={"objective": {"masking": "words"}},
        spans={"objective": {"masking": "spans"}},
        muon={"optimizer": {"name": "muon"}},
    )
    config.probes = config_dict.ConfigDict()
    for task, epochs in (("chunking", 1.0), ("mrpc", 3.0), ("cola", 3.0), ("sst2", 1.0)):
        probe = config.probes[task] = finetune.get_config(task)
        probe.num_epochs = epochs
        probe.logging.tensorboard = False
    config.base.logging.tensorboard = False
    return config
