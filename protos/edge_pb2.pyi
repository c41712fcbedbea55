from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TaskKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TASK_KIND_UNSPECIFIED: _ClassVar[TaskKind]
    TASK_KIND_CLASSIFY: _ClassVar[TaskKind]
    TASK_KIND_IMAGE: _ClassVar[TaskKind]

class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATUS_UNSPECIFIED: _ClassVar[Status]
    STATUS_OK: _ClassVar[Status]
    STATUS_INVALID_FRAME: _ClassVar[Status]
    STATUS_UNKNOWN_BUNDLE: _ClassVar[Status]
    STATUS_BUSY: _ClassVar[Status]
    STATUS_EXPIRED: _ClassVar[Status]
    STATUS_CANCELLED: _ClassVar[Status]
    STATUS_DRAINING: _ClassVar[Status]
    STATUS_UNKNOWN_TASK: _ClassVar[Status]
    STATUS_INTERNAL: _ClassVar[Status]

class OfferKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OFFER_KIND_UNSPECIFIED: _ClassVar[OfferKind]
    OFFER_KIND_BUNDLE: _ClassVar[OfferKind]
    OFFER_KIND_FEDERATED_MESSAGE: _ClassVar[OfferKind]

class BundleState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BUNDLE_STATE_UNSPECIFIED: _ClassVar[BundleState]
    BUNDLE_STATE_FETCHED: _ClassVar[BundleState]
    BUNDLE_STATE_REFUSED: _ClassVar[BundleState]
    BUNDLE_STATE_IN_USE: _ClassVar[BundleState]
    BUNDLE_STATE_ROLLED_BACK: _ClassVar[BundleState]
TASK_KIND_UNSPECIFIED: TaskKind
TASK_KIND_CLASSIFY: TaskKind
TASK_KIND_IMAGE: TaskKind
STATUS_UNSPECIFIED: Status
STATUS_OK: Status
STATUS_INVALID_FRAME: Status
STATUS_UNKNOWN_BUNDLE: Status
STATUS_BUSY: Status
STATUS_EXPIRED: Status
STATUS_CANCELLED: Status
STATUS_DRAINING: Status
STATUS_UNKNOWN_TASK: Status
STATUS_INTERNAL: Status
OFFER_KIND_UNSPECIFIED: OfferKind
OFFER_KIND_BUNDLE: OfferKind
OFFER_KIND_FEDERATED_MESSAGE: OfferKind
BUNDLE_STATE_UNSPECIFIED: BundleState
BUNDLE_STATE_FETCHED: BundleState
BUNDLE_STATE_REFUSED: BundleState
BUNDLE_STATE_IN_USE: BundleState
BUNDLE_STATE_ROLLED_BACK: BundleState

class DescribeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Description(_message.Message):
    __slots__ = ("server_version", "bundles", "max_frame_bytes", "queue_capacity", "draining", "unix_ms")
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    BUNDLES_FIELD_NUMBER: _ClassVar[int]
    MAX_FRAME_BYTES_FIELD_NUMBER: _ClassVar[int]
    QUEUE_CAPACITY_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    server_version: str
    bundles: _containers.RepeatedCompositeFieldContainer[ServedBundle]
    max_frame_bytes: int
    queue_capacity: int
    draining: bool
    unix_ms: int
    def __init__(self, server_version: _Optional[str] = ..., bundles: _Optional[_Iterable[_Union[ServedBundle, _Mapping]]] = ..., max_frame_bytes: _Optional[int] = ..., queue_capacity: _Optional[int] = ..., draining: bool = ..., unix_ms: _Optional[int] = ...) -> None: ...

class ServedBundle(_message.Message):
    __slots__ = ("id", "name", "modes", "tasks", "answers_for")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    MODES_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FOR_FIELD_NUMBER: _ClassVar[int]
    id: bytes
    name: str
    modes: int
    tasks: _containers.RepeatedCompositeFieldContainer[TaskSpec]
    answers_for: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, id: _Optional[bytes] = ..., name: _Optional[str] = ..., modes: _Optional[int] = ..., tasks: _Optional[_Iterable[_Union[TaskSpec, _Mapping]]] = ..., answers_for: _Optional[_Iterable[bytes]] = ...) -> None: ...

class TaskSpec(_message.Message):
    __slots__ = ("name", "labels", "kind")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    name: str
    labels: _containers.RepeatedScalarFieldContainer[str]
    kind: TaskKind
    def __init__(self, name: _Optional[str] = ..., labels: _Optional[_Iterable[str]] = ..., kind: _Optional[_Union[TaskKind, str]] = ...) -> None: ...

class InferRequest(_message.Message):
    __slots__ = ("frame", "tasks", "priority")
    FRAME_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    frame: bytes
    tasks: _containers.RepeatedScalarFieldContainer[str]
    priority: int
    def __init__(self, frame: _Optional[bytes] = ..., tasks: _Optional[_Iterable[str]] = ..., priority: _Optional[int] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("sequence", "status", "detail", "results", "timing", "bundle_id", "groups_used")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    GROUPS_USED_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    status: Status
    detail: str
    results: _containers.RepeatedCompositeFieldContainer[TaskResult]
    timing: ServerTiming
    bundle_id: bytes
    groups_used: int
    def __init__(self, sequence: _Optional[int] = ..., status: _Optional[_Union[Status, str]] = ..., detail: _Optional[str] = ..., results: _Optional[_Iterable[_Union[TaskResult, _Mapping]]] = ..., timing: _Optional[_Union[ServerTiming, _Mapping]] = ..., bundle_id: _Optional[bytes] = ..., groups_used: _Optional[int] = ...) -> None: ...

class TaskResult(_message.Message):
    __slots__ = ("task", "scores", "image")
    TASK_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    task: str
    scores: _containers.RepeatedScalarFieldContainer[float]
    image: bytes
    def __init__(self, task: _Optional[str] = ..., scores: _Optional[_Iterable[float]] = ..., image: _Optional[bytes] = ...) -> None: ...

class ServerTiming(_message.Message):
    __slots__ = ("queue_us", "decode_us", "run_us", "batch", "queue_depth", "retry_after_ms", "collect_us")
    QUEUE_US_FIELD_NUMBER: _ClassVar[int]
    DECODE_US_FIELD_NUMBER: _ClassVar[int]
    RUN_US_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    QUEUE_DEPTH_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    COLLECT_US_FIELD_NUMBER: _ClassVar[int]
    queue_us: int
    decode_us: int
    run_us: int
    batch: int
    queue_depth: int
    retry_after_ms: int
    collect_us: int
    def __init__(self, queue_us: _Optional[int] = ..., decode_us: _Optional[int] = ..., run_us: _Optional[int] = ..., batch: _Optional[int] = ..., queue_depth: _Optional[int] = ..., retry_after_ms: _Optional[int] = ..., collect_us: _Optional[int] = ...) -> None: ...

class DeviceMessage(_message.Message):
    __slots__ = ("hello", "frame", "cancel", "report", "heartbeat", "offer_reply", "goodbye", "kept", "use_bundle", "bundle_notice")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    OFFER_REPLY_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    USE_BUNDLE_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_NOTICE_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    frame: FeatureFrame
    cancel: Cancel
    report: Report
    heartbeat: Heartbeat
    offer_reply: OfferReply
    goodbye: Goodbye
    kept: KeptFrame
    use_bundle: UseBundle
    bundle_notice: BundleNotice
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., frame: _Optional[_Union[FeatureFrame, _Mapping]] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ..., report: _Optional[_Union[Report, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., offer_reply: _Optional[_Union[OfferReply, _Mapping]] = ..., goodbye: _Optional[_Union[Goodbye, _Mapping]] = ..., kept: _Optional[_Union[KeptFrame, _Mapping]] = ..., use_bundle: _Optional[_Union[UseBundle, _Mapping]] = ..., bundle_notice: _Optional[_Union[BundleNotice, _Mapping]] = ...) -> None: ...

class ServerMessage(_message.Message):
    __slots__ = ("welcome", "answer", "mode_hint", "offer", "drain", "heartbeat", "kept_ack")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    MODE_HINT_FIELD_NUMBER: _ClassVar[int]
    OFFER_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    KEPT_ACK_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    answer: Answer
    mode_hint: ModeHint
    offer: Offer
    drain: Drain
    heartbeat: Heartbeat
    kept_ack: KeptAck
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., answer: _Optional[_Union[Answer, _Mapping]] = ..., mode_hint: _Optional[_Union[ModeHint, _Mapping]] = ..., offer: _Optional[_Union[Offer, _Mapping]] = ..., drain: _Optional[_Union[Drain, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., kept_ack: _Optional[_Union[KeptAck, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("device", "bundle_id", "agent_version", "session", "resume_from", "capabilities", "window")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    RESUME_FROM_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    device: str
    bundle_id: bytes
    agent_version: str
    session: int
    resume_from: int
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    window: int
    def __init__(self, device: _Optional[str] = ..., bundle_id: _Optional[bytes] = ..., agent_version: _Optional[str] = ..., session: _Optional[int] = ..., resume_from: _Optional[int] = ..., capabilities: _Optional[_Iterable[str]] = ..., window: _Optional[int] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("tasks", "heartbeat_ms", "max_in_flight", "server_version", "keeps")
    TASKS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    KEEPS_FIELD_NUMBER: _ClassVar[int]
    tasks: _containers.RepeatedCompositeFieldContainer[TaskSpec]
    heartbeat_ms: int
    max_in_flight: int
    server_version: str
    keeps: bool
    def __init__(self, tasks: _Optional[_Iterable[_Union[TaskSpec, _Mapping]]] = ..., heartbeat_ms: _Optional[int] = ..., max_in_flight: _Optional[int] = ..., server_version: _Optional[str] = ..., keeps: bool = ...) -> None: ...

class FeatureFrame(_message.Message):
    __slots__ = ("sequence", "data", "deadline_ms", "priority", "tasks", "bundle_id", "captured_unix_ms", "groups", "part")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    CAPTURED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    data: bytes
    deadline_ms: int
    priority: int
    tasks: _containers.RepeatedScalarFieldContainer[str]
    bundle_id: bytes
    captured_unix_ms: int
    groups: int
    part: int
    def __init__(self, sequence: _Optional[int] = ..., data: _Optional[bytes] = ..., deadline_ms: _Optional[int] = ..., priority: _Optional[int] = ..., tasks: _Optional[_Iterable[str]] = ..., bundle_id: _Optional[bytes] = ..., captured_unix_ms: _Optional[int] = ..., groups: _Optional[int] = ..., part: _Optional[int] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ("sequence",)
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    def __init__(self, sequence: _Optional[int] = ...) -> None: ...

class KeptFrame(_message.Message):
    __slots__ = ("id", "session", "sequence", "captured_unix_ms", "bundle_id", "data", "local_answer", "name")
    ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CAPTURED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    LOCAL_ANSWER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    id: bytes
    session: int
    sequence: int
    captured_unix_ms: int
    bundle_id: bytes
    data: bytes
    local_answer: str
    name: str
    def __init__(self, id: _Optional[bytes] = ..., session: _Optional[int] = ..., sequence: _Optional[int] = ..., captured_unix_ms: _Optional[int] = ..., bundle_id: _Optional[bytes] = ..., data: _Optional[bytes] = ..., local_answer: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class KeptAck(_message.Message):
    __slots__ = ("stored", "refused", "retry_after_ms", "detail")
    STORED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    stored: _containers.RepeatedScalarFieldContainer[bytes]
    refused: _containers.RepeatedScalarFieldContainer[bytes]
    retry_after_ms: int
    detail: str
    def __init__(self, stored: _Optional[_Iterable[bytes]] = ..., refused: _Optional[_Iterable[bytes]] = ..., retry_after_ms: _Optional[int] = ..., detail: _Optional[str] = ...) -> None: ...

class Report(_message.Message):
    __slots__ = ("frames_answered", "frames_local", "frames_dropped", "round_trip_us", "throughput_bytes_per_s", "head_ms", "mode", "memory_kib", "temperature_c", "bundles")
    FRAMES_ANSWERED_FIELD_NUMBER: _ClassVar[int]
    FRAMES_LOCAL_FIELD_NUMBER: _ClassVar[int]
    FRAMES_DROPPED_FIELD_NUMBER: _ClassVar[int]
    ROUND_TRIP_US_FIELD_NUMBER: _ClassVar[int]
    THROUGHPUT_BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    HEAD_MS_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_KIB_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_C_FIELD_NUMBER: _ClassVar[int]
    BUNDLES_FIELD_NUMBER: _ClassVar[int]
    frames_answered: int
    frames_local: int
    frames_dropped: int
    round_trip_us: int
    throughput_bytes_per_s: int
    head_ms: float
    mode: int
    memory_kib: int
    temperature_c: float
    bundles: _containers.RepeatedCompositeFieldContainer[BundleUse]
    def __init__(self, frames_answered: _Optional[int] = ..., frames_local: _Optional[int] = ..., frames_dropped: _Optional[int] = ..., round_trip_us: _Optional[int] = ..., throughput_bytes_per_s: _Optional[int] = ..., head_ms: _Optional[float] = ..., mode: _Optional[int] = ..., memory_kib: _Optional[int] = ..., temperature_c: _Optional[float] = ..., bundles: _Optional[_Iterable[_Union[BundleUse, _Mapping]]] = ...) -> None: ...

class BundleUse(_message.Message):
    __slots__ = ("bundle_id", "answered", "failed", "judged", "agreed", "confidence")
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    JUDGED_FIELD_NUMBER: _ClassVar[int]
    AGREED_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    bundle_id: bytes
    answered: int
    failed: int
    judged: int
    agreed: int
    confidence: float
    def __init__(self, bundle_id: _Optional[bytes] = ..., answered: _Optional[int] = ..., failed: _Optional[int] = ..., judged: _Optional[int] = ..., agreed: _Optional[int] = ..., confidence: _Optional[float] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("sent_unix_ms",)
    SENT_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    sent_unix_ms: int
    def __init__(self, sent_unix_ms: _Optional[int] = ...) -> None: ...

class Goodbye(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ModeHint(_message.Message):
    __slots__ = ("max_bytes", "max_groups", "reason")
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_GROUPS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    max_bytes: int
    max_groups: int
    reason: str
    def __init__(self, max_bytes: _Optional[int] = ..., max_groups: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class Offer(_message.Message):
    __slots__ = ("offer", "kind", "content_sha256", "content_bytes", "bundle_id", "round", "valid_for_ms", "envelope")
    OFFER_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    CONTENT_SHA256_FIELD_NUMBER: _ClassVar[int]
    CONTENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    VALID_FOR_MS_FIELD_NUMBER: _ClassVar[int]
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    offer: int
    kind: OfferKind
    content_sha256: bytes
    content_bytes: int
    bundle_id: bytes
    round: int
    valid_for_ms: int
    envelope: bytes
    def __init__(self, offer: _Optional[int] = ..., kind: _Optional[_Union[OfferKind, str]] = ..., content_sha256: _Optional[bytes] = ..., content_bytes: _Optional[int] = ..., bundle_id: _Optional[bytes] = ..., round: _Optional[int] = ..., valid_for_ms: _Optional[int] = ..., envelope: _Optional[bytes] = ...) -> None: ...

class OfferReply(_message.Message):
    __slots__ = ("offer", "accepted", "reason")
    OFFER_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    offer: int
    accepted: bool
    reason: str
    def __init__(self, offer: _Optional[int] = ..., accepted: bool = ..., reason: _Optional[str] = ...) -> None: ...

class UseBundle(_message.Message):
    __slots__ = ("bundle_id",)
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    bundle_id: bytes
    def __init__(self, bundle_id: _Optional[bytes] = ...) -> None: ...

class BundleNotice(_message.Message):
    __slots__ = ("bundle_id", "state", "detail")
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    bundle_id: bytes
    state: BundleState
    detail: str
    def __init__(self, bundle_id: _Optional[bytes] = ..., state: _Optional[_Union[BundleState, str]] = ..., detail: _Optional[str] = ...) -> None: ...

class Drain(_message.Message):
    __slots__ = ("grace_ms", "servers")
    GRACE_MS_FIELD_NUMBER: _ClassVar[int]
    SERVERS_FIELD_NUMBER: _ClassVar[int]
    grace_ms: int
    servers: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, grace_ms: _Optional[int] = ..., servers: _Optional[_Iterable[str]] = ...) -> None: ...

class TransferMessage(_message.Message):
    __slots__ = ("open", "chunk", "ack", "close")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    open: TransferOpen
    chunk: Chunk
    ack: TransferAck
    close: TransferClose
    def __init__(self, open: _Optional[_Union[TransferOpen, _Mapping]] = ..., chunk: _Optional[_Union[Chunk, _Mapping]] = ..., ack: _Optional[_Union[TransferAck, _Mapping]] = ..., close: _Optional[_Union[TransferClose, _Mapping]] = ...) -> None: ...

class TransferOpen(_message.Message):
    __slots__ = ("device", "content", "content_sha256", "content_bytes", "have_bytes", "upload", "offer", "envelope")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    CONTENT_SHA256_FIELD_NUMBER: _ClassVar[int]
    CONTENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    HAVE_BYTES_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_FIELD_NUMBER: _ClassVar[int]
    OFFER_FIELD_NUMBER: _ClassVar[int]
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    device: str
    content: OfferKind
    content_sha256: bytes
    content_bytes: int
    have_bytes: int
    upload: bool
    offer: int
    envelope: bytes
    def __init__(self, device: _Optional[str] = ..., content: _Optional[_Union[OfferKind, str]] = ..., content_sha256: _Optional[bytes] = ..., content_bytes: _Optional[int] = ..., have_bytes: _Optional[int] = ..., upload: bool = ..., offer: _Optional[int] = ..., envelope: _Optional[bytes] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("offset", "data", "sha256")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    offset: int
    data: bytes
    sha256: bytes
    def __init__(self, offset: _Optional[int] = ..., data: _Optional[bytes] = ..., sha256: _Optional[bytes] = ...) -> None: ...

class TransferAck(_message.Message):
    __slots__ = ("received_bytes", "next_bytes")
    RECEIVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    NEXT_BYTES_FIELD_NUMBER: _ClassVar[int]
    received_bytes: int
    next_bytes: int
    def __init__(self, received_bytes: _Optional[int] = ..., next_bytes: _Optional[int] = ...) -> None: ...

class TransferClose(_message.Message):
    __slots__ = ("status", "detail")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    status: Status
    detail: str
    def __init__(self, status: _Optional[_Union[Status, str]] = ..., detail: _Optional[str] = ...) -> None: ...
