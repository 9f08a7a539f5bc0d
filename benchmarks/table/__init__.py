"""A small space trained exhaustively, on which searches and cheap scores are judged in seconds."""
