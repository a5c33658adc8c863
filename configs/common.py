"""Every field of a pre-training config, with the values of ELECTRA-Small (Clark et al. 2020,
Table 6). The other files start from `get_config` here and say what differs.
"""

from ml_collections import config_dict

PLATFORMS = ("auto", "cpu", "gpu", "tpu")


def get_config(platform: str = "") -> config_dict.ConfigDict:
    """ELECTRA-Small.

    Args:
      platform: what to run on: "cpu", "gpu" or "tpu"; "" or "auto": what JAX finds. Given on the
        command line after a colon: --config=configs/small.py:gpu
    """
    if platform and platform not in PLATFORMS:
        raise ValueError(f"config argument {platform!r} is unknown: use one of cpu, gpu, tpu")
    config = config_dict.ConfigDict()
    config.name = "small"  # of the run: its default workdir is runs/NAME
    config.platform = platform or "auto"  # cpu, gpu or tpu; auto: what JAX finds
    config.seed = 0  # of parameters, order, masks, samples and dropout
    # A run, or a Hugging Face directory: its parameters, with a fresh schedule and optimiser; None:
    # parameters are drawn.
    config.init_from = config_dict.placeholder(str)
    config.generator_from = config_dict.placeholder(str)  # likewise, the generator's alone

    model = config.model = config_dict.ConfigDict()
    model.architecture = "bert"  # the paper's; or modern: rotary positions, gated, no biases
    model.vocab_size = config_dict.placeholder(int)  # None: the corpus's
    model.embedding_size = 128  # width of the tables
    model.hidden_size = 256  # width of the discriminator
    model.num_layers = 12  # of the discriminator
    model.num_heads = 4  # of attention, in the discriminator
    model.intermediate_size = config_dict.placeholder(int)  # None: 4 * hidden_size (modern: 8/3)
    model.generator_size = 0.25  # width, as a fraction of the discriminator's
    model.generator_depth = 1.0  # layers, likewise
    # What the two networks share: embeddings, none, all, disentangled or apart; auto: what the
    # objective needs, embeddings where it needs nothing else.
    model.sharing = "auto"
    model.max_positions = 512  # the longest row
    model.local_window = 128  # of architecture modern: a local layer sees half to each side
    model.global_every = 3  # of architecture modern: every so many layers one looks everywhere
    model.dropout_rate = 0.1  # of embeddings and of what layers add
    model.attention_dropout_rate = 0.1  # of attention's probabilities
    model.init_stddev = 0.02  # of the tables and matrices before training
    model.dtype = "auto"  # float32 on CPU, bfloat16 on GPU and TPU
    model.scan_layers = "auto"  # unrolled on CPU and GPU, scanned on TPU
    model.attention = "auto"  # cudnn on a GPU where attention_dropout_rate is 0, else xla
    # What the backward pass computes again, to save memory: none; products: all but products with
    # weights; layers: all inside a layer.
    model.remat = "none"

    # Fields of all objectives; None: the objective's own value (docs/objectives.md).
    objective = config.objective = config_dict.ConfigDict()
    objective.name = "electra"  # or another one: docs/objectives.md
    objective.mask_prob = 0.15  # share of the tokens that are masked
    objective.final_mask_prob = config_dict.placeholder(float)  # another share, reached linearly
    objective.mask_prob_steps = config_dict.placeholder(int)  # in so many steps; None: it stays
    objective.masking = "tokens"  # what is masked: tokens, words or spans
    objective.generator_weight = config_dict.placeholder(float)  # of its loss; ELECTRA: 1
    objective.discriminator_weight = config_dict.placeholder(float)  # of its loss; ELECTRA: 50
    objective.temperature = 1.0  # of the generator's samples
    objective.start_temperature = config_dict.placeholder(float)  # from which it comes down
    objective.temperature_steps = config_dict.placeholder(int)  # after so many 1/e of the excess
    objective.separate_documents = False  # of packed rows: tokens look at their own document alone
    objective.disallow_correct = False  # whether the right token is never sampled
    # Masked positions whose logits exist at a time; 0: all; None: 512 on one GPU, all elsewhere.
    objective.rows_at_once = config_dict.placeholder(int)

    optimizer = config.optimizer = config_dict.ConfigDict()
    optimizer.name = "adamw"  # or muon, for the matrices of the layers
    optimizer.muon_momentum = 0.95  # of muon
    # ((pattern, factor), ...): the first pattern found in a parameter's name multiplies its rate:
    # (("^generator_", 0.5),) halves that of what belongs to the generator alone.
    optimizer.learning_rate_factors = ()
    optimizer.learning_rate = 5e-4  # the peak; it falls linearly to 0 at the last step
    optimizer.warmup_steps = 10_000  # in which the rate rises linearly
    optimizer.weight_decay = 0.01  # decoupled; not of LayerNorms and biases
    optimizer.b1 = 0.9  # decay of the first moment
    optimizer.b2 = 0.999  # decay of the second moment
    optimizer.eps = 1e-6  # added to the second moment's root
    optimizer.max_grad_norm = 1.0  # gradients are clipped to this norm

    data = config.data = config_dict.ConfigDict()
    data.path = config_dict.placeholder(str)  # a corpus directory; None: the default corpus
    data.default_vocab_size = 8192  # of the default corpus
    data.seq_len = 128  # tokens of a row, special ones included
    # Later rows of another length, ((first_step, seq_len, batch_size), ...): ((900_000, 512, 32),)
    # trains the last steps of a million on long rows. Evaluations stay at data.seq_len.
    data.phases = ()
    # The corpus on the device, which then cuts the rows; None: on one GPU where it fits easily.
    data.on_device = config_dict.placeholder(bool)
    data.example_format = "segments"  # two segments, as the original; or packed: no padding

    train = config.train = config_dict.ConfigDict()
    train.batch_size = 128  # rows of one update, over all devices
    train.num_train_steps = 1_000_000  # updates
    train.num_microbatches = 1  # gradient accumulation: parts of a batch, one after another
    # Updates of one program; None: 10 on a GPU or TPU where that divides eval_every and
    # checkpoint_every, else 1.
    train.steps_per_call = config_dict.placeholder(int)
    train.log_every = 100  # steps
    train.eval_every = 5_000  # steps
    train.eval_batches = 50  # held-out batches of an evaluation, at most
    train.checkpoint_every = 5_000  # steps
    train.keep_checkpoints = 3  # the latest ones
    train.keep_checkpoint_every = config_dict.placeholder(int)  # and these for good; None: none
    # When a loss or gradient is not finite: raise: stop; skip: leave the step out, count it, go on;
    # rollback: go on from the last checkpoint without the batches since (at most so many times).
    train.on_nonfinite = "raise"
    train.max_rollbacks = 3  # after so many the run stops

    config.parallel = parallel_config()
    config.parallel.fsdp = False  # spread parameters and moments over the devices, too

    config.logging = logging_config()
    return config


def logging_config() -> config_dict.ConfigDict:
    """Where metrics go beside `metrics.jsonl`, of pre-training and fine-tuning."""
    logging = config_dict.ConfigDict()
    logging.tensorboard = True  # event files in the workdir
    logging.wandb = False  # Weights & Biases, where it is installed
    logging.wandb_project = "electra_jax"  # of Weights & Biases
    return logging


def parallel_config() -> config_dict.ConfigDict:
    """Where pre-training and fine-tuning run."""
    parallel = config_dict.ConfigDict()
    parallel.backend = "jit"  # over a mesh of all devices, or pmap
    # Several processes: found by themselves on TPU pods, under Slurm and Open MPI; else by
    # these three, the last one different in each process.
    parallel.coordinator_address = config_dict.placeholder(str)  # host:port of process 0
    parallel.num_processes = config_dict.placeholder(int)  # of the run
    parallel.process_id = config_dict.placeholder(int)  # of this one, from 0
    parallel.heartbeat_seconds = 60  # one that is silent for so long is given up
    return parallel
