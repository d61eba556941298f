"""Where s3flow keeps what it knows of every object."""
