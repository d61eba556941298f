"""The benchmark: s3flow beside its peers and beside a bare protocol, on the same server and objects."""
