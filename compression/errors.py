"""Every error that headwater raises on purpose, as one tree.

    HeadwaterError
    ├── SettingsError          a flag, an environment variable or the configuration file is wrong
    ├── DataError              training or input data cannot be used
    ├── BundleError            a model bundle is damaged, of another schema, or not what was asked for
    │   └── SignatureError     a bundle's signature is missing or does not match the key
    ├── FrameError             bytes that should be a feature frame are not one
    ├── SourceError            a frame source (camera, folder, stream) cannot deliver
    ├── StorageError           the device's spool or the server's archive cannot be used
    ├── TransferError          a blob cannot be sent, received or stored: wrong hash, wrong size
    │   └── NoRoomError        the disk has no room for it, or fails: the same may work later
    ├── LearningError          a federated round, or a message of one, cannot go on
    │   └── UpdateError        bytes that should be a model update are not one
    ├── RolloutError           a bundle cannot be built, published, fetched or swapped
    ├── IdentityError          a key, certificate or enrolment token is missing, damaged, expired or refused
    └── LinkError              the connection between device and server
        ├── RefusedError       the server answered, and refused: full, draining, or over a limit
        ├── DeniedError        the server does not let this device in, or not do this
        ├── UnknownBundleError the server does not serve the bundle that a frame was coded for
        └── DeadlineError      no answer within the time that was set

An error's text says what was got, what was wanted, and what to do. Errors of other libraries (grpc, onnxruntime,
zipfile, json) are turned into one of these where they enter, and keep the original as ``__cause__``.
"""


class HeadwaterError(Exception):
    """The base of every error that headwater raises on purpose."""


class SettingsError(HeadwaterError):
    """A setting is unknown, of the wrong type, out of range, or contradicts another one."""


class DataError(HeadwaterError):
    """Training or input data is missing, empty, or cannot be read."""


class BundleError(HeadwaterError):
    """A model bundle is missing, damaged, of an unknown schema, or lacks what was asked of it."""


class SignatureError(BundleError):
    """A bundle's signature is missing, malformed, or was not made by the key that is trusted."""


class FrameError(HeadwaterError):
    """Bytes that were to be decoded are not a feature frame of the agreed bundle."""


class SourceError(HeadwaterError):
    """A frame source cannot be opened or has stopped delivering."""


class StorageError(HeadwaterError):
    """The file of a spool or an archive is damaged, is something else, is in use, or cannot be written."""


class TransferError(HeadwaterError):
    """A blob cannot be sent, received or stored: wrong bytes, wrong hash, too large."""


class NoRoomError(TransferError):
    """The disk, or the bound of a store, has no room for a blob, or the disk fails; the same may work later."""


class LearningError(HeadwaterError):
    """Federated learning cannot go on: bytes that are no message, an app that is none, a state that does not fit."""


class UpdateError(LearningError):
    """Bytes that were to be decoded are not an update of the agreed network."""


class RolloutError(HeadwaterError):
    """A bundle cannot be built from what was learnt, published, fetched, swapped or rolled back."""


class IdentityError(HeadwaterError):
    """A key, certificate or enrolment token is missing, damaged, expired, open to others, or refused."""


class LinkError(HeadwaterError):
    """The server cannot be reached, or the connection broke for good."""


class RefusedError(LinkError):
    """The server was reached and refused the request; ``RESOURCE_EXHAUSTED`` and ``UNAVAILABLE`` end here."""

    retry_after_s = 0.0
    """When the server wants to be asked again; 0 if it did not say."""


class DeniedError(LinkError):
    """The server does not know this device, has revoked it, or does not let it do this."""


class UnknownBundleError(LinkError):
    """The server does not serve the bundle that a frame names; its message lists the ids that are served."""


class DeadlineError(LinkError):
    """No answer came within the time that was set."""
