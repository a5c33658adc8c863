#!/usr/bin/env bash
# Everything worth measuring on one GPU, in at most eight minutes:
#
#   benchmarks/run_gpu.sh OUTPUT_DIRECTORY [--dry]
#
# 1. what the chip reaches: a product of 8192 x 8192 in bfloat16, a copy of 4 GB
# 2. steps of small-128, small-512, base-512 and large-512: ms, tokens/s, MFU, memory, compilation
# 3. small-128 and base-512 with one technique taken away or added at a time
# 4. parts alone: products, attention, dropout, head, sampling
# 5. beside Hugging Face's networks on PyTorch, stock and tuned, with torch.compile, at equal losses
# 6. flags of the compiler that may pay, on small-128
# 7. fine-tuning and inference are in benchmarks/finetune.py, which wants a model and data
#
# Leaves OUTPUT_DIRECTORY/tables.md and results.jsonl. With --dry the sizes are small and any machine
# will do: it shows that everything runs, and its figures mean nothing. Give PYTHON=... to name an
# interpreter with this package, JAX, torch and transformers.
set -uo pipefail
cd "$(dirname "$0")/.."
output=${1:?usage: benchmarks/run_gpu.sh OUTPUT_DIRECTORY [--dry]}
dry=${2:-}
python=${PYTHON:-.venv/bin/python}
mkdir -p "$output"
output=$(cd "$output" && pwd)
tables=$output/tables.md results=$output/results.jsonl
export PYTHONPATH=.${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
export XLA_PYTHON_CLIENT_MEM_FRACTION=0.92 TF_CPP_MIN_LOG_LEVEL=2
failed=0 began=$SECONDS

# Seconds that are left for a part: none goes on past the eighth minute.
part() {
  local title=$1 most=$2 left=$((480 - (SECONDS - began)))
  shift 2
  if [ "$left" -le 10 ]; then
    echo "no time left for: $title" | tee -a "$tables"
    return
  fi
  printf '\n## %s\n\n' "$title" | tee -a "$tables"
  timeout $((most < left ? most : left)) "$@" 2>>"$output/errors.txt" | tee -a "$tables"
  local status=${PIPESTATUS[0]}
  if [ "$status" != 0 ]; then
    echo "(ended with status $status; see errors.txt)" | tee -a "$tables"
    failed=1
  fi
}

small=(--work small-128 small-512 base-512 large-512)
part "Steps" 200 "$python" benchmarks/step.py "${small[@]}" --output "$results" $dry
part "Beside PyTorch: small, 128 x 128" 120 "$python" benchmarks/pretrain.py \
  $([ -n "$dry" ] && echo --batch-size 2 --seq-len 16 --steps 1 --rounds 1 ||
    echo --batch-size 128 --seq-len 128 --steps 20 --rounds 3 --compile) --output "$results"
part "small-128, one change at a time" 200 "$python" benchmarks/step.py --ablate small-128 \
  --output "$results" $dry
part "Parts alone" 60 "$python" benchmarks/step.py --micro --output "$results" $dry
part "base-512, one change at a time" 120 "$python" benchmarks/step.py --ablate base-512 \
  --only "attention dropout 0, flash attention" "all logits at once" "layers scanned" \
  --output "$results" $dry
if [ -z "$dry" ]; then
  for flag in --xla_gpu_enable_command_buffer=+WHILE \
    --xla_gpu_command_buffer_scheduling_mode=CONCURRENT --xla_gpu_graph_min_graph_size=1 \
    --xla_gpu_cudnn_gemm_fusion_level=3 --xla_gpu_enable_dynamic_slice_fusion=true; do
    part "small-128 with $flag" 40 env XLA_FLAGS=$flag "$python" benchmarks/step.py \
      --work small-128 --output "$results"
  done
fi
echo "$((SECONDS - began)) seconds; tables in $tables"
exit $failed
