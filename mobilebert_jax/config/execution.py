"""Settings of a run that are not science: devices, memory, pace and what is kept on disk."""

import dataclasses
from typing import Literal

from mobilebert_jax import bounds

Remat = Literal["none", "dots", "feedforward", "full"]
TeacherRemat = Literal["same", "none", "dots", "feedforward", "full"]


@dataclasses.dataclass(frozen=True)
class Mesh:
    """Devices along each axis; -1 takes what is left."""

    data: bounds.Axis = -1
    fsdp: bounds.Axis = 1
    model: bounds.Axis = 1
    slices: bounds.ManyOrNone = 0
    """Groups of devices that a slower network joins, between which only `data` is cut; 0 takes as
    many as the devices say they belong to."""


@dataclasses.dataclass(frozen=True)
class Execution:
    """How the machine is used; nothing here may change a number beyond float tolerance."""

    runs_dir: bounds.Text = "runs"
    """Folder of all runs, on a disk that all hosts see, or `gs://BUCKET/FOLDER`."""
    mesh: Mesh = Mesh()
    fsdp_shard: Literal["params_and_optimizer", "optimizer_only", "params_gathered_once"] = (
        "params_and_optimizer"
    )
    """What the axis `fsdp` shards. `params_and_optimizer`: every block gathers its parameters when
    it is computed. `optimizer_only`: parameters are whole on every device. `params_gathered_once`:
    both between steps, and each step gathers all parameters first, in the type of its matmuls."""
    micro_batches: bounds.Many = 1
    """Parts in which a batch passes through the network; gradients are summed."""
    remat: Remat = "none"
    """What a block keeps for its backward pass: everything, all matmuls, those of the
    feed-forward networks, or nothing."""
    teacher_remat: TeacherRemat = "same"
    """The same of the teacher's own training, whose matmuls are eight times as wide."""
    student_scan_unroll: bounds.Few = 1
    """Blocks in one round of a student's loops, in its training: more may run faster, and compile
    longer. With all of them there is no loop."""
    teacher_scan_unroll: bounds.Few = 1
    """The same of a frozen teacher, and of both where all layers are compared."""
    teacher_train_scan_unroll: bounds.Few = 1
    """The same of the teacher's own training."""
    cpu_devices: bounds.Few = 1
    """Devices that the cores of a CPU are divided into, each with its share of a batch. Cores of
    one device wait for each other in the small operations of a narrow network. A number in
    XLA_FLAGS goes before this one."""
    cpu_matmul_dtype: Literal["auto", "float32", "bfloat16"] = "float32"
    """Type in which CPUs, in training at precision float32, multiply the matrices of blocks and of
    the vocabulary; sums are float32. bfloat16 has an effect, on the speed and a little on every
    number, only where a processor has instructions for it (AMX or AVX-512 BF16); `auto` is bfloat16
    there and float32 elsewhere, so that numbers then depend a little on the processor."""
    attention_implementation: Literal["xla", "cudnn"] = "xla"
    """How training computes attention where its scores are not compared: written out (`xla`), or by
    cuDNN's fused kernel, which writes no scores to memory and is refused where it cannot be used:
    elsewhere than on NVIDIA GPUs from Ampere on, without `precision=bfloat16`, for a stage that
    drops out attention probabilities, and for heads that are no multiple of 8 or wider than 256
    (128 before Hopper)."""
    precompile_phases: bounds.FewOrNone = 1
    """Later phases whose steps are compiled while one trains; 0 compiles each when it begins."""
    workers: bounds.ManyOrNone = 0
    """Processes that prepare text; 0 takes one a core."""
    prefetch: bounds.Many = 4
    """Batches made ahead of the step that needs them."""
    log_every: bounds.Steps = 20
    eval_every: bounds.StepsOrNone = 0
    """Steps between held-out losses during training; 0 never."""
    checkpoint_every: bounds.Steps = 1000
    keep_checkpoints: bounds.Many = 2
    """Newest checkpoints that are kept."""
    keep_every: bounds.StepsOrNone = 0
    """Steps between checkpoints that are kept for good; 0 keeps only the newest."""
    watchdog_minutes: bounds.Minutes = 30.0
    """Time without a finished step, or waiting for another process, after which a process ends."""
    heartbeat_timeout_seconds: bounds.Seconds = 100
    """Silence after which a process of a cluster counts as lost."""
    max_nonfinite: bounds.Many = 5
    """Steps with a non-finite loss or gradient, none of which is applied, before training stops."""

    def remat_of(self, stage: str) -> Remat:
        """Returns what blocks keep in the training of `stage`."""
        if stage == "teacher" and self.teacher_remat != "same":
            return self.teacher_remat
        return self.remat

    def unroll_of(self, stage: str) -> int:
        """Returns the blocks in one round of a loop over blocks of what `stage` trains."""
        if stage == "teacher":
            return self.teacher_train_scan_unroll
        student = stage in ("transfer", "distill", "control", "baseline")
        return self.student_scan_unroll if student else 1
