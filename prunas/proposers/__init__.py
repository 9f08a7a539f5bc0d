"""Who proposes architectures: the table of methods, what they are told and what they answer."""
