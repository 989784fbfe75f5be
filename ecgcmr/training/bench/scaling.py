"""What a training run costs on other machines, on paper: from counted operations and bytes, by stated assumptions.

Times are compute at an assumed share of the peak, plus the communication that compute does not hide. Nothing here is
measured; `docs/scaling.md` says how far the same arithmetic is from measurements on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass

_FP32, _LOW = 4, 2
GIB = 2.0**30

# Weight, gradient and two moments of Adam, all float32.
STATE_BYTES = 4 * _FP32

# Logits, their softmax and its gradient, in float32, for both directions of a contrastive loss.
LOGIT_BYTES = 2 * 3 * _FP32

BACKWARD_SHARE = 2 / 3
"""Of the compute of a step; gradients are reduced behind it."""


@dataclass(frozen=True)
class Work:
    """What a sample of one stage costs, counted.

    Attributes:
        name: Preset and stage.
        flops: Operations of forward and backward.
        parameters: Trained parameters.
        saved_bytes: What the forward pass keeps for the backward pass under bfloat16 autocast [bytes].
        read_bytes: What the loader reads [bytes].
        projection: Width of the vectors that all processes exchange; 0 for objectives that compare nothing.
    """

    name: str
    flops: float
    parameters: float
    saved_bytes: float
    read_bytes: float
    projection: int = 0


@dataclass(frozen=True)
class Cluster:
    """Assumed hardware.

    Attributes:
        gpus: Number of GPUs.
        node_gpus: GPUs of a node.
        peak: bfloat16 operations a second of a GPU.
        utilization: Share of the peak that a step reaches.
        memory: Of a GPU [bytes].
        near: Bandwidth of a GPU to others of its node [bytes/s].
        far: Bandwidth of a GPU to other nodes [bytes/s].
        host_memory: Of a node, for the page cache [bytes].
        disk: What a node reads from its disk [bytes/s].
    """

    gpus: int
    node_gpus: int = 8
    peak: float = 312e12
    utilization: float = 0.3
    memory: float = 80e9
    near: float = 240e9
    far: float = 25e9
    host_memory: float = 512e9
    disk: float = 2e9

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return -(-self.gpus // self.node_gpus)

    @property
    def bandwidth(self) -> float:
        """Of the slowest link that a collective crosses [bytes/s]."""
        return self.near if self.gpus <= self.node_gpus else self.far


@dataclass(frozen=True)
class Traffic:
    """Bytes that one GPU sends in a step.

    Attributes:
        ddp: All-reduce of float32 gradients, as a ring: 2 (P - 1) / P of them.
        fsdp: All-gather of bfloat16 weights in both passes and reduce-scatter of float32 gradients.
        gather: All-gather of both projections and the return of their gradients.
    """

    ddp: float
    fsdp: float
    gather: float


@dataclass(frozen=True)
class StepPlan:
    """One optimizer step with `batch` samples on each GPU.

    Attributes:
        batch: Samples of a GPU.
        compute_s: Time of the arithmetic [s].
        exposed_s: Time of communication that the backward pass does not hide, under DDP [s].
        traffic: Bytes.
        memory: Of a GPU under DDP [bytes].
        memory_fsdp: Of a GPU with weights and moments sharded [bytes].
        logits: Of these, similarities of the own rows with all columns [bytes].
        logits_whole: What a whole (PB, PB) matrix on each GPU would take [bytes].
        read: What a node reads [bytes/s].
    """

    batch: int
    compute_s: float
    exposed_s: float
    traffic: Traffic
    memory: float
    memory_fsdp: float
    logits: float
    logits_whole: float
    read: float

    @property
    def seconds(self) -> float:
        """Time of the step [s]."""
        return self.compute_s + self.exposed_s


def traffic_of(work: Work, gpus: int, batch: int) -> Traffic:
    """Count the bytes that one GPU sends in a step."""
    others = (gpus - 1) / gpus
    vectors = 2 * batch * work.projection * _FP32  # both modalities
    return Traffic(
        ddp=2 * others * work.parameters * _FP32,
        fsdp=others * work.parameters * (2 * _LOW + _FP32),
        gather=2 * (gpus - 1) * vectors,
    )


def plan_step(work: Work, cluster: Cluster, batch: int) -> StepPlan:
    """Plan one step.

    Args:
        work: What a sample costs.
        cluster: Where.
        batch: Samples of a GPU.
    """
    compute = batch * work.flops / (cluster.peak * cluster.utilization)
    traffic = traffic_of(work, cluster.gpus, batch)
    hidden = BACKWARD_SHARE * compute
    reduce_s, gather_s = traffic.ddp / cluster.bandwidth, traffic.gather / cluster.bandwidth
    exposed = max(0.0, reduce_s - hidden) + gather_s  # the loss waits for the gather
    everything = cluster.gpus * batch
    logits = LOGIT_BYTES * batch * everything if work.projection else 0.0
    whole = LOGIT_BYTES * everything**2 if work.projection else 0.0
    states, activations = STATE_BYTES * work.parameters, batch * work.saved_bytes
    return StepPlan(
        batch=batch,
        compute_s=compute,
        exposed_s=exposed,
        traffic=traffic,
        memory=states + activations + logits,
        memory_fsdp=states / cluster.gpus + activations + logits,
        logits=logits,
        logits_whole=whole,
        read=min(cluster.gpus, cluster.node_gpus) * batch * work.read_bytes / (compute + exposed),
    )


def hours(work: Work, cluster: Cluster, batch: int, samples: float) -> float:
    """Give the hours that a run over `samples` samples in all takes."""
    return samples / (cluster.gpus * batch) * plan_step(work, cluster, batch).seconds / 3600


def largest_batch(work: Work, cluster: Cluster, share: float = 0.9) -> int:
    """Give the largest power of two of samples that fit on a GPU under DDP; 0 if not even one does."""
    batch = 1
    while plan_step(work, cluster, batch).memory <= share * cluster.memory:
        batch *= 2
    return batch // 2


def what_breaks(work: Work, cluster: Cluster, batch: int, subjects: float) -> list[str]:
    """Name what does not fit, first what is furthest over its limit.

    Returns:
        Names among `logits` (more than a tenth of the GPU), `activations` (batch does not fit), `all-gather` or
        `all-reduce` (exposed for more than a tenth of the compute), `page cache` (the data is larger than the memory of
        a node) and `disk` (then: the disk reads less than the steps take).
    """
    plan, data = plan_step(work, cluster, batch), subjects * work.read_bytes
    reduce_s = max(0.0, plan.traffic.ddp / cluster.bandwidth - BACKWARD_SHARE * plan.compute_s)
    over = {
        "logits": plan.logits / (0.1 * cluster.memory),
        "activations": plan.memory / cluster.memory,
        "all-gather": plan.traffic.gather / cluster.bandwidth / (0.1 * plan.compute_s),
        "all-reduce": reduce_s / (0.1 * plan.compute_s),
        "page cache": data / cluster.host_memory,
        "disk": plan.read / cluster.disk if data > cluster.host_memory else 0.0,
    }
    return sorted((name for name, by in over.items() if by > 1), key=lambda name: -over[name])
