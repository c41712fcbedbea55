"""The wire: the gRPC service ``headwater.v1.Edge`` and its messages."""
